"""Pictures that are unlike all others of their class."""

from collections.abc import Sequence

import numpy as np

from retrain.checks.findings import Finding

_NEIGHBOURS = 3
_REFERENCE = 2000  # pictures of a class that others are compared with, so that time grows with their number only
_LEAST = 20  # pictures, for it to be known what is usual in a class
_FAR = 4.0  # deviations above the usual distance
_BLOCK = 2048


def outliers(features: np.ndarray, classes: np.ndarray, names: Sequence[str], paths: Sequence[str]) -> list[Finding]:
    """Return a finding for each picture whose nearest neighbours of its class are unusually far away.

    `features`: float32 (n, d); `classes`: int64 (n,), indices into `names`; `paths`: of the rows. Unusual is a distance
    (1 - cosine, mean over the nearest 3) that lies 4 deviations above the median of the class; the deviation is the
    median absolute one, scaled to that of a normal distribution.
    """
    found = []
    for label in np.unique(classes):
        rows = np.flatnonzero(classes == label)
        if len(rows) < _LEAST:
            continue
        distances = _to_neighbours(features[rows])
        usual = float(np.median(distances))
        deviation = 1.4826 * float(np.median(np.abs(distances - usual)))
        for row in np.flatnonzero(distances > usual + _FAR * max(deviation, 1e-6)):
            detail = f"distance {distances[row]:.2f} to its nearest, usual in '{names[label]}' is {usual:.2f}"
            score = float(1 - usual / distances[row])
            found.append(Finding("outlier", detail, (paths[rows[row]],), (names[label],), score))
    return sorted(found, key=lambda finding: -finding.score)


def _to_neighbours(features: np.ndarray) -> np.ndarray:
    """Return the mean distance of each row to its nearest rows, float32 (n,)."""
    unit = features / np.maximum(np.linalg.norm(features, axis=1, keepdims=True), 1e-12)
    chosen = np.sort(np.random.default_rng(0).permutation(len(unit))[:_REFERENCE])
    distances = np.empty(len(unit), np.float32)
    for top in range(0, len(unit), _BLOCK):
        cosines = unit[top : top + _BLOCK] @ unit[chosen].T
        own = np.searchsorted(chosen, np.arange(top, min(top + _BLOCK, len(unit))))
        own = np.minimum(own, len(chosen) - 1)
        at = np.flatnonzero(chosen[own] == np.arange(top, top + len(cosines)))
        cosines[at, own[at]] = -np.inf  # not its own neighbour
        nearest = np.partition(cosines, -_NEIGHBOURS, axis=1)[:, -_NEIGHBOURS:]
        distances[top : top + _BLOCK] = 1 - nearest.mean(axis=1)
    return distances
