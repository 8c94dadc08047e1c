"""What a backbone sees of the pictures: the features of each, as it is and in other views."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from retrain.views import PLAIN, SEVERAL


@dataclass(frozen=True)
class Seen:
    """The pictures under one backbone, row by row.

    `features`: float32 (n, feature_size); `augmented`: (n, 1 + N, feature_size), the picture and its distorted views, of the
    rows that are learnt from; `views`: (n, 1 + K, feature_size), the picture and its views for test-time augmentation. Both
    are None where they were not asked for. `milliseconds`: what the features of a picture take.
    """

    backbone: str
    features: np.ndarray
    augmented: np.ndarray | None = None
    views: np.ndarray | None = None
    milliseconds: float = 0.0

    def to_learn(self, rows: np.ndarray) -> np.ndarray:
        """Return what a head learns from: (m, feature_size), or with views (m, 1 + N, feature_size)."""
        return self.features[rows] if self.augmented is None else self.augmented[rows]

    def looks(self, rows: np.ndarray, way: str) -> np.ndarray:
        """Return the features of rows, looked at one way: float32 (m, 1 or 1 + K, feature_size)."""
        return self.features[rows, np.newaxis] if way == PLAIN or self.views is None else self.views[rows]


def ways(seen: Sequence[Seen]) -> tuple[str, ...]:
    """Return the ways in which all of them can be looked at."""
    return (PLAIN,) if any(one.views is None for one in seen) else (PLAIN, SEVERAL)
