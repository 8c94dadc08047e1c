"""How good a model is, from what it said of pictures whose labels are known: everything that a report of it shows."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from retrain.evaluation.calibration import Bin, expected_error, reliability
from retrain.evaluation.metrics import Accuracy, accuracy
from retrain.scores import log_loss

TOP_K = (2, 3, 5)


@dataclass(frozen=True)
class OfClass:
    """One class. `support`: pictures that show it; `predicted`: pictures that were said to.

    `precision` and `recall` are None where nothing can be said: no picture was said to show it, or none does. `f1` is
    None where none does, and else 0 where no picture of it was found.
    """

    label: str
    support: int
    predicted: int
    correct: int
    precision: float | None
    recall: float | None
    f1: float | None


@dataclass(frozen=True)
class Pair:
    """Pictures of one class, `label`, that were taken for another: `count` of them, a `share` of the class."""

    label: str
    predicted: str
    count: int
    share: float


@dataclass(frozen=True)
class Figures:
    """What was measured. Shares lie in [0, 1].

    `top_k`: the share of pictures whose label is among the k highest scores, for each k that is below the number of classes;
    `macro_f1`: mean F1 over the classes of which there is a picture; `log_loss`: mean cross-entropy, in nats;
    `calibration_error`: expected calibration error over 15 bins, `uncalibrated_error` the same at a temperature of 1;
    `confusion`: int64 (classes, classes), pictures by true (row) and predicted (column) class; `pairs`: most confused first.
    """

    accuracy: Accuracy
    top_k: tuple[tuple[int, float], ...]
    macro_f1: float
    log_loss: float
    calibration_error: float
    uncalibrated_error: float | None
    bins: tuple[Bin, ...]
    classes: tuple[OfClass, ...]
    confusion: np.ndarray
    pairs: tuple[Pair, ...]
    by_source: dict[str, Accuracy]


def measure(
    scores: np.ndarray,
    truth: np.ndarray,
    labels: Sequence[str],
    sources: Sequence[str] = (),
    uncalibrated: np.ndarray | None = None,
) -> Figures:
    """Measure predictions.

    `scores`: float64 (n, classes), each row adds up to 1, n at least 1; `truth`: int64 (n,), indices into `labels`;
    `sources`: the source of each picture, empty for none; `uncalibrated`: scores before calibration.
    """
    predicted = scores.argmax(axis=1)
    confusion = np.zeros((len(labels), len(labels)), np.int64)
    np.add.at(confusion, (truth, predicted), 1)
    classes = tuple(_of_class(label, index, confusion) for index, label in enumerate(labels))
    own = scores[np.arange(len(truth)), truth]
    # What scores as high as the label counts against it, unless it comes later in the order, as in argmax.
    earlier = np.arange(len(labels)) < truth[:, None]
    rank = ((scores > own[:, None]) | ((scores == own[:, None]) & earlier)).sum(axis=1)
    names = np.array(list(sources) or [""] * len(truth))
    return Figures(
        accuracy=accuracy(predicted, truth),
        top_k=tuple((k, float((rank < k).mean())) for k in TOP_K if k < len(labels)),
        macro_f1=float(np.mean([row.f1 for row in classes if row.f1 is not None])),
        log_loss=log_loss(scores, truth),
        calibration_error=expected_error(scores, truth),
        uncalibrated_error=None if uncalibrated is None else expected_error(uncalibrated, truth),
        bins=reliability(scores, truth),
        classes=classes,
        confusion=confusion,
        pairs=_pairs(confusion, labels),
        by_source={
            str(source): accuracy(predicted[names == source], truth[names == source])
            for source in np.unique(names)
            if source
        },
    )


def _of_class(label: str, index: int, confusion: np.ndarray) -> OfClass:
    support, predicted = int(confusion[index].sum()), int(confusion[:, index].sum())
    correct = int(confusion[index, index])
    return OfClass(
        label, support, predicted, correct,
        precision=correct / predicted if predicted else None,
        recall=correct / support if support else None,
        f1=2 * correct / (support + predicted) if support else None,
    )  # fmt: skip


def _pairs(confusion: np.ndarray, labels: Sequence[str]) -> tuple[Pair, ...]:
    support = confusion.sum(axis=1)
    wrong = confusion - np.diag(np.diag(confusion))
    found = [
        Pair(labels[row], labels[column], int(wrong[row, column]), float(wrong[row, column] / support[row]))
        for row, column in np.argwhere(wrong)
    ]
    return tuple(sorted(found, key=lambda pair: (-pair.count, -pair.share, pair.label, pair.predicted)))
