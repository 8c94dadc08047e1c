"""Findings about pictures that are the same, or nearly: within a class, across classes, across the parts of a split."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain

import numpy as np

from retrain.checks.findings import Finding
from retrain.checks.nearness import BITS_OF_SET, HASH_COSINE, LEARNT, TEST, Alike, Near, bits_set

# From here on, the same picture in another size or format; where size and format are equal it is rather a neighbouring
# frame or a recolouring, unless the network sees no difference.
SAME_COSINE, SAME_FILE_COSINE = 0.97, 0.999
_MOST = 1000  # findings of a kind that are about pairs: the nearest


def find_alike(rows: Alike, near: Near | None = None) -> list[Finding]:
    """Return findings, kind by kind, the surest of each kind first; of those about pairs at most the nearest 1,000.

    Near is what `near_duplicates` calls near, and what the difference hash does. Time grows with the number of rows, not
    with its square, and memory, besides the features, with a small part of theirs.
    """
    near = near or Near(rows)
    kinds = [
        _same_files(rows),
        _same_files_two_classes(rows),
        _clusters(rows, near),
        _two_classes(rows, near)[:_MOST],
        (_same_files_across(rows, near) + _across_parts(rows, near))[:_MOST],
    ]
    return list(chain.from_iterable(kinds))


def _same_files(rows: Alike) -> list[Finding]:
    """One finding for each copy beyond the one with the shortest path."""
    groups = _grouped(zip(rows.hashes, rows.labels, strict=True), rows.paths)
    return [
        Finding("same-file", _size(rows, first), (rows.paths[copy], rows.paths[first]), (rows.labels[first],))
        for first, *copies in groups
        for copy in copies
    ]


def _same_files_two_classes(rows: Alike) -> list[Finding]:
    """One finding for each content, with one path of each class."""
    found = []
    for group in _grouped(rows.hashes, rows.paths):
        of_class = {rows.labels[row]: rows.paths[row] for row in reversed(group)}
        if len(of_class) > 1:
            labels = tuple(sorted(of_class))
            detail = f"{_size(rows, group[0])} in {len(labels)} classes"
            found.append(Finding("same-file-two-classes", detail, tuple(of_class[label] for label in labels), labels))
    return found


def _same_files_across(rows: Alike, near: Near) -> list[Finding]:
    """One finding for each copy that is tested on while another is learnt from."""
    found = []
    for group in _grouped(rows.hashes, rows.paths):
        for learnt in [row for row in group if near.sides[row] not in ("", TEST)][:1]:
            away = [row for row in group if near.sides[row] not in ("", near.sides[learnt])]
            found += [_across(rows, row, learnt, _size(rows, row), 1.0) for row in away]
    return found


def _grouped(keys: Iterable, paths: Sequence[str]) -> list[list[int]]:
    """Groups of at least two rows with one key, by path, shorter ones first: `a (copy).jpg` comes after `a.jpg`."""
    groups = defaultdict(list)
    for row, key in enumerate(keys):
        groups[key].append(row)
    by_path = (sorted(group, key=lambda row: (len(paths[row]), paths[row])) for group in groups.values() if len(group) > 1)
    return sorted(by_path, key=lambda group: paths[group[0]])


def _size(rows: Alike, row: int) -> str:
    return f"the same {int(rows.facts[row].bytes):,} bytes"


def _clusters(rows: Alike, near: Near) -> list[Finding]:
    """One finding for each cluster: first the picture that most can go without, then the one to keep, then the others.

    So the finding is about a picture that can go, as with copies, and what it is compared with stands beside it. The one to
    keep is the largest.
    """

    def worth(row: int) -> tuple[float, float, int]:
        facts = rows.facts[row]
        return facts.width * facts.height, facts.bytes, -row

    clusters = defaultdict(list)
    for row, component in enumerate(near.within.components().tolist()):
        clusters[component].append(row)
    found = []
    for cluster in clusters.values():
        *spare, best = sorted({rows.hashes[row]: row for row in reversed(cluster)}.values(), key=worth)
        if spare:
            alike = _compared(rows, near, np.array(spare), np.full(len(spare), best))
            paths = tuple(rows.paths[row] for row in (spare[0], best, *spare[1:]))
            found.append(
                Finding("near-duplicate", alike.words(), paths, (rows.labels[best],), round(float(alike.scores.mean()), 4))
            )
    return _surest_first(found)


def _two_classes(rows: Alike, near: Near) -> list[Finding]:
    first = np.flatnonzero(near.other_class.rows >= 0)
    return _surest_first(
        Finding(
            "near-duplicate-two-classes", words, (rows.paths[row], rows.paths[other]),
            (rows.labels[row], rows.labels[other]), score,
        )
        for row, other, words, score in _pairs(rows, near, first, near.other_class.rows[first])
    )  # fmt: skip


def _across_parts(rows: Alike, near: Near) -> list[Finding]:
    """One finding for each picture that is tested on, with the nearest of those learnt from."""
    tested = np.array([side not in ("", LEARNT) for side in near.sides], bool)
    first = np.flatnonzero(tested & (near.other_side.rows >= 0))
    pairs = _pairs(rows, near, first, near.other_side.rows[first])
    return _surest_first(_across(rows, row, other, words, score) for row, other, words, score in pairs)


def _across(rows: Alike, row: int, other: int, words: str, score: float) -> Finding:
    labels = tuple(dict.fromkeys([rows.labels[row], rows.labels[other]]))
    detail = f"{rows.parts[row]} and {rows.parts[other]}: {words}"
    return Finding("near-duplicate-across-parts", detail, (rows.paths[row], rows.paths[other]), labels, score)


def _pairs(rows: Alike, near: Near, first: np.ndarray, second: np.ndarray) -> Iterator[tuple[int, int, str, float]]:
    """Each pair once, with words and score."""
    compared = _compared(rows, near, first, second)
    seen = set()
    for index, (row, other) in enumerate(zip(first.tolist(), second.tolist(), strict=True)):
        if (other, row) not in seen:
            seen.add((row, other))
            yield row, other, compared.words(index), round(float(compared.scores[index]), 4)


def _surest_first(findings: Iterator[Finding] | list[Finding]) -> list[Finding]:
    return sorted(findings, key=lambda finding: (-finding.score, finding.paths))


@dataclass(frozen=True)
class _Compared:
    """Pairs compared: `cosines` and `scores` float (pairs,), `bits` int64 (pairs,), `same` bool (pairs,)."""

    cosines: np.ndarray
    bits: np.ndarray
    same: np.ndarray
    scores: np.ndarray

    def words(self, index: int | None = None) -> str:
        """Say how near one pair is, or each picture of a cluster to the one to keep."""
        if index is None and len(self.bits) > 1:
            return (
                f"{len(self.bits) + 1} pictures; compared with the largest, {self.same.sum()} are the same picture in"
                f" another size or file, cosine {self.cosines.min():.3f} to {self.cosines.max():.3f},"
                f" {self.bits.min()} to {self.bits.max()} of 128 hash bits differ"
            )
        at = index or 0
        kind = "the same picture in another size or file" if self.same[at] else "alike"
        return f"{kind}; cosine {self.cosines[at]:.3f}, {self.bits[at]} of 128 hash bits differ"


def _compared(rows: Alike, near: Near, first: np.ndarray, second: np.ndarray) -> _Compared:
    cosines = 1 - near.directed.squares(first, second) / 2
    bits = bits_set(rows.dhashes[first] ^ rows.dhashes[second])
    share = bits / np.maximum(np.minimum(bits_set(rows.dhashes[first]), bits_set(rows.dhashes[second])), 1)
    same_shape = (near.shapes[first] == near.shapes[second]).all(axis=1)
    least = np.where(same_shape, SAME_FILE_COSINE, SAME_COSINE)
    scores = (np.clip((cosines - HASH_COSINE) / (1 - HASH_COSINE), 0, 1) + np.clip(1 - share / (2 * BITS_OF_SET), 0, 1)) / 2
    return _Compared(cosines, bits, (cosines >= least) & (share <= BITS_OF_SET), scores)
