"""The training pictures that are nearest to a picture, and whether it is like any of them. No TensorFlow.

A picture may be unlike all that a model has learnt from, and still get a high score for one of its classes, since the scores
add up to 1 whatever is shown. Two figures tell such pictures apart, and each finds what the other misses:

distance   1 - cosine of the features to the nearest training picture: finds what lies far from everything
evidence   the logarithm of the sum of the exponentials of the logits: finds what lies near, but looks like no class
           (W. Liu, X. Wang, J. Owens, Y. Li, "Energy-based Out-of-distribution Detection", NeurIPS 2020)

Both are compared with those of pictures of the known classes that were not learnt from (`Reference.held_out`): the share of
these that are at least as far, and of those with as little evidence, are multiplied (R. A. Fisher's way of combining
tests), and the share of them whose product is as small is the picture's *typicality*. Of pictures drawn as those of the
reference were, a share r has a typicality of r or less, whatever the features are like (V. Vovk, A. Gammerman, G. Shafer,
"Algorithmic Learning in a Random World", 2005: a conformal p-value), so a threshold on it is a rate of false alarms.
"""

from collections.abc import Collection
from typing import NamedTuple

import numpy as np

from retrain.artifact import Reference
from retrain.scores import log_sum_exp

_BLOCK = 1024  # rows compared at a time


class Neighbour(NamedTuple):
    """A training picture, by the sha256 of its file in hex; `similarity`: cosine of the features, at most 1."""

    label: int
    similarity: float
    sha256: str


class Nearest:
    """The reference of a model, ready to be compared with. Never written to, so threads may share it."""

    def __init__(self, reference: Reference) -> None:
        """Prepare a reference."""
        self._unit = _unit(reference.features.astype(np.float32))
        self._labels, self._hashes = reference.labels, reference.hashes
        distances, evidence = reference.held_out.astype(np.float64).T
        self._distances, self._evidence = np.sort(distances), np.sort(evidence)
        self._products = np.sort(self._product(distances, evidence, itself=True))

    def can_tell(self, rate: float = 1.0) -> bool:
        """Whether there are pictures enough to compare with for a picture to be called unknown at a rate of false alarms."""
        return len(self._products) > 0 and 1 / (len(self._products) + 1) <= rate

    def typicality(self, features: np.ndarray, logits: np.ndarray) -> np.ndarray:
        """Return how usual pictures are among those of the known classes, float64 (n,), above 0 and at most 1.

        `features`: float32 (n, feature_size), of the first member; `logits`: float (n, classes), its own, not divided by
        the temperature.
        """
        distances = np.empty(len(features))
        for at in range(0, len(features), _BLOCK):
            block = features[at : at + _BLOCK]
            distances[at : at + _BLOCK] = 1 - (_unit(block) @ self._unit.T).max(axis=1)
        products = self._product(distances, log_sum_exp(logits), itself=False)
        return (1 + np.searchsorted(self._products, products, side="right")) / (len(self._products) + 1)

    def neighbours(self, features: np.ndarray, count: int, without: Collection[str] = ()) -> list[Neighbour]:
        """Return the training pictures nearest to one picture, nearest first; of equal files one.

        `features`: float32 (feature_size,); `without`: the sha256 of pictures that do not count, in hex.
        """
        similarities = self._unit @ _unit(features[np.newaxis])[0]
        found: list[Neighbour] = []
        passed = set(without)
        for row in np.argsort(-similarities, kind="stable"):
            if len(found) == count:
                break
            sha256 = self._hashes[row].tobytes().hex()
            if sha256 not in passed:
                passed.add(sha256)
                found.append(Neighbour(int(self._labels[row]), float(min(similarities[row], 1)), sha256))
        return found

    def _product(self, distances: np.ndarray, evidence: np.ndarray, itself: bool) -> np.ndarray:
        """Logarithm of the product of both shares. `itself`: the pictures are among those that they are compared with."""
        count = len(self._distances)
        as_far = count - np.searchsorted(self._distances, distances, side="left") + (not itself)
        as_little = np.searchsorted(self._evidence, evidence, side="right") + (not itself)
        product: np.ndarray = np.log(as_far / (count + 1)) + np.log(as_little / (count + 1))
        return product


def held_out(features: np.ndarray, units: np.ndarray, logits: np.ndarray) -> np.ndarray:
    """Return distance and evidence of the pictures of a reference, as of new ones: what later pictures are compared with.

    `features`: float (n, d); `units`: int64 (n,); a picture's distance is that to the nearest of another unit, since frames
    of its own scene would flatter. `logits`: float (n, classes), of heads that have not learnt from the picture. Returns
    float32 (n, 2); pictures for which there is no other unit, or no such head (NaN), are left out.
    """
    unit, found = _unit(features.astype(np.float32)), []
    for at in range(0, len(features), _BLOCK):
        rows = slice(at, at + _BLOCK)
        cosines = unit[rows] @ unit.T
        cosines[units[rows, None] == units] = -np.inf
        found.append(np.stack([1 - cosines.max(axis=1), log_sum_exp(logits[rows])], axis=1))
    both = np.concatenate(found)
    return both[np.isfinite(both).all(axis=1)].astype(np.float32)


def _unit(features: np.ndarray) -> np.ndarray:
    length = np.linalg.norm(features, axis=1, keepdims=True)
    return features / np.maximum(length, np.finfo(np.float32).tiny)
