"""Fine-tuning: the layers of the backbone learn, too, after the head, and the best epoch is kept.

Head first, then all: Kumar et al., "Fine-tuning can distort pretrained features", ICLR 2022. Sizes that grow: Howard, in
"Training ImageNet in 3 hours", 2018; Tan and Le, "EfficientNetV2", ICML 2021.
"""

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from retrain.backbones import Backbone, built
from retrain.errors import EnvironmentProblem, NothingUsable
from retrain.finetune import checkpoint as checkpoints
from retrain.finetune import depth, network, optimizer
from retrain.finetune.batches import Batches, epoch_plan
from retrain.finetune.checkpoint import Epoch, State
from retrain.finetune.said import epoch_line, figures, time_left
from retrain.finetune.trainer import ADVICE, Setting, Trainer, setting
from retrain.head import Head
from retrain.pixels import Pixels
from retrain.progress import SILENT, Progress
from retrain.scores import cross_entropies, fit_temperature
from retrain.settings import AugmentSettings, FineTuneSettings
from retrain.summaries import Summaries

if TYPE_CHECKING:
    import keras

STEPS, LEAST_EPOCHS, MOST_EPOCHS = 320, 5, 15  # where no number of epochs is set; settings.py says it in words


@dataclass(frozen=True)
class Tuned:
    """A backbone and a head that belong together.

    `model`: float32, as `Backbone.build` gives it, for the last image size; `head`: acts on its features. `tensors`: the
    backbone's weights by name, float32, for `network.put_back`. `history`: the epochs; `best_epoch`: of these the one whose
    weights these are, counted from 1. `stopped`: before the last epoch, as validation did not get better any more.
    """

    model: "keras.Model"
    head: Head
    tensors: dict[str, np.ndarray]
    history: tuple[Epoch, ...]
    best_epoch: int
    stopped: bool


def fine_tune(
    backbone: Backbone,
    head: Head,
    pixels: Pixels,
    labels: np.ndarray,
    train_rows: np.ndarray,
    validation_rows: np.ndarray,
    settings: FineTuneSettings,
    augment: AugmentSettings,
    *,
    image_sizes: tuple[int, ...] = (),
    seed: int = 0,
    precision: str = "auto",
    class_weight: str = "none",
    devices: Sequence[str] = (),
    checkpoint: Path | None = None,
    key: str = "",
    summaries: Summaries = Summaries(None, ""),
    progress: Progress = SILENT,
) -> Tuned:
    """Train backbone and head on pictures; returns those of the epoch with the least log loss of the validation rows.

    `head`: as it was trained on the backbone's features, to begin with; it should not have learnt from `validation_rows`, or
    these say nothing of the first epochs. `labels`: int64 (n,), a class for each square of `pixels`; rows: int64, numbers of
    squares to learn from and to choose by; with none to choose by, the last epoch is kept. `image_sizes`: the sizes to train
    at one after the other, for as many epochs each, the backbone's own by default; only epochs at the last one can be best.
    `checkpoint`: where to keep how far the run is, after each epoch; one that is there with the same `key` is gone on
    from, and on a CPU the result is what it would have been, bit for bit. Remove it when the result is saved. `summaries`:
    what is written for TensorBoard.

    Raises UsageError where the backbone cannot be trained so, EnvironmentProblem where the loss is not finite, memory or
    disk is short.
    """
    sizes = sizes_of_epochs(image_sizes or (backbone.image_size,), epoch_count(len(train_rows), settings))
    of = setting(backbone, head, settings, precision, devices, progress)
    batches = batches_of(pixels, labels, train_rows, settings, augment, of, seed, class_weight)
    run = _Run(of, batches, np.asarray(validation_rows), sizes, progress)
    state = checkpoints.load(checkpoint, key) if checkpoint else None
    run.begin(state)
    while not run.ended:
        said = run.epoch()
        if checkpoint:
            checkpoints.save(checkpoint, key, run.state)
        summaries.add(len(run.state.history), figures(run.state.history[-1]))
        progress.note(said)  # what was said to be done is kept
    return run.result()


def check(
    backbone: Backbone, settings: FineTuneSettings, precision: str, devices: Sequence[str], image_sizes: Sequence[int]
) -> None:
    """Raise in a few seconds what `fine_tune` would raise of what it is asked for, before anything is computed for it."""
    nothing = Head(np.zeros((backbone.feature_size, 2), np.float32), np.zeros(2, np.float32))
    of = setting(backbone, nothing, settings, precision, devices, SILENT)
    for size in {*image_sizes, backbone.image_size}:
        depth.choose(built(of.backbone, size), settings.blocks, network.NORMS_LEARN, backbone.name)


def batches_of(
    pixels: Pixels,
    labels: np.ndarray,
    rows: np.ndarray,
    settings: FineTuneSettings,
    augment: AugmentSettings,
    of: Setting,
    seed: int,
    class_weight: str,
) -> Batches:
    """Put together what is learnt from; raises NothingUsable where that is nothing."""
    if not len(rows):
        raise NothingUsable("there is no picture to fine-tune on; add pictures, or leave out --fine-tune")
    features, classes = of.head.kernel.shape
    balanced = class_weight == "balanced"
    return Batches(
        pixels.squares,
        np.asarray(labels),
        np.asarray(rows),
        classes,
        features,
        settings,
        augment,
        seed,
        balanced,
        of.replicas,
    )


