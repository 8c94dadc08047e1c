"""Near-duplicates: pairs of pictures whose features point the same way."""

import numpy as np

from retrain.dataset.neighbours import Directed, Forest, close_pairs

# Looked at, pair by pair, on drawings and on sprites: above it are recolourings, other sizes and neighbouring frames
# of an animation; from 0.93 down, different things of one kind start to mix in.
COSINE = 0.97
# Where all pictures are alike to the network (microscope slides, say), that cosine means nothing. Duplicates must also
# be this much closer than two pictures of one class usually are.
OF_USUAL_DISTANCE = 1 / 3


def near_duplicates(features: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Return links between rows, int64 of shape (at most n - 1, 2), first below second, sorted.

    `features`: float32 of shape (n, d); `labels`: int64 (n,). Each link is a pair that is nearly the same picture, and all
    that such pairs connect is connected by links: a spanning forest of the pairs, of which there may be n**2 / 2. There are
    as many links as pictures would have to go until no two that are left are connected.

    Time grows little faster than n, memory besides the features with a small part of theirs. Up to 20,000 rows no pair is
    missed; beyond, of all that was measured, at least 0.9998 of the groups came out the same: see `close_pairs`.
    """
    directed = Directed(features)
    forest = Forest(len(directed))
    for pairs in close_pairs(directed, far(directed, labels), forest.apart):
        forest.connect(pairs.first, pairs.second)
    return forest.links()


def far(directed: Directed, labels: np.ndarray) -> float:
    """Return the largest squared distance of near-duplicates. `labels`: int64 (n,)."""
    # The squared distance of two unit vectors is 2 - 2 cos.
    return min(2 - 2 * COSINE, OF_USUAL_DISTANCE**2 * _usual_square(directed, labels))


def _usual_square(directed: Directed, labels: np.ndarray) -> float:
    """The median squared distance of two pictures of one class, from one random pair a picture."""
    rng = np.random.default_rng(0)
    squares = []
    for label in np.unique(labels):
        rows = np.flatnonzero(labels == label)
        others = rng.permutation(rows)
        distinct = rows != others
        squares.append(directed.squares(rows[distinct], others[distinct]))
    together = np.concatenate(squares) if squares else np.empty(0)
    return float(np.median(together)) if len(together) else 0.0
