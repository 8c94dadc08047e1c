"""Labels that are probably wrong: what models say that never saw the picture, weighed against how often labels are wrong."""

from typing import NamedTuple

import numpy as np

from retrain.checks.findings import Finding

_LIKELY = 0.5  # chance that a label is wrong, from which on it is named
_RATES = np.concatenate([[0.0], np.geomspace(0.001, 0.5, 40)])  # share of wrong labels: what is tried
_TEMPERATURES = np.geomspace(0.2, 4, 31)


class Noise(NamedTuple):
    """The share of wrong labels that explains a set best, `rate`, and what logits are to be divided by, `temperature`."""

    rate: float
    temperature: float


class Suggestion(NamedTuple):
    """The label of row `row` is wrong with this `chance`, 0 to 1; if so, `label` (an index) is the likeliest."""

    row: int
    label: int
    chance: float


def suggestions(logits: np.ndarray, labels: np.ndarray) -> list[Suggestion]:
    """Return the rows whose label is wrong more likely than not, the surest first.

    `logits`: float (n, classes), of models that have not learnt from the row; `labels`: int64 (n,).

    By Bayes' rule: with p the probability that models give the label, and a share r of all labels replaced by another
    class, each as likely, a label is wrong with r (1 - p) / (k - 1) against right with (1 - r) p. Both r and the
    temperature that makes p mean what it says are those under which the given labels are most likely. So models that are
    often sure and wrong, on labels that are right, suggest little. After N. Lawrence, B. Schölkopf, "Estimating a Kernel
    Fisher Discriminant in the Presence of Label Noise" (2001); out-of-fold, as in confident learning (C. Northcutt, L.
    Jiang, I. Chuang, 2021), whose rule finds less of the wrong labels or names more of the right ones: see
    benchmarks/wrong_labels.py.
    """
    if len(labels) == 0 or logits.shape[1] < 2:
        return []
    noise = estimate_noise(logits, labels)
    probabilities = softmax(logits / noise.temperature)
    given = np.arange(len(labels)), labels
    own = probabilities[given]
    wrong = noise.rate * (1 - own) / (logits.shape[1] - 1)
    chances = wrong / np.maximum(wrong + (1 - noise.rate) * own, 1e-300)
    probabilities[given] = -1.0
    others = probabilities.argmax(axis=1)
    found = np.flatnonzero(chances > _LIKELY)
    rows = found[np.lexsort((own[found], -chances[found]))]
    return [Suggestion(int(row), int(others[row]), float(chances[row])) for row in rows]


def estimate_noise(logits: np.ndarray, labels: np.ndarray) -> Noise:
    """Return the share of wrong labels, and the temperature, under which the labels are most likely."""
    best, most = Noise(0.0, 1.0), -np.inf
    for temperature in _TEMPERATURES:
        own = softmax(logits / temperature)[np.arange(len(labels)), labels]
        for rate in _RATES:
            chance = (1 - rate) * own + rate * (1 - own) / (logits.shape[1] - 1)
            likely = float(np.log(np.maximum(chance, 1e-300)).mean())
            if likely > most:
                best, most = Noise(float(rate), float(temperature)), likely
    return best


def softmax(logits: np.ndarray) -> np.ndarray:
    """Return float64 probabilities (n, classes) of logits of that shape."""
    shifted = np.exp(logits.astype(np.float64) - logits.max(axis=1, keepdims=True))
    return shifted / shifted.sum(axis=1, keepdims=True)


def mislabelled(logits: np.ndarray, labels: np.ndarray, names: tuple[str, ...], paths: tuple[str, ...]) -> list[Finding]:
    """Return a finding for each suggestion. `names`: of the classes; `paths`: of the rows; otherwise as `suggestions`."""
    return [
        Finding(
            "mislabelled",
            f"wrong with a chance of {chance:.2f}; models that never saw it say '{names[label]}'",
            (paths[row],), (names[labels[row]],), chance, names[label],
        )
        for row, label, chance in suggestions(logits, labels)
    ]  # fmt: skip
