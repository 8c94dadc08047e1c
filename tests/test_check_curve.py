"""Learning curves of drawn-up features."""

import re
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest

from retrain import head
from retrain.checks import curve as module
from retrain.checks.curve import Curve, TooFewPictures, in_words, learning_curve
from retrain.settings import HeadSettings

QUICK = HeadSettings(steps=60, precision="float32")
NAMES = ("apples", "pears", "plums")


def clouds(count: int = 360, size: int = 12, groups: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Features, labels and units: apples lie apart, pears and plums nearly together. `groups`: units a class."""
    rng = np.random.default_rng(0)
    labels = np.arange(count) % 3
    centres = np.zeros((3, size))
    centres[0, 0], centres[1, 1], centres[2, 1] = 8, 0.7, -0.7
    features = centres[labels] + rng.normal(0, 1, (count, size))
    units = np.arange(count)
    if groups:
        units = labels + 3 * (np.arange(count) // 3 % groups)
        features = centres[labels] + rng.normal(0, 1, (3 * groups, size))[units] + rng.normal(0, 0.1, (count, size))
    return features.astype(np.float32), labels, units


@pytest.fixture(scope="module")
def measured() -> Curve:
    features, labels, _ = clouds()
    return learning_curve(features, labels, 3, np.arange(360) // 3 % 3, 1e-2, QUICK)


def test_accuracy_grows_with_pictures(measured: Curve) -> None:
    assert measured.sizes == (30, 60, 120, 240) and not measured.by_units
    values = [accuracy.value for accuracy in measured.accuracies]
    assert values[-1] > values[0] + 0.04
    for accuracy, recalls in zip(measured.accuracies, measured.recalls, strict=True):
        assert accuracy.count == 360 and accuracy.interval[0] < accuracy.value < accuracy.interval[1]
        assert recalls.mean() == pytest.approx(accuracy.value)  # classes are equally large


def test_the_last_size_is_what_heads_reach_that_learn_from_all_other_folds(measured: Curve) -> None:
    features, labels, _ = clouds()
    folds = np.arange(360) // 3 % 3
    heads = head.fit_each(features, labels, 3, np.stack([folds != fold for fold in range(3)]), 1e-2, QUICK)
    hits = sum(int((heads[fold].logits(features).argmax(axis=1) == labels)[folds == fold].sum()) for fold in range(3))
    assert measured.accuracies[-1].correct == hits


def test_classes_that_are_missed_most_would_gain_most(measured: Curve) -> None:
    apples, pears, plums = measured.gains
    assert apples.recall > 0.95 and max(pears.recall, plums.recall) < 0.85
    assert max(pears.expected, plums.expected) > 0.02 and apples.expected < 0.01
    assert {gain.label for gain in measured.where_more_helps} == {1, 2}
    assert all(gain.overall == pytest.approx(gain.expected / 3) and gain.uncertainty > 0 for gain in measured.gains)
    overall = [gain.overall for gain in measured.where_more_helps]
    assert overall == sorted(overall, reverse=True)
    most, second = in_words(measured, NAMES)
    assert most.startswith("more pictures of 'p") and "would help most (recall 0." in most
    assert re.search(r", \+0\.0\d per doubling: \+1\.\d % of all pictures right\)$", most), most
    assert "would help (recall 0." in second


def test_of_units_a_smaller_set_has_fewer() -> None:
    features, labels, units = clouds(groups=40)
    folds = units // 3 % 3
    by_units = learning_curve(features, labels, 3, folds, 1e-2, QUICK, units)
    by_pictures = learning_curve(features, labels, 3, folds, 1e-2, QUICK)
    assert by_units.by_units and by_units.sizes == (36, 63, 123, 240)
    assert by_units.accuracies[-1] == by_pictures.accuracies[-1]
    # An eighth of each scene shows nearly all of it; an eighth of the scenes does not.
    assert by_units.accuracies[0].value < by_pictures.accuracies[0].value - 0.03
    assert all(", of groups not there yet, would help" in line for line in in_words(by_units, NAMES))


def chosen(labels: np.ndarray, keys: np.ndarray, folds: np.ndarray) -> list[np.ndarray]:
    places = module._places(labels, keys, 0)
    return [module._chosen(labels, keys, folds, places, share) for share in module.SHARES]


def test_subsets_are_nested_stratified_and_keep_out_of_the_fold() -> None:
    labels = np.repeat([0, 1, 2], [100, 40, 6])
    folds = np.arange(146) % 2
    sets = chosen(labels, np.arange(146), folds)
    for smaller, larger in pairwise(sets):
        assert not (smaller & ~larger).any()
    for fold in range(2):
        counts = [np.bincount(of_size[fold][labels >= 0] * (labels + 1), minlength=4)[1:].tolist() for of_size in sets]
        assert counts == [[7, 3, 1], [13, 5, 1], [25, 10, 2], [50, 20, 3]]
        assert all(not of_size[fold][folds == fold].any() for of_size in sets)


def test_units_are_taken_whole() -> None:
    labels, keys = np.arange(120) % 2, np.arange(120) // 2 % 10 * 2 + np.arange(120) % 2
    folds = keys // 2 % 2
    for of_size, units in zip(chosen(labels, keys, folds), (1, 2, 3, 5), strict=True):
        for mask in of_size:
            for label in range(2):
                taken = set(keys[mask & (labels == label)].tolist())
                assert len(taken) == units and mask.sum() == 2 * units * 6


KEPT = [  # errors of 1,000 pictures at three sizes, the factor a doubling
    ((400, 200, 100), 0.5),
    ((300, 300, 300), 1.0),
    ((100, 300, 400), 2.0),
    ((0, 0, 0), 1.0),
    ((50, 10, 0), 1.0),
]


@pytest.mark.parametrize(("errors", "factor"), KEPT)
def test_errors_fall_by_a_factor(errors: tuple[int, ...], factor: float) -> None:
    hits = np.stack([np.arange(1000) >= count for count in errors])
    kept, noise = module._kept_errors(hits, np.arange(1000))
    assert kept == pytest.approx(factor) and 0 <= noise < 0.15
    in_scenes = module._kept_errors(hits, np.arange(1000) // 100)[1]
    assert in_scenes > 2 * noise or noise == 0


def test_a_class_of_few_units_has_a_reason_and_no_figure() -> None:
    hits = np.ones((4, 43), bool)
    hits[:2, ::3] = False
    labels, keys = np.repeat([0, 1], [40, 3]), np.arange(43)
    few = module._gains(hits, labels, keys, np.tile([[4.0, 1.0]], (4, 1)) * [[1], [2], [4], [8]])[1]
    assert few.reason == "too few to judge: 3 pictures, 3 that differ"
    assert few.expected == few.slope == few.overall == 0 and few.recall == 1


@pytest.mark.parametrize(
    ("labels", "folds", "says"),
    [
        ([0, 0, 1, 1] * 5, [0] * 20, "two classes and two folds"),
        ([0] * 20, [0, 1] * 10, "two classes and two folds"),
        ([0, 1] * 4, [0, 1] * 4, "no class has 5 pictures that differ"),
    ],
)
def test_without_enough_there_is_no_curve_but_a_reason(labels: list[int], folds: list[int], says: str) -> None:
    features = np.zeros((len(labels), 3), np.float32)
    with pytest.raises(TooFewPictures, match=says):
        learning_curve(features, np.array(labels), 2, np.array(folds), 1e-2, QUICK)


def test_where_nothing_is_missed_more_pictures_are_not_asked_for() -> None:
    labels = np.arange(120) % 3
    features = (np.eye(3)[labels] + np.random.default_rng(0).normal(0, 0.01, (120, 3))).astype(np.float32)
    curve = learning_curve(features, labels, 3, np.arange(120) // 3 % 2, 1e-3, QUICK)
    assert curve.accuracies[-1].value == 1 and not curve.where_more_helps
    assert in_words(curve, NAMES) == ["twice the pictures would change little in any class with enough pictures to tell"]


def test_a_bank_that_would_be_too_wide_is_trained_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    features, labels, _ = clouds(120)
    folds = np.arange(120) // 3 % 3
    widths = []
    fit_each = head.fit_each

    def counted(*arguments: object) -> list[head.Head]:
        widths.append(len(arguments[3]))  # type: ignore[arg-type]
        return fit_each(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(module, "_WIDEST", 6)
    monkeypatch.setattr(head, "fit_each", counted)
    masks = np.stack([folds != fold for fold in range(3)])
    hits = module._hits(features, labels, 3, folds, masks, 1e-2, QUICK)
    assert widths == [2, 1] and hits.mean() > 0.6


@pytest.mark.parametrize(("repeats", "says"), [(1, "twice the pictures would change little"), (40, "more pictures of")])
def test_what_may_be_luck_is_not_promised(monkeypatch: pytest.MonkeyPatch, repeats: int, says: str) -> None:
    errors = iter((22, 20, 19, 17))  # of 60 pictures, or of as many times 40

    def hits(features: np.ndarray, *_: object) -> np.ndarray:
        missed = next(errors)
        return np.tile((np.arange(60) * 7 + 15 * missed) % 60 >= missed, repeats)  # each time others

    monkeypatch.setattr(module, "_hits", hits)
    count = 60 * repeats
    features, labels = np.zeros((count, 2), np.float32), np.arange(count) % 2
    curve = learning_curve(features, labels, 2, np.arange(count) // 2 % 2, 1e-2, QUICK)
    assert in_words(curve, NAMES)[0].startswith(says)


def test_a_gain_that_is_less_than_its_uncertainty_is_not_named(monkeypatch: pytest.MonkeyPatch) -> None:
    features, labels, _ = clouds()
    gains = module._gains

    def unsure(*arguments: np.ndarray) -> tuple[module.Gain, ...]:
        apples, pears, plums = gains(*arguments)
        return apples, replace(pears, uncertainty=pears.expected + 0.001), plums

    monkeypatch.setattr(module, "_gains", unsure)
    curve = learning_curve(features, labels, 3, np.arange(360) // 3 % 3, 1e-2, QUICK)
    assert curve.gains[1].expected > 0.01 and [gain.label for gain in curve.where_more_helps] == [2]


def test_a_class_whose_pictures_were_all_left_out_has_no_recall_and_no_count() -> None:
    features, labels, _ = clouds()
    curve = learning_curve(features, labels, 4, np.arange(360) // 3 % 3, 1e-2, QUICK)
    assert curve.gains[3].reason == "too few to judge" and np.isnan(curve.recalls[:, 3]).all()
