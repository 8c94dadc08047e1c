"""Listing and features -> the examples that can be used."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from retrain.bottlenecks import Bottlenecks
from retrain.dataset import Listing
from retrain.errors import NothingUsable
from retrain.pipeline.record import Record
from retrain.progress import Progress

_SHOWN = 5


@dataclass(frozen=True)
class Examples:
    """The usable examples, row by row: what every stage after the features works on.

    `features`: float32 (n, feature_size); `classes`: int64 (n,), indices into `labels`; `hashes`: sha256 in hex;
    `fixed_parts`: the part of pictures from a validation or test folder, else empty.
    """

    labels: tuple[str, ...]
    features: np.ndarray
    classes: np.ndarray
    hashes: tuple[str, ...]
    paths: tuple[str, ...]
    sources: tuple[str, ...]
    groups: tuple[str, ...]
    fixed_parts: tuple[str, ...]

    def label_of(self, row: int) -> str:
        """Return the label of a row."""
        return self.labels[self.classes[row]]


def usable(
    listing: Listing, found: Bottlenecks, record: Record, progress: Progress, others: Sequence[Bottlenecks] = ()
) -> Examples:
    """Return the examples that have features and a class to learn; the others go to the record, with the reason.

    `others`: what was found of the same pictures under further backbones.

    Raises NothingUsable for fewer than two classes with pictures to learn from.
    """
    record.extracted(listing, found, others)
    progress.note(f"bottlenecks: {record.computed} computed, {record.cached} from the cache")
    kept = [listing.examples[row] for row in found.rows]
    learnable = {example.label for example in kept if not example.part}
    labels = tuple(label for label in listing.labels if label in learnable)
    for label in listing.labels:
        if label not in learnable:
            has = "no picture to learn from" if any(example.label == label for example in kept) else "no usable picture"
            progress.note(f"class '{label}' is left out: it has {has}")
    if len(labels) < 2:
        have = f"only one class with usable pictures, '{labels[0]}'" if labels else "no class with usable pictures"
        raise NothingUsable(f"{listing.root} has {have}; at least two class folders with pictures are needed")
    for example in kept:
        if example.label not in learnable:
            record.skip(example.path, "left-out", f"class '{example.label}' has no picture to learn from")
    _tell_of_contradictions(found.hashes, [example.label for example in kept], [example.path for example in kept], progress)
    rows = [row for row, example in enumerate(kept) if example.label in learnable]
    number = {label: index for index, label in enumerate(labels)}
    return Examples(
        labels=labels,
        features=found.features[rows],
        classes=np.array([number[kept[row].label] for row in rows], np.int64),
        hashes=tuple(found.hashes[row] for row in rows),
        paths=tuple(kept[row].path for row in rows),
        sources=tuple(kept[row].source for row in rows),
        groups=tuple(kept[row].group for row in rows),
        fixed_parts=tuple(kept[row].part for row in rows),
    )


def _tell_of_contradictions(hashes: tuple[str, ...], labels: list[str], paths: list[str], progress: Progress) -> None:
    """Say so where the same bytes lie in several classes: they teach the head one thing and its opposite."""
    first: dict[str, int] = {}
    pairs = []
    for row, sha256 in enumerate(hashes):
        if labels[first.setdefault(sha256, row)] != labels[row]:
            pairs.append((paths[first[sha256]], paths[row]))
    for one, other in pairs[:_SHOWN]:
        progress.note(f"the same picture lies in two classes: {one} and {other}")
    if len(pairs) > _SHOWN:
        progress.note(f"so do {len(pairs) - _SHOWN} more pairs; keep each picture in one class")
