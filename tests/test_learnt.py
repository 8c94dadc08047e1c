"""Choices by pictures that no head has learnt from: backbones, ways to look at a picture, temperatures.

The heads here hand on what they are given, so that the features of a picture are its logits.
"""

import math
from collections.abc import Sequence

import numpy as np
import pytest

from retrain import head
from retrain.evaluation.paired import Paired, paired
from retrain.head import Fitted, Head, Sweep
from retrain.pipeline.learnt import Compared, Learnt, choose, learn
from retrain.pipeline.seen import Seen, ways
from retrain.pipeline.train import tell_of_choices
from retrain.progress import Silent
from retrain.scores import fit_temperature, softmax
from retrain.settings import HeadSettings
from retrain.views import PLAIN, SEVERAL

COUNT, CLASSES = 240, 3
TRUTH = np.arange(COUNT) % CLASSES
ALONE, ROWS = np.arange(COUNT), np.arange(COUNT)
AS_IT_IS = Head(np.eye(CLASSES, dtype=np.float32), np.zeros(CLASSES, np.float32))
WRONG = Head(-np.eye(CLASSES, dtype=np.float32), np.zeros(CLASSES, np.float32))


class Heard(Silent):
    def __init__(self) -> None:
        self.notes: list[str] = []

    def note(self, line: str) -> None:
        self.notes.append(line)


def logits(skill: float, seed: int, noise: float = 1.0) -> np.ndarray:
    """What a backbone would say: so much for the right class, and noise; float32 (n, classes)."""
    found = np.random.default_rng(seed).normal(0, noise, (COUNT, CLASSES))
    found[np.arange(COUNT), TRUTH] += skill
    return found.astype(np.float32)


def handing_on(held_out: np.ndarray | None = None, apart: Head = AS_IT_IS) -> Fitted:
    """Heads that hand on the features as logits; that of the model, which has learnt from all rows, is always wrong."""
    held = np.ones(COUNT, bool) if held_out is None else held_out
    even = np.arange(len(held)) % 2 == 0
    return Fitted(WRONG, Sweep(1.0, (), (), (), 0, ""), ((held & even, apart), (held & ~even, apart)))


def seen_by(name: str, said: np.ndarray, *views: np.ndarray, milliseconds: float = 2.0) -> Seen:
    several = np.stack([said, *views], axis=1) if views else None
    return Seen(name, said, views=several, milliseconds=milliseconds)


def chosen(*seen: Seen, units: np.ndarray = ALONE, held_out: np.ndarray | None = None) -> Learnt:
    return choose(seen, [handing_on(held_out) for _ in seen], ROWS, TRUTH, units)


def names(seen: Sequence[Seen], found: Learnt) -> list[str]:
    return [seen[number].backbone for number in found.members]


def loss(probabilities: np.ndarray) -> np.ndarray:
    return -np.log(probabilities[np.arange(COUNT), TRUTH])


# --- backbones


GOOD, POOR, NOISE = (
    seen_by(name, logits(skill, seed)) for name, skill, seed in (("good", 3, 1), ("poor", 1, 2), ("no", 0, 3))
)


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (1, 0, 2)])
def test_of_backbones_the_one_that_is_clearly_better_is_kept_wherever_it_stands(order: tuple[int, ...]) -> None:
    # what the poor one says is what the good one says, less clearly: there is nothing to learn from it
    poor = seen_by("poor", GOOD.features * 0 + logits(0.3, 2, 2.0))
    seen = [(GOOD, poor, NOISE)[number] for number in order]
    found = chosen(*seen)
    assert names(seen, found) == ["good"] and found.way == PLAIN and found.views == ()
    assert [one.name for one in found.backbones if one.kept] == ["good"]
    assert {one.name for one in found.backbones} == {"good", "poor", "no", "good + poor", "good + no"}


def test_two_that_err_apart_are_both_kept_and_noise_is_not() -> None:
    seen = [NOISE, seen_by("one", logits(2, 11)), seen_by("other", logits(2, 12))]
    found = chosen(*seen)
    assert set(names(seen, found)) == {"one", "other"} and len(found.fitted) == 2
    kept = {one.name: one for one in found.backbones}
    pair = kept[" + ".join(names(seen, found))]
    assert pair.kept and pair.gain is not None and pair.gain.beyond_noise and pair.gain.pictures == COUNT
    assert pair.accuracy > max(kept["one"].accuracy, kept["other"].accuracy)
    assert pair.log_loss < min(kept["one"].log_loss, kept["other"].log_loss)
    assert not kept["no"].kept and not kept[pair.name + " + no"].kept


