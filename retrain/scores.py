"""Logits into scores that mean what they say."""

from collections.abc import Callable

import numpy as np

COOLEST, HOTTEST = 0.1, 10.0
_SPREAD = 0.5  # of the logarithm of what is assumed: with a handful of pictures all right, nothing is certain for that
_MOST_ROWS = 20_000
_GOLDEN = (5**0.5 - 1) / 2
_ROUNDS = 40


def softmax(logits: np.ndarray, temperature: float = 1.0) -> np.ndarray:
    """Return the probabilities of logits divided by a temperature above 0: float64 of the same shape, (..., classes)."""
    cooled = logits.astype(np.float64) / temperature
    powers = np.exp(cooled - cooled.max(axis=-1, keepdims=True))
    probabilities: np.ndarray = powers / powers.sum(axis=-1, keepdims=True)
    return probabilities


def log_sum_exp(logits: np.ndarray) -> np.ndarray:
    """Return the logarithm of the sum of the exponentials of logits, float64 (n,), for logits of shape (n, classes)."""
    highest = logits.max(axis=1).astype(np.float64)
    total: np.ndarray = highest + np.log(np.exp(logits - highest[:, None]).sum(axis=1))
    return total


def cross_entropies(logits: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Return each row's loss in nats, float64 (n,). `logits`: (n, classes); `labels`: int64 (n,), the right columns."""
    losses: np.ndarray = log_sum_exp(logits) - logits[np.arange(len(labels)), labels]
    return losses


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
