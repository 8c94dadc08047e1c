"""What people are told of fine-tuning while it runs: on a terminal, and in TensorBoard."""

from collections.abc import Sequence

from retrain.finetune.checkpoint import Epoch

_MINUTE, _HOUR = 60, 3600  # seconds


def epoch_line(number: int, count: int, epoch: Epoch, left: str) -> str:
    """Say how an epoch ended: `epoch 2 of 12: loss 0.812, validation loss 0.634, 78.1 % right, about 3 min left`."""
    said = [f"loss {epoch.loss:.3f}"]
    if epoch.validation_loss is not None and epoch.validation_error is not None:
        said += [f"validation loss {epoch.validation_loss:.3f}", f"{100 * (1 - epoch.validation_error):.1f} % right"]
    return f"epoch {number} of {count}: " + ", ".join([*said, left] if left else said)


def time_left(history: Sequence[Epoch], sizes: Sequence[int]) -> str:
    """Estimate from the quickest epoch of this run what the others will take, by their numbers of pixels.

    The first epoch of a size takes longer, as it is traced. Empty where no epoch was timed.
    """
    timed = [one.seconds / one.size**2 for one in history if one.seconds]
    if not timed:
        return ""
    return f"{in_words(min(timed) * sum(size**2 for size in sizes[len(history) :]))} left"


def in_words(seconds: float) -> str:
    """Say how long something takes, roughly: `about 3 min`."""
    if seconds < _MINUTE:
        return "less than a minute"
    if seconds < _HOUR:
        return f"about {round(seconds / _MINUTE)} min"
    return f"about {seconds / _HOUR:.1f} h"


def figures(epoch: Epoch) -> dict[str, float | None]:
    """Return what TensorBoard draws of an epoch."""
    return {
        "loss": epoch.loss,
        "validation loss": epoch.validation_loss,
        "validation error": epoch.validation_error,
        "image size": epoch.size,
    }
