"""How much a split flatters: pictures predicted by random folds, and by folds that keep together what belongs together."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np

from retrain import head
from retrain.dataset import Item, divide
from retrain.evaluation.metrics import Accuracy, accuracy
from retrain.settings import HeadSettings

FOLDS = 5
NEAR_DUPLICATES = "near-duplicates"
_SPEED = 3  # fewer steps than a head in use gets: what is compared is trained alike
_LEAST_SHARE = 0.2  # of the pictures must lie in groups of two or more, else there is nothing to keep together
_LEAST_UNITS = FOLDS  # of a class, for it to be learnt where it is tested
_WITHIN_NOISE = 0.02  # of accuracy: of groupings as close as that, the coarser one is the safer
_MATTERS = 0.01  # of accuracy, that even the lower end of the gap's interval must reach


class Gap(NamedTuple):
    """What one way of keeping pictures together does to the accuracy, of classes with groups enough for every fold.

    `groups`: how many there are, single pictures among them; `pictures`: how many are compared. `gap`: accuracy by random
    folds less that by groups, `low` and `high` the ends of its 95 % interval.
    """

    grouping: str
    groups: int
    pictures: int
    by_random: Accuracy
    by_groups: Accuracy
    gap: float
    low: float
    high: float

    @property
    def matters(self) -> bool:
        """Whether a random split would flatter by more than chance and a little."""
        return self.low > _MATTERS

    def as_json(self) -> dict[str, Any]:
        """Return it as JSON values."""
        return {
            "grouping": self.grouping, "groups": self.groups, "pictures": self.pictures,
            "accuracy_by_random": self.by_random.value, "accuracy_by_groups": self.by_groups.value,
            "gap": self.gap, "interval": [self.low, self.high],
        }  # fmt: skip


def gaps(
    features: np.ndarray,
    classes: np.ndarray,
    hashes: Sequence[str],
    pairs: Sequence[tuple[int, int]],
    groupings: Mapping[str, Sequence[str]],
    l2: float,
    settings: HeadSettings,
) -> list[Gap]:
    """Compare each grouping with random folds, by heads of one strength of the L2 penalty.

    `features`: float32 (n, d); `classes`: int64 (n,); `hashes`: sha256 in hex; `pairs`: near-duplicate rows; `groupings`:
    name -> for each row the name of its group, empty for none. Those that keep next to nothing together are left out.
    """
    units = {NEAR_DUPLICATES: divided(hashes, classes, pairs, [""] * len(hashes))}
    units |= {name: divided(hashes, classes, pairs, groups) for name, groups in groupings.items() if _worth(groups)}
    folds = [_random_folds(classes, settings.seed), *(fold for _, fold in units.values())]
    right = [predicted == classes for predicted in _predict(features, classes, folds, l2, settings)]
    found = []
    for (name, (numbers, _)), by_groups in zip(units.items(), right[1:], strict=True):
        rows = well_divided(numbers, classes)
        if rows.mean() > 1 / 2 and len(np.unique(classes[rows])) > 1:
            found.append(_gap(name, numbers[rows], right[0][rows], by_groups[rows]))
    return found


def well_divided(units: np.ndarray, classes: np.ndarray, least: int = _LEAST_UNITS) -> np.ndarray:
    """Return which rows are of classes with so many units at least, bool (n,). Both arguments: int64 (n,)."""
    of_class = np.zeros(int(classes.max()) + 1, np.int64)
    np.add.at(of_class, np.unique(np.stack([units, classes]), axis=1)[1], 1)
    return of_class[classes] >= least


def recommended(found: Sequence[Gap]) -> str | None:
    """Return the grouping to split by: of those that matter the one with the lowest accuracy, None where none does.

    Near-duplicates are kept together anyway, so a grouping must do more than they do. Of groupings that are as low, but
    for chance, the one with the fewest groups.
    """
    base = next((gap.by_groups.value for gap in found if gap.grouping == NEAR_DUPLICATES), 1.0)
    named = [gap for gap in found if gap.grouping != NEAR_DUPLICATES and gap.matters]
    worse = [gap for gap in named if gap.by_groups.value < base - _MATTERS]
    lowest = min((gap.by_groups.value for gap in worse), default=0.0)
    honest = [gap for gap in worse if gap.by_groups.value <= lowest + _WITHIN_NOISE]
    return min(honest, key=lambda gap: (gap.groups, gap.by_groups.value)).grouping if honest else None


def _worth(groups: Sequence[str]) -> bool:
    names, counts = np.unique([name for name in groups if name], return_counts=True)
    return len(names) >= 2 * FOLDS and counts[counts > 1].sum() >= _LEAST_SHARE * len(groups)


def divided(
    hashes: Sequence[str], classes: np.ndarray, pairs: Sequence[tuple[int, int]], groups: Sequence[str]
) -> tuple[np.ndarray, np.ndarray]:
    """Divide rows into folds, keeping near-duplicates and groups together.

    Returns for each row the number of its unit and of its fold, both int64 (n,); arguments as those of `gaps`.
    """
    items = [Item(*row) for row in zip(hashes, classes.tolist(), groups, strict=True)]
    split = divide(items, pairs, folds=FOLDS)
    numbers = {unit: number for number, unit in enumerate(dict.fromkeys(split.units))}
    return np.array([numbers[unit] for unit in split.units]), split.fold_numbers()


def _random_folds(classes: np.ndarray, seed: int) -> np.ndarray:
    """Deal the pictures of each class out at random, as if each stood for itself: int64 (n,)."""
    rng = np.random.default_rng(seed)
    folds = np.empty(len(classes), np.int64)
    for label in np.unique(classes):
        rows = rng.permutation(np.flatnonzero(classes == label))
        folds[rows] = (np.arange(len(rows)) + label) % FOLDS
    return folds


def _predict(
    features: np.ndarray, classes: np.ndarray, foldings: Sequence[np.ndarray], l2: float, settings: HeadSettings
) -> list[np.ndarray]:
    settings = replace(settings, steps=-(-head.step_count(len(classes), settings) // _SPEED))
    held_out = [folds == fold for folds in foldings for fold in range(FOLDS)]
    usable = [rows for rows in held_out if rows.any() and not rows.all()]
    heads = iter(head.fit_each(features, classes, int(classes.max()) + 1, ~np.stack(usable), l2, settings))
    predicted = [np.full(len(classes), -1) for _ in foldings]
    for number, rows in enumerate(held_out):
        if rows.any() and not rows.all():
            predicted[number // FOLDS][rows] = next(heads).logits(features[rows]).argmax(axis=1)
    return predicted


def _gap(name: str, units: np.ndarray, by_random: np.ndarray, by_groups: np.ndarray) -> Gap:
    truth = np.ones(len(units), np.int64)
    differences = by_random.astype(np.float64) - by_groups
    mean = float(differences.mean())
    # Pictures of one unit are right or wrong together: the interval counts units, not pictures.
    sums = np.bincount(np.unique(units, return_inverse=True)[1], differences - mean)
    count = len(sums)
    spread = _t_95(count - 1) * float(np.sqrt((sums**2).sum() * count / max(count - 1, 1))) / len(units)
    figures = [accuracy(rows.astype(np.int64), truth) for rows in (by_random, by_groups)]
    return Gap(name, count, len(units), figures[0], figures[1], mean, mean - spread, mean + spread)


def _t_95(freedom: int) -> float:
    """The 97.5 % quantile of Student's t, by the first terms of its expansion (Abramowitz and Stegun 26.7.5)."""
    z, n = 1.959964, max(freedom, 1)
    return z + (z**3 + z) / (4 * n) + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * n**2)
