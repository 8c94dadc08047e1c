"""What people are told of fine-tuning while it runs: on a terminal, and in TensorBoard."""

import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from retrain.devices import start
from retrain.errors import EnvironmentProblem
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


class Summaries:
    """Figures of epochs in a folder that TensorBoard shows; does nothing where there is no folder."""

    def __init__(self, folder: Path | None) -> None:
        """Raises EnvironmentProblem where tensorboard is not installed: TensorFlow writes no figures without it."""
        self._writer: Any = None
        if folder is None:
            return
        if importlib.util.find_spec("tensorboard") is None:
            raise EnvironmentProblem("tensorboard is not installed; run: pip install retrain[tensorboard]")
        self._tf = start()
        try:
            self._writer = self._tf.summary.create_file_writer(str(folder))
        except (OSError, self._tf.errors.OpError) as error:
            raise EnvironmentProblem(f"cannot write to {folder}: {error}; choose another folder") from None

    def add(self, number: int, epoch: Epoch) -> None:
        """Write the figures of an epoch, counted from 1."""
        if self._writer is None:
            return
        figures = {"loss": epoch.loss, "image size": epoch.size}
        if epoch.validation_loss is not None and epoch.validation_error is not None:
            figures |= {"validation loss": epoch.validation_loss, "validation accuracy": 1 - epoch.validation_error}
        with self._writer.as_default():
            for name, value in figures.items():
                self._tf.summary.scalar(name, value, step=number)
        self._writer.flush()
