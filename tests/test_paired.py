"""Whether one model is better than another: the mean difference and its error, computed by hand beside it."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from retrain.evaluation.paired import Paired, paired

DIFFERENCES = st.lists(st.floats(-9, 9), min_size=4, max_size=30)


def by_hand(differences: list[float], units: list[int]) -> float:
    """The error of a mean over clusters: sums of residuals, squared, with the usual correction for few clusters."""
    mean = sum(differences) / len(differences)
    sums: dict[int, float] = {}
    for difference, unit in zip(differences, units, strict=True):
        sums[unit] = sums.get(unit, 0.0) + difference - mean
    clusters = len(sums)
    return math.sqrt(sum(value**2 for value in sums.values()) * clusters / (clusters - 1)) / len(differences)


@given(DIFFERENCES)
def test_where_each_picture_is_a_unit_the_error_is_that_of_the_textbook(values: list[float]) -> None:
    found = paired(np.array(values), np.arange(len(values)))
    assert found.mean == pytest.approx(sum(values) / len(values), abs=1e-12) and found.pictures == len(values)
    assert found.standard_error == pytest.approx(np.std(values, ddof=1) / math.sqrt(len(values)), abs=1e-9)


@given(DIFFERENCES, st.integers(2, 4), st.integers(-5, 5))
def test_with_units_the_error_is_that_of_a_mean_over_clusters(values: list[float], count: int, first: int) -> None:
    units = [7 * (number % count) + first for number in range(len(values))]
    found = paired(np.array(values), np.array(units))
    assert found.standard_error == pytest.approx(by_hand(values, units), abs=1e-9)


def test_a_small_case_written_out() -> None:
    found = paired(np.array([1.0, 3.0, 0.0, 0.0, 1.0]), np.array([5, 5, 9, 9, 2]))
    assert found.mean == 1.0 and found.pictures == 5
    # residuals 0 2 | -1 -1 | 0; sums 2, -2, 0; 8 * 3/2 = 12
    assert found.standard_error == pytest.approx(math.sqrt(12) / 5)


@given(DIFFERENCES, st.integers(2, 5))
def test_copies_of_a_picture_say_nothing_new(values: list[float], copies: int) -> None:
    alone = paired(np.array(values), np.arange(len(values)))
    copied = paired(np.repeat(values, copies), np.repeat(np.arange(len(values)), copies))
    assert copied.mean == pytest.approx(alone.mean, abs=1e-9)
    assert copied.standard_error == pytest.approx(alone.standard_error, abs=1e-9)
    assert copied.pictures == copies * len(values)


def test_pictures_of_one_unit_that_agree_widen_the_error() -> None:
    values = np.repeat(np.random.default_rng(0).normal(size=20), 5) + np.random.default_rng(1).normal(0, 0.1, 100)
    clustered, each = paired(values, np.repeat(np.arange(20), 5)), paired(values, np.arange(100))
    assert clustered.standard_error > 2 * each.standard_error and clustered.mean == each.mean


@given(DIFFERENCES)
def test_the_order_and_the_names_of_units_do_not_matter(values: list[float]) -> None:
    units, order = np.arange(len(values)) % 3, np.random.default_rng(3).permutation(len(values))
    found = paired(np.array(values), units)
    other = paired(np.array(values)[order], np.array([88, -4, 1000])[units[order]])
    assert (other.mean, other.standard_error) == pytest.approx((found.mean, found.standard_error), abs=1e-9)


@pytest.mark.parametrize("count", [1, 2, 50])
def test_of_a_single_unit_the_error_is_infinite_so_nothing_is_beyond_noise(count: int) -> None:
    found = paired(np.full(count, 5.0), np.full(count, 3))
    assert found == Paired(5.0, math.inf, count, 1) and not found.beyond_noise


@pytest.mark.parametrize(
    ("mean", "error", "beyond"),
    [(2.0, 0.99, True), (2.0, 1.0, False), (2.0, 1.01, False), (-5.0, 0.1, False), (0.0, 0.0, False), (1e-9, 0.0, True)],
)
def test_beyond_noise_is_above_0_by_more_than_two_standard_errors(mean: float, error: float, beyond: bool) -> None:
    assert Paired(mean, error, 9).beyond_noise is beyond


def test_of_pairs_that_are_equally_good_few_are_called_better() -> None:
    rng = np.random.default_rng(8)
    called = sum(paired(rng.normal(size=60), np.arange(60)).beyond_noise for _ in range(2000))
    assert 20 <= called <= 90  # one of forty would be 50


def test_it_is_written_with_its_sign_and_twice_the_error() -> None:
    assert str(Paired(0.12345, 0.02, 9)) == "+0.123 ± 0.040" and str(Paired(-0.5, math.inf, 9)) == "-0.500 ± inf"


@pytest.mark.parametrize("units", [2, 3, 5, 10, 31, 32])
def test_of_few_units_no_more_pairs_that_are_equally_good_are_called_better(units: int) -> None:
    rng = np.random.default_rng(8)
    each = np.arange(64) % units
    called = sum(paired(rng.normal(size=units)[each], each).beyond_noise for _ in range(2000))
    assert 20 <= called <= 90


def test_the_margin_is_wider_the_fewer_units_there_are() -> None:
    """Student's t, 97.5 %, from a table."""
    table = {2: 12.706, 3: 4.303, 5: 2.776, 11: 2.228, 21: 2.086, 31: 2.042}
    for units, errors in table.items():
        assert Paired(1.0, 0.5, 99, units).margin == pytest.approx(errors / 2)
        assert Paired(1.0, 0.999 / errors, 99, units).beyond_noise and not Paired(1.0, 1 / errors, 99, units).beyond_noise
    margins = [Paired(1.0, 1.0, 99, units).margin for units in range(2, 40)]
    assert margins == sorted(margins, reverse=True) and margins[-1] == 2.0
    found = paired(np.array([1.0, 3.0, 0.0, 0.0, 1.0]), np.array([5, 5, 9, 9, 2]))
    assert found.units == 3 and found.margin == pytest.approx(4.303 * math.sqrt(12) / 5)


def test_what_one_unit_cannot_tell_is_none_in_json_and_never_beyond_noise() -> None:
    found = paired(np.array([3.0, 4.0, 5.0]), np.zeros(3, int))
    assert found.as_json() == {"mean": 4.0, "standard_error": None, "pictures": 3, "units": 1} and not found.beyond_noise
    several = paired(np.array([3.0, 4.0, 5.0]), np.arange(3)).as_json()
    assert several["standard_error"] == pytest.approx(1 / math.sqrt(3)) and several["units"] == 3
