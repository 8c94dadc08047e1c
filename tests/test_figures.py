"""Everything that is measured of a model, against scikit-learn and by hand."""

import numpy as np
import pytest

from retrain.evaluation.calibration import expected_error, reliability
from retrain.evaluation.figures import Figures, measure
from retrain.evaluation.metrics import accuracy
from retrain.scores import softmax

SEVEN = tuple("abcdefg")
THREE = ("ant", "bee", "cat")


def drawn(classes: int = 7, count: int = 300, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Scores that are right about half of the time, and labels, rare ones among them."""
    rng = np.random.default_rng(seed)
    truth = np.minimum(rng.geometric(0.35, count) - 1, classes - 1)
    logits = rng.normal(0, 1, (count, classes))
    logits[np.arange(count), truth] += 1.2
    return softmax(logits), truth


def said(truth: list[int], predicted: list[int], labels: tuple[str, ...] = THREE) -> Figures:
    return measure(np.eye(len(labels))[predicted] * 0.8 + 0.2 / len(labels), np.array(truth), labels)


def test_figures_are_those_of_scikit_learn() -> None:
    metrics = pytest.importorskip("sklearn.metrics")
    scores, truth = drawn()
    figures, predicted, every = measure(scores, truth, SEVEN), scores.argmax(axis=1), np.arange(7)
    assert np.array_equal(figures.confusion, metrics.confusion_matrix(truth, predicted, labels=every))
    assert figures.confusion.dtype == np.int64
    expected = metrics.precision_recall_fscore_support(truth, predicted, labels=every)
    for name, column in zip(("precision", "recall", "f1", "support"), expected, strict=True):
        assert [getattr(row, name) for row in figures.classes] == pytest.approx(column.tolist()), name
    assert figures.macro_f1 == pytest.approx(metrics.f1_score(truth, predicted, average="macro"))
    assert figures.accuracy.value == pytest.approx(metrics.accuracy_score(truth, predicted))
    assert figures.log_loss == pytest.approx(metrics.log_loss(truth, scores, labels=every))
    assert [k for k, _ in figures.top_k] == [2, 3, 5]
    for k, share in figures.top_k:
        assert share == pytest.approx(metrics.top_k_accuracy_score(truth, scores, k=k, labels=every)), k
    assert tuple(row.label for row in figures.classes) == SEVEN


@pytest.mark.parametrize(("classes", "shown"), [(2, []), (3, [2]), (4, [2, 3]), (5, [2, 3]), (6, [2, 3, 5])])
def test_among_the_top_k_is_told_only_where_there_are_more_classes(classes: int, shown: list[int]) -> None:
    scores, truth = drawn(classes)
    assert [k for k, _ in measure(scores, truth, SEVEN[:classes]).top_k] == shown


def test_of_equal_scores_the_first_in_the_order_counts_as_higher() -> None:
    scores = np.full((3, 3), 1 / 3)
    figures = measure(scores, np.array([0, 1, 2]), THREE)
    assert figures.accuracy.correct == 1 and dict(figures.top_k) == pytest.approx({2: 2 / 3})
    assert figures.classes[0].predicted == 3
    tied = np.array([[0.4, 0.4, 0.2], [0.2, 0.4, 0.4]])
    assert dict(measure(tied, np.array([1, 2]), THREE).top_k) == {2: 1.0}
    assert dict(measure(tied, np.array([2, 0]), THREE).top_k) == {2: 0.0}


def test_the_top_k_are_the_first_k_in_the_order_in_which_labels_are_shown() -> None:
    scores, truth = drawn(7)
    order = np.argsort(-scores, axis=1, kind="stable")
    for k, share in measure(scores, truth, SEVEN).top_k:
        assert share == pytest.approx(float((order[:, :k] == truth[:, None]).any(axis=1).mean()))


def test_of_a_class_without_pictures_nothing_is_said() -> None:
    never, mistaken = said([0, 0, 1], [0, 1, 1]).classes[2], said([0, 0, 1], [0, 2, 1]).classes[2]
    assert (never.support, never.predicted, never.precision, never.recall, never.f1) == (0, 0, None, None, None)
    assert (mistaken.support, mistaken.predicted, mistaken.precision, mistaken.recall, mistaken.f1) == (0, 1, 0, None, None)
    missed = said([0, 2, 2], [0, 0, 1]).classes[2]
    assert (missed.precision, missed.recall, missed.f1, missed.correct) == (None, 0, 0, 0)


def test_the_mean_f1_is_over_classes_that_there_are_pictures_of() -> None:
    assert said([0, 0, 1], [0, 0, 1]).macro_f1 == 1
    # ant: precision 1, recall 1/2, F1 2/3; bee: 1; cat, which no picture shows, does not count
    assert said([0, 0, 1], [0, 2, 1]).macro_f1 == pytest.approx((2 / 3 + 1) / 2)


def test_mistakes_are_pairs_in_the_order_of_how_many_and_then_which_share() -> None:
    truth = [0] * 4 + [1] * 8 + [2] * 4
    predicted = [1, 1, 0, 0, *[0, 0, 2, 2, 2, 1, 1, 1], *[0, 0, 1, 2]]
    figures = said(truth, predicted)
    assert [(pair.label, pair.predicted, pair.count, pair.share) for pair in figures.pairs] == [
        ("bee", "cat", 3, 3 / 8),
        ("ant", "bee", 2, 2 / 4),
        ("cat", "ant", 2, 2 / 4),
        ("bee", "ant", 2, 2 / 8),
        ("cat", "bee", 1, 1 / 4),
    ]
    assert sum(pair.count for pair in figures.pairs) == figures.accuracy.count - figures.accuracy.correct
    assert said([0, 1], [0, 1]).pairs == ()


def test_each_source_has_its_accuracy_and_pictures_without_one_have_none() -> None:
    scores, truth = drawn(3, 90)
    sources = ["x", "y, z", ""] * 30
    by_source = measure(scores, truth, THREE, sources).by_source
    assert list(by_source) == ["x", "y, z"]
    for start, source in enumerate(by_source):
        assert by_source[source] == accuracy(scores[start::3].argmax(axis=1), truth[start::3])
    assert measure(scores, truth, THREE).by_source == {} == measure(scores, truth, THREE, [""] * 90).by_source


def test_calibration_is_told_before_and_after() -> None:
    scores, truth = drawn(3, 400)
    sharp = scores**3 / (scores**3).sum(axis=1, keepdims=True)
    figures = measure(scores, truth, THREE, uncalibrated=sharp)
    assert figures.calibration_error == expected_error(scores, truth) and figures.bins == reliability(scores, truth)
    assert figures.uncalibrated_error == expected_error(sharp, truth) != figures.calibration_error
    assert measure(scores, truth, THREE).uncalibrated_error is None


def test_one_picture_is_enough() -> None:
    figures = said([2], [2])
    assert (figures.accuracy.value, figures.macro_f1, dict(figures.top_k)) == (1, 1, {2: 1})
    assert [row.support for row in figures.classes] == [0, 0, 1] and len(figures.bins) == 1