def test_the_best_comes_first_and_others_follow_by_how_good_they_are() -> None:
    seen = []
    for name, known, surely in (("third", 2, 2.0), ("first", 1, 3.0), ("second", 0, 4.0)):
        said = logits(0, 13 + known, 0.1)
        said[known::3, known] += surely  # each knows one class and guesses among the others
        seen.append(seen_by(name, said))
    found = chosen(*seen)
    assert names(seen, found) == ["first", "second", "third"]
    expected = ["first", "second", "third", "first + second", "first + second + third"]
    assert [one.name for one in found.backbones] == expected
    assert [one.kept for one in found.backbones] == [True, False, False, True, True]
    losses = [one.log_loss for one in found.backbones[:3]]
    assert losses == sorted(losses)


def test_a_second_one_that_says_the_same_is_not_kept() -> None:
    said = logits(2, 11)
    found = chosen(seen_by("one", said), seen_by("copy", said.copy()))
    assert found.members == (0,) and found.backbones[-1].gain is not None
    assert found.backbones[-1].gain.mean == pytest.approx(0, abs=1e-9) and not found.backbones[-1].kept


def test_a_gain_that_comes_from_a_single_unit_is_no_more_than_noise() -> None:
    """The other view differs in forty pictures alone, of which it shows more."""
    plain = logits(2, 11)
    further = plain.copy()
    further[np.arange(40), TRUTH[:40]] += 3
    seen = seen_by("one", plain, further)
    each, in_units = chosen(seen), chosen(seen, units=np.where(ROWS < 40, 0, ROWS))
    assert (each.way, in_units.way) == (SEVERAL, PLAIN)
    gains = [found.views[-1].gain for found in (each, in_units)]
    assert gains[0] is not None and gains[1] is not None and gains[0].mean == gains[1].mean > 0
    assert chosen(seen, units=np.zeros(COUNT, int)).way == PLAIN


def test_more_members_with_fewer_pictures_right_are_not_kept() -> None:
    """The second is surer where the first is right, and wrong in two of a hundred where that is right by a hair."""
    first = np.zeros((COUNT, CLASSES), np.float32)
    first[np.arange(COUNT), TRUTH] = 1.0
    wrong = np.arange(0, COUNT, 12)
    first[wrong] = 0.0
    first[wrong, (TRUTH[wrong] + 1) % 3] = 2.0
    second = np.zeros((COUNT, CLASSES), np.float32)
    second[np.arange(COUNT), TRUTH] = 1.0
    lost = np.arange(5, COUNT, 12)
    second[wrong] = 0.0
    second[lost] = 0.0
    second[lost, (TRUTH[lost] + 1) % 3] = 1.3
    found = chosen(seen_by("first", first), seen_by("second", second))
    single = next(
        one for one in found.backbones if one.name == names([Seen("first", first), Seen("second", second)], found)[0]
    )
    both = found.backbones[-1]
    assert both.gain is not None and both.gain.beyond_noise, "it would be better by its cross-entropy"
    assert both.accuracy < single.accuracy and not both.kept and len(found.members) == 1


def test_a_single_backbone_is_no_choice() -> None:
    found = chosen(GOOD)
    assert found.members == (0,) and found.backbones == () and found.views == ()


# --- ways to look


def test_several_views_are_kept_where_they_are_better_by_more_than_noise() -> None:
    found = chosen(seen_by("one", logits(1.5, 21, 1.5), logits(1.5, 22, 1.5)))
    plain, several = found.views
    assert found.way == SEVERAL and several.kept and not plain.kept
    assert several.gain is not None and several.gain.mean == pytest.approx(plain.log_loss - several.log_loss)
    assert (plain.name, several.name) == ("one", "2 views") and several.accuracy >= plain.accuracy


