"""Which learning rate to fine-tune with: try all of them in one short run, and see where the loss falls.

The rate rises from step to step by the same factor: L. Smith, "Cyclical learning rates for training neural networks", WACV
2017. The proposal is near that of the rule which fast.ai calls 'valley': a place on the longest stretch over which the
smoothed loss falls; here a third into it, since smoothing lags behind, and without its flat beginning. Where the loss hardly
falls, as the head has been trained already, it is a tenth of the rate from which on it rises.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from retrain.backbones import Backbone
from retrain.errors import EnvironmentProblem
from retrain.finetune.trainer import Trainer, setting
from retrain.finetune.tune import batches_of
from retrain.head import Head
from retrain.pixels import Pixels
from retrain.progress import SILENT, Progress
from retrain.settings import AugmentSettings, FineTuneSettings

LOWEST, HIGHEST, STEPS = 1e-7, 1.0, 100
_KEEP = 0.9  # of the mean so far, in smoothing
_BLOWN_UP = 4.0  # times the least smoothed loss
_LEAST_FALL = 0.02  # of the loss: less is no valley
_CHANCE = 4.0  # standard deviations of the smoothed loss: so much it falls by chance alone, now and then
_UNSETTLED, _UNLEARNT = 10, 4  # of the steps the first tenth and the first quarter: few losses to smooth, and nothing learnt
_RISEN = 1.1  # times the least smoothed loss
_FLAT = 0.1  # of the whole fall: before that it has hardly begun
VALLEY, BEFORE_RISE = "a third into the longest fall of the loss", "a tenth of the rate from which on the loss rises"


@dataclass(frozen=True)
class RateCurve:
    """The loss at each learning rate that was tried: `losses` of single steps, `smoothed` over the steps before.

    `proposed`: the rate to train with, `rule`: why, in words.
    """

    rates: tuple[float, ...]
    losses: tuple[float, ...]
    smoothed: tuple[float, ...]
    proposed: float
    rule: str


def find_rate(
    backbone: Backbone,
    head: Head,
    pixels: Pixels,
    labels: np.ndarray,
    train_rows: np.ndarray,
    settings: FineTuneSettings,
    augment: AugmentSettings,
    *,
    image_size: int = 0,
    seed: int = 0,
    precision: str = "auto",
    class_weight: str = "none",
    devices: Sequence[str] = (),
    progress: Progress = SILENT,
    steps: int = STEPS,
) -> RateCurve:
    """Train with rates from 1e-7 to 1, one step each, until the loss blows up; nothing of the model is kept.

    The rate is that of the head and the last layers; those of the others are in proportion, as in `fine_tune`, which takes
    the same arguments. `image_size`: the backbone's own where it is 0.

    Raises what `fine_tune` raises.
    """
    of = setting(backbone, head, settings, precision, devices, progress)
    batches = batches_of(pixels, labels, train_rows, settings, augment, of, seed, class_weight)
    trainer = Trainer(of, image_size or backbone.image_size, lambda highest: highest)
    shares = [float(one.learning_rate) / settings.tuning_rate for one in trainer.by_depth.optimizers]
    rates = [LOWEST * (HIGHEST / LOWEST) ** (number / max(steps - 1, 1)) for number in range(steps)]
    losses: list[float] = []
    plan = np.array([divmod(number, batches.steps) for number in range(steps)], np.int64)

    def before_step(number: int) -> None:
        for share, one in zip(shares, trainer.by_depth.optimizers, strict=True):
            one.learning_rate = rates[number] * share

    with progress.bar("learning rates", steps) as advance:

        def after_step(loss: float) -> bool:
            losses.append(loss)
            advance()
            means = smoothed(losses)
            return not math.isfinite(means[-1]) or means[-1] > _BLOWN_UP * min(means)

        trainer.train(batches, plan, after_step, before_step)
    finite = [number for number, loss in enumerate(losses) if math.isfinite(loss)]
    if len(finite) < 2 or finite[1] != 1:
        raise EnvironmentProblem("the loss is not finite at the lowest learning rate; try --precision float32")
    tried = [(rates[number], losses[number]) for number in finite]
    return curve([rate for rate, _ in tried], [loss for _, loss in tried])


def curve(rates: Sequence[float], losses: Sequence[float]) -> RateCurve:
    """Propose a rate by finite losses of at least two rates, from the lowest upwards."""
    means = smoothed(losses)
    settled = len(means) // _UNSETTLED
    first, last = (settled + end for end in longest_fall(means[settled:]))
    # Of a mean that keeps so much of the one before it.
    deviation = float(np.std(losses[: max(len(losses) // _UNLEARNT, 2)])) * math.sqrt((1 - _KEEP) / (1 + _KEEP))
    if means[first] - means[last] >= max(_LEAST_FALL * means[first], _CHANCE * deviation):
        begun = means[first] - _FLAT * (means[first] - means[last])
        first = max(number for number in range(first, last) if means[number] >= begun)
        proposed, rule = rates[first + (last - first) // 3], VALLEY
    else:
        least = min(means)
        risen = [number for number in range(means.index(least), len(means)) if means[number] > _RISEN * least]
        proposed, rule = rates[risen[0] if risen else -1] / 10, BEFORE_RISE
    return RateCurve(tuple(rates), tuple(losses), tuple(means), proposed, rule)


def smoothed(losses: Sequence[float]) -> list[float]:
    """Return the mean of each loss and those before it, weighted by how near they are."""
    found, mean = [], 0.0
    for number, loss in enumerate(losses, start=1):
        mean = _KEEP * mean + (1 - _KEEP) * loss
        found.append(mean / (1 - _KEEP**number))
    return found


def longest_fall(values: Sequence[float]) -> tuple[int, int]:
    """Return the ends of the longest falling row of values that one comes to going on, leaving out those in between."""
    length, begin = [1] * len(values), list(range(len(values)))
    for number, value in enumerate(values):
        for before in range(number):
            if values[before] > value and length[before] + 1 > length[number]:
                length[number], begin[number] = length[before] + 1, begin[before]
    end = int(np.argmax(length))
    return begin[end], end
