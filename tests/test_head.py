"""The softmax head: finds the optimum, keeps heads apart that are trained together, gives the same bytes twice."""

import dataclasses
import math

import numpy as np
import pytest

from retrain import head
from retrain.errors import EnvironmentProblem
from retrain.head import STRENGTHS, Head, fit, fit_best, step_count
from retrain.settings import HeadSettings

QUICK = HeadSettings(steps=200, precision="float32")


def clouds(count: int, classes: int = 3, size: int = 6, spread: float = 1.0, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Features, float32 (count, size), in one cloud a class; labels int64."""
    rng = np.random.default_rng(seed)
    labels = np.arange(count) % classes
    centres = np.random.default_rng(99).normal(size=(classes, size)) * 2
    features = centres[labels] + rng.normal(0, spread, (count, size))
    return (features * np.linspace(0.1, 30, size) + 5).astype(np.float32), labels


def accuracy(fitted: Head, features: np.ndarray, labels: np.ndarray) -> float:
    return float((fitted.logits(features).argmax(axis=1) == labels).mean())


def probabilities(fitted: Head, features: np.ndarray) -> np.ndarray:
    powers = np.exp(fitted.logits(features).astype(np.float64))
    return powers / powers.sum(axis=1, keepdims=True)


def same(first: Head, second: Head) -> bool:
    return first.kernel.tobytes() == second.kernel.tobytes() and first.bias.tobytes() == second.bias.tobytes()


def test_classes_that_lie_apart_are_told_apart() -> None:
    features, labels = clouds(120, spread=0.2)
    fitted = fit(features, labels, 3, 1e-4, QUICK)
    assert accuracy(fitted, features, labels) == 1 and accuracy(fitted, *clouds(300, spread=0.2, seed=1)) == 1
    assert fitted.kernel.shape == (6, 3) and fitted.bias.shape == (3,)
    assert fitted.kernel.dtype == fitted.bias.dtype == np.float32


@pytest.mark.parametrize("strength", [1.0, pytest.param(0.1, marks=pytest.mark.weights)])
def test_the_head_is_the_optimum_that_scikit_learn_finds(strength: float) -> None:
    linear_model = pytest.importorskip("sklearn.linear_model")
    features, labels = clouds(150, spread=2.0)
    variances = features.var(axis=0)
    standard = (features - features.mean(axis=0)) / np.sqrt(variances + 0.05**2 * variances.mean())
    expected = linear_model.LogisticRegression(C=strength, tol=1e-8, max_iter=5000).fit(standard, labels)
    settings = dataclasses.replace(QUICK, steps=2000, batch_size=150, learning_rate=0.05)
    fitted = fit(features, labels, 3, 1 / (2 * strength * 150), settings)
    assert np.abs(probabilities(fitted, features) - expected.predict_proba(standard)).max() < 2e-3


def test_a_stronger_penalty_gives_smaller_weights() -> None:
    features, labels = clouds(90)
    norms = [np.square(fit(features, labels, 3, l2, QUICK).kernel).sum() for l2 in (1e-4, 1e-2, 1.0)]
    assert norms[0] > norms[1] > norms[2]


def test_a_feature_that_never_varies_does_no_harm() -> None:
    features, labels = clouds(60, spread=0.2)
    features[:, 2] = 7
    fitted = fit(features, labels, 3, 1e-3, QUICK)
    assert np.isfinite(fitted.kernel).all() and accuracy(fitted, features, labels) == 1


def test_heads_trained_together_equal_heads_trained_alone() -> None:
    features, labels = clouds(80)
    everything = np.ones(80, bool)
    first, second = everything.copy(), everything.copy()
    first[:30], second[50:] = False, False
    together = head.train_many(features, labels, 3, np.stack([first, second, everything]), (1e-3, 1e-1), QUICK)
    for choice, mask in enumerate((first, second)):
        for number, l2 in enumerate((1e-3, 1e-1)):
            # The third choice uses every row, so that features are standardised alike.
            alone = head.train_many(features, labels, 3, np.stack([mask, everything]), (l2,), QUICK)
            assert np.allclose(together[choice][number].kernel, alone[0][0].kernel, rtol=1e-3, atol=1e-4)
            assert np.allclose(together[2][number].kernel, alone[1][0].kernel, rtol=1e-3, atol=1e-4)
    assert np.allclose(together[2][0].kernel, fit(features, labels, 3, 1e-3, QUICK).kernel, rtol=1e-3, atol=1e-4)
    assert not np.allclose(together[0][0].kernel, together[1][0].kernel, rtol=1e-3, atol=1e-4)


def test_a_row_that_is_masked_has_no_influence() -> None:
    features, labels = clouds(80)
    mask = np.arange(80) % 4 != 0
    before = head.train_many(features, labels, 3, mask[np.newaxis], (1e-3,), QUICK)[0][0]
    wild, wrong = features.copy(), labels.copy()
    wild[~mask] = np.random.default_rng(5).normal(0, 1e4, wild[~mask].shape)
    wrong[~mask] = (labels[~mask] + 1) % 3
    after = head.train_many(wild, wrong, 3, mask[np.newaxis], (1e-3,), QUICK)[0][0]
    assert same(before, after)
    assert not same(before, fit(features, labels, 3, 1e-3, QUICK))


def test_balanced_weights_let_a_rare_class_be_found() -> None:
    rng = np.random.default_rng(0)
    labels = np.repeat([0, 1], [190, 10])
    features = rng.normal(0, 1, (200, 4)).astype(np.float32)
    features[labels == 1] += 0.8
    plain = fit(features, labels, 2, 1e-2, QUICK)
    balanced = fit(features, labels, 2, 1e-2, dataclasses.replace(QUICK, class_weight="balanced"))
    found = [int((fitted.logits(features)[labels == 1].argmax(axis=1) == 1).sum()) for fitted in (plain, balanced)]
    assert found[0] <= 3 and found[1] >= 6
    evenly = np.arange(200) % 2
    alike = [fit(features, evenly, 2, 1e-2, dataclasses.replace(QUICK, class_weight=name)) for name in ("none", "balanced")]
    assert np.allclose(alike[0].kernel, alike[1].kernel, atol=1e-5)


def test_the_same_seed_gives_the_same_bytes_and_another_seed_others() -> None:
    features, labels = clouds(200)
    assert same(fit(features, labels, 3, 1e-3, QUICK), fit(features, labels, 3, 1e-3, QUICK))
    assert not same(
        fit(features, labels, 3, 1e-3, QUICK), fit(features, labels, 3, 1e-3, dataclasses.replace(QUICK, seed=1))
    )


@pytest.mark.parametrize(
    "precision", ["mixed_float16", *(pytest.param(name, marks=pytest.mark.weights) for name in ("mixed_bfloat16", "auto"))]
)
def test_every_number_format_gives_as_good_a_head(precision: str) -> None:
    features, labels = clouds(150)
    unseen = clouds(600, seed=1)
    exact = fit(features, labels, 3, 1e-3, QUICK)
    fitted = fit(features, labels, 3, 1e-3, dataclasses.replace(QUICK, precision=precision))
    assert fitted.kernel.dtype == np.float32
    assert accuracy(exact, *unseen) > 0.9 and abs(accuracy(fitted, *unseen) - accuracy(exact, *unseen)) < 0.02


def test_training_that_ends_in_no_numbers_is_an_error_with_advice() -> None:
    features, labels = clouds(30)
    features[4, 1] = np.nan
    with pytest.raises(EnvironmentProblem, match=r"not finite at learning rate 0\.02; try a lower --learning-rate"):
        fit(features, labels, 3, 1e-3, QUICK)


@pytest.mark.parametrize(
    ("rows", "steps", "batch_size", "expected"),
    [
        (2, 0, 128, 300),
        (960, 0, 128, 300),
        (961, 0, 128, 301),
        (16_000, 0, 128, 5000),
        (10**6, 0, 128, 5000),
        (1600, 0, 64, 1000),
        (10**6, 7, 128, 7),
        (2, 6000, 128, 6000),
    ],
)
def test_steps_follow_the_number_of_pictures_unless_given(rows: int, steps: int, batch_size: int, expected: int) -> None:
    assert step_count(rows, HeadSettings(steps=steps, batch_size=batch_size)) == expected


def sweep(features: np.ndarray, labels: np.ndarray, units: np.ndarray, validation: int = 0) -> head.Sweep:
    chosen = np.arange(len(labels)) < validation
    return fit_best(features, labels, int(labels.max()) + 1, chosen, units, QUICK).sweep


def test_the_strength_is_the_one_with_the_least_loss_of_those_tried() -> None:
    found = sweep(*clouds(90, spread=3.0), np.arange(90))
    assert found.strengths == STRENGTHS and found.l2 == STRENGTHS[int(np.argmin(found.log_losses))]
    assert found.validated_on == 90 and found.how.endswith(" folds of training and validation part")
    assert len(found.accuracies) == len(STRENGTHS) and all(0 <= value <= 1 for value in found.accuracies)


def test_noise_asks_for_a_strong_penalty_and_clear_classes_for_a_weak_one() -> None:
    rng = np.random.default_rng(1)
    noise = rng.normal(size=(60, 20)).astype(np.float32)
    assert sweep(noise, np.arange(60) % 2, np.arange(60)).l2 == max(STRENGTHS)
    assert sweep(*clouds(60, spread=0.1), np.arange(60)).l2 == min(STRENGTHS)


def test_with_enough_validation_pictures_these_alone_are_chosen_by() -> None:
    features, labels = clouds(400)
    found = sweep(features, labels, np.arange(400), validation=300)
    assert (found.validated_on, found.how) == (300, "validation part")
    assert sweep(features, labels, np.arange(400), validation=299).validated_on == 400


def test_rows_of_one_unit_are_never_on_both_sides() -> None:
    """Copies with labels drawn by lot: only who has seen a copy can know the label of another."""
    rng = np.random.default_rng(2)
    units = np.repeat(np.arange(40), 4)
    labels = rng.integers(0, 2, 40)[units]
    features = rng.normal(size=(40, 60)).astype(np.float32)[units]
    assert max(sweep(features, labels, units).accuracies) < 0.75
    assert max(sweep(features, labels, np.arange(160)).accuracies) > 0.95


@pytest.mark.parametrize("units", [[0, 1], [0, 0, 1], [0, 1, 1, 1], [0, 1, 2, 3, 4, 5]])
def test_a_handful_of_rows_is_enough_to_choose_by(units: list[int]) -> None:
    features, labels = clouds(len(units), classes=2)
    found = sweep(features, labels, np.array(units))
    assert found.l2 in STRENGTHS and found.validated_on == len(units)
    assert all(math.isfinite(loss) for loss in found.log_losses)


def test_the_head_that_comes_with_the_choice_has_learnt_from_all_rows() -> None:
    features, labels = clouds(90)
    best = fit_best(features, labels, 3, np.zeros(90, bool), np.arange(90), QUICK)
    fitted, found = best.head, best.sweep
    alone = fit(features, labels, 3, found.l2, QUICK)
    assert np.allclose(fitted.kernel, alone.kernel, rtol=1e-3, atol=1e-4)
    assert np.allclose(fitted.bias, alone.bias, rtol=1e-3, atol=1e-3)


def test_a_given_strength_is_taken_without_a_search() -> None:
    features, labels = clouds(30)
    given = dataclasses.replace(QUICK, l2=0.5)
    best = fit_best(features, labels, 3, np.zeros(30, bool), np.arange(30), given)
    fitted, found = best.head, best.sweep
    assert (found.l2, found.how, found.strengths) == (0.5, "given", ())
    alone = fit(features, labels, 3, 0.5, QUICK)  # beside others, sums may be rounded in another order
    assert np.allclose(fitted.kernel, alone.kernel, rtol=1e-5, atol=1e-6)
    assert np.allclose(fitted.bias, alone.bias, rtol=1e-5, atol=1e-6)


def test_a_single_unit_leaves_nothing_to_choose_by() -> None:
    found = sweep(*clouds(6), np.zeros(6, int))
    assert (found.l2, found.validated_on, found.strengths) == (1e-2, 0, ()) and "too few" in found.how


def best_of(features: np.ndarray, labels: np.ndarray, settings: HeadSettings = QUICK) -> head.Fitted:
    count = len(labels)
    return fit_best(features, labels, 3, np.zeros(count, bool), np.arange(count), dataclasses.replace(settings, l2=1e-3))


def test_the_history_goes_from_chance_to_what_was_learnt() -> None:
    found = best_of(*clouds(90, spread=0.5)).history
    assert found is not None and found.held_out_are == "5 folds of training and validation part"
    columns = (found.learnt_loss, found.held_out_loss, found.learnt_error, found.held_out_error)
    assert all(len(column) == len(found.steps) for column in columns) and 25 <= len(found.steps) <= 27
    assert found.steps[0] == 0 and found.steps[-1] == 200 and list(found.steps) == sorted(set(found.steps))
    assert found.learnt_loss[0] == found.held_out_loss[0] == pytest.approx(math.log(3), abs=1e-6)
    assert found.learnt_error[0] == found.held_out_error[0] == pytest.approx(2 / 3)  # of equal scores the first counts
    assert found.learnt_loss[-1] < 0.05 and found.learnt_loss[-1] < found.held_out_loss[-1] < 0.3
    assert found.learnt_error[-1] == 0 and sum(np.diff(found.learnt_loss) > 0) <= 3


def test_the_history_of_noise_shows_that_nothing_is_learnt_for_other_pictures() -> None:
    rng = np.random.default_rng(4)
    found = best_of(rng.normal(size=(60, 40)).astype(np.float32), rng.integers(0, 3, 60)).history
    assert found is not None and found.learnt_error[-1] == 0 and found.held_out_error[-1] > 0.4
    assert found.held_out_loss[-1] > 2 * found.held_out_loss[0] and found.learnt_loss[-1] < 0.1


def test_the_end_of_the_history_is_what_heads_said_of_rows_that_they_did_not_learn_from() -> None:
    features, labels = clouds(120, spread=3.0)
    fitted = best_of(features, labels)
    assert fitted.history is not None and fitted.held_out is not None and fitted.held_out.all()
    said = fitted.said(features)
    powers = np.exp(said.astype(np.float64))
    own = (powers / powers.sum(axis=1, keepdims=True))[np.arange(120), labels]
    assert fitted.history.held_out_loss[-1] == pytest.approx(float(-np.log(own).mean()), rel=1e-5)
    assert fitted.history.held_out_error[-1] == pytest.approx(float((said.argmax(axis=1) != labels).mean()))


def test_a_history_of_very_many_pictures_is_measured_on_some_of_them(monkeypatch: pytest.MonkeyPatch) -> None:
    features, labels = clouds(120, spread=3.0)
    whole = best_of(features, labels)
    monkeypatch.setattr("retrain.head.history._MOST_ROWS", 60)
    part = best_of(features, labels)
    assert whole.history is not None and part.history is not None
    assert part.history.steps == whole.history.steps and part.history.held_out_loss != whole.history.held_out_loss
    assert part.history.held_out_loss[-1] == pytest.approx(whole.history.held_out_loss[-1], rel=0.4)
    assert same(part.head, whole.head)


def test_what_is_said_of_a_row_does_not_depend_on_its_label_or_those_of_its_fold(monkeypatch: pytest.MonkeyPatch) -> None:
    features, labels = clouds(100, spread=2.0)
    folds = np.random.default_rng(3).permutation(np.arange(100) % 5)
    monkeypatch.setattr("retrain.head.choice._folds", lambda *_: folds)  # they are evened out over the labels
    wrong = np.where(folds == 2, (labels + 1) % 3, labels)
    before, after = best_of(features, labels), best_of(features, wrong)
    said, then = before.said(features), after.said(features)
    assert np.array_equal(said[folds == 2], then[folds == 2])
    assert all(not np.allclose(said[folds == fold], then[folds == fold]) for fold in (0, 1, 3, 4))
    assert not np.allclose(before.head.kernel, after.head.kernel)


def test_rows_of_one_unit_are_in_one_fold_when_their_logits_are_computed() -> None:
    """Copies with labels drawn by lot, as above: heads that had seen a copy would be right."""
    rng = np.random.default_rng(2)
    units = np.repeat(np.arange(40), 4)
    labels = rng.integers(0, 2, 40)[units]
    features = rng.normal(size=(40, 60)).astype(np.float32)[units]
    for rows, low, high in ((units, 0.3, 0.75), (np.arange(160), 0.95, 1)):
        fitted = fit_best(features, labels, 2, np.zeros(160, bool), rows, dataclasses.replace(QUICK, l2=1e-3))
        assert low <= (fitted.said(features).argmax(axis=1) == labels).mean() <= high


def test_of_a_single_unit_nothing_is_known_of_pictures_that_were_not_learnt_from() -> None:
    features, labels = clouds(6)
    fitted = fit_best(features, labels, 3, np.zeros(6, bool), np.zeros(6, int), QUICK)
    assert fitted.held_out is None and fitted.history is None and np.isnan(fitted.said(features)).all()


def test_two_units_are_two_folds() -> None:
    features, labels = clouds(8, classes=2)
    fitted = fit_best(features, labels, 2, np.zeros(8, bool), np.arange(8) // 4, QUICK)
    assert np.isfinite(fitted.said(features)).all() and fitted.history is not None
    assert fitted.history.held_out_are.startswith("2 folds")


@pytest.mark.parametrize("batch_size", [16, pytest.param(128, marks=pytest.mark.weights)])
def test_features_that_are_too_many_to_copy_give_the_same_bytes(monkeypatch: pytest.MonkeyPatch, batch_size: int) -> None:
    features, labels = clouds(200)
    settings = dataclasses.replace(QUICK, batch_size=batch_size, steps=60)
    untouched = features.copy()
    at_once = best_of(features, labels, settings)
    portions: list[int] = []
    standardised = head.softmax._Rows.standardised

    def noted(rows: head.softmax._Rows, numbers: np.ndarray) -> np.ndarray:
        portions.append(len(numbers))
        return standardised(rows, numbers)

    monkeypatch.setattr(head.softmax._Rows, "standardised", noted)
    monkeypatch.setattr("retrain.head.softmax._SMALL", features.nbytes - 1)
    in_parts = best_of(features, labels, settings)
    assert len(portions) >= 20 and max(portions) < 200, "the other way was taken"
    assert same(at_once.head, in_parts.head)
    assert at_once.history is not None and in_parts.history is not None
    losses = dict(zip(in_parts.history.steps, in_parts.history.held_out_loss, strict=True))
    assert [losses[step] for step in at_once.history.steps] == list(at_once.history.held_out_loss)
    assert np.array_equal(at_once.said(features), in_parts.said(features)) and np.array_equal(features, untouched)


def test_a_feature_that_hardly_varies_does_not_decide_about_new_pictures() -> None:
    """Among few pictures a feature may be the same but for a trace; a new one that differs is not far out for that."""
    features, labels = clouds(9)
    spread = features.std(axis=0).mean()
    trace = np.random.default_rng(1).normal(0, 1e-4 * spread, (9, 4)).astype(np.float32)
    fitted = fit(np.hstack([features, trace]), labels, 3, 1e-3, QUICK)
    new, truth = clouds(300, seed=5)
    other = np.full((300, 4), 0.1 * spread, np.float32)
    assert accuracy(fitted, np.hstack([new, other]), truth) > 0.9


# --- several views of each picture


def with_noise(features: np.ndarray, count: int, seed: int = 7) -> np.ndarray:
    """Views of each row that say nothing beside one that is the row: float32 (n, 1 + count, size), the row last."""
    rng = np.random.default_rng(seed)
    noise = rng.normal(features.mean(axis=0), features.std(axis=0), (count, *features.shape))
    return np.stack([*noise, features], axis=1).astype(np.float32)


def test_a_single_view_gives_the_same_bytes_as_none() -> None:
    features, labels = clouds(90, spread=2.0)
    without, single = (
        fit_best(features, labels, 3, np.zeros(90, bool), np.arange(90), QUICK),
        fit_best(features[:, np.newaxis], labels, 3, np.zeros(90, bool), np.arange(90), QUICK),
    )
    assert same(without.head, single.head) and without.sweep == single.sweep and without.history == single.history
    assert np.array_equal(without.said(features), single.said(features))
    assert same(fit(features, labels, 3, 1e-3, QUICK), fit(features[:, np.newaxis], labels, 3, 1e-3, QUICK))


def test_a_head_learns_from_what_only_a_further_view_shows() -> None:
    features, labels = clouds(120, spread=0.3)
    seen = with_noise(features, 1)
    unseen = clouds(300, spread=0.3, seed=1)
    assert accuracy(fit(seen, labels, 3, 1e-3, QUICK), *unseen) > 0.95
    assert accuracy(fit(head.plain(seen), labels, 3, 1e-3, QUICK), *unseen) < 0.6


def test_every_pass_takes_each_picture_once_and_every_view_as_often_as_another() -> None:
    order = head.softmax._batches(20, 400, 10, seed=3, copies=4)
    assert order.shape == (400, 10) and order.dtype == np.int32
    passes = order.reshape(-1, 20) // 4
    assert (np.sort(passes, axis=1) == np.arange(20)).all()
    counts = np.bincount(order.ravel(), minlength=80)
    assert len(counts) == 80 and counts.min() > 25 and counts.max() < 80  # 50 each in the mean
    assert np.mean([len(set(step % 4)) for step in order]) > 3, "in a step each picture has a view of its own"
    alone = head.softmax._batches(20, 400, 10, seed=3)
    assert np.array_equal(order // 4, alone), "pictures come in the order in which they come without views"
    assert not np.array_equal(order, head.softmax._batches(20, 400, 10, seed=4, copies=4))


def test_more_views_cost_no_more_steps() -> None:
    features, labels = clouds(60)
    steps: list[int] = []
    for seen in (features, np.repeat(features[:, np.newaxis], 5, axis=1)):
        done: list[int] = []
        settings = dataclasses.replace(QUICK, steps=0)
        head.train_many(seen, labels, 3, np.ones((1, 60), bool), (1e-3,), settings, lambda step, _, to=done: to.append(step))
        steps.append(done[-1])
    assert steps == [300, 300]


@pytest.mark.parametrize("masked", [False, True])
def test_features_are_standardised_over_all_views_of_the_pictures_that_are_learnt_from(
    monkeypatch: pytest.MonkeyPatch, masked: bool
) -> None:
    features, labels = clouds(60)
    seen, mask = with_noise(features, 2), np.arange(60) % 3 != 0 if masked else np.ones(60, bool)
    found = []
    standardisation = head.softmax._standardisation
    monkeypatch.setattr(head.softmax, "_standardisation", lambda *given: found.append(standardisation(*given)) or found[-1])
    head.train_many(seen, labels, 3, mask[np.newaxis], (1e-3,), QUICK)
    rows = seen[mask].reshape(-1, seen.shape[-1]).astype(np.float64)
    assert found[0][0] == pytest.approx(rows.mean(axis=0), rel=1e-4)
    assert found[0][1] == pytest.approx(np.sqrt(rows.var(axis=0) + 0.05**2 * rows.var(axis=0).mean()), rel=1e-4)


def test_no_view_of_a_picture_that_is_masked_has_any_influence() -> None:
    features, labels = clouds(80)
    seen, mask = with_noise(features, 2), np.arange(80) % 4 != 0
    before = head.train_many(seen, labels, 3, mask[np.newaxis], (1e-3,), QUICK)[0][0]
    wild = seen.copy()
    wild[~mask] = np.random.default_rng(5).normal(0, 1e4, wild[~mask].shape)
    assert same(before, head.train_many(wild, labels, 3, mask[np.newaxis], (1e-3,), QUICK)[0][0])


def test_heads_are_judged_by_pictures_as_they_are() -> None:
    """Where the picture shows its class and its views do not, heads that learnt from both say so of the picture."""
    features, labels = clouds(90, spread=0.3)
    seen = with_noise(features, 1)[:, ::-1].copy()
    fitted = fit_best(seen, labels, 3, np.zeros(90, bool), np.arange(90), QUICK)
    assert max(fitted.sweep.accuracies) > 0.95 and fitted.history is not None and fitted.history.held_out_error[-1] < 0.05
    assert fitted.history.learnt_error[-1] < 0.05
    turned = fit_best(seen[:, ::-1].copy(), labels, 3, np.zeros(90, bool), np.arange(90), QUICK)
    assert max(turned.sweep.accuracies) < 0.7 and turned.history is not None and turned.history.held_out_error[-1] > 0.3
    said = fitted.said(np.ascontiguousarray(seen[:, 0]))
    assert (said.argmax(axis=1) == labels).mean() > 0.95


@pytest.mark.parametrize("batch_size", [16, pytest.param(128, marks=pytest.mark.weights)])
def test_views_that_are_too_many_to_copy_give_the_same_bytes(monkeypatch: pytest.MonkeyPatch, batch_size: int) -> None:
    features, labels = clouds(100)
    seen, settings = with_noise(features, 2), dataclasses.replace(QUICK, batch_size=batch_size, steps=60)
    untouched, at_once = seen.copy(), fit(seen, labels, 3, 1e-3, settings)
    monkeypatch.setattr("retrain.head.softmax._SMALL", seen.nbytes - 1)
    assert same(at_once, fit(seen, labels, 3, 1e-3, settings)) and np.array_equal(seen, untouched)


def test_balanced_weights_count_pictures_and_not_their_views() -> None:
    features, labels = clouds(60)
    rare = np.flatnonzero((labels > 0) | (np.arange(60) < 12))
    features, labels = features[rare], labels[rare]
    settings = dataclasses.replace(QUICK, class_weight="balanced")
    same_view_twice = np.repeat(features[:, np.newaxis], 2, axis=1)
    assert same(fit(features, labels, 3, 1e-3, settings), fit(same_view_twice, labels, 3, 1e-3, settings))


# Graphs that are used again


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[head.softmax._Form]:
    """No graph is waiting at first; the forms for which one is made."""
    found: list[head.softmax._Form] = []
    make = head.softmax._made
    monkeypatch.setattr(head.softmax, "_waiting", {})
    monkeypatch.setattr(head.softmax, "_made", lambda tf, form: found.append(form) or make(tf, form))
    return found


@pytest.mark.parametrize("precision", ["float32", "mixed_float16"])
def test_a_graph_that_was_used_before_gives_the_bytes_of_a_new_one(made: list[head.softmax._Form], precision: str) -> None:
    settings = dataclasses.replace(QUICK, precision=precision)
    few, many = clouds(80), clouds(150, seed=1)
    balanced = dataclasses.replace(settings, class_weight="balanced", seed=7, batch_size=40)
    lines = ((few, 1e-3, settings), (many, 1e-1, balanced), (few, 1e-3, settings))
    first, other, again = (fit(*data, 3, l2, with_these) for data, l2, with_these in lines)
    assert len(made) == 1, "pictures, labels, penalty, weights, order and batch are given to it"
    head.softmax._waiting.clear()
    assert same(other, fit(*many, 3, 1e-1, balanced)) and len(made) == 2
    assert same(first, again) and not same(first, other)


@pytest.mark.parametrize(
    "other", [{"steps": 90}, {"learning_rate": 0.01}, {"precision": "mixed_bfloat16"}], ids=lambda other: next(iter(other))
)
def test_what_a_graph_holds_needs_another_graph(made: list[head.softmax._Form], other: dict[str, object]) -> None:
    features, labels = clouds(80)
    before, changed = fit(features, labels, 3, 1e-3, QUICK), dataclasses.replace(QUICK, **other)
    fitted = fit(features, labels, 3, 1e-3, changed)
    assert len(made) == 2 and not same(before, fitted) and same(before, fit(features, labels, 3, 1e-3, QUICK))
    head.softmax._waiting.clear()
    assert same(fitted, fit(features, labels, 3, 1e-3, changed))


def test_a_training_amid_another_and_one_after_a_stop_have_graphs_of_their_own(made: list[head.softmax._Form]) -> None:
    features, labels = clouds(80)
    everything, amid = np.ones((1, 80), bool), []
    alone = fit(features, labels, 3, 1e-3, QUICK)

    def watch(step: int, _: object) -> None:
        if step == 96:
            amid.append(fit(features, labels, 3, 1e-3, QUICK))

    def stop(step: int, _: object) -> None:
        if step == 96:
            raise KeyboardInterrupt

    around = head.train_many(features, labels, 3, everything, (1e-3,), QUICK, watch)[0][0]
    assert len(made) == 2 and same(alone, around) and same(alone, amid[0])
    with pytest.raises(KeyboardInterrupt):
        head.train_many(features, labels, 3, everything, (1e-3,), QUICK, stop)
    assert not head.softmax._waiting and same(alone, fit(features, labels, 3, 1e-3, QUICK))


def test_few_graphs_wait_and_no_large_one(made: list[head.softmax._Form], monkeypatch: pytest.MonkeyPatch) -> None:
    features, labels = clouds(30)
    monkeypatch.setattr(head.softmax, "_KEPT", 2)
    for steps in (1, 2, 1, 3, 1, 2):
        fit(features, labels, 3, 1e-3, dataclasses.replace(QUICK, steps=steps))
    assert [form.steps for form in made] == [1, 2, 3, 2]
    monkeypatch.setattr(head.softmax, "_LARGEST", 6 * 3 - 1)
    fit(features, labels, 3, 1e-3, dataclasses.replace(QUICK, steps=4))
    assert [form.steps for form in head.softmax._waiting] == [1, 2]
