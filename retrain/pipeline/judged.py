"""Split the examples, train the head, and measure it on pictures that it never saw."""

from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from retrain import artifact, devices, head
from retrain.dataset import Item, Split, SplitError, divide, near_duplicates
from retrain.dataset.split import DEFAULT_FOLDS
from retrain.errors import ModelRefused, NothingUsable, UsageError
from retrain.evaluation import Accuracy, fit_temperature
from retrain.evaluation.figures import Figures, measure
from retrain.head import Fitted
from retrain.pipeline.examples import Examples
from retrain.pipeline.record import Record
from retrain.progress import Progress
from retrain.scores import softmax
from retrain.settings import HeadSettings, SplitSettings, as_plain

_SHARE_OFF = 10  # percent of all pictures


@dataclass(frozen=True)
class Judged:
    """A head, the split it was judged on, and the figures: `judged_on` says in words what they were measured on.

    `fitted`: the head, and what others like it said of pictures that they did not learn from; its rows are `learnt`, int64
    (n,). `temperature`: what logits are divided by. `judged`: int64 (m,), the rows of the figures, and
    `scores`: float64 (m, classes), what was said of them, after calibration; `uncalibrated`: before.
    """

    fitted: Fitted
    learnt: np.ndarray
    temperature: float
    judged: np.ndarray
    scores: np.ndarray
    uncalibrated: np.ndarray
    parts: Split
    figures: Figures
    judged_on: str
    precision: str

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
        }


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


def fit_and_judge(examples: Examples, parts: Split, settings: HeadSettings, record: Record, progress: Progress) -> Judged:
    """Choose the L2 penalty, train the head, fit the temperature, measure all of it.

    With parts: chosen on validation, trained on training and validation pictures, judged on test pictures. With folds:
    every choice made anew inside each fold (the temperature by the other folds), judged on all pictures, then trained on
    all.
    """
    precision = devices.precision(settings.precision)
    progress.note(f"training the head ({precision})")
    learn = np.arange(len(parts.parts)) if parts.folds else parts.rows("train", "validation")
    judge = learn if parts.folds else parts.rows("test")
    if parts.folds:
        scores, before = _predict_in_folds(examples, parts, settings, progress)
        judged_on = f"cross-validation, {parts.folds} folds"
    fitted = _fit(examples, parts, learn, settings)
    temperature = 1.0 if fitted.logits is None else fit_temperature(fitted.logits, examples.classes[learn])
    if not parts.folds:
        logits = fitted.head.logits(examples.features[judge])
        scores, before = softmax(logits, temperature), softmax(logits)
        apart = _set_apart(record.split_settings)
        judged_on = apart[0] if apart else "test part"
    sources = [examples.sources[row] for row in judge]
    figures = measure(scores, examples.classes[judge], examples.labels, sources, before)
    judged = Judged(fitted, learn, temperature, judge, scores, before, parts, figures, judged_on, precision)
    history = None if fitted.history is None else asdict(fitted.history)
    record.judged({**judged.metrics(), "temperature": temperature, "sweep": asdict(fitted.sweep), "history": history})
    return judged


def _predict_in_folds(
    examples: Examples, parts: Split, settings: HeadSettings, progress: Progress
) -> tuple[np.ndarray, np.ndarray]:
    """Return the scores of each picture by a head that has not learnt from its fold, calibrated and not: (n, classes).

    The temperature of a fold is fitted on what was said of the others.
    """
    folds = parts.fold_numbers()
    logits = np.zeros((len(folds), len(examples.labels)), np.float32)
    with progress.bar("folds", parts.folds) as advance:
        for fold in range(parts.folds):
            learn, judge = np.flatnonzero(folds != fold), np.flatnonzero(folds == fold)
            if len(judge):
                fitted = _fit(examples, parts, learn, settings, watched=False)
                logits[judge] = fitted.head.logits(examples.features[judge])
            advance()
    scores = np.empty(logits.shape)
    for fold in range(parts.folds):
        rows = folds == fold
        scores[rows] = softmax(logits[rows], fit_temperature(logits[~rows], examples.classes[~rows]))
    return scores, softmax(logits)


def _fit(examples: Examples, parts: Split, rows: np.ndarray, settings: HeadSettings, watched: bool = True) -> Fitted:
    """Train a head on rows, see `head.fit_best`."""
    validation = np.array([parts.parts[row] == "validation" for row in rows])
    classes = examples.classes[rows]
    units = unit_numbers(parts)[rows]
    count = len(examples.labels)
    return head.fit_best(examples.features[rows], classes, count, validation, units, settings, watched=watched)


def unit_numbers(parts: Split) -> np.ndarray:
    """Return the number of the unit of each picture, int64 (n,)."""
    numbers = {unit: number for number, unit in enumerate(dict.fromkeys(parts.units))}
    return np.array([numbers[unit] for unit in parts.units])
