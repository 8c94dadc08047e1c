"""Temperature and calibration error: known ones are found again, and a handful of pictures proves nothing."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from retrain import scores as score_module
from retrain.evaluation.calibration import BINS, expected_error, reliability
from retrain.scores import COOLEST, HOTTEST, fit_temperature, log_loss, softmax


def drawn(temperature: float, count: int = 12_000, classes: int = 4, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Logits, float32, and labels drawn from what they say when they are divided by a temperature."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, 3, (count, classes)).astype(np.float32)
    cumulated = softmax(logits, temperature).cumsum(axis=1)
    return logits, (rng.random((count, 1)) > cumulated).sum(axis=1).clip(0, classes - 1)


def sure(count: int, margin: float, right: bool = True) -> tuple[np.ndarray, np.ndarray]:
    """Logits of two classes, the first of which leads by a margin, and labels that are all right, or all wrong."""
    return np.tile(np.array([margin, 0], np.float32), (count, 1)), np.full(count, 0 if right else 1)


def test_softmax_gives_the_textbook_values_at_any_temperature() -> None:
    logits = np.log([[1.0, 2.0, 5.0], [4.0, 4.0, 4.0]])
    assert softmax(logits) == pytest.approx(np.array([[1 / 8, 2 / 8, 5 / 8], [1 / 3, 1 / 3, 1 / 3]]))
    powers = np.array([1.0, 2.0, 5.0]) ** 0.5
    assert softmax(logits, 2.0)[0] == pytest.approx(powers / powers.sum())


@given(st.lists(st.floats(-1e30, 1e30), min_size=1, max_size=9), st.floats(COOLEST, HOTTEST))
def test_softmax_of_any_logits_is_a_distribution(values: list[float], temperature: float) -> None:
    scores = softmax(np.array([values], np.float32), temperature)
    assert scores.dtype == np.float64 and np.isfinite(scores).all() and scores.sum() == pytest.approx(1)


def test_log_loss_is_the_mean_surprise_and_finite_for_what_was_ruled_out() -> None:
    scores = np.array([[0.5, 0.25, 0.25], [0.1, 0.2, 0.7]])
    assert log_loss(scores, np.array([1, 2])) == pytest.approx((np.log(4) - np.log(0.7)) / 2)
    assert log_loss(np.array([[1.0, 0.0]]), np.array([0])) == 0
    assert 700 < log_loss(np.array([[1.0, 0.0]]), np.array([1])) < 710


@pytest.mark.parametrize("temperature", [0.4, 1.0, 1.7, 4.0])
def test_a_known_temperature_is_found_again(temperature: float) -> None:
    assert fit_temperature(*drawn(temperature)) == pytest.approx(temperature, rel=0.04)


def test_no_temperature_beside_the_one_that_is_found_has_less_loss() -> None:
    logits, truth = drawn(2.0, 3000)
    found = fit_temperature(logits, truth)

    def loss(temperature: float) -> float:
        prior = (np.log(temperature) / 0.5) ** 2 / 2 / len(truth)
        return log_loss(softmax(logits, temperature), truth) + float(prior)

    assert all(loss(found) <= loss(found * factor) for factor in (0.8, 0.97, 0.999, 1.001, 1.03, 1.2))


def test_scores_at_the_temperature_that_was_found_mean_what_they_say() -> None:
    logits, truth = drawn(2.5)
    unseen, labels = drawn(2.5, seed=1)
    before, after = (expected_error(softmax(unseen, t), labels) for t in (1.0, fit_temperature(logits, truth)))
    assert before > 0.1 and after < 0.02


@pytest.mark.parametrize(("margin", "low"), [(5, 0.9), (1, 0.6)])
def test_a_handful_of_pictures_all_right_leaves_scores_nearly_as_they_are(
    margin: float, low: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert low < fit_temperature(*sure(5, margin)) < 1
    monkeypatch.setattr(score_module, "_SPREAD", 1e9)  # without an assumption, they would count as certain
    assert fit_temperature(*sure(5, margin)) < 0.2


def test_a_handful_of_pictures_all_wrong_does_not_flatten_scores_altogether() -> None:
    assert 1 < fit_temperature(*sure(3, 2, right=False)) < 2


def test_of_many_pictures_the_temperature_stays_within_its_bounds() -> None:
    assert fit_temperature(*sure(20_000, 0.01)) == pytest.approx(COOLEST, rel=1e-4)
    assert fit_temperature(*sure(20_000, 9, right=False)) == pytest.approx(HOTTEST, rel=1e-4)


def test_without_pictures_nothing_is_divided() -> None:
    assert fit_temperature(np.empty((0, 3), np.float32), np.empty(0, np.int64)) == 1


def test_of_very_many_pictures_some_are_used_from_all_over(monkeypatch: pytest.MonkeyPatch) -> None:
    cool, hot = drawn(0.5, 30_000), drawn(4.0, 30_001, seed=1)
    logits, truth = (np.concatenate(both) for both in zip(cool, hot, strict=True))
    used: list[int] = []

    def noted(scores: np.ndarray, right: np.ndarray) -> float:
        used.append(len(right))
        return log_loss(scores, right)

    monkeypatch.setattr(score_module, "log_loss", noted)
    found = fit_temperature(logits, truth)
    assert set(used) == {20_000}
    monkeypatch.setattr(score_module, "_MOST_ROWS", 10**9)
    assert found == pytest.approx(fit_temperature(logits, truth), rel=0.03) and set(used) == {20_000, 60_001}


def two(highest: list[float], right: list[bool]) -> tuple[np.ndarray, np.ndarray]:
    """Scores of two classes whose highest, of the first, is given, from 0.5; labels that agree with it or not."""
    scores = np.array([[one, 1 - one] for one in highest])
    return scores, np.array([0 if agrees else 1 for agrees in right])


def test_a_score_on_an_edge_belongs_to_the_bin_below() -> None:
    found = reliability(*two([0.5, 0.5000001, 0.75, 0.75, 1.0], [True, False, True, False, True]), bins=4)
    assert [(row.low, row.high, row.count) for row in found] == [(0.25, 0.5, 1), (0.5, 0.75, 3), (0.75, 1.0, 1)]
    assert [row.correct for row in found] == pytest.approx([1, 1 / 3, 1])
    assert [row.score for row in found] == pytest.approx([0.5, 2 / 3, 1])


def test_bins_are_in_order_hold_every_picture_once_and_none_is_empty() -> None:
    scores, truth = softmax(drawn(1.0, 500)[0]), drawn(1.0, 500)[1]
    found = reliability(scores, truth)
    assert sum(row.count for row in found) == 500 and all(row.count for row in found)
    assert all(before.high <= after.low for before, after in pairwise(found)) and len(found) <= BINS
    assert all(row.low < row.score <= row.high and row.high - row.low == pytest.approx(1 / BINS) for row in found)
    assert sum(row.count * row.score for row in found) == pytest.approx(scores.max(axis=1).sum())
    assert sum(row.count * row.correct for row in found) == pytest.approx((scores.argmax(axis=1) == truth).sum())


@given(st.lists(st.tuples(st.integers(33, 64), st.booleans()), min_size=1, max_size=60), st.sampled_from([1, 2, 8, 16]))
def test_the_expected_error_is_that_of_the_definition(pictures: list[tuple[int, bool]], bins: int) -> None:
    """Scores in 64ths, and as many bins as are exact in binary, so that no edge is a matter of rounding."""
    highest, right = [count / 64 for count, _ in pictures], [agrees for _, agrees in pictures]
    expected = 0.0
    for number in range(bins):
        inside = [at for at, score in enumerate(highest) if number / bins < score <= (number + 1) / bins]
        if inside:
            score, share = (sum(column[at] for at in inside) / len(inside) for column in (highest, right))
            expected += len(inside) / len(pictures) * abs(score - share)
    assert expected_error(*two(highest, right), bins=bins) == pytest.approx(expected, abs=1e-12)


def test_the_expected_error_of_certain_scores_is_the_share_that_is_wrong() -> None:
    assert expected_error(*two([1.0] * 10, [True] * 7 + [False] * 3)) == pytest.approx(0.3)
    assert expected_error(*two([1.0] * 10, [True] * 10)) == 0
