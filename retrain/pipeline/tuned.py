"""Fine-tune the backbone on the pictures, after its head, and judge what came of it."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from retrain import backbones, finetune, head, pixels, views
from retrain.dataset import Split
from retrain.distortions import Distortion
from retrain.errors import EnvironmentProblem, UsageError
from retrain.evaluation.paired import Paired, paired
from retrain.finetune import RateCurve, Tuned
from retrain.finetune.page import render
from retrain.head import Fitted, Head
from retrain.pipeline.examples import Examples
from retrain.pipeline.features import Extractor
from retrain.pipeline.judged import Judged, judge, rows_to_learn, unit_numbers
from retrain.pipeline.learnt import Compared, Learnt, choose
from retrain.pipeline.look import Looker
from retrain.pipeline.record import Record
from retrain.pipeline.reference import HeldOut
from retrain.pipeline.seen import Seen
from retrain.progress import Progress
from retrain.runner import Run
from retrain.settings import AugmentSettings, FineTuneSettings, HeadSettings, as_plain
from retrain.storage import RATE_PAGE, Layout, write_atomically
from retrain.summaries import Summaries

NAME = "fine-tuned"
TRAIN, VALIDATION = ("train",), ("validation",)
SURE = np.float32(0.3)  # times the logits of the head that fine-tuning begins with


@dataclass(frozen=True)
class Tuning:
    """What fine-tuning is asked for, with the settings that it shares with others.

    `image_sizes`: to train at, one after the other, before the backbone's own; `devices`: to train on, see
    `devices.strategy`; `summaries`: folder for TensorBoard.
    """

    settings: FineTuneSettings = FineTuneSettings()
    augment: AugmentSettings = AugmentSettings()
    head: HeadSettings = HeadSettings()
    image_sizes: tuple[int, ...] = ()
    devices: tuple[str, ...] = ()
    summaries: Path | None = None


@dataclass(frozen=True)
class Outcome:
    """What came of fine-tuning: the backbone that is kept, what it sees, how good the model is, and the weights by name.

    `compared`: the backbone before and after, on the validation part. `tuned` is empty where the former is kept. `held_out`:
    what tells how far pictures lie that were not learnt from.
    """

    extractor: Extractor
    seen: Seen
    judged: Judged
    compared: tuple[Compared, ...]
    tuned: dict[str, np.ndarray]
    facts: dict[str, Any]
    held_out: HeldOut | None = None


class FineTuner:
    """Trains the layers of one backbone on the training part, and chooses by the validation part."""

    def __init__(
        self, extractor: Extractor, examples: Examples, parts: Split, seen: Seen, frozen: Judged, tuning: Tuning,
        layout: Layout, run: Run, progress: Progress,
    ) -> None:  # fmt: skip
        """`frozen`: what was learnt from the same parts by the backbone as it is. Raises what `check_parts` raises."""
        check_parts(parts)
        self._extractor, self._examples, self._parts, self._seen, self._frozen = extractor, examples, parts, seen, frozen
        self._tuning, self._layout, self._run, self._progress = tuning, layout, run, progress
        self._sizes = (*tuning.image_sizes, extractor.backbone.image_size)
        self._learn = rows_to_learn(parts)
        self._epochs = finetune.epoch_count(len(parts.rows("train")), tuning.settings)

    def fine_tune(self, tta: bool, record: Record) -> Outcome:
        """Return the tuned backbone, or the one that was there before where that says more of the validation part.

        With `refit`, it is trained a second time, on the validation part, too: what has been found out by that part, as how
        many epochs are enough, temperatures, how far new pictures lie, holds for the second as well as for the first.
        """
        with self._pixels(*TRAIN, *VALIDATION) as squares:
            return self._outcome(squares, views.TTA if tta else (), record)

    def _outcome(self, squares: pixels.Pixels, several: Sequence[Distortion], record: Record) -> Outcome:
        validation, test = self._parts.rows("validation"), self._parts.rows("test")
        tuned = self._trained(squares, TRAIN, VALIDATION, self._layout.checkpoint)
        extractor = self._converted(tuned)
        seen = self._looked(extractor, self._learn, validation, several, record)
        final = self._chosen(tuned, seen)
        before, after = self._losses(self._frozen.final, self._seen), self._losses(final, seen)
        gain = paired(before - after, unit_numbers(self._parts)[validation])
        old = self._compared(self._extractor, self._frozen.final, self._seen, before, None)
        new = self._compared(extractor, final, seen, after, gain)
        # On average is enough, since it costs nothing when labelling.
        better = gain.mean > 0 and new.accuracy >= old.accuracy
        compared = (replace(old, kept=not better), replace(new, kept=better))
        facts = {
            "best_epoch": tuned.best_epoch, "stopped": tuned.stopped, "epochs": [asdict(epoch) for epoch in tuned.history],
            "before": self._frozen.metrics() if better else None, "compared": [one.as_json() for one in compared],
        }  # fmt: skip
        if not better:
            extractor.forget(self._layout, self._progress)
            return Outcome(self._extractor, self._seen, self._frozen, compared, {}, facts)
        held_out = HeldOut(final.fitted[0], seen.features)
        if self._tuning.settings.refit:
            self._progress.note("once more, on the validation part, too")
            epochs = tuned.best_epoch if tuned.stopped else self._epochs
            tuned = self._trained(squares, (*TRAIN, *VALIDATION), (), self._layout.second_checkpoint, epochs)
            final = replace(final, fitted=(replace(final.fitted[0], head=tuned.head, apart=()),))
            extractor = self._converted(tuned)
        seen = self._looked(extractor, np.arange(len(self._parts.parts)), test, several, record)
        judged = judge(self._examples, self._parts, self._learn, final, [seen], record, self._frozen.precision)
        return Outcome(extractor, seen, judged, compared, tuned.tensors, facts, held_out)

    def find_rate(self) -> RateCurve:
        """Return how the loss runs as the learning rate grows, and write a page that draws it."""
        with self._pixels(*TRAIN) as squares:
            rows = np.arange(len(squares.squares))
            curve = finetune.find_rate(
                self._extractor.backbone, self._first_head(TRAIN), squares, self._examples.classes[self._rows(TRAIN)], rows,
                self._tuning.settings, self._tuning.augment, image_size=self._sizes[0], **self._common(),
            )  # fmt: skip
        write_atomically(self._layout.reports / RATE_PAGE, render(curve, self._extractor.backbone.name).encode())
        return curve

    def _trained(
        self, squares: pixels.Pixels, learn: tuple[str, ...], validate: tuple[str, ...], checkpoint: Path, epochs: int = 0
    ) -> Tuned:
        """Train on some parts and choose the epoch by others. `squares`: of the training, then of the validation part."""
        settings = replace(self._tuning.settings, epochs=epochs or self._epochs)
        to_learn, to_choose = self._squares(squares, learn), self._squares(squares, validate)
        classes = self._examples.classes[self._rows(TRAIN + VALIDATION)]
        return finetune.fine_tune(
            self._extractor.backbone, self._first_head(learn), squares, classes, to_learn, to_choose, settings,
            self._tuning.augment, image_sizes=self._sizes, checkpoint=checkpoint, key=self._key(settings, learn),
            summaries=Summaries(self._tuning.summaries, NAME if validate else f"{NAME}-once-more"), **self._common(),
        )  # fmt: skip

    def _squares(self, squares: pixels.Pixels, parts: tuple[str, ...]) -> np.ndarray:
        """Return the numbers of the squares of some parts, int64."""
        train = len(self._parts.rows("train"))
        numbers = np.arange(len(squares.squares))
        chosen = {"train": numbers[:train], "validation": numbers[train:]}
        return np.concatenate([numbers[:0], *(chosen[part] for part in parts)])

    def _rows(self, parts: tuple[str, ...]) -> np.ndarray:
        """Return the rows of some parts, int64, one part after the other."""
        return np.concatenate([self._parts.rows(part) for part in parts])

    def _common(self) -> dict[str, Any]:
        of_head = self._tuning.head
        return {
            "seed": of_head.seed, "precision": of_head.precision, "class_weight": of_head.class_weight,
            "devices": self._tuning.devices, "progress": self._progress,
        }  # fmt: skip

    def _first_head(self, parts: tuple[str, ...]) -> Head:
        """Return a head that has learnt from these parts only, to begin with; it is made less sure of itself.

        With labels smoothed and pictures distorted, a head as sure as one on the plain features would be unlearnt first.
        """
        rows, l2 = self._rows(parts), self._frozen.fitted.sweep.l2
        classes, count = self._examples.classes[rows], len(self._examples.labels)
        first = head.fit(self._seen.to_learn(rows), classes, count, l2, self._tuning.head)
        return Head(SURE * first.kernel, SURE * first.bias)

    def _pixels(self, *parts: str) -> pixels.Pixels:
        """Return the pictures of some parts, one part after the other."""
        rows = self._rows(parts)
        squares = pixels.read(
            [self._examples.paths[row] for row in rows], pixels.side_for(self._sizes), self._layout.reports,
            hashes=[self._examples.hashes[row] for row in rows], view=self._extractor.view, run=self._run,
            progress=self._progress,
        )  # fmt: skip
        for number, problem in sorted(squares.problems.items()):
            squares.close()
            raise EnvironmentProblem(
                f"{self._examples.paths[rows[number]]} has changed since the run began ({problem}); run it again, and leave"
                " the pictures as they are"
            )
        return squares

    def _key(self, settings: FineTuneSettings, learn: tuple[str, ...]) -> str:
        """Return what decides the outcome: a run that was killed goes on only if it is the same."""
        rows = [f"{sha256} {part}" for sha256, part in zip(self._examples.hashes, self._parts.parts, strict=True)]
        facts = [
            *(as_plain(one) for one in (settings, self._tuning.augment, self._tuning.head)), learn,
            self._sizes, self._extractor.weights, self._extractor.preprocessing, self._tuning.devices,
            sorted(zip(rows, self._examples.classes.tolist(), strict=True)), self._frozen.fitted.sweep.l2,
        ]  # fmt: skip
        return hashlib.sha256(json.dumps(facts).encode("utf-8", "surrogateescape")).hexdigest()

    def _converted(self, tuned: Tuned) -> Extractor:
        """Return the tuned backbone as it runs without Keras."""
        backbone = replace(self._extractor.backbone, name=f"{self._extractor.backbone.name}{backbones.TUNED}")
        self._progress.note("converting the tuned backbone for fast inference")
        network = backbones.converted(tuned.model, backbone, self._progress)
        return replace(self._extractor, backbone=backbone, weights=_digest(tuned.tensors), network=network)

    def _looked(
        self, extractor: Extractor, rows: np.ndarray, tested: np.ndarray, several: Sequence[Distortion], record: Record
    ) -> Seen:
        """Return what a tuned backbone sees of rows: in several views of `tested`."""
        looker = Looker(extractor, self._examples, self._layout, self._run, self._progress, record)
        seen = looker.look_at(rows, tested, several)
        return replace(seen, milliseconds=self._seen.milliseconds)  # the same network, with other weights

    def _chosen(self, tuned: Tuned, seen: Seen) -> Learnt:
        """Return the tuned model, with temperatures and a way to look at pictures chosen by the validation part."""
        validation = np.array([self._parts.parts[row] == "validation" for row in self._learn])
        fitted = Fitted(tuned.head, self._frozen.fitted.sweep, ((validation, tuned.head),))
        units = unit_numbers(self._parts)[self._learn]
        return choose([seen], [fitted], self._learn, self._examples.classes[self._learn], units)

    def _said(self, final: Learnt, seen: Seen) -> tuple[np.ndarray, np.ndarray]:
        """Return what heads that did not learn from the validation part say of it, float64 (m, classes), and its classes."""
        rows = self._parts.rows("validation")
        scores = final.held_out_scores([seen], self._learn)[np.searchsorted(self._learn, rows)]
        return scores, self._examples.classes[rows]

    def _losses(self, final: Learnt, seen: Seen) -> np.ndarray:
        """Return the cross-entropy of each validation picture, float64 (m,)."""
        scores, classes = self._said(final, seen)
        losses: np.ndarray = -np.log(np.maximum(scores[np.arange(len(classes)), classes], np.finfo(np.float64).tiny))
        return losses

    def _compared(
        self, extractor: Extractor, final: Learnt, seen: Seen, losses: np.ndarray, gain: Paired | None
    ) -> Compared:
        scores, classes = self._said(final, seen)
        right = float((scores.argmax(axis=1) == classes).mean())
        return Compared(extractor.backbone.name, float(losses.mean()), right, seen.milliseconds, gain, False)


def check_parts(parts: Split) -> None:
    """Raise UsageError where there is nothing to choose by."""
    if not can_be_tuned(parts):
        raise UsageError(
            "--fine-tune needs a validation and a test part, but there is"
            f" {'cross-validation' if parts.folds else 'not more than one picture, or group, to validate on'};"
            " add pictures to the smallest classes, or leave out --fine-tune and --folds"
        )


def can_be_tuned(parts: Split) -> bool:
    """Whether there is something to choose by that is neither learnt from nor tested on."""
    return not parts.folds and len({parts.units[row] for row in parts.rows("validation")}) > 1


def _digest(tensors: Mapping[str, np.ndarray]) -> str:
    """Return the sha256 of weights by name, in hex."""
    whole = hashlib.sha256()
    for name in sorted(tensors):
        whole.update(f"{name} {tensors[name].shape}\n".encode())
        whole.update(np.ascontiguousarray(tensors[name], "<f4").tobytes())
    return whole.hexdigest()
