"""The learning curve: how accuracy grows with the number of pictures, and which class would gain most by more of them.

Heads are trained on an eighth, a quarter, a half and all of the pictures outside of each fold, and judged on the fold. The
smaller sets are parts of the larger ones, the same share of each class, whole units where units are given: new pictures
usually come as new units (another scene, another animal), and half of each scene would teach nearly as much as all of it.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from retrain import head
from retrain.evaluation import Accuracy, wilson_interval
from retrain.settings import HeadSettings

SHARES = (1 / 8, 1 / 4, 1 / 2, 1.0)
_LAST = 3  # sizes that slopes are drawn through
_LEAST_UNITS = 5
_MOST_STEPS, _SPEED = 1250, 4  # what a head in use gets divided by so many, since here shares count, not scores
_LEAST_STEPS = 300
_WIDEST = 4096  # columns of a bank of heads: 0.1 GB with 1,280 features and what Adam keeps
_POOLED_UNITS = 5.0  # how much the noise of all classes counts in that of one, in units
_WORTH_SAYING = 0.01  # of recall, a doubling; and no less than its standard error
_Z = 1.645  # one-sided 95 %


class TooFewPictures(ValueError):
    """There is no curve; the message says why."""


@dataclass(frozen=True)
class Gain:
    """What twice the pictures of a class would bring, all other classes growing alike.

    `recall`: share of the class that is found now, in [0, 1]. `slope`, `error`: recall gained a doubling so far, over the
    last sizes, and its standard error. `expected`, `uncertainty`: the same of the next doubling.
    `overall`: what `expected` adds to the accuracy over all classes. `reason`: why nothing is known; the figures are 0 then.
    """

    label: int
    pictures: int
    recall: float
    slope: float = 0.0
    error: float = 0.0
    expected: float = 0.0
    uncertainty: float = 0.0
    overall: float = 0.0
    reason: str = ""


@dataclass(frozen=True)
class Curve:
    """Accuracy by size of the training set.

    `sizes`: mean number of pictures learnt from; `accuracies`: on all pictures, each judged by heads that have not learnt
    from its fold; `recalls`: float64 (sizes, classes), nan for a class without pictures; `gains`: one a class;
    `where_more_helps`: the classes that more pictures would help by more than chance and a little, by what that adds to the
    overall accuracy, most first; `by_units`: whether smaller means fewer units.
    """

    sizes: tuple[float, ...]
    accuracies: tuple[Accuracy, ...]
    recalls: np.ndarray
    gains: tuple[Gain, ...]
    where_more_helps: tuple[Gain, ...]
    by_units: bool


def learning_curve(
    features: np.ndarray,
    labels: np.ndarray,
    classes: int,
    folds: np.ndarray,
    l2: float,
    settings: HeadSettings,
    units: np.ndarray | None = None,
) -> Curve:
    """Measure the curve.

    `features`: float32 (n, d); `labels`: int64 (n,), values 0 to classes - 1; `folds`: int64 (n,), rows of one unit in one
    fold; `l2`: the best strength of the penalty for all pictures, see `head.fit`; `units`: int64 (n,), without them every
    picture is a unit of its own.

    Raises TooFewPictures where no class has enough pictures to leave some out.
    """
    keys = np.arange(len(labels)) if units is None else np.unique(units, return_inverse=True)[1]
    places = _places(labels, keys, settings.seed)
    _check(labels, keys, folds)
    hits = np.empty((len(SHARES), len(labels)), bool)
    sizes, counts = [], np.empty((len(SHARES), classes))
    for number, share in enumerate(SHARES):
        chosen = _chosen(labels, keys, folds, places, share)
        hits[number] = _hits(features, labels, classes, folds, chosen, l2 / share, settings)
        sizes.append(float(chosen.sum(axis=1).mean()))
        counts[number] = _units_learnt_from(labels, keys, chosen, classes)
    totals = np.bincount(labels, minlength=classes)
    with np.errstate(invalid="ignore"):
        recalls = np.stack([np.bincount(labels, weights=row, minlength=classes) for row in hits]) / totals
    gains = _gains(hits, labels, keys, counts)
    kept, noise = _kept_errors(hits[-_LAST:], keys)
    rising = kept + _Z * noise < 1
    worthwhile = [gain for gain in gains if rising and gain.expected >= max(_WORTH_SAYING, gain.uncertainty)]
    ranked = tuple(sorted(worthwhile, key=lambda gain: -gain.overall))
    return Curve(tuple(sizes), tuple(map(_accuracy, hits)), recalls, gains, ranked, units is not None)


def _accuracy(hits: np.ndarray) -> Accuracy:
    correct, count = int(hits.sum()), len(hits)
    return Accuracy(correct / count, wilson_interval(correct, count), correct, count)


def _check(labels: np.ndarray, keys: np.ndarray, folds: np.ndarray) -> None:
    pairs = np.unique(np.stack([labels, keys]), axis=1)[0]
    most = int(np.bincount(pairs).max())
    if len(np.unique(folds)) < 2 or len(np.unique(labels)) < 2:
        raise TooFewPictures("no learning curve: it takes two classes and two folds")
    if most < _LEAST_UNITS:
        raise TooFewPictures(
            f"no learning curve: no class has {_LEAST_UNITS} pictures that differ, to leave some out; add pictures"
        )


def _places(labels: np.ndarray, keys: np.ndarray, seed: int) -> np.ndarray:
    """A random number for each row, float64 (n,), equal within a unit: in this order pictures are taken."""
    return np.random.default_rng(seed).random(int(keys.max()) + 1)[keys]


def _chosen(labels: np.ndarray, keys: np.ndarray, folds: np.ndarray, places: np.ndarray, share: float) -> np.ndarray:
    """The rows that the head of each fold learns from, bool (folds, n): the share of each class's units, at least one.

    The order is the same in all folds, so that a small set is small in all of them together as well.
    """
    chosen = []
    for fold in np.unique(folds):
        rows = np.flatnonzero(folds != fold)
        rows = rows[np.lexsort((keys[rows], places[rows], labels[rows]))]
        new_class = np.diff(labels[rows], prepend=-1) != 0
        new_unit = new_class | (np.diff(keys[rows], prepend=-1) != 0)
        class_of, ordinal = np.cumsum(new_class) - 1, np.cumsum(new_unit)
        ordinal -= ordinal[new_class][class_of]  # number of the unit within its class
        units = np.bincount(class_of[new_unit])
        mask = np.zeros(len(labels), bool)
        mask[rows[ordinal < np.ceil(share * units)[class_of]]] = True
        chosen.append(mask)
    return np.stack(chosen)


def _hits(
    features: np.ndarray,
    labels: np.ndarray,
    classes: int,
    folds: np.ndarray,
    chosen: np.ndarray,
    l2: float,
    settings: HeadSettings,
) -> np.ndarray:
    """Whether each row is predicted rightly by the head that has not learnt from its fold, bool (n,).

    The loss is a mean, so the penalty that suits all pictures is too weak for an eighth: the caller raises it in
    proportion, as one prior belief about the weights would have it.
    """
    hits = np.empty(len(labels), bool)
    numbers = np.unique(folds)
    at_once = max(1, _WIDEST // classes)
    for first in range(0, len(numbers), at_once):
        of_these = chosen[first : first + at_once]
        rows = np.flatnonzero(of_these.any(axis=0))
        steps = math.ceil(head.step_count(len(rows), settings) / _SPEED)
        fewer = settings if settings.steps else replace(settings, steps=min(max(_LEAST_STEPS, steps), _MOST_STEPS))
        inputs = features if len(rows) == len(features) else features[rows]  # the first: no copy
        heads = head.fit_each(inputs, labels[rows], classes, of_these[:, rows], l2, fewer)
        for fold, fitted in zip(numbers[first:], heads, strict=False):
            judged = folds == fold
            hits[judged] = fitted.logits(features[judged]).argmax(axis=1) == labels[judged]
    return hits


def _units_learnt_from(labels: np.ndarray, keys: np.ndarray, chosen: np.ndarray, classes: int) -> np.ndarray:
    """Mean number of units of each class that heads learn from: float64 (classes,)."""
    counts = np.zeros(classes)
    for mask in chosen:
        pairs = np.unique(np.stack([labels[mask], keys[mask]]), axis=1)[0]
        counts += np.bincount(pairs, minlength=classes)
    return counts / len(chosen)


def _gains(hits: np.ndarray, labels: np.ndarray, keys: np.ndarray, counts: np.ndarray) -> tuple[Gain, ...]:
    """The gain of each class: `hits` bool (sizes, n), `counts` float64 (sizes, classes), units learnt from.

    By how much slopes of classes stray from the common law, more than noise would have it, counts as uncertainty.
    """
    classes = counts.shape[1]
    pictures = np.bincount(labels, minlength=classes)
    units, slopes, errors = _slopes(hits[-_LAST:], labels, keys, counts[-_LAST:])
    recalls = np.bincount(labels, hits[-1], classes) / np.maximum(pictures, 1)
    kept, noise = _kept_errors(hits[-_LAST:], keys)
    missed = 1 - recalls
    expected = missed * (1 - kept)
    so_far = missed * (kept ** (1 - _LAST) - 1) / (_LAST - 1)  # slopes that would have led here
    judged = units >= _LEAST_UNITS
    apart = np.mean((slopes - so_far)[judged] ** 2 - errors[judged] ** 2) if judged.any() else 0.0
    unsure = np.sqrt(
        (1 - kept) ** 2 * missed * recalls / np.maximum(units, 1) + (missed * noise) ** 2 + max(0.0, float(apart))
    )
    gains = []
    for label in range(classes):
        known = Gain(label, int(pictures[label]), float(recalls[label]))
        if judged[label]:
            figures = (slopes[label], errors[label], expected[label], unsure[label])
            slope, error, gain, uncertainty = (float(figure) for figure in figures)
            overall = gain * known.pictures / len(labels)
            known = replace(known, slope=slope, error=error, expected=gain, uncertainty=uncertainty, overall=overall)
        else:
            counted = f": {known.pictures} pictures, {int(units[label])} that differ" if known.pictures else ""
            known = replace(known, reason=f"too few to judge{counted}")
        gains.append(known)
    return tuple(gains)


def _kept_errors(hits: np.ndarray, keys: np.ndarray) -> tuple[float, float]:
    """The factor by which errors fall with each doubling, over all classes, and its standard error.

    A power law, as J. Hestness et al., "Deep Learning Scaling is Predictable, Empirically" (2017), found; between the first
    and the last of the sizes lie all doublings but one. Errors of classes are few, and a class that was unlucky at one size
    is not at the next: its own slope foretells next to nothing, the share it misses times the common factor a good deal.
    """
    first, last = ~hits[0], ~hits[-1]
    if not first.any() or not last.any():
        return 1.0, 0.0
    doublings = len(hits) - 1
    factor = float((last.mean() / first.mean()) ** (1 / doublings))
    pull = (last / last.mean() - first / first.mean()) / doublings  # of each picture on the factor's logarithm
    return factor, factor * math.sqrt(float((np.bincount(keys, pull) ** 2).sum())) / len(keys)


def _slopes(
    hits: np.ndarray, labels: np.ndarray, keys: np.ndarray, counts: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Units, recall gained a doubling, and its standard error, of each class; all (classes,).

    Least squares of recall over the logarithm of units: a sum over pictures, each weighed by when it was recognised, whose
    spread between units gives the error. A dozen pictures that fared alike by luck would seem to have none, so some of the
    spread of all classes is mixed in.
    """
    classes = counts.shape[1]
    pictures = np.maximum(np.bincount(labels, minlength=classes), 1)
    x = np.log2(np.maximum(counts, 1e-9))
    x -= x.mean(axis=0)
    weights = x / np.maximum((x * x).sum(axis=0), 0.1)
    of_row = (weights[:, labels] * hits).sum(axis=0)
    slopes = np.bincount(labels, of_row, classes) / pictures
    pairs, number = np.unique(np.stack([labels, keys]), axis=1, return_inverse=True)
    squares = np.bincount(pairs[0], np.bincount(number.ravel(), of_row - slopes[labels]) ** 2, classes)
    units = np.bincount(pairs[0], minlength=classes)
    pooled = squares.sum() / len(labels)
    mixed = (units * squares / pictures + _POOLED_UNITS * pooled) / (units + _POOLED_UNITS)
    return units, slopes, np.sqrt(mixed / pictures)


def in_words(curve: Curve, label_names: Sequence[str], most: int = 3) -> list[str]:
    """Say in a line each which classes more pictures would help."""
    if not curve.where_more_helps:
        return ["twice the pictures would change little in any class with enough pictures to tell"]
    new = ", of groups not there yet," if curve.by_units else ""
    return [
        f"more pictures of '{label_names[gain.label]}'{new} would help{' most' if not number else ''}"
        f" (recall {gain.recall:.2f}, {gain.expected:+.2f} per doubling: {100 * gain.overall:+.1f} % of all pictures right)"
        for number, gain in enumerate(curve.where_more_helps[:most])
    ]
