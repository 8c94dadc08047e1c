"""Which pictures are near which, by their features and by their difference hashes."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain

import numpy as np

from retrain.dataset.duplicates import far
from retrain.dataset.neighbours import Close, Directed, Forest, close_pairs
from retrain.facts import Facts

# Looked at, pair by pair, on drawings and sprites, and tried with pictures made smaller, recompressed or lightened:
# what the cosine of features alone overlooks. A share of the bits that are set, since a small thing on a wide empty ground
# sets few; with fewer than these the hash says next to nothing, and things of one outline are taken for one another.
BITS_OF_SET = 1 / 8
LEAST_SET = 24
HASH_COSINE = 0.9
LEARNT, TEST = "train", "test"
_BLANK = 0.01  # spread of the channels: pictures of one colour are near one another, and that says nothing
_ORDERS, _WINDOW = 16, 16


@dataclass(frozen=True)
class Alike:
    """What is looked at, row by row.

    `labels`: class names; `hashes`: sha256 in hex; `features`: float32 (n, d); `dhashes`: uint64 (n, 2); `parts`: where the
    split of a model has the picture: train, validation, test, fold-..., or empty where that is unknown.
    """

    paths: Sequence[str]
    labels: Sequence[str]
    hashes: Sequence[str]
    features: np.ndarray
    dhashes: np.ndarray
    parts: Sequence[str]
    facts: Sequence[Facts]


class Nearest:
    """Of each row the nearest of those that were offered: `rows` int64 (n,), -1 for none; `squares` float32 (n,)."""

    def __init__(self, count: int) -> None:
        self.rows = np.full(count, -1)
        self.squares = np.full(count, np.inf, np.float32)

    def offer(self, pairs: Close, which: np.ndarray) -> None:
        """Take in some of the pairs, `which` bool (pairs,), in both directions."""
        squares = pairs.squares[which]
        for rows, others in ((pairs.first[which], pairs.second[which]), (pairs.second[which], pairs.first[which])):
            np.minimum.at(self.squares, rows, squares)
            won = squares == self.squares[rows]
            self.rows[rows[won]] = others[won]


class Near:
    """Who is near whom.

    One row stands for all with the same bytes, class and side; blank pictures are left out. `within`: what is near in
    one class, connected; `other_class`, `other_side`: of each row the nearest of another class, and of the other side
    of the split. `shapes`: width, height and format, float (n, 3).
    """

    def __init__(self, rows: Alike) -> None:
        self.sides = [_side(part) for part in rows.parts]
        self.directed = Directed(rows.features)
        self.shapes = np.array([(facts.width, facts.height, facts.format) for facts in rows.facts]).reshape(-1, 3)
        self._labels, self._contents, sides = (_numbers(column) for column in (rows.labels, rows.hashes, self.sides))
        self._sides = np.where([side == "" for side in self.sides], -1, sides)
        by_path = sorted(range(len(rows.paths)), key=lambda row: rows.paths[row], reverse=True)
        first = {(rows.hashes[row], rows.labels[row], self.sides[row]): row for row in by_path}
        self._counts = np.zeros(len(rows.paths), bool)
        self._counts[list(first.values())] = True
        self._counts &= np.array([facts.spread >= _BLANK for facts in rows.facts], bool)
        self.within = Forest(len(rows.paths))
        self.other_class, self.other_side = Nearest(len(rows.paths)), Nearest(len(rows.paths))
        limit = far(self.directed, self._labels)
        for pairs in chain(close_pairs(self.directed, limit, self._wanted), self._by_hash(rows.dhashes)):
            same = self._labels[pairs.first] == self._labels[pairs.second]
            self.within.connect(pairs.first[same], pairs.second[same])
            self.other_class.offer(pairs, ~same)
            self.other_side.offer(pairs, self._across(pairs.first, pairs.second))

    def _wanted(self, first: np.ndarray, second: np.ndarray) -> np.ndarray:
        distinct = self._counts[first] & self._counts[second] & (self._contents[first] != self._contents[second])
        news = (self._labels[first] != self._labels[second]) | self.within.apart(first, second)
        return np.asarray(distinct & (news | self._across(first, second)))

    def _across(self, first: np.ndarray, second: np.ndarray) -> np.ndarray:
        one, other = self._sides[first], self._sides[second]
        return np.asarray((one != other) & (one >= 0) & (other >= 0))

    def _by_hash(self, dhashes: np.ndarray) -> Iterator[Close]:
        for first, second in _similar_hashes(dhashes):
            matter = self._wanted(first, second)
            squares = self.directed.squares(first[matter], second[matter])
            close = squares <= 2 - 2 * HASH_COSINE
            yield Close(first[matter][close], second[matter][close], squares[close])


def _side(part: str) -> str:
    """What is learnt from is one side, what is tested on the other; each fold is a side of its own."""
    return part if part.startswith("fold-") or part == TEST else LEARNT if part in ("train", "validation") else ""


def _numbers(names: Sequence[str]) -> np.ndarray:
    known: dict[str, int] = {}
    return np.array([known.setdefault(name, len(known)) for name in names], np.int64)


def _similar_hashes(dhashes: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield pairs of rows, int64 (pairs,) each, first below second, whose difference hashes are near; some repeatedly.

    Sorted by their bits in several random orders, near ones come to stand near each other in one of them, and each is
    compared with those that follow. After Manku, Jain, Das Sarma, "Detecting near-duplicates for web crawling" (2007),
    but with a window, so that a crowd of equal hashes costs no more than others.
    """
    set_bits = bits_set(dhashes)
    telling = np.flatnonzero((set_bits >= LEAST_SET) & (set_bits <= 128 - LEAST_SET))
    columns = np.unpackbits(dhashes[telling].view(np.uint8), axis=1)
    for seed in range(_ORDERS):
        order = np.random.default_rng(seed).permutation(128)
        keys = np.ascontiguousarray(np.packbits(columns[:, order], axis=1)).view(">u8")
        rows = telling[np.lexsort((keys[:, 1], keys[:, 0]))]
        found = []
        for step in range(1, min(_WINDOW + 1, len(rows))):
            first, second = rows[:-step], rows[step:]
            differ = bits_set(dhashes[first] ^ dhashes[second])
            near = differ <= BITS_OF_SET * np.minimum(set_bits[first], set_bits[second])
            found.append(np.sort(np.stack([first[near], second[near]]), axis=0))
        if found:
            first, second = np.concatenate(found, axis=1)
            yield first, second


def bits_set(words: np.ndarray) -> np.ndarray:
    """Count the bits that are set: uint64 (n, 2) -> int64 (n,). numpy counts them itself only from 2.0 on."""
    return np.asarray(_SET_BITS[words.view(np.uint16)].sum(axis=1, dtype=np.int64))


_SET_BITS = np.unpackbits(np.arange(2**16, dtype=np.uint16).view(np.uint8).reshape(-1, 2), axis=1).sum(
    axis=1, dtype=np.uint8
)
