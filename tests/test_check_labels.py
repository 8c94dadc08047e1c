"""Probably mislabelled: what models that never saw a picture say of it."""

import numpy as np
import pytest

from retrain.checks.labels import chances_wrong, mislabelled, suggestions

COUNT, CLASSES = 2000, 4


def predicted(apart: float) -> tuple[np.ndarray, np.ndarray]:
    """Logits of models for classes that lie so far apart, and the labels as they should be."""
    rng = np.random.default_rng(0)
    truth = rng.integers(0, CLASSES, COUNT)
    return rng.normal(0, 1, (COUNT, CLASSES)) + apart * np.eye(CLASSES)[truth], truth


def swapped(truth: np.ndarray, count: int) -> np.ndarray:
    given = truth.copy()
    given[:count] = (truth[:count] + 1) % CLASSES
    return given


@pytest.mark.parametrize("share", [0.02, 0.05, 0.2])
def test_most_labels_that_were_swapped_are_found_and_few_others(share: float) -> None:
    logits, truth = predicted(6)
    count = int(share * COUNT)
    found = suggestions(logits, swapped(truth, count))
    hits = [suggestion for suggestion in found if suggestion.row < count]
    assert len(hits) >= 0.9 * count and len(found) - len(hits) <= 0.1 * count
    assert all(suggestion.label == truth[suggestion.row] for suggestion in hits)


@pytest.mark.parametrize("share", [0.0, 0.02, 0.05, 0.2])
def test_the_chances_add_up_to_the_number_of_wrong_labels(share: float) -> None:
    logits, truth = predicted(6)
    chances = chances_wrong(logits, swapped(truth, int(share * COUNT)))
    assert chances.mean() == pytest.approx(share, rel=0.25, abs=0.003)


def test_of_few_labels_less_is_claimed() -> None:
    """Thirty pictures cannot tell how sure models may be."""
    logits, truth = predicted(2.5)
    few, many = (chances_wrong(logits[:count], swapped(truth, 1)[:count])[0] for count in (30, COUNT))
    assert few < 0.95 * many


@pytest.mark.parametrize("times", [0.5, 1, 4])
def test_of_labels_that_are_right_hardly_any_is_suggested_however_sure_models_are(times: float) -> None:
    """They are wrong about a third of the pictures, and much surer than they may be, or less."""
    logits, truth = predicted(1.2)
    assert 0.3 < (logits.argmax(axis=1) != truth).mean() < 0.4
    assert len(suggestions(times * logits, truth)) <= COUNT // 200


def test_chances_mean_what_they_say() -> None:
    logits, truth = predicted(3.5)
    found = suggestions(logits, swapped(truth, 200))
    wrong = np.array([suggestion.row < 200 for suggestion in found])
    assert len(found) > 50 and wrong.mean() == pytest.approx(np.mean([one.chance for one in found]), abs=0.1)


def test_the_surest_comes_first_and_every_chance_is_above_one_half() -> None:
    logits, truth = predicted(4)
    chances = [suggestion.chance for suggestion in suggestions(logits, swapped(truth, 100))]
    assert chances == sorted(chances, reverse=True) and min(chances) > 0.5 and max(chances) <= 1


@pytest.mark.parametrize("logits", [np.zeros((0, 3)), np.zeros((5, 3)), np.zeros((5, 1))])
def test_where_nothing_can_be_said_nothing_is(logits: np.ndarray) -> None:
    assert suggestions(logits, np.zeros(len(logits), np.int64)) == []


def test_the_finding_names_both_classes_and_suggests_the_move() -> None:
    logits, truth = predicted(6)
    names, paths = ("cat", "dog", "cow", "ant"), tuple(f"{row}.png" for row in range(COUNT))
    found = mislabelled(logits, swapped(truth, 100), names, paths)[0]
    row = int(found.paths[0].removesuffix(".png"))
    assert (found.kind, found.to) == ("mislabelled", names[truth[row]])
    assert found.labels == (names[(truth[row] + 1) % CLASSES],) and f"say '{found.to}'" in found.detail