def epoch_count(pictures: int, settings: FineTuneSettings) -> int:
    """Return how many epochs there are for so many pictures: as set, else enough for STEPS steps, within limits."""
    steps = max(math.ceil(pictures / settings.tuning_batch), 1)
    return settings.epochs or min(max(math.ceil(STEPS / steps), LEAST_EPOCHS), MOST_EPOCHS)


def sizes_of_epochs(image_sizes: tuple[int, ...], epochs: int) -> tuple[int, ...]:
    """Return the image size of each epoch: as many of each, of the later ones more; of too many sizes, the last ones."""
    shares = np.array_split(np.arange(epochs), len(image_sizes))[::-1]
    return tuple(size for size, share in zip(image_sizes, sorted(shares, key=len), strict=True) for _ in share)


class _Run:
    """A run from epoch to epoch. `state` is what it needs to go on."""

    def __init__(
        self, of: Setting, batches: Batches, validation: np.ndarray, sizes: tuple[int, ...], progress: Progress
    ) -> None:
        self.of, self.batches, self.validation, self.sizes, self.progress = of, batches, validation, sizes, progress
        self.trainer: Trainer | None = None
        self.state = State([], [], [], 0, [])

    def begin(self, kept: State | None) -> None:
        """Build the network, or that of an earlier run, so that what cannot work is told before anything is computed."""
        done = len(kept.history) if kept else 0
        size = self.sizes[min(done, len(self.sizes) - 1)]
        trainer = self._built(size)
        as_planned = kept is not None and done and tuple(one.size for one in kept.history) == self.sizes[:done]
        if kept and as_planned and trainer.fits(kept.weights, kept.optimizer):
            self.state = kept
            trainer.weights, trainer.optimizer = kept.weights, kept.optimizer
            self.progress.note(f"fine-tuning goes on after epoch {done} of {len(self.sizes)}, where another run stopped")
        elif kept:
            trainer = self._built(self.sizes[0])
        self.trainer = trainer

    @property
    def ended(self) -> bool:
        done = len(self.state.history)
        return done == len(self.sizes) or self.is_stale

    @property
    def is_stale(self) -> bool:
        """True where validation did not get better for as long as patience lasts."""
        best, patience = self.state.best_epoch, self.of.settings.patience
        return bool(patience and best and len(self.validation) and len(self.state.history) - best >= patience)

    def epoch(self) -> str:
        """Run the next epoch; returns what is to be said of it."""
        begun, number = time.monotonic(), len(self.state.history)
        trainer = self._trainer(self.sizes[number])
        loss = self._train(trainer, number)
        validation_loss = error = None
        if len(self.validation):
            logits = trainer.logits(self.batches.squares, self.validation, self.of.settings.tuning_batch)
            truth = self.batches.labels[self.validation]
            # At the best temperature, as the model will be used: else the first epochs win, which are merely less sure.
            validation_loss = float(cross_entropies(logits / fit_temperature(logits, truth), truth).mean())
            error = float((logits.argmax(axis=1) != truth).mean())
            if not math.isfinite(validation_loss):
                raise _not_finite(number)
        ended = Epoch(trainer.image_size, loss, validation_loss, error, time.monotonic() - begun)
        history = [*self.state.history, ended]
        weights, best, best_epoch = trainer.weights, self.state.best, self.state.best_epoch
        if trainer.image_size == self.sizes[-1] and _is_better(ended, history[best_epoch - 1] if best_epoch else None):
            best, best_epoch = weights, len(history)
        self.state = State(weights, trainer.optimizer, best, best_epoch, history)
        left = "" if self.ended else time_left(history, self.sizes)
        return epoch_line(len(history), len(self.sizes), ended, left)

    def result(self) -> Tuned:
        state, size = self.state, self.sizes[-1]
        trainer = self._trainer(size)
        trainer.weights = state.best
        found = network.tensors(trainer.network.backbone)
        head = trainer.network.head
        model = built(self.of.backbone, size)
        network.put_back(model, found)
        stopped = len(state.history) < len(self.sizes)
        return Tuned(model, head, found, tuple(state.history), state.best_epoch, stopped)

    def _train(self, trainer: Trainer, number: int) -> float:
        losses: list[float] = []
        with self.progress.bar(f"epoch {number + 1} of {len(self.sizes)}", self.batches.steps) as advance:

            def after_step(loss: float) -> bool:
                if not math.isfinite(loss):
                    raise _not_finite(number)
                losses.append(loss)
                advance()
                return False

            trainer.train(self.batches, epoch_plan(number, self.batches.steps), after_step, lambda step: None)
        return float(np.mean(losses))

    def _trainer(self, size: int) -> Trainer:
        """Return the network for a size: of another size, with weights and optimizer as they are."""
        if self.trainer is None or self.trainer.image_size != size:
            before, self.trainer = self.trainer, self._built(size)
            if before is not None:
                self.trainer.weights, self.trainer.optimizer = before.weights, before.optimizer
        return self.trainer

    def _built(self, size: int) -> Trainer:
        return Trainer(self.of, size, optimizer.scheduled(self.of.settings, self.batches.steps * len(self.sizes)))


def _is_better(epoch: Epoch, best: Epoch | None) -> bool:
    """Without validation pictures the last epoch is the best: rates have fallen to nothing by then."""
    if best is None or epoch.validation_loss is None or best.validation_loss is None:
        return True
    return epoch.validation_loss < best.validation_loss


def _not_finite(number: int) -> EnvironmentProblem:
    return EnvironmentProblem(f"fine-tuning gave a loss that is not finite in epoch {number + 1}; {ADVICE}")
