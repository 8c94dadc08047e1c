"""Which strength of the L2 penalty is best, by pictures that were not learnt from."""

import math
from dataclasses import dataclass, replace

import numpy as np

from retrain.head.history import History, Observer
from retrain.head.softmax import Head, fit, fit_each, plain, step_count, train_many
from retrain.scores import cross_entropies
from retrain.settings import HeadSettings

STRENGTHS = (1e-4, 4e-4, 1.6e-3, 6.4e-3, 2.6e-2, 1e-1)  # of the L2 penalty: what the sweep tries
_UNCHOSEN = 1e-2
_FEW_PICTURES = 300  # with fewer to validate on, one part is too small to choose by
_INNER_FOLDS = 3
_OUTER_FOLDS = 5  # heads that are as good as the one that is kept, or nearly, tell what it would say of new pictures


@dataclass(frozen=True)
class Sweep:
    """What the search for the strength of the L2 penalty found: a row a strength, measured on pictures not learnt from."""

    l2: float
    strengths: tuple[float, ...]
    log_losses: tuple[float, ...]
    accuracies: tuple[float, ...]
    validated_on: int
    how: str


def out_of_fold(
    features: np.ndarray, labels: np.ndarray, classes: int, folds: np.ndarray, settings: HeadSettings
) -> tuple[np.ndarray, float]:
    """Predict each row by a head that has not learnt from the row's fold.

    `folds`: int64 (n,), otherwise as `fit`. Returns logits, float32 (n, classes), and the strength of the L2 penalty: that
    of `settings`, else the one of the sweep with the least log loss in the same folds, with a third of the steps.
    """
    held_out = np.stack([folds == fold for fold in np.unique(folds)])
    l2 = settings.l2
    if l2 is None:
        steps = math.ceil(step_count(len(labels), settings) / _INNER_FOLDS)
        judged = train_many(features, labels, classes, ~held_out, STRENGTHS, replace(settings, steps=steps))
        losses, _ = _judge(judged, features, labels, held_out)
        l2 = STRENGTHS[int(losses.argmin())]
    logits = np.empty((len(labels), classes), np.float32)
    for rows, head in zip(held_out, fit_each(features, labels, classes, ~held_out, l2, settings), strict=True):
        logits[rows] = head.logits(features[rows])
    return logits, l2


@dataclass(frozen=True)
class Fitted:
    """A head that learnt from all rows, and others like it that each left out some.

    `apart`: those heads with the rows that each did not learn from, bool (n,); `history`: how they got there. Both are empty
    where there are no such heads: all rows are one unit, or it was not asked for.
    """

    head: Head
    sweep: Sweep
    apart: tuple[tuple[np.ndarray, Head], ...] = ()
    history: History | None = None

    @property
    def held_out(self) -> np.ndarray | None:
        """The rows that some head did not learn from, bool (n,); None where there is no such head."""
        return np.logical_or.reduce([rows for rows, _ in self.apart]) if self.apart else None

    def said(self, features: np.ndarray) -> np.ndarray:
        """Return the logits of rows by heads that did not learn from them, float32 (n, classes); NaN for others.

        `features`: float32 (n, feature_size), any view of the rows that were learnt from.
        """
        logits = np.full((len(features), len(self.head.bias)), np.nan, np.float32)
        for rows, of_fold in self.apart:
            logits[rows] = of_fold.logits(features[rows])
        return logits


