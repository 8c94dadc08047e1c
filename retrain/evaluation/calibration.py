"""Scores that mean what they say: of all pictures labelled with 0.8, eight in ten should be right."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from retrain.scores import softmax

BINS = 15
COOLEST, HOTTEST = 0.1, 10.0
_SPREAD = 0.5  # of the logarithm of what is assumed: with a handful of pictures all right, nothing is certain for that
_MOST_ROWS = 20_000
_GOLDEN = (5**0.5 - 1) / 2
_ROUNDS = 40


@dataclass(frozen=True)
class Bin:
    """Pictures whose highest score lies in (`low`, `high`]: how many, the mean of that score, the share that is right."""

    low: float
    high: float
    count: int
    score: float
    correct: float


def log_loss(scores: np.ndarray, truth: np.ndarray) -> float:
    """Return the mean cross-entropy, in nats. `scores`: float (n, classes); `truth`: int64 (n,), the right columns."""
    own = scores[np.arange(len(truth)), truth]
    return float(-np.log(np.maximum(own, np.finfo(np.float64).tiny)).mean())


def fit_temperature(logits: np.ndarray, truth: np.ndarray) -> float:
    """Return the temperature that logits must be divided by for the least log loss, from 0.1 to 10.

    `logits`: float (n, classes), of pictures that the model did not learn from, or (n, ways, classes) where the
    probabilities of several ways to look at each are averaged; `truth`: int64 (n,), the right columns.
    C. Guo, G. Pleiss, Y. Sun, K. Weinberger, "On Calibration of Modern Neural Networks", ICML 2017. The temperature is
    taken to be 1 give or take a factor of 1.6 before anything is seen, which matters with a few dozen pictures only. Of
    more than 20,000 pictures so many are used.
    """
    if not len(truth):
        return 1.0
    rows = np.linspace(0, len(truth) - 1, min(len(truth), _MOST_ROWS)).astype(np.int64)
    chosen, right = logits[rows], truth[rows]

    def loss(log_temperature: float) -> float:
        scores = softmax(chosen, float(np.exp(log_temperature)))
        fit = log_loss(scores if scores.ndim == 2 else scores.mean(axis=1), right)
        return fit + (log_temperature / _SPREAD) ** 2 / 2 / len(truth)

    return float(np.exp(_least(loss, float(np.log(COOLEST)), float(np.log(HOTTEST)))))


def _least(loss: Callable[[float], float], low: float, high: float) -> float:
    """Return where a function with one valley is least, by golden-section search."""
    left, right = high - _GOLDEN * (high - low), low + _GOLDEN * (high - low)
    at_left, at_right = loss(left), loss(right)
    for _ in range(_ROUNDS):
        if at_left <= at_right:
            high, right, at_right = right, left, at_left
            left = high - _GOLDEN * (high - low)
            at_left = loss(left)
        else:
            low, left, at_left = left, right, at_right
            right = low + _GOLDEN * (high - low)
            at_right = loss(right)
    return (low + high) / 2


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
