"""Which rows of features lie close together, in time that grows with their number and not with its square."""

from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np

EXACT = 20_000  # up to so many rows all pairs are compared; beyond, those that share a leaf of a tree
TREES = 32
_LEAF = 256
_SAMPLE = 1024  # rows of a node that decide along which direction it is cut
_DIRECTIONS = 64
_BLOCK = 1024
_MANY = 1 / 32  # of a block: from here on, one product of matrices is faster than products of picked rows
_SLACK = 1e-5  # of float32, where squared distances of unit vectors are differences of numbers near 1


class Close(NamedTuple):
    """Some pairs of rows: `first` and `second` int64 (pairs,), `squares` of their distances float32 (pairs,)."""

    first: np.ndarray
    second: np.ndarray
    squares: np.ndarray


# Told rows, int64 (p,) and (p,), which of these pairs matter: bool (p,). What does not matter need not be computed.
Wanted = Callable[[np.ndarray, np.ndarray], np.ndarray]


class Directed:
    """Features as directions: the rows of `features`, float32 (n, d), divided by their length wherever they are used.

    A copy of all of them would be as large as the features, the largest thing in memory.
    """

    def __init__(self, features: np.ndarray) -> None:
        self._features = features
        squares = [np.einsum("nd,nd->n", part, part) for part in _parts(features)]
        lengths = np.sqrt(np.concatenate(squares)) if squares else np.empty(0, np.float32)
        self._scale = (1 / np.maximum(lengths, 1e-12)).astype(np.float32)

    def __len__(self) -> int:
        return len(self._features)

    def rows(self, which: np.ndarray | slice) -> np.ndarray:
        """Return rows, each of length 1: float32 (k, d)."""
        return np.asarray(self._features[which] * self._scale[which, None])

    def squares(self, first: np.ndarray, second: np.ndarray) -> np.ndarray:
        """Return the squared distances of pairs, float32 (pairs,): 2 - 2 cos."""
        found = np.empty(len(first), np.float32)
        for at in range(0, len(first), _BLOCK):
            part = slice(at, at + _BLOCK)
            one, other = first[part], second[part]
            products = np.einsum("nd,nd->n", self._features[one], self._features[other])
            found[part] = 2 - 2 * (products * self._scale[one] * self._scale[other])
        return found

    def table(self, first: np.ndarray, second: np.ndarray) -> np.ndarray:
        """Return the squared distances of all rows `first` from all rows `second`, float32 (a, b)."""
        return np.asarray(2 - 2 * self.rows(first) @ self.rows(second).T)

    def shortened(self) -> np.ndarray:
        """Return the rows along the few directions in which they vary most, float32 (n, at most 64)."""
        basis = self._main_directions()
        short = np.empty((len(self), basis.shape[1]), np.float32)
        for at in range(0, len(self), _BLOCK):
            short[at : at + _BLOCK] = self.rows(slice(at, at + _BLOCK)) @ basis
        return short

    def _main_directions(self) -> np.ndarray:
        """An orthonormal basis, (d, at most 64), of the directions of largest spread: rounds of subspace iteration."""
        sample = self.rows(slice(None, None, max(1, len(self) // 5000)))
        centred = sample - sample.mean(axis=0)
        size = sample.shape[1]
        guess = np.random.default_rng(0).standard_normal((size, min(_DIRECTIONS, size)), np.float32)
        for _ in range(2):
            guess, _ = np.linalg.qr(centred.T @ (centred @ guess))
        return guess.astype(np.float32)


class Forest:
    """What is connected so far: a union-find over `count` rows, and links that alone would connect the same rows."""

    def __init__(self, count: int) -> None:
        self._component = np.arange(count)
        self._links = [np.empty((0, 2), np.int64)]
        self._waiting: list[np.ndarray] = []
        self._waiting_count = 0

    def apart(self, first: np.ndarray, second: np.ndarray) -> np.ndarray:
        """Return which pairs are not known to be connected: bool (pairs,). Some that wait to be connected are among them."""
        return np.asarray(self._component[first] != self._component[second])

    def connect(self, first: np.ndarray, second: np.ndarray) -> None:
        """Take in pairs: int64 (pairs,) each."""
        rows, numbers = np.unique(np.concatenate([first, second]), return_inverse=True)
        joining = _spanning(np.arange(len(rows)), numbers[: len(first)], numbers[len(first) :])
        self._waiting.append(np.stack([first[joining], second[joining]], axis=1))
        self._waiting_count += len(joining)
        # Connecting takes time for all rows, so it is not done for every few pairs.
        if self._waiting_count >= len(self._component) // 8:
            self._settle()

    def links(self) -> np.ndarray:
        """Return the links, int64 (at most n - 1, 2), the lower row first, sorted."""
        self._settle()
        links = np.sort(np.concatenate(self._links), axis=1)
        return links[np.lexsort((links[:, 1], links[:, 0]))]

    def components(self) -> np.ndarray:
        """Return the component of each row: int64 (n,), the lowest row in it."""
        self._settle()
        return self._component

    def _settle(self) -> None:
        if self._waiting:
            pairs = np.concatenate(self._waiting)
            self._links.append(pairs[_spanning(self._component, pairs[:, 0], pairs[:, 1])])
            self._waiting, self._waiting_count = [], 0


def _spanning(component: np.ndarray, first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Connect pairs in `component`, int64 (n,), in place; returns the indices of the pairs that it took, int64.

    All at once, as on parallel machines: each root that has a lower neighbour hangs itself below the lowest, then all
    paths are shortened. After Shiloach and Vishkin, "An O(log n) parallel connectivity algorithm" (1982).
    """
    taken = [np.empty(0, np.int64)]
    left = np.arange(len(first))
    while True:
        one, other = component[first[left]], component[second[left]]
        apart = one != other
        if not apart.any():
            return np.concatenate(taken)
        left = left[apart]
        lower, upper = np.minimum(one[apart], other[apart]), np.maximum(one[apart], other[apart])
        np.minimum.at(component, upper, lower)
        won = np.flatnonzero(component[upper] == lower)
        taken.append(left[won[np.unique(upper[won], return_index=True)[1]]])
        while not np.array_equal(shorter := component[component], component):
            component[:] = shorter


def close_pairs(directed: Directed, far: float, wanted: Wanted) -> Iterator[Close]:
    """Yield the wanted pairs of rows whose squared distance is at most `far`, first below second, block after block.

    Up to EXACT rows, each pair once, and none is missed. Beyond, all pairs within each leaf of TREES random-projection
    trees: a pair may come more than once, and one that no leaf holds is missed. Memory besides the features: O(n).

    Measured: the share of connected components, of at least two rows, that 32 trees found exactly as all pairs do. 1.0 on
    1,040 drawings and on 4,451 sprites; on mixes of the features of two of them from one class, which crowd far more than
    pictures do, 1.0 for 30,000 of sprites, 0.9998 for 100,000 of sprites, 1.0 for 100,000 of drawings; 1.0 on made-up
    features (benchmarks/check_scale.py). 16 trees found 0.99 where 32 found 0.9998.
    """
    if len(directed) < 2:
        return
    short = directed.shortened()
    squares = np.einsum("nd,nd->n", short, short)
    for rows, columns in _blocks(short):
        # Along fewer directions distances are shorter or equal: what is far there needs no closer look.
        distances = short[rows] @ (-2 * short[columns].T)
        distances += squares[rows, None]
        first, second = np.divmod(np.flatnonzero(distances <= far + _SLACK - squares[columns]), len(columns))
        if rows is columns:
            first, second = first[first < second], second[first < second]
        matter = wanted(rows[first], columns[second])
        first, second = first[matter], second[matter]
        if not len(first):
            continue
        if len(first) > _MANY * distances.size:
            exact = directed.table(rows, columns)[first, second]
        else:
            exact = directed.squares(rows[first], columns[second])
        close = exact <= far
        yield Close(rows[first[close]], columns[second[close]], exact[close])


def _blocks(short: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Which rows to compare with which, each int64, both sorted: the same object twice for a block with itself."""
    count = len(short)
    if count > EXACT:
        for seed in range(TREES):
            yield from ((leaf, leaf) for leaf in _leaves(short, np.random.default_rng(seed)))
        return
    parts = [np.arange(at, min(at + _BLOCK, count)) for at in range(0, count, _BLOCK)]
    for number, rows in enumerate(parts):
        yield from ((rows, columns) for columns in parts[number:])


def _leaves(short: np.ndarray, rng: np.random.Generator) -> Iterator[np.ndarray]:
    """Halve the rows at the median along a random direction, and the halves likewise, down to leaves: sorted, int64.

    Sanjoy Dasgupta, Yoav Freund, "Random projection trees and low dimensional manifolds" (2008): such cells shrink as
    fast as the data have dimensions, not the space they lie in. Directions are sums of rows with random weights, which
    favours those in which the rows spread: there a cut parts fewer near pairs. The rows start in random order, so that
    rows that are equal are cut apart elsewhere in each tree.
    """
    todo = [rng.permutation(len(short))]
    while todo:
        rows = todo.pop()
        if len(rows) <= _LEAF:
            yield np.sort(rows)
            continue
        here = short[rows]
        sample = here[:: len(here) // _SAMPLE + 1]
        along = here @ (rng.standard_normal(len(sample), np.float32) @ (sample - sample.mean(axis=0)))
        middle = len(rows) // 2
        order = np.argpartition(along, middle)
        todo += [rows[order[:middle]], rows[order[middle:]]]


def _parts(features: np.ndarray) -> Iterator[np.ndarray]:
    return (features[at : at + _BLOCK] for at in range(0, len(features), _BLOCK))