def fit_best(
    features: np.ndarray,
    labels: np.ndarray,
    classes: int,
    validation: np.ndarray,
    units: np.ndarray,
    settings: HeadSettings,
    *,
    watched: bool = True,
) -> Fitted:
    """Find the strength of the L2 penalty that predicts best pictures that were not learnt from, by log loss.

    `features`, `labels`: training and validation pictures together, with views or without; `validation`: bool (n,), which
    are which; `units`: int64 (n,), rows of one unit stay together. With few validation pictures every picture is validated
    on once, in folds, since a choice by a handful of pictures is a matter of luck; in the search there are several times as
    many heads then, and each gets a third of the steps. With `settings.l2` nothing is searched for. The head that is
    returned has learnt from all rows; beside it, if `watched`, five are trained with as many steps that each leave out a
    fold.
    """
    if len(set(units.tolist())) < 2:
        l2, how = (settings.l2, "given") if settings.l2 is not None else (_UNCHOSEN, "too few pictures to choose by")
        fitted = fit(features, labels, classes, l2, settings)
        return Fitted(fitted, Sweep(l2, (), (), (), 0, how))
    sweep = Sweep(settings.l2, (), (), (), 0, "given") if settings.l2 is not None else None
    if sweep is None:
        held_out, how = _held_out(labels, validation, units)
        steps = math.ceil(step_count(len(labels), settings) / (1 if len(held_out) == 1 else _INNER_FOLDS))
        judged = train_many(features, labels, classes, ~held_out, STRENGTHS, replace(settings, steps=steps))
        losses, hits = _judge(judged, plain(features), labels, held_out)
        l2, total = STRENGTHS[int(losses.argmin())], int(held_out.sum())
        sweep = Sweep(l2, STRENGTHS, tuple(losses / total), tuple(hits / total), total, how)
    if not watched:
        return Fitted(fit(features, labels, classes, sweep.l2, settings), sweep)
    held_out = _in_folds(labels, units, _OUTER_FOLDS)
    history = Observer(plain(features), labels, held_out, settings.seed)
    choices = np.concatenate([~held_out, np.ones((1, len(labels)), bool)])
    *apart, (fitted,) = train_many(features, labels, classes, choices, (sweep.l2,), settings, history.watch)
    held = tuple((rows, of_fold) for rows, (of_fold,) in zip(held_out, apart, strict=True))
    return Fitted(fitted, sweep, held, history.history(f"{len(held_out)} folds of training and validation part"))


def _held_out(labels: np.ndarray, validation: np.ndarray, units: np.ndarray) -> tuple[np.ndarray, str]:
    """Return which rows each head is not to learn from, bool (heads, n), and that in words."""
    if int(validation.sum()) >= _FEW_PICTURES:
        return validation[np.newaxis], "validation part"
    held_out = _in_folds(labels, units, _INNER_FOLDS)
    return held_out, f"{len(held_out)} folds of training and validation part"


def _in_folds(labels: np.ndarray, units: np.ndarray, count: int) -> np.ndarray:
    """Return the rows of each fold, bool (folds, n); no more folds than there are units."""
    folds = _folds(labels, units, count)
    return np.stack([folds == fold for fold in np.unique(folds)])


def _judge(
    heads: list[list[Head]], features: np.ndarray, labels: np.ndarray, held_out: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Sum up the log losses and the hits of each strength over the rows that were held out: float64 (strengths,)."""
    losses, hits = np.zeros(len(STRENGTHS)), np.zeros(len(STRENGTHS))
    for rows, of_fold in zip(held_out, heads, strict=True):
        for number, head in enumerate(of_fold):
            logits = head.logits(features[rows])
            losses[number] += cross_entropies(logits, labels[rows]).sum()
            hits[number] += (logits.argmax(axis=1) == labels[rows]).sum()
    return losses, hits


def _folds(labels: np.ndarray, units: np.ndarray, count: int) -> np.ndarray:
    """Spread units over folds, each class evenly and all classes together as well: int64 (n,)."""
    folds = np.empty(len(labels), np.int64)
    fold_of: dict[int, int] = {}
    of_class = np.zeros((int(labels.max()) + 1, count), np.int64)
    for row, (label, unit) in enumerate(zip(labels, units, strict=True)):
        if unit not in fold_of:
            fold_of[unit] = min(range(count), key=lambda fold: (of_class[label, fold], of_class[:, fold].sum(), fold))
        folds[row] = fold_of[unit]
        of_class[label, folds[row]] += 1
    return folds
