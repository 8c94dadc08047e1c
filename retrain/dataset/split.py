"""Divide examples into training, validation and test parts, or into folds.

The unit that is divided is not the picture but the *unit*: pictures with the same bytes, near-duplicates and pictures
of one named group always end on the same side. A threshold on a hash of the unit decides, so that neither moves nor
renames nor added pictures change it; what an earlier run decided is kept. Only a class that would lack a part moves
one of its training (or new) units there, and where that cannot be done the answer is cross-validation.
"""

import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

PARTS = ("train", "validation", "test")
TRAIN, VALIDATION, TEST = PARTS
DEFAULT_FOLDS = 5


class Item(NamedTuple):
    """What the split needs to know of one example. `part`: set where a folder of its own decides, else empty."""

    sha256: str
    label: int
    group: str = ""
    part: str = ""


class SplitError(ValueError):
    """A class has too few units for three parts. `missing` maps label -> how many more pictures it needs."""

    def __init__(self, missing: dict[int, int]) -> None:
        super().__init__(f"classes too small for a test part: {missing}")
        self.missing = missing


@dataclass(frozen=True)
class Split:
    """Where each example went.

    `parts`: per example one of PARTS, `fold-0` ... with folds, or `left-out` for an example that belongs to the unit of
    one from a validation or test folder, and would leak. `units`: per example the name of its unit.
    """

    parts: tuple[str, ...]
    units: tuple[str, ...]
    folds: int = 0

    def rows(self, *parts: str) -> np.ndarray:
        """Return the indices, int64, of the examples in these parts."""
        return np.flatnonzero(np.isin(np.asarray(self.parts), parts))

    def fold_numbers(self) -> np.ndarray:
        """Return each example's fold, int64 of shape (n,); only for a split into folds."""
        return np.array([int(part.removeprefix("fold-")) for part in self.parts])


class _Unit(NamedTuple):
    name: str
    members: list[int]
    labels: frozenset[int]
    place: float  # in [0, 1), from the hash of what the unit is made of


def divide(
    items: Sequence[Item],
    near_duplicates: Iterable[tuple[int, int]] = (),
    *,
    validation: float = 10,
    test: float = 20,
    folds: int = 0,
    kept: Mapping[str, str] | None = None,
) -> Split:
    """Divide examples.

    `near_duplicates`: pairs of indices that belong together. `validation`, `test`: percent. `folds`: at least 2 for
    folds, 0 for parts. `kept`: sha256 -> part of an earlier run with the same settings.

    Raises SplitError, for parts only, where a class has too few units for one in each part.
    """
    units = _units(items, near_duplicates)
    known = kept or {}
    if folds:
        placed = _into_folds(units, items, folds, known)
    else:
        placed = _into_parts(units, items, validation, test, known)
    parts, names = [""] * len(items), [""] * len(items)
    for unit in units:
        fixed = {items[member].part for member in unit.members} - {""}
        strictest = TEST if TEST in fixed else VALIDATION
        for member in unit.members:
            leaks = fixed and items[member].part != strictest
            parts[member] = "left-out" if leaks else items[member].part or placed[unit.name]
            names[member] = unit.name
    return Split(tuple(parts), tuple(names), folds)


def _units(items: Sequence[Item], near_duplicates: Iterable[tuple[int, int]]) -> list[_Unit]:
    """Connected components of: same bytes, same group, near-duplicate. Sorted by place, then name."""
    parent = list(range(len(items)))

    def find(node: int) -> int:
        while parent[node] != node:
            parent[node] = parent[parent[node]]
            node = parent[node]
        return node

    first_with: dict[tuple[str, str], int] = {}
    for index, item in enumerate(items):
        for key in (("bytes", item.sha256), ("group", item.group)):
            if key[1]:
                parent[find(index)] = find(first_with.setdefault(key, index))
    for first, second in near_duplicates:
        parent[find(int(first))] = find(int(second))

    members: dict[int, list[int]] = defaultdict(list)
    for index in range(len(items)):
        members[find(index)].append(index)
    return sorted((_unit(items, rows) for rows in members.values()), key=lambda unit: (unit.place, unit.name))