@pytest.mark.parametrize("further", [logits(1.5, 21, 1.5), logits(0, 22, 1.5), -logits(1.5, 22, 1.5)])
def test_views_that_say_the_same_or_nothing_or_the_opposite_are_not_kept(further: np.ndarray) -> None:
    found = chosen(seen_by("one", logits(1.5, 21, 1.5), further))
    assert found.way == PLAIN and [one.kept for one in found.views] == [True, False]
    assert set(found.temperature) == {PLAIN, SEVERAL}, "whoever asks for several views can have them"


def test_views_are_those_of_all_members_or_of_none() -> None:
    with_views = seen_by("one", logits(2, 11), logits(2, 15))
    found = chosen(with_views, seen_by("other", logits(2, 12)))
    assert len(found.members) == 2 and found.way == PLAIN and set(found.temperature) == {PLAIN} and found.views == ()
    assert ways([with_views]) == (PLAIN, SEVERAL) and ways([with_views, GOOD]) == (PLAIN,)
    dropped = chosen(with_views, NOISE)
    assert dropped.members == (0,) and set(dropped.temperature) == {PLAIN, SEVERAL}


def test_what_views_are_compared_with_are_the_members_that_are_kept() -> None:
    seen = [seen_by(name, logits(2, seed, 1.5), logits(2, seed + 5, 1.5)) for name, seed in (("a", 31), ("b", 32))]
    found = chosen(*seen)
    assert len(found.members) == 2 and found.way == SEVERAL
    plain, several = found.views
    assert plain.name == " + ".join(names(seen, found)) and several.name == "2 views"
    expected = loss(found.scores(with_all_right(seen), ROWS, PLAIN)) - loss(
        found.scores(with_all_right(seen), ROWS, SEVERAL)
    )
    assert several.gain[:2] == pytest.approx(paired(expected, ALONE)[:2])


def test_what_a_second_member_gains_is_not_put_down_to_the_views() -> None:
    seen = [seen_by(name, logits(2, seed, 1.5), logits(2, seed, 1.5)) for name, seed in (("a", 31), ("b", 32))]
    found = chosen(*seen)
    assert len(found.members) == 2 and found.way == PLAIN and found.views[1].gain is not None
    assert found.views[1].gain.mean == pytest.approx(0, abs=1e-9)


def with_all_right(seen: Sequence[Seen]) -> list[Seen]:
    """Turn what was seen, so that the heads of the model, which are always wrong, say what those apart said."""
    return [Seen(one.backbone, -one.features, views=None if one.views is None else -one.views) for one in seen]


# --- temperatures and scores


def test_each_way_has_the_temperature_that_fits_it() -> None:
    plain, mirrored = 5 * logits(1.5, 21), 0.2 * logits(1.5, 22)
    found = chosen(seen_by("one", plain, mirrored))
    assert found.temperature[PLAIN] == pytest.approx(fit_temperature(plain, TRUTH))
    assert found.temperature[SEVERAL] == pytest.approx(fit_temperature(np.stack([plain, mirrored], 1), TRUTH))
    assert abs(math.log(found.temperature[PLAIN] / found.temperature[SEVERAL])) > 0.1


def test_several_members_share_a_temperature_that_fits_the_mean_of_their_probabilities() -> None:
    seen = [seen_by("a", 4 * logits(2, 11)), seen_by("b", logits(2, 12))]
    found = chosen(*seen)
    assert len(found.members) == 2
    both = np.stack([seen[number].features for number in found.members], axis=1)
    assert found.temperature[PLAIN] == pytest.approx(fit_temperature(both, TRUTH))
    around = [float(loss(softmax(both, found.temperature[PLAIN] * by).mean(axis=1)).mean()) for by in (0.8, 1, 1.25)]
    assert around[1] < min(around[0], around[2])


