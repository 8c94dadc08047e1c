"""Logits into scores."""

import numpy as np


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
