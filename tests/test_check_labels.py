"""Probably mislabelled: what models that never saw a picture say of it."""

import numpy as np
import pytest

from retrain.check.labels import mislabelled, softmax, suggestions

SURE, UNSURE = (0.9, 0.05, 0.05), (0.5, 0.3, 0.2)


def of(*rows: tuple[float, ...]) -> np.ndarray:
    return np.array(rows)


def test_a_picture_that_models_are_sure_is_of_another_class_is_suggested_with_that_class() -> None:
    probabilities = of(SURE, SURE, (0.05, 0.9, 0.05), SURE)
    (found,) = suggestions(probabilities, np.array([0, 0, 1, 1]))
    assert (found.row, found.label) == (3, 0) and found.margin == pytest.approx(0.85)


def test_the_surest_comes_first() -> None:
    probabilities = of(SURE, (0.75, 0.2, 0.05), (0.99, 0.0, 0.01), (0.0, 1.0, 0.0), SURE)
    assert [found.row for found in suggestions(probabilities, np.array([0, 1, 1, 1, 0]))] == [2, 1]


@pytest.mark.parametrize("labels", [[0, 0, 1], [0, 0, 0], [2, 2, 2]])
def test_models_that_are_unsure_suggest_nothing(labels: list[int]) -> None:
    assert suggestions(of(UNSURE, UNSURE, UNSURE), np.array(labels)) == []


def test_in_a_class_that_models_are_seldom_sure_of_less_is_enough() -> None:
    """The margin is the same; the mean of the other class's own pictures makes the difference."""
    wrong = (0.65, 0.22, 0.13)
    seldom, usually = [(0.6, 0.2, 0.2)] * 9, [(0.99, 0.005, 0.005)] * 9
    labels = np.array([0] * 9 + [1])
    assert [found.row for found in suggestions(of(*seldom, wrong), labels)] == [9]
    assert suggestions(of(*usually, wrong), labels) == []


def test_most_labels_that_were_swapped_are_found_and_few_others() -> None:
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 4, 1000)
    logits = rng.normal(0, 1, (1000, 4)) + 5 * np.eye(4)[truth]
    given = truth.copy()
    given[:50] = (truth[:50] + 1) % 4
    found = suggestions(softmax(logits), given)
    hits = [suggestion for suggestion in found if suggestion.row < 50]
    assert len(hits) >= 45 and len(found) - len(hits) <= 20
    assert all(suggestion.label == truth[suggestion.row] for suggestion in hits)


def test_a_class_without_pictures_is_never_what_confidence_rests_on() -> None:
    assert suggestions(of((0.5, 0.0, 0.5), (0.5, 0.0, 0.5)), np.array([0, 0])) == []


def test_the_finding_names_both_classes_and_suggests_the_move() -> None:
    (found,) = mislabelled(of(SURE, (0.05, 0.9, 0.05), SURE), np.array([0, 1, 1]), ("cat", "dog", "cow"), ("a", "b", "c"))
    assert (found.paths, found.labels, found.to, found.kind) == (("c",), ("dog",), "cat", "mislabelled")
    assert found.detail == "'cat' 0.90, 'dog' 0.05"
