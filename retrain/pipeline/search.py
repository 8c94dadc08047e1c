"""Spend a budget of seconds on a better model: what this tool knows to try, the cheapest first.

Each trial changes the best that was found so far in one way, and is kept where it is better by more than noise, on pictures
that its heads did not learn from. Whether the search was worth it is then told by the test part, which no trial has seen.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from retrain import backbones, distortions, views
from retrain.dataset import Split
from retrain.errors import BadImage
from retrain.evaluation.paired import Paired, paired
from retrain.finetune import epoch_count
from retrain.images import read_bytes
from retrain.pipeline.examples import Examples
from retrain.pipeline.features import Extractor, open_extractor
from retrain.pipeline.judged import Judged, judge, rows_to_learn, unit_numbers
from retrain.pipeline.learnt import Learnt, learn
from retrain.pipeline.look import Looker
from retrain.pipeline.record import Record
from retrain.pipeline.seen import Seen
from retrain.pipeline.tuned import FineTuner, Outcome, Tuning, can_be_tuned
from retrain.progress import Progress
from retrain.runner import Run, cores
from retrain.settings import AugmentSettings, HeadSettings
from retrain.storage import Layout

VIEWS = (4, 8)  # of each picture to learn from
BLOCKS = {"the later half of the blocks": None, "all blocks": 0}  # of the backbone to fine-tune
_UNEVEN = 1.5  # times as many pictures in the largest class as in the smallest
_TIMED = 8  # pictures that are decoded to see how long that takes
_RENDERING = 4.0  # milliseconds for a view
_STEP = 5.0  # times as long as its features a picture takes in a step of fine-tuning
_HEAD_SECONDS = 2.0
_BUILDING = 30.0  # seconds that it takes to build networks for fine-tuning and to convert what comes of it


@dataclass(frozen=True)
class State:
    """The best so far: backbones and what they see, the settings, and what was learnt."""

    extractors: tuple[Extractor, ...]
    seen: tuple[Seen, ...]
    augment: AugmentSettings
    head: HeadSettings
    learnt: Learnt


@dataclass(frozen=True)
class Trial:
    """Something that was tried. `gain`: in cross-entropy, over the best before, of fine-tuning over the backbone as it was;
    None where there was no time for it."""

    name: str
    seconds: float
    gain: Paired | None
    kept: bool

    def __str__(self) -> str:
        if self.gain is None:
            return f"left out: {self.name}, would take about {self.seconds:.0f} s"
        return f"{'kept' if self.kept else 'tried'}: {self.name}, gain {self.gain} nats, {self.seconds:.0f} s"


@dataclass(frozen=True)
class Found:
    """What a search found: the model, how good it is, and how much better than the default, in accuracy on the test part."""

    extractors: tuple[Extractor, ...]
    seen: tuple[Seen, ...]
    judged: Judged
    outcome: Outcome | None
    trials: tuple[Trial, ...]
    default: Judged
    over_default: Paired

    def as_json(self) -> dict[str, Any]:
        """Return what was tried as JSON values."""
        trials = [
            {"name": one.name, "seconds": round(one.seconds, 1), "kept": one.kept, "gain": one.gain and one.gain.as_json()}
            for one in self.trials
        ]
        return {"trials": trials, "default": self.default.metrics(), "over_default": self.over_default.as_json()}


class Search:
    """Tries one change after the other, as long as there is time."""

    def __init__(
        self, extractor: Extractor, seen: Seen, examples: Examples, parts: Split, default: Judged, tuning: Tuning,
        layout: Layout, run: Run, record: Record, progress: Progress,
    ) -> None:  # fmt: skip
        """`default`: what was learnt without a search, by `extractor`; its choices are where the search begins."""
        self._examples, self._parts, self._default, self._tuning = examples, parts, default, tuning
        self._layout, self._run, self._record, self._progress = layout, run, record, progress
        self._learn = rows_to_learn(parts)
        self._units = unit_numbers(parts)[self._learn]
        self._milliseconds = extractor.milliseconds()
        self._decoding = _decoding(examples.paths, extractor.backbone.image_size)
        self._best = State((extractor,), (seen,), tuning.augment, tuning.head, default.final)
        self._trials: list[Trial] = []

    def spend(self, seconds: float) -> Found:
        """Search for so many seconds, give or take what the last trial takes longer than was thought."""
        self._ends = time.monotonic() + seconds
        for name, cost, change in self._changes():
            self._try(name, cost, change)
        outcome = self._fine_tuned()
        best = self._best
        if outcome is not None:
            best = replace(best, extractors=(outcome.extractor,), seen=(outcome.seen,))
            judged = outcome.judged
        else:
            judged = judge(
                self._examples, self._parts, self._learn, best.learnt, best.seen, self._record, self._default.precision
            )
        classes = self._examples.classes[judged.judged]
        right, before = ((one.scores.argmax(axis=1) == classes).astype(float) for one in (judged, self._default))
        over = paired(right - before, unit_numbers(self._parts)[judged.judged])
        return Found(best.extractors, best.seen, judged, outcome, tuple(self._trials), self._default, over)

    def _changes(self) -> Iterator[tuple[str, float, Callable[[], State]]]:
        """Yield what to try, with the seconds that it takes, cheapest first; each starts from the best so far."""
        pictures, learnt = len(self._parts.parts), len(self._learn)
        counts = np.bincount(self._examples.classes[self._learn])
        if counts.max() > _UNEVEN * counts[counts > 0].min() and self._best.head.class_weight == "none":
            yield "rare classes count more", _HEAD_SECONDS, partial(self._changed, "balanced")
        rest: list[tuple[float, str, Callable[[], State]]] = []
        if self._best.seen[0].views is None:
            name = f"{1 + len(views.TTA)} views when labelling"
            rest.append((self._cost(pictures, len(views.TTA)), name, partial(self._looked, tta=True)))
        for number, name in enumerate(sorted(backbones.EMBEDDED - {self._best.extractors[0].backbone.name}), start=1):
            cost = self._cost(pictures, self._looks(), 1.5**number)
            rest.append((cost, f"{name}, or with it", partial(self._with_backbone, name)))
        if VIEWS and not self._best.augment.augment:
            name = f"{VIEWS[0]} views to learn from"
            rest.append((self._cost(learnt, VIEWS[0]), name, partial(self._looked, augment=VIEWS[0])))
        for cost, name, change in sorted(rest, key=lambda one: one[:2]):
            yield name, cost, change
        for before, count in pairwise(VIEWS):
            if self._best.augment.augment == before:  # more views only where fewer were worth it
                more = self._cost(learnt, count - before)
                yield f"{count} views to learn from", more, partial(self._looked, augment=count)

    def _try(self, name: str, cost: float, change: Callable[[], State]) -> None:
        if cost > self._ends - time.monotonic():
            self._tell(Trial(name, cost, None, False))
            return
        began = time.monotonic()
        state = change()
        gain, better = self._compare(state.learnt, state.seen)
        self._tell(Trial(name, time.monotonic() - began, gain, better))
        if better:
            self._best = state

    def _fine_tuned(self) -> Outcome | None:
        """Fine-tune the backbone, the last blocks, then all of it, where only one is left; returns the better outcome."""
        best: Outcome | None = None
        if len(self._best.learnt.members) > 1 or not can_be_tuned(self._parts):
            return None
        number = self._best.learnt.members[0]
        extractor, seen = self._best.extractors[number], self._best.seen[number]
        final = replace(self._best.learnt, members=(0,))
        frozen = judge(self._examples, self._parts, self._learn, final, [seen], self._record, self._default.precision)
        for named, blocks in BLOCKS.items():
            name = f"fine-tuning {named}"
            epochs = epoch_count(len(self._learn), self._tuning.settings) * (1 + self._tuning.settings.refit)
            cost = _BUILDING + len(self._learn) * epochs * _STEP * self._milliseconds / 1000 / cores() * (
                0.7 if blocks is None else 1
            )
            if cost > self._ends - time.monotonic():
                self._tell(Trial(name, cost, None, False))
                continue
            began = time.monotonic()
            tuning = replace(
                self._tuning, head=self._best.head, settings=replace(self._tuning.settings, fine_tune=True, blocks=blocks)
            )
            tuner = FineTuner(
                extractor, self._examples, self._parts, seen, frozen, tuning, self._layout, self._run, self._progress
            )
            outcome = tuner.fine_tune(seen.views is not None, self._record)
            after = outcome.compared[1]
            sure = bool(outcome.tuned) and after.gain is not None and after.gain.beyond_noise
            better = sure and (best is None or after.log_loss < best.compared[1].log_loss)
            self._tell(Trial(name, time.monotonic() - began, after.gain, better))
            best = outcome if better else best
            for path in (self._layout.checkpoint, self._layout.second_checkpoint):  # a trial is not gone on from later
                path.unlink(missing_ok=True)
        return best

    def _tell(self, trial: Trial) -> None:
        self._trials.append(trial)
        self._progress.note(str(trial))

    def _cost(self, pictures: int, looks: int, larger: float = 1.0) -> float:
        """Return about how many seconds it takes to look at pictures; `larger`: times as long as the first backbone."""
        of_picture = self._decoding + looks * (larger * self._milliseconds + _RENDERING)
        return _HEAD_SECONDS + pictures * of_picture / 1000 / cores()

    def _looks(self) -> int:
        return 1 + self._best.augment.augment + (len(views.TTA) if self._best.seen[0].views is not None else 0)

    def _changed(self, class_weight: str) -> State:
        state = replace(self._best, head=replace(self._best.head, class_weight=class_weight))
        return self._learnt(state)

    def _looked(self, tta: bool | None = None, augment: int | None = None) -> State:
        """Return the best so far, learnt from other views, or looked at in several."""
        several = self._best.seen[0].views is not None if tta is None else tta
        settings = self._best.augment if augment is None else replace(self._best.augment, augment=augment)
        seen = tuple(self._look(extractor, settings, several) for extractor in self._best.extractors)
        return self._learnt(replace(self._best, seen=seen, augment=settings))

    def _with_backbone(self, name: str) -> State:
        crop = self._best.extractors[0].view == views.CROP_BORDERS
        extractor = open_extractor(name, None, None, crop, self._progress)
        seen = self._look(extractor, self._best.augment, self._best.seen[0].views is not None)
        return self._learnt(
            replace(self._best, extractors=(*self._best.extractors, extractor), seen=(*self._best.seen, seen))
        )

    def _look(self, extractor: Extractor, settings: AugmentSettings, several: bool) -> Seen:
        looker = Looker(extractor, self._examples, self._layout, self._run, self._progress, self._record)
        wanted = distortions.drawn(settings.augment, settings)
        seen = looker.look(self._parts, wanted, views.TTA if several else ())
        return replace(seen, milliseconds=extractor.milliseconds())

    def _learnt(self, state: State) -> State:
        validation = np.array([self._parts.parts[row] == "validation" for row in self._learn])
        count, classes = len(self._examples.labels), self._examples.classes[self._learn]
        final = learn(state.seen, self._learn, classes, count, validation, self._units, state.head)
        return replace(state, learnt=final)

    def _compare(self, learnt: Learnt, seen: tuple[Seen, ...]) -> tuple[Paired, bool]:
        """Return by how much a trial is better than the best so far, and whether by more than noise."""
        if learnt.views and learnt.way == views.PLAIN and self._best.seen[0].views is None:
            return learnt.views[1].gain or Paired(0.0, float("inf"), 0), False  # of what was tried, and is not used
        classes = self._examples.classes[self._learn]
        before = self._best.learnt.held_out_scores(self._best.seen, self._learn)
        after = learnt.held_out_scores(seen, self._learn)
        rows = np.flatnonzero(np.isfinite(before[:, 0]) & np.isfinite(after[:, 0]))
        own = [np.maximum(scores[rows, classes[rows]], np.finfo(np.float64).tiny) for scores in (before, after)]
        gain = paired(np.log(own[1]) - np.log(own[0]), self._units[rows])
        right = [(scores[rows].argmax(axis=1) == classes[rows]).mean() for scores in (before, after)]
        return gain, gain.beyond_noise and bool(right[1] >= right[0])


def _decoding(paths: Sequence[str], size: int) -> float:
    """Return how many milliseconds it takes to decode a picture, on one core: the mean of some of these."""
    some = [paths[row] for row in np.linspace(0, len(paths) - 1, _TIMED).astype(int)]
    began = time.monotonic()
    for path in some:
        with suppress(BadImage):
            views.decode_for(read_bytes(Path(path)), size)
    return 1000 * (time.monotonic() - began) / len(some)
