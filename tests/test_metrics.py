"""Shares and their intervals, against published values."""

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from retrain.evaluation import accuracy, wilson_interval

PUBLISHED = [  # R. G. Newcombe, Statistics in Medicine 17 (1998), table I, method 3; the last two by hand
    (81, 263, 0.2553, 0.3662),
    (15, 148, 0.0624, 0.1605),
    (0, 20, 0.0000, 0.1611),
    (1, 29, 0.0061, 0.1718),
    (0, 10, 0.0000, 0.2775),
    (10, 10, 0.7225, 1.0000),
]
counts = st.integers(1, 10**6).flatmap(lambda count: st.tuples(st.integers(0, count), st.just(count)))


@pytest.mark.parametrize(("correct", "count", "low", "high"), PUBLISHED)
def test_the_interval_is_the_published_one(correct: int, count: int, low: float, high: float) -> None:
    assert wilson_interval(correct, count) == pytest.approx((low, high), abs=6e-5)


@given(counts)
@example((0, 7))
@example((7, 7))
def test_the_interval_contains_the_share_and_stays_between_0_and_1(pair: tuple[int, int]) -> None:
    low, high = wilson_interval(*pair)
    assert 0 <= low <= pair[0] / pair[1] <= high <= 1
    assert low < high


@given(counts)
def test_hits_and_misses_have_mirrored_intervals(pair: tuple[int, int]) -> None:
    correct, count = pair
    low, high = wilson_interval(count - correct, count)
    assert wilson_interval(correct, count) == pytest.approx((1 - high, 1 - low), abs=1e-9)


def test_more_pictures_give_a_narrower_interval_and_more_confidence_a_wider_one() -> None:
    def width(interval: tuple[float, float]) -> float:
        return interval[1] - interval[0]

    assert width(wilson_interval(800, 1000)) < width(wilson_interval(80, 100)) < width(wilson_interval(8, 10))
    assert width(wilson_interval(8, 10, z=2.576)) > width(wilson_interval(8, 10))


@pytest.mark.parametrize(("correct", "count"), [(0, 0), (1, 0), (3, 2), (-1, 5)])
def test_what_is_no_share_is_refused(correct: int, count: int) -> None:
    with pytest.raises(ValueError, match=f"no share: {correct} of {count}"):
        wilson_interval(correct, count)


def test_accuracy_counts_hits() -> None:
    figure = accuracy(np.array([0, 1, 2, 2, 0]), np.array([0, 1, 1, 2, 1]))
    assert (figure.value, figure.correct, figure.count) == (0.6, 3, 5)
    assert figure.interval == wilson_interval(3, 5)