def test_scores_are_the_mean_of_the_probabilities_of_members_and_views() -> None:
    seen = [seen_by(name, logits(2, seed, 1.5), logits(2, seed + 5, 1.5)) for name, seed in (("a", 31), ("b", 32))]
    found, rows = chosen(*seen), np.array([7, 3, 200])
    assert set(found.members) == {0, 1}
    temperature = found.temperature[SEVERAL]
    each = [softmax(-one.views[rows, view], temperature) for one in seen for view in range(2) if one.views is not None]
    assert found.scores(seen, rows) == pytest.approx(np.mean(each, axis=0))
    plain = [softmax(-one.features[rows], found.temperature[PLAIN]) for one in seen]
    assert found.scores(seen, rows, PLAIN) == pytest.approx(np.mean(plain, axis=0))
    raw = [softmax(-one.features[rows]) for one in seen]
    assert found.scores(seen, rows, PLAIN, calibrated=False) == pytest.approx(np.mean(raw, axis=0))
    assert found.scores(seen, rows).sum(axis=1) == pytest.approx(1)


def test_a_member_that_was_not_kept_has_no_say_in_the_scores() -> None:
    seen = [NOISE, GOOD]
    found = chosen(*seen)
    assert found.members == (1,) and [number for number, _ in found.kept()] == [1]
    assert found.scores(seen, ROWS) == pytest.approx(softmax(-GOOD.features, found.temperature[PLAIN]))


# --- what choices are made by


def test_choices_are_made_by_heads_that_did_not_learn_from_the_picture() -> None:
    """The heads of the model, which have learnt from all, would choose the other one."""
    opposite = [Fitted(AS_IT_IS, one.sweep, one.apart) for one in (handing_on(apart=WRONG), handing_on())]
    seen = [seen_by("right by heart", logits(4, 1)), seen_by("right", logits(2, 2))]
    assert choose(seen, opposite, ROWS, TRUTH, ALONE).members == (1,)


def test_only_pictures_that_some_head_did_not_learn_from_are_counted() -> None:
    held_out = np.arange(COUNT) % 4 == 1
    said = logits(2, 11)
    said[~held_out] = -50 * said[~held_out]
    found = chosen(seen_by("one", said, logits(2, 12)), seen_by("other", logits(0, 3)), held_out=held_out)
    assert found.members == (0,) and found.backbones[-1].gain is not None
    assert found.backbones[-1].gain.pictures == int(held_out.sum())
    assert found.temperature[PLAIN] == pytest.approx(fit_temperature(said[held_out], TRUTH[held_out]))
    assert found.backbones[0].accuracy == pytest.approx((said[held_out].argmax(1) == TRUTH[held_out]).mean())


def test_the_rows_that_were_learnt_from_may_be_any_of_those_that_are_seen() -> None:
    rows = np.random.default_rng(0).permutation(COUNT)[:100]
    said, further = logits(1.5, 21), logits(1.5, 22)
    moved = [np.full((3 * COUNT, CLASSES), 99, np.float32) for _ in range(2)]
    for all_rows, one in zip(moved, (said, further), strict=True):
        all_rows[2 * rows + 5] = one[rows]
    fitted = handing_on(np.ones(100, bool))
    found = choose([seen_by("one", *moved)], [fitted], 2 * rows + 5, TRUTH[rows], np.arange(100))
    assert found.temperature[PLAIN] == pytest.approx(fit_temperature(said[rows], TRUTH[rows]))
    assert found.temperature[SEVERAL] == pytest.approx(fit_temperature(np.stack([said, further], 1)[rows], TRUTH[rows]))


def test_with_nothing_to_choose_by_it_is_the_first_backbone_and_the_picture_as_it_is() -> None:
    nothing = Fitted(AS_IT_IS, Sweep(1e-2, (), (), (), 0, "too few pictures to choose by"))
    seen = [seen_by("first", logits(0, 1), logits(0, 2)), seen_by("second", logits(4, 3), logits(4, 4))]
    found = choose(seen, [nothing, nothing], ROWS, TRUTH, ALONE)
    assert (found.members, found.way, found.backbones, found.views) == ((0,), PLAIN, (), ())
    assert found.temperature == {PLAIN: 1.0, SEVERAL: 1.0}
    assert choose(seen[1:], [nothing], ROWS, TRUTH, ALONE).fitted == (nothing,)
    assert choose([GOOD], [nothing], ROWS, TRUTH, ALONE).temperature == {PLAIN: 1.0}


