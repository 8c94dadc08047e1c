"""Figures from predictions and labels."""

import math
from dataclasses import dataclass

import numpy as np

_Z_95 = 1.959963984540054  # normal quantile of 97.5 %


@dataclass(frozen=True)
class Accuracy:
    """A share of hits: `value` in [0, 1], its 95 % Wilson interval, and the counts behind it."""

    value: float
    interval: tuple[float, float]
    correct: int
    count: int


def accuracy(predicted: np.ndarray, labels: np.ndarray) -> Accuracy:
    """Return the accuracy of predictions; both int64 of shape (n,), n at least 1."""
    correct = int((predicted == labels).sum())
    return Accuracy(correct / len(labels), wilson_interval(correct, len(labels)), correct, len(labels))


def wilson_interval(correct: int, count: int, z: float = _Z_95) -> tuple[float, float]:
    """Return the Wilson score interval of a share, both ends in [0, 1].

    E. B. Wilson, "Probable Inference, the Law of Succession, and Statistical Inference", JASA 22 (1927). Honest for
    small counts and shares near 0 or 1, where the usual plus or minus is not. Raises ValueError for a count below 1.
    """
    if count < 1 or not 0 <= correct <= count:
        raise ValueError(f"no share: {correct} of {count}")
    share = correct / count
    middle = (share + z * z / (2 * count)) / (1 + z * z / count)
    half = z / (1 + z * z / count) * math.sqrt(share * (1 - share) / count + z * z / (4 * count * count))
    # Rounding must not leave the share outside of its own interval.
    return max(0.0, min(share, middle - half)), min(1.0, max(share, middle + half))
