"""Split the examples, train the head, and measure it on pictures that it never saw."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from retrain import artifact, devices
from retrain.dataset import Item, Split, SplitError, divide, near_duplicates
from retrain.dataset.split import DEFAULT_FOLDS
from retrain.errors import ModelRefused, NothingUsable, UsageError
from retrain.evaluation import Accuracy
from retrain.evaluation.figures import Figures, measure
from retrain.head import Fitted
from retrain.pipeline.examples import Examples
from retrain.pipeline.learnt import Learnt
from retrain.pipeline.learnt import learn as learn_from
from retrain.pipeline.record import Record
from retrain.pipeline.seen import Seen
from retrain.progress import Progress
from retrain.settings import HeadSettings, SplitSettings, as_plain

_SHARE_OFF = 10  # percent of all pictures


@dataclass(frozen=True)
class Judged:
    """What was learnt, the split it was judged on, and the figures: `judged_on` says in words what they were measured on.

    `final`: what the model is made of; its rows are `learnt`, int64 (n,). `judged`: int64 (m,), the rows of the figures, and
    `scores`: float64 (m, classes), what was said of them, after calibration; `uncalibrated`: before.
    """

    final: Learnt
    learnt: np.ndarray
    judged: np.ndarray
    scores: np.ndarray
    uncalibrated: np.ndarray
    parts: Split
    figures: Figures
    judged_on: str
    precision: str

    @property
    def fitted(self) -> Fitted:
        """The head of the first member."""
        return self.final.fitted[0]

    @property
    def temperature(self) -> float:
        """What logits are divided by, the way that pictures are looked at."""
        return self.final.temperature[self.final.way]

    @property
    def accuracy(self) -> Accuracy:
        """The share of the judged pictures that are labelled rightly."""
        return self.figures.accuracy

    def metrics(self) -> dict[str, Any]:
        """Return the figures as JSON values, without anything that differs between equal runs."""
        return {
            "test_accuracy": self.accuracy.value,
            "test_accuracy_interval": list(self.accuracy.interval),
            "test_correct": self.accuracy.correct,
            "test_count": self.accuracy.count,
            "test_accuracy_by_source": {source: asdict(figure) for source, figure in self.figures.by_source.items()},
            "test_log_loss": self.figures.log_loss,
            "test_calibration_error": self.figures.calibration_error,
            "test_calibration_error_before": self.figures.uncalibrated_error,
            "judged_on": self.judged_on,
            "l2": self.fitted.sweep.l2,
            "precision": self.precision,
            **{
                name: [one.as_json() for one in compared]
                for name, compared in (("compared_backbones", self.final.backbones), ("compared_views", self.final.views))
                if compared
            },
        }

    def facts(self) -> dict[str, Any]:
        """Return the figures, and how they came about, as JSON values."""
        first = self.fitted
        history = None if first.history is None else asdict(first.history)
        return {**self.metrics(), "temperature": self.temperature, "sweep": asdict(first.sweep), "history": history}


def _set_apart(settings: SplitSettings) -> tuple[str, str] | None:
    """Return what was given to test on, in words, and the option for it; None: pictures are drawn."""
    if settings.test_source is not None:
        return f"source '{settings.test_source}'", "--test-source"
    return None if settings.test_dir is None else ("test folder", "--test-dir")


def divide_examples(examples: Examples, settings: SplitSettings, target: Path, record: Record, progress: Progress) -> Split:
    """Split the examples, keeping what the model in `target` was split into; folds where a class is too small for parts."""
    apart = _set_apart(settings)
    if apart and "test" not in examples.fixed_parts:
        raise NothingUsable(f"{apart[0]}: no usable picture of these classes; give another or leave out {apart[1]}")
    columns = (examples.hashes, examples.classes.tolist(), examples.groups, examples.fixed_parts)
    items = [Item(*row) for row in zip(*columns, strict=True)]
    pairs = near_duplicates(examples.features, examples.classes).tolist()
    kept = _kept_split(target, settings)
    try:
        parts = divide(items, pairs, validation=settings.validation, test=settings.test, folds=settings.folds, kept=kept)
    except SplitError as error:
        small = ", ".join(f"'{examples.labels[label]}' ({count} more)" for label, count in error.missing.items())
        if apart:
            raise NothingUsable(
                f"classes with nothing to learn from but copies of test pictures: {small}; add pictures or drop {apart[1]}"
            ) from None
        progress.note(
            f"too few {'groups' if settings.groups else 'pictures, or too many alike,'} to keep some aside for a test;"
            f" missing in class {small}: judging by cross-validation"
        )
        loose = [item._replace(part="") for item in items]
        parts = divide(loose, pairs, folds=min(DEFAULT_FOLDS, len(items)), kept=kept)
    if len(set(parts.units)) < 2:
        if settings.groups:
            raise UsageError(
                f"--groups '{settings.groups}' puts all pictures into one group; use an expression that tells them apart"
            )
        raise NothingUsable("all pictures are copies of one another, or nearly; add pictures that differ")
    held = "the test or validation folder" if settings.test_source is None else f"source '{settings.test_source}'"
    for row in parts.rows("left-out"):
        record.skip(examples.paths[row], "left-out", f"same or nearly the same as a picture of {held}")
    record.divided(examples.labels, examples.classes, parts, len(pairs))
    _tell_of_large_units(examples, parts, settings, progress)
    return parts


def _tell_of_large_units(examples: Examples, parts: Split, settings: SplitSettings, progress: Progress) -> None:
    """Say so where units are so large that the figure means something else than it seems to."""
    units_of = [
        {parts.units[row] for row in np.flatnonzero(examples.classes == label)} for label in range(len(examples.labels))
    ]
    alone = [f"'{label}'" for label, units in zip(examples.labels, units_of, strict=True) if len(units) < 2]
    if parts.folds and alone:
        progress.note(
            f"class {', '.join(alone)}: all pictures are one group, or alike, so it is never learnt where it is tested;"
            " the accuracy is too low by that"
        )
    share = 100 * len(parts.rows("test")) / len(parts.parts)
    largest = max(Counter(parts.units).values())
    large = 100 * largest / len(parts.parts) > _SHARE_OFF
    if large and not parts.folds and "test" not in examples.fixed_parts and abs(share - settings.test) > _SHARE_OFF:
        progress.note(
            f"the test part holds {share:.0f} % of the pictures, {settings.test:.0f} % were asked for:"
            f" {largest} pictures that belong together cannot be divided"
        )


def _kept_split(target: Path, settings: SplitSettings) -> dict[str, str]:
    """Where the model that is about to be replaced had its pictures, if it was split by the same rules."""
    try:
        loaded = artifact.load(target)
        same = loaded.manifest["split"]["settings"] == as_plain(settings, paths=False)
        return {row.sha256: row.part for row in loaded.split()} if same else {}
    except ModelRefused:
        return {}


def fit_and_judge(
    examples: Examples,
    parts: Split,
    settings: HeadSettings,
    record: Record,
    progress: Progress,
    seen: Sequence[Seen] = (),
) -> Judged:
    """Make every choice and train the head, or heads; measure what came of it.

    With parts: chosen on validation, trained on training and validation pictures, judged on test pictures. With folds:
    every choice made anew inside each fold, judged on all pictures, then trained on all. `seen`: what each backbone sees of
    the examples, where that is more than their features.
    """
    seen = seen or (Seen(record.backbone, examples.features),)
    precision = devices.precision(settings.precision)
    progress.note(f"training the head ({precision})")
    learn = rows_to_learn(parts)
    final = _learn(examples, parts, learn, settings, seen)
    if parts.folds:
        return judge_folds(examples, parts, settings, record, progress, seen, final, precision)
    return judge(examples, parts, learn, final, seen, record, precision)


def rows_to_learn(parts: Split) -> np.ndarray:
    """Return the rows that the model learns from, int64."""
    return np.arange(len(parts.parts)) if parts.folds else parts.rows("train", "validation")


def judge(
    examples: Examples, parts: Split, learn: np.ndarray, final: Learnt, seen: Sequence[Seen], record: Record, precision: str
) -> Judged:
    """Measure what was learnt from the rows `learn` on the test part."""
    rows = parts.rows("test")
    apart = _set_apart(record.split_settings)
    scores = final.scores(seen, rows), final.scores(seen, rows, calibrated=False)
    return _judged(examples, parts, learn, final, rows, scores, apart[0] if apart else "test part", precision)


def judge_folds(
    examples: Examples,
    parts: Split,
    settings: HeadSettings,
    record: Record,
    progress: Progress,
    seen: Sequence[Seen],
    final: Learnt,
    precision: str,
) -> Judged:
    """Measure each picture by what was learnt without its fold."""
    folds = parts.fold_numbers()
    scores, before = (np.zeros((len(folds), len(examples.labels))) for _ in range(2))
    with progress.bar("folds", parts.folds) as advance:
        for fold in range(parts.folds):
            learn, rows = np.flatnonzero(folds != fold), np.flatnonzero(folds == fold)
            if len(rows):
                of_fold = _learn(examples, parts, learn, settings, seen)
                scores[rows] = of_fold.scores(seen, rows)
                before[rows] = of_fold.scores(seen, rows, calibrated=False)
            advance()
    everything, how = np.arange(len(folds)), f"cross-validation, {parts.folds} folds"
    return _judged(examples, parts, everything, final, everything, (scores, before), how, precision)


def _judged(
    examples: Examples,
    parts: Split,
    learn: np.ndarray,
    final: Learnt,
    rows: np.ndarray,
    scores: tuple[np.ndarray, np.ndarray],
    judged_on: str,
    precision: str,
) -> Judged:
    after, before = scores
    figures = measure(after, examples.classes[rows], examples.labels, [examples.sources[row] for row in rows], before)
    return Judged(final, learn, rows, after, before, parts, figures, judged_on, precision)


def _learn(examples: Examples, parts: Split, rows: np.ndarray, settings: HeadSettings, seen: Sequence[Seen]) -> Learnt:
    """Learn from rows, see `learnt.learn`."""
    validation = np.array([parts.parts[row] == "validation" for row in rows])
    units = unit_numbers(parts)[rows]
    return learn_from(seen, rows, examples.classes[rows], len(examples.labels), validation, units, settings)


def unit_numbers(parts: Split) -> np.ndarray:
    """Return the number of the unit of each picture, int64 (n,)."""
    numbers = {unit: number for number, unit in enumerate(dict.fromkeys(parts.units))}
    return np.array([numbers[unit] for unit in parts.units])
