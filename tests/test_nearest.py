"""What a model knows of its training pictures: how usual another picture is, and which of them are nearest to it."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import save as tensors

from retrain import artifact
from retrain.artifact import Loaded, Reference, reference_sample
from retrain.errors import ModelRefused
from retrain.label import Labeller, of
from retrain.nearest import Nearest, held_out
from retrain.scores import log_sum_exp
from tests.drawing import COLOURS, draw

SIZE, CLASSES = 6, 3


def kind(count: int, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Pictures of three classes: features, float32 (count, SIZE), what a fixed head says of them, labels."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, CLASSES, count)
    features = (np.eye(SIZE)[labels] * 4 + rng.normal(0, 1, (count, SIZE))).astype(np.float32)
    return features, features[:, :CLASSES] * 2, labels


def reference_of(count: int = 300, seed: int = 0) -> Reference:
    features, logits, labels = kind(count, seed)
    return Reference(
        features.astype(np.float16), np.random.default_rng(seed).integers(0, 256, (count, 32)).astype(np.uint8),
        labels.astype(np.int32), held_out(features, np.arange(count), logits),
    )  # fmt: skip


@pytest.fixture(scope="module")
def reference() -> Reference:
    return reference_of()


@pytest.fixture(scope="module")
def nearest(reference: Reference) -> Nearest:
    return Nearest(reference)


@pytest.fixture(scope="module")
def loaded(trained: Path) -> Loaded:
    return artifact.load(trained / "model")


@pytest.mark.parametrize("seed", [1, 2])
def test_of_pictures_like_the_known_ones_a_share_r_has_a_typicality_of_r_or_less(seed: int) -> None:
    typicality = Nearest(reference_of(500, seed + 10)).typicality(*kind(4000, seed)[:2])
    for rate in (0.05, 0.1, 0.3, 0.5, 0.8):
        assert float((typicality <= rate).mean()) == pytest.approx(rate, abs=0.04), rate


@pytest.mark.parametrize("count", [24, 300])
def test_what_is_unlike_everything_has_the_least_typicality_there_is(count: int) -> None:
    far, no_class = -np.ones((1, SIZE), np.float32), np.full((1, CLASSES), -50, np.float32)
    assert Nearest(reference_of(count + 1)).typicality(far, no_class) == pytest.approx(1 / (count + 2))


def test_typicality_is_above_0_and_at_most_1(nearest: Nearest) -> None:
    features, logits, _ = kind(1200, 5)  # more than are compared at a time
    typicality = nearest.typicality(features, logits)
    assert typicality.shape == (1200,) and (typicality > 0).all() and (typicality <= 1).all()
    assert np.array_equal(typicality[[0, 1100]], nearest.typicality(features[[0, 1100]], logits[[0, 1100]]))


def test_the_farther_away_the_less_usual(nearest: Nearest, reference: Reference) -> None:
    """From a training picture straight to the opposite of all of them."""
    start, end = reference.features[0].astype(np.float32), -np.ones(SIZE, np.float32)
    way = np.array([start * (1 - share) + end * share for share in np.linspace(0, 1, 30)])
    logits = np.repeat(reference.features[:1, :CLASSES].astype(np.float32) * 2, 30, axis=0)
    distances = 1 - (way / np.linalg.norm(way, axis=1)[:, None] @ _units(reference).T).max(axis=1)
    typicality = nearest.typicality(way, logits)[np.argsort(distances)]
    assert (np.diff(typicality) <= 0).all() and typicality[0] > 4 * typicality[-1]


def test_the_less_evidence_the_less_usual(nearest: Nearest, reference: Reference) -> None:
    features = np.repeat(reference.features[:1].astype(np.float32), 30, axis=0)
    logits = np.repeat(reference.features[:1, :CLASSES].astype(np.float32) * 2, 30, axis=0)
    typicality = nearest.typicality(features, logits - np.linspace(0, 20, 30, dtype=np.float32)[:, None])
    assert (np.diff(typicality) <= 0).all() and typicality[0] > 4 * typicality[-1]


def _units(reference: Reference) -> np.ndarray:
    features = reference.features.astype(np.float32)
    units: np.ndarray = features / np.linalg.norm(features, axis=1)[:, None]
    return units


def test_how_long_the_features_are_does_not_matter_to_how_near_they_are(nearest: Nearest) -> None:
    features, logits, _ = kind(20, 8)
    assert np.array_equal(nearest.typicality(features * 1000, logits), nearest.typicality(features, logits))
    sizes = [[one.similarity for one in nearest.neighbours(features[0] * factor, 5)] for factor in (1, 1000)]
    assert sizes[0] == pytest.approx(sizes[1], abs=1e-6)


def test_features_that_are_all_zero_are_no_division_by_zero(nearest: Nearest) -> None:
    with np.errstate(all="raise"):
        assert 0 < nearest.typicality(np.zeros((1, SIZE), np.float32), np.zeros((1, CLASSES), np.float32))[0] < 0.2


@given(st.lists(st.floats(-(2.0**90), 2.0**90, width=32), min_size=1, max_size=6))
def test_evidence_is_the_logarithm_of_the_sum_of_exponentials(values: list[float]) -> None:
    found = log_sum_exp(np.array([values], np.float32))
    assert found.dtype == np.float64 and found[0] == pytest.approx(np.logaddexp.reduce(np.array(values, np.float64)))


def test_neighbours_are_in_the_order_of_similarity_and_are_the_nearest(nearest: Nearest, reference: Reference) -> None:
    features = kind(1, 9)[0][0]
    cosines = _units(reference) @ (features / np.linalg.norm(features))
    found = nearest.neighbours(features, 7)
    order = np.argsort(-cosines)[:7]
    assert [one.sha256 for one in found] == [reference.hashes[row].tobytes().hex() for row in order]
    assert [one.label for one in found] == reference.labels[order].tolist()
    assert [one.similarity for one in found] == pytest.approx(cosines[order], abs=1e-5)
    assert all(type(one.label) is int and type(one.similarity) is float for one in found), "JSON knows no other numbers"


def test_a_picture_is_not_its_own_neighbour_and_no_similarity_is_above_1(nearest: Nearest, reference: Reference) -> None:
    itself, features = reference.hashes[3].tobytes().hex(), reference.features[3].astype(np.float32)
    first = nearest.neighbours(features, 3)
    assert first[0].sha256 == itself and 1 - 1e-6 < first[0].similarity <= 1
    others = nearest.neighbours(features, 2, without=[itself])
    assert others == first[1:]
    assert all(one.similarity <= 1 for row in reference.features for one in nearest.neighbours(row.astype(np.float32), 1))


def test_of_files_with_the_same_bytes_one_is_named(reference: Reference) -> None:
    twice = Reference(*(np.concatenate([array, array[:5]]) for array in dataclasses.astuple(reference)))
    found = Nearest(twice).neighbours(reference.features[0].astype(np.float32), 10**6)
    assert len(found) == len({one.sha256 for one in found}) == 300
    assert found[0].sha256 == reference.hashes[0].tobytes().hex()


def test_more_neighbours_than_there_are_pictures_are_all_of_them(nearest: Nearest) -> None:
    assert len(nearest.neighbours(kind(1, 9)[0][0], 10**6)) == 300 and nearest.neighbours(kind(1, 9)[0][0], 0) == []


def test_without_held_out_pictures_nothing_is_called_unknown(loaded: Loaded, tmp_path: Path) -> None:
    black = draw(tmp_path / "black.png", (0, 0, 0), 1)
    knows = loaded.reference()
    mute = Nearest(dataclasses.replace(knows, held_out=np.empty((0, 2), np.float32)))
    assert Nearest(knows).can_tell() and not mute.can_tell()
    said = Labeller(loaded.artifact, nearest=mute, unknown=0.5).label(black, neighbours=2)
    assert (said.typicality, said.unknown, len(said.neighbours)) == (None, False, 2)
    without = Labeller(loaded.artifact, unknown=0.5).label(black, neighbours=2)
    assert (without.typicality, without.unknown, without.neighbours) == (None, False, ())


@pytest.mark.parametrize("rate", [0.05, 0.1, 0.5])
def test_a_picture_is_unknown_from_the_rate_that_was_asked_for(loaded: Loaded, tmp_path: Path, rate: float) -> None:
    pictures = [draw(tmp_path / f"{seed}.png", colour, seed) for seed, colour in enumerate([*COLOURS.values()] * 8)]
    pictures.append(draw(tmp_path / "grey.png", (90, 90, 90), 99))
    labeller = of(loaded, unknown=rate)
    for said in map(labeller.copy().label, pictures):
        assert said.typicality is not None and said.unknown == (said.typicality <= rate)
    assert not any(of(loaded, unknown=0).label(picture).unknown for picture in pictures)


def test_black_is_unlike_the_training_pictures_and_a_new_one_of_a_class_is_not(loaded: Loaded, tmp_path: Path) -> None:
    labeller = of(loaded)
    assert labeller.label(draw(tmp_path / "black.png", (0, 0, 0), 1)).unknown
    for name, colour in COLOURS.items():
        said = labeller.label(draw(tmp_path / "new.png", colour, 800), neighbours=3)
        assert not said.unknown and {one.label for one in said.neighbours} == {name}


def test_a_held_out_distance_is_that_to_the_nearest_picture_of_another_unit() -> None:
    angles = np.radians([0, 1, 40, 90])
    features = np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)
    logits = np.array([[0, 0], [1, 1], [2, 2], [3, 3]], np.float32)
    apart = held_out(features, np.arange(4), logits)
    assert apart.dtype == np.float32
    assert apart[:, 0] == pytest.approx(1 - np.cos(np.radians([1, 1, 39, 50])), abs=1e-6)
    assert apart[:, 1] == pytest.approx(np.arange(4) + np.log(2))
    scene = held_out(features, np.array([7, 7, 8, 9]), logits)
    assert scene[:, 0] == pytest.approx(1 - np.cos(np.radians([40, 39, 39, 50])), abs=1e-6)


def test_pictures_without_another_unit_are_left_out_and_so_are_values_that_are_not_finite() -> None:
    features, logits, _ = kind(5, 1)
    assert held_out(features, np.zeros(5, int), logits).shape == (0, 2)
    assert held_out(features, np.array([0, 0, 0, 0, 1]), logits).shape == (5, 2)
    logits[2] = np.nan
    assert held_out(features, np.arange(5), logits).shape == (4, 2)


def test_held_out_figures_are_the_same_however_many_pictures_are_compared_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    features, logits, _ = kind(50, 2)
    units = np.arange(50) // 2
    whole = held_out(features, units, logits)
    monkeypatch.setattr("retrain.nearest._BLOCK", 7)
    assert np.allclose(held_out(features, units, logits), whole, atol=1e-6)


def hashes_of(count: int, seed: int = 0) -> list[str]:
    return [row.tobytes().hex() for row in np.random.default_rng(seed).integers(0, 256, (count, 32)).astype(np.uint8)]


@pytest.mark.parametrize(
    ("counts", "kept"),
    [
        ([5, 7], [5, 7]),
        ([5000, 10, 1500], [995, 10, 995]),
        ([3000, 0, 3000], [1000, 0, 1000]),
        ([1000, 1000], [1000, 1000]),
        ([1] * 2500, None),
    ],
)
def test_the_sample_is_as_even_over_the_classes_as_can_be(counts: list[int], kept: list[int] | None) -> None:
    labels = np.random.default_rng(1).permutation(np.repeat(np.arange(len(counts)), counts))
    rows = reference_sample(hashes_of(len(labels)), labels)
    assert len(rows) == min(2000, len(labels)) and (np.diff(rows) > 0).all()
    found = np.bincount(labels[rows], minlength=len(counts)).tolist()
    assert found == kept if kept else max(found) == 1


def test_the_sample_is_the_smallest_hashes_of_each_class_in_whatever_order_pictures_come() -> None:
    hashes, labels = hashes_of(6000), np.arange(6000) % 2
    chosen = {hashes[row] for row in reference_sample(hashes, labels)}
    assert chosen == {*sorted(hashes[::2])[:1000], *sorted(hashes[1::2])[:1000]}
    order = np.random.default_rng(1).permutation(6000)
    assert chosen == {hashes[order[row]] for row in reference_sample([hashes[row] for row in order], labels[order])}


def test_a_model_keeps_what_was_learnt_from_and_nothing_of_the_test_part(loaded: Loaded) -> None:
    part = {row.sha256: row.part for row in loaded.split()}
    label = {row.sha256: row.label for row in loaded.split()}
    reference = loaded.reference()
    keys = [row.tobytes().hex() for row in reference.hashes]
    assert set(keys) == {sha256 for sha256, where in part.items() if where != "test"}
    assert [loaded.artifact.labels[number] for number in reference.labels] == [label[key] for key in keys]
    assert reference.held_out.shape == (len(keys), 2) and (reference.held_out[:, 0] > 0).all()


SPOILT = {
    "features of another size": {"features": lambda a: a[:, 1:]},
    "fewer features": {"features": lambda a: a[1:]},
    "one row of features": {"features": lambda a: a[0]},
    "short hashes": {"hashes": lambda a: a[:, :20]},
    "more hashes": {"hashes": lambda a: np.concatenate([a, a])},
    "hashes that are no bytes": {"hashes": lambda a: a.astype(np.int64)},
    "labels in a table": {"labels": lambda a: a[:, None]},
    "a label that the model does not have": {"labels": lambda a: a + 1},
    "a label below 0": {"labels": lambda a: a - 1},
    "a single label": {"labels": lambda a: a[0]},
    "held-out figures in one column": {"held_out": lambda a: a[:, :1]},
    "held-out figures in a row": {"held_out": lambda a: a.ravel()},
}


@pytest.mark.parametrize("name", SPOILT)
def test_a_reference_that_does_not_fit_the_model_is_refused(loaded: Loaded, name: str) -> None:
    arrays = dataclasses.asdict(loaded.reference())
    loaded.reference().check(24, 3)
    for array, spoil in SPOILT[name].items():
        arrays[array] = np.ascontiguousarray(spoil(arrays[array]))
    with pytest.raises(ModelRefused, match=r"the reference of the model cannot be used \(.*\); train again"):
        with_reference(loaded, tensors(arrays)).reference()
    with pytest.raises(ModelRefused):
        of(with_reference(loaded, tensors(arrays)))


def test_a_reference_of_other_names_or_none_at_all_is_refused(loaded: Loaded) -> None:
    arrays = dataclasses.asdict(loaded.reference())
    fewer = {name: array for name, array in arrays.items() if name != "labels"}
    for data in (b"", b"words", tensors(fewer), tensors({**arrays, "more": arrays["labels"]})):
        with pytest.raises(ModelRefused, match="train again"):
            with_reference(loaded, data).reference()


def test_a_reference_of_a_model_from_before_there_were_held_out_figures_is_read(loaded: Loaded) -> None:
    arrays = dataclasses.asdict(loaded.reference())
    del arrays["held_out"]
    old = with_reference(loaded, tensors(arrays))
    assert not Nearest(old.reference()).can_tell() and len(old.reference().labels) == len(arrays["labels"])


def with_reference(loaded: Loaded, data: bytes) -> Loaded:
    files = {**loaded._files, loaded.manifest["reference"]["file"]: data}
    return dataclasses.replace(loaded, _files=files)
