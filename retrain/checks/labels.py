"""Labels that are probably wrong: what models say that never saw the picture, weighed against how often labels are wrong."""

from typing import NamedTuple

import numpy as np

from retrain.checks.findings import Finding
from retrain.scores import softmax

_LIKELY = 0.5  # chance that a label is wrong, from which on it is named
# What is assumed before the labels are looked at: about 3 % are wrong, the mean of ten well-known sets (C. Northcutt, A.
# Athalye, J. Mueller, "Pervasive Label Errors in Test Sets", 2021), give or take a factor of 2.7; and models are about as
# sure as they may be, give or take a factor of 1.6. With a few hundred pictures it matters, with thousands hardly.
_USUAL_RATE, _RATE_SPREAD, _TEMPERATURE_SPREAD = 0.03, 1.0, 0.5
_RATES = np.geomspace(0.001, 0.5, 40)
_TEMPERATURES = np.geomspace(0.2, 4, 31)
_NEGLIGIBLE = 1e-6  # weight of a pair of the two


class Suggestion(NamedTuple):
    """The label of row `row` is wrong with this `chance`, 0 to 1; if so, `label` (an index) is the likeliest."""

    row: int
    label: int
    chance: float


def suggestions(logits: np.ndarray, labels: np.ndarray) -> list[Suggestion]:
    """Return the rows whose label is wrong more likely than not, the surest first.

    `logits`: float (n, classes), of models that have not learnt from the row; `labels`: int64 (n,).
    """
    if len(labels) == 0 or logits.shape[1] < 2:
        return []
    chances = chances_wrong(logits, labels)
    others = logits.copy()
    others[np.arange(len(labels)), labels] = -np.inf
    found = np.flatnonzero(chances > _LIKELY)
    rows = found[np.argsort(-chances[found], kind="stable")]
    return [Suggestion(int(row), int(others[row].argmax()), float(chances[row])) for row in rows]


def chances_wrong(logits: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Return the chance that each label is wrong, float64 (n,); arguments as those of `suggestions`.

    By Bayes' rule: with p the probability that models give the label, and a share r of all labels replaced by another
    class, each as likely, a label is wrong with r (1 - p) / (k - 1) against right with (1 - r) p. What r is, and what
    temperature makes p mean what it says, follows from all labels together: the chance is the mean over both, each pair
    weighted by how likely it makes the labels. So models that are often sure and wrong, on labels that are right, say
    little against a label. After N. Lawrence, B. Schölkopf, "Estimating a Kernel Fisher Discriminant in the Presence of
    Label Noise" (2001); out-of-fold, as in confident learning (C. Northcutt, L. Jiang, I. Chuang, 2021), whose rule finds
    fewer of the wrong labels and names more of the right ones: see benchmarks/wrong_labels.py.
    """
    given = np.arange(len(labels)), labels
    owns = [softmax(logits, temperature)[given] for temperature in _TEMPERATURES]
    others = logits.shape[1] - 1
    weights = np.array([[_log_weight(own, others, rate) for rate in _RATES] for own in owns])
    weights -= (np.log(_RATES / _USUAL_RATE) / _RATE_SPREAD) ** 2 / 2
    weights -= (np.log(_TEMPERATURES[:, None]) / _TEMPERATURE_SPREAD) ** 2 / 2
    weights = np.exp(weights - weights.max())
    weights /= weights.sum()
    chances = np.zeros(len(labels))
    for heat, at in np.argwhere(weights > _NEGLIGIBLE):
        wrong, right = _joint(owns[heat], others, _RATES[at])
        chances += weights[heat, at] * wrong / (wrong + right)
    return chances


def _log_weight(own: np.ndarray, others: int, rate: float) -> float:
    wrong, right = _joint(own, others, rate)
    return float(np.log(wrong + right).sum())


def _joint(own: np.ndarray, others: int, rate: float) -> tuple[np.ndarray, np.ndarray]:
    """Probability of each given label, were it wrong, and were it right: float64 (n,) each; `own`: what models give it."""
    return rate * (1 - own) / others + 1e-300, (1 - rate) * own


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