def _unit(items: Sequence[Item], members: list[int]) -> _Unit:
    groups = sorted({items[member].group for member in members} - {""})
    name = groups[0] if groups else min(items[member].sha256 for member in members)
    # A group is known by its name, so that it stays put while pictures come and go; a picture by its bytes.
    digest = hashlib.sha256(name.encode("utf-8", "surrogateescape")).hexdigest() if groups else name
    return _Unit(name, members, frozenset(items[member].label for member in members), int(digest[:13], 16) / 16**13)


def _into_parts(
    units: list[_Unit], items: Sequence[Item], validation: float, test: float, known: Mapping[str, str]
) -> dict[str, str]:
    own_folder = {item.part for item in items} - {""}
    to_test = 0.0 if TEST in own_folder else test / 100
    to_validation = to_test + (0.0 if VALIDATION in own_folder else validation / 100)
    placed, movable = {}, set()
    for unit in units:
        fixed = sorted({items[member].part for member in unit.members} - {""})
        # A part that has a folder of its own now holds nothing else, whatever an earlier run decided.
        before = _kept_part(unit, items, known, [part for part in PARTS if part not in own_folder])
        by_hash = TEST if unit.place < to_test else VALIDATION if unit.place < to_validation else TRAIN
        placed[unit.name] = (fixed and fixed[-1]) or before or by_hash
        if not fixed and before in ("", TRAIN):
            movable.add(unit.name)
    needed = [part for part in (TEST, VALIDATION) if part not in own_folder]
    _fill_up(units, placed, movable, needed)
    return placed


def _kept_part(unit: _Unit, items: Sequence[Item], known: Mapping[str, str], allowed: Sequence[str]) -> str:
    """The part that most of the unit's pictures had; among equals the one that is least trained on. Empty: all new."""
    votes = Counter(known[items[member].sha256] for member in unit.members if items[member].sha256 in known)
    votes = Counter({part: count for part, count in votes.items() if part in allowed})
    return max(votes, key=lambda part: (votes[part], allowed.index(part))) if votes else ""


def _fill_up(units: list[_Unit], placed: dict[str, str], movable: set[str], needed: list[str]) -> None:
    """Move units until every class has one in each needed part and keeps one to train on; raises SplitError."""
    of_class: dict[int, list[_Unit]] = defaultdict(list)
    for unit in units:
        for label in unit.labels:
            of_class[label].append(unit)

    def count(label: int, part: str) -> int:
        return sum(placed[unit.name] == part for unit in of_class[label])

    def can_go(unit: _Unit) -> bool:
        origin = placed[unit.name]
        spare = origin == TRAIN or origin in needed
        return unit.name in movable and spare and all(count(label, origin) > 1 for label in unit.labels)

    missing: dict[int, int] = {}
    for label in sorted(of_class):
        for part in [*needed, TRAIN]:
            if count(label, part):
                continue
            # Training units first; a unit of another part only where training has none to spare.
            candidates = sorted(filter(can_go, of_class[label]), key=lambda unit: (placed[unit.name] != TRAIN, unit.place))
            if candidates:
                placed[candidates[0].name] = part
            elif part != VALIDATION or TEST in needed:
                # With a test folder of its own, a class that is too small to validate on can still be judged.
                missing[label] = max(1, len(needed) + 1 - len(of_class[label]))
    if missing:
        raise SplitError(missing)


def _into_folds(units: list[_Unit], items: Sequence[Item], folds: int, known: Mapping[str, str]) -> dict[str, str]:
    """Spread the units of each class evenly; large ones first, so that small ones can even out."""
    names = [f"fold-{number}" for number in range(folds)]
    placed = {unit.name: before for unit in units if (before := _kept_part(unit, items, known, names))}
    of_class: Counter[tuple[int, str]] = Counter()
    of_fold: Counter[str] = Counter()

    def count_in(unit: _Unit) -> None:
        of_fold[placed[unit.name]] += len(unit.members)
        of_class.update((items[member].label, placed[unit.name]) for member in unit.members)

    for unit in filter(lambda unit: unit.name in placed, units):
        count_in(unit)
    new = [unit for unit in units if unit.name not in placed]
    for unit in sorted(new, key=lambda unit: (-len(unit.members), unit.place, unit.name)):
        crowd = {name: sum(of_class[label, name] for label in unit.labels) for name in names}
        placed[unit.name] = min(names, key=lambda name: (crowd[name], of_fold[name], name))
        count_in(unit)
    return placed