def test_learning_gives_each_backbone_a_head_of_its_own_and_the_views_it_has(monkeypatch: pytest.MonkeyPatch) -> None:
    given = []
    fit_best = head.fit_best
    monkeypatch.setattr(head, "fit_best", lambda features, *rest: given.append(features) or fit_best(features, *rest))
    said, rows = logits(2, 11), np.arange(0, COUNT, 2)
    augmented = np.stack([said, logits(2, 14), logits(2, 15)], axis=1)
    seen = [Seen("views", said, augmented=augmented), Seen("wide", np.hstack([logits(2, 12), logits(0, 1)]))]
    settings = HeadSettings(steps=60, l2=1e-2)
    found = learn(seen, rows, TRUTH[rows], CLASSES, np.zeros(len(rows), bool), rows, settings)
    assert [features.shape for features in given] == [(120, 3, 3), (120, 6)]
    assert np.array_equal(given[0], augmented[rows]) and np.array_equal(given[1], seen[1].features[rows])
    assert len(found.backbones) == 3 and found.way == PLAIN
    for number, fitted in found.kept():
        assert fitted.head.kernel.shape == (seen[number].features.shape[1], CLASSES)
        assert (found.scores(seen, rows).argmax(axis=1) == TRUTH[rows]).mean() > 0.8


def test_the_way_in_which_nothing_more_is_seen_is_the_picture_itself() -> None:
    assert np.array_equal(GOOD.looks(ROWS[:5], SEVERAL), GOOD.features[:5, np.newaxis])
    views = seen_by("one", logits(1, 1), logits(1, 2))
    assert views.looks(ROWS[3:9], PLAIN).shape == (6, 1, CLASSES) and views.looks(ROWS[3:9], SEVERAL).shape == (
        6,
        2,
        CLASSES,
    )
    assert np.array_equal(views.looks(ROWS[3:9], PLAIN)[:, 0], views.looks(ROWS[3:9], SEVERAL)[:, 0])
    assert np.array_equal(views.to_learn(ROWS[:4]), views.features[:4]), "what is looked at is not learnt from"


# --- what is told


def test_what_differs_between_equal_runs_is_told_and_not_kept() -> None:
    one = Compared("a + b", 0.5, 0.9, 12.34, Paired(0.1, 0.02, 77), True)
    kept = one.as_json()
    assert kept == {
        "name": "a + b",
        "log_loss": 0.5,
        "accuracy": 0.9,
        "gain": {"mean": 0.1, "standard_error": 0.02, "pictures": 77, "units": 10**9},
        "kept": True,
    }
    assert str(one) == "a + b: 90.0 % right, cross-entropy 0.500, gain +0.100 ± 0.040 nats, 12.3 ms a picture"
    first = Compared("a", 0.5, 0.9, 1.0, None, False)
    assert first.as_json()["gain"] is None and "gain" not in str(first)


def test_what_a_picture_costs_is_the_sum_over_members_and_views() -> None:
    seen = [
        seen_by("a", logits(2, 31, 1.5), logits(2, 36, 1.5), milliseconds=2.0),
        seen_by("b", logits(2, 32, 1.5), logits(2, 37, 1.5), milliseconds=5.0),
    ]
    found = chosen(*seen)
    costs = {one.name: one.milliseconds for one in found.backbones}
    assert costs["a"] == 2 and costs["b"] == 5 and costs[" + ".join(names(seen, found))] == 7
    assert [one.milliseconds for one in found.views] == [7, 14]


def test_what_was_compared_is_told_line_by_line_and_that_views_do_not_help() -> None:
    heard = Heard()
    found = chosen(seen_by("one", logits(2, 11), logits(0, 12)), NOISE)
    tell_of_choices(found, None, heard)
    assert len(heard.notes) == 3 + 2 + 1
    assert heard.notes[0].startswith("kept: one: ") and heard.notes[1].startswith("tried: no: ")
    assert heard.notes[2].startswith("tried: one + no: ") and heard.notes[4].startswith("tried: 2 views: ")
    assert heard.notes[5].startswith("test-time augmentation is off")
    heard.notes.clear()
    tell_of_choices(chosen(seen_by("one", logits(1.5, 21, 1.5), logits(1.5, 22, 1.5))), None, heard)
    assert len(heard.notes) == 2 and heard.notes[1].startswith("kept: 2 views: ")
    heard.notes.clear()
    tell_of_choices(chosen(GOOD), None, heard)
    assert heard.notes == []
