"""Near-duplicates: pairs of pictures whose features point the same way."""

import numpy as np

# Looked at, pair by pair, on drawings and on sprites: above it are recolourings, other sizes and neighbouring frames
# of an animation; from 0.93 down, different things of one kind start to mix in.
COSINE = 0.97
# Where all pictures are alike to the network (microscope slides, say), that cosine means nothing. Duplicates must also
# be this much closer than two pictures of one class usually are.
OF_USUAL_DISTANCE = 1 / 3
_DIRECTIONS = 64
_BLOCK = 2048


def near_duplicates(features: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Return pairs of rows, int64 of shape (pairs, 2), first below second, that are nearly the same picture.

    `features`: float32 of shape (n, d); `labels`: int64 (n,). Compares in the few directions in which the features vary
    most, where distances can only be shorter, and checks what is left in full: no pair is missed, and up to some
    100,000 pictures time stays a small fraction of what it took to compute the features. Memory: O(n).
    """
    if len(features) < 2:
        return np.empty((0, 2), np.int64)
    unit = features / np.maximum(np.linalg.norm(features, axis=1, keepdims=True), 1e-12)
    short = unit @ _main_directions(unit)
    squares = np.einsum("nd,nd->n", short, short)
    # The squared distance of two unit vectors is 2 - 2 cos.
    far = min(2 - 2 * COSINE, OF_USUAL_DISTANCE**2 * _usual_square(unit, labels))
    pairs = []
    for top in range(0, len(unit), _BLOCK):
        rows = slice(top, top + _BLOCK)
        for left in range(top, len(unit), _BLOCK):
            columns = slice(left, left + _BLOCK)
            distances = squares[rows, None] + squares[None, columns] - 2 * (short[rows] @ short[columns].T)
            first, second = np.nonzero(distances <= far + 1e-5)
            first, second = first + top, second + left
            first, second = first[first < second], second[first < second]
            pairs.append(_really_close(unit, first, second, far))
    return np.concatenate(pairs) if pairs else np.empty((0, 2), np.int64)


def _really_close(unit: np.ndarray, first: np.ndarray, second: np.ndarray, far: float) -> np.ndarray:
    keep = [
        2 - 2 * np.einsum("nd,nd->n", unit[first[at : at + _BLOCK]], unit[second[at : at + _BLOCK]]) <= far
        for at in range(0, len(first), _BLOCK)
    ]
    mask = np.concatenate(keep) if keep else np.empty(0, bool)
    return np.stack([first[mask], second[mask]], axis=1).astype(np.int64)


def _main_directions(unit: np.ndarray) -> np.ndarray:
    """An orthonormal basis, (d, at most 64), of the directions of largest spread: one round of subspace iteration."""
    sample = unit[:: max(1, len(unit) // 5000)]
    centred = sample - sample.mean(axis=0)
    guess = np.random.default_rng(0).standard_normal((unit.shape[1], min(_DIRECTIONS, unit.shape[1])), np.float32)
    for _ in range(2):
        guess, _ = np.linalg.qr(centred.T @ (centred @ guess))
    return guess.astype(unit.dtype)


def _usual_square(unit: np.ndarray, labels: np.ndarray) -> float:
    """The median squared distance of two pictures of one class, from one random pair a picture."""
    rng = np.random.default_rng(0)
    squares = []
    for label in np.unique(labels):
        rows = np.flatnonzero(labels == label)
        others = rng.permutation(rows)
        distinct = rows != others
        squares.append(2 - 2 * np.einsum("nd,nd->n", unit[rows[distinct]], unit[others[distinct]]))
    together = np.concatenate(squares) if squares else np.empty(0)
    return float(np.median(together)) if len(together) else 0.0
