"""Scores that mean what they say: of all pictures labelled with 0.8, eight in ten should be right."""

from dataclasses import dataclass

import numpy as np

BINS = 15


@dataclass(frozen=True)
class Bin:
    """Pictures whose highest score lies in (`low`, `high`]: how many, the mean of that score, the share that is right."""

    low: float
    high: float
    count: int
    score: float
    correct: float


def reliability(scores: np.ndarray, truth: np.ndarray, bins: int = BINS) -> tuple[Bin, ...]:
    """Return the bins of equal width that hold pictures, by their highest score. Arguments as those of `log_loss`."""
    highest, right = scores.max(axis=1), scores.argmax(axis=1) == truth
    number = np.clip(np.ceil(highest * bins).astype(np.int64) - 1, 0, bins - 1)
    return tuple(
        Bin(at / bins, (at + 1) / bins, int(rows.sum()), float(highest[rows].mean()), float(right[rows].mean()))
        for at in range(bins)
        if (rows := number == at).any()
    )


def expected_error(scores: np.ndarray, truth: np.ndarray, bins: int = BINS) -> float:
    """Return the expected calibration error: the mean difference, over pictures, of score and share right in their bin.

    M. Naeini, G. Cooper, M. Hauskrecht, "Obtaining Well Calibrated Probabilities Using Bayesian Binning", AAAI 2015.
    Arguments as those of `log_loss`. With few pictures it is above 0 even for scores that mean what they say.
    """
    return sum(row.count * abs(row.score - row.correct) for row in reliability(scores, truth, bins)) / len(truth)
