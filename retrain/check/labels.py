"""Labels that are probably wrong, by confident learning: models that never saw a picture agree on another class."""

from typing import NamedTuple

import numpy as np

from retrain.check.findings import Finding

# Of the suggested label's probability above that of the given one. Chosen on game sprites and clip art with 5 % of the
# labels swapped: of what is suggested 94 and 43 % had been swapped, of what had been swapped 90 and 51 % are suggested.
_SURE = 0.5
_SURE_IF_CONFIDENT = 0.4


class Suggestion(NamedTuple):
    """Row `row` is probably of class `label` (an index). `margin`: 0 to 1, its probability above the given label's."""

    row: int
    label: int
    margin: float


def suggestions(probabilities: np.ndarray, labels: np.ndarray) -> list[Suggestion]:
    """Return the rows whose label is probably wrong, the surest first.

    `probabilities`: float (n, classes), of models that have not learnt from the row; `labels`: int64 (n,).

    A class is confidently predicted where its probability reaches the mean that it has among its own pictures, so that a
    class that models are seldom sure of counts as much as one that is easy. C. Northcutt, L. Jiang, I. Chuang, "Confident
    Learning: Estimating Uncertainty in Dataset Labels" (2021), off the diagonal of the confident joint, ranked by margin. A
    large margin counts by itself too: with wrong labels among what they learn from, models reach that mean less often.
    """
    classes = probabilities.shape[1]
    counts = np.bincount(labels, minlength=classes)
    own = probabilities[np.arange(len(labels)), labels]
    # A class of no picture is never predicted with confidence.
    usual = np.where(counts > 0, np.bincount(labels, own, classes) / np.maximum(counts, 1), np.inf)
    best = probabilities.argmax(axis=1)
    margins = probabilities[np.arange(len(labels)), best] - own
    confident = probabilities[np.arange(len(labels)), best] >= usual[best]
    found = np.flatnonzero((best != labels) & (margins >= np.where(confident, _SURE_IF_CONFIDENT, _SURE)))
    rows = found[np.argsort(-margins[found], kind="stable")]
    return [Suggestion(int(row), int(best[row]), float(margins[row])) for row in rows]


def softmax(logits: np.ndarray) -> np.ndarray:
    """Return float64 probabilities (n, classes) of logits of that shape."""
    shifted = np.exp(logits.astype(np.float64) - logits.max(axis=1, keepdims=True))
    return shifted / shifted.sum(axis=1, keepdims=True)


def mislabelled(
    probabilities: np.ndarray, labels: np.ndarray, names: tuple[str, ...], paths: tuple[str, ...]
) -> list[Finding]:
    """Return a finding for each suggestion. `names`: of the classes; `paths`: of the rows; otherwise as `suggestions`."""
    found = []
    for row, label, margin in suggestions(probabilities, labels):
        given = labels[row]
        shown = [f"'{names[of]}' {probabilities[row, of]:.2f}" for of in (label, given)]
        found.append(Finding("mislabelled", ", ".join(shown), (paths[row],), (names[given],), margin, names[label]))
    return found
