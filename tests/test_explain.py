"""Where in a picture a label comes from: the map is exact, follows what is shown, and is drawn over the picture."""

import dataclasses
import io
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import retrain as package
from retrain import backbones, facts
from retrain.backbones import Backbone
from retrain.errors import ModelRefused, UsageError
from retrain.explain import Explained, Explainer, panel, words
from retrain.explain.explained import ACTIVATION, OCCLUSION
from retrain.explain.guided import as_picture, gradients, guided
from retrain.finetune.network import tensors
from retrain.heat import colours, maps
from retrain.heat.region import border_share, region
from retrain.images import decode
from retrain.label import Labeller, load
from retrain.lettering import fitting
from retrain.pipeline import train
from retrain.settings import HeadSettings
from tests.conftest import Ran
from tests.drawing import COLOURS, draw
from tests.test_imports import NO_TENSORFLOW, python

SAMPLES = Path(__file__).parent.parent / "test_data"
Command = Callable[..., Ran]


@pytest.fixture(scope="module")
def explainer(trained: Path) -> Explainer:
    return Explainer(load(trained / "model"))


def png(pixels: np.ndarray) -> bytes:
    data = io.BytesIO()
    Image.fromarray(pixels.astype(np.uint8)).save(data, "PNG")
    return data.getvalue()


def blob(row: int, column: int, colour: str = "red", side: int = 64) -> np.ndarray:
    """A grey picture with a square of one colour in it, a quarter of its side long."""
    pixels = np.full((side, side, 3), 127)
    quarter = side // 4
    pixels[row * quarter : (row + 1) * quarter, column * quarter : (column + 1) * quarter] = COLOURS[colour]
    return pixels


def hottest(grid: np.ndarray) -> tuple[float, float]:
    """Where the hottest place is, as shares of height and width."""
    row, column = np.unravel_index(int(grid.argmax()), grid.shape)
    return (float(row) + 0.5) / grid.shape[0], (float(column) + 0.5) / grid.shape[1]


# --- the map


def by_gradient(model: Any, kernel: np.ndarray, bias: np.ndarray, pixels: np.ndarray, number: int) -> np.ndarray:
    """Grad-CAM, as its authors have it, before what speaks against the label is left out: (rows, columns)."""
    import tensorflow as tf

    with tf.GradientTape() as tape:
        spatial = model(pixels[np.newaxis].astype(np.float32), training=False)[1]
        tape.watch(spatial)
        logit = (tf.reduce_mean(spatial, axis=(1, 2)) @ kernel + bias)[0, number]
    weights = tf.reduce_mean(tape.gradient(logit, spatial), axis=(1, 2))
    return np.asarray(tf.reduce_sum(weights[:, None, None] * spatial, axis=-1)[0])


def check_gradient(explainer: Explainer, model: Any, data: bytes) -> None:
    (member,) = explainer.model.members
    explained = explainer.explain(data, explainer.model.labels)
    assert explained.way == ACTIVATION and len(explained.maps) == len(explainer.model.labels)
    for number, one in enumerate(explained.maps):
        expected = by_gradient(model, member.kernel, member.bias, explained.pixels, number)
        found = one.grid / one.grid.size
        assert np.abs(expected).max() > 1e-4
        np.testing.assert_allclose(found, expected, atol=1e-5)
        np.testing.assert_allclose(np.maximum(found, 0), np.maximum(expected, 0), atol=1e-5)


def test_the_map_is_that_of_grad_cam_by_gradient(explainer: Explainer, tiny: Backbone, tmp_path: Path) -> None:
    data = draw(tmp_path / "unseen.png", COLOURS["green"], 501).read_bytes()
    check_gradient(explainer, tiny.build(tiny.weights(), tiny.image_size), data)


def test_its_mean_and_the_bias_are_the_logit(explainer: Explainer, tmp_path: Path) -> None:
    data = draw(tmp_path / "unseen.png", COLOURS["green"], 501).read_bytes()
    _, (sight,) = Labeller(explainer.model).look(data)
    assert sight.spatial is None
    found = [one.grid.mean() for one in explainer.explain(data, explainer.model.labels).maps]
    np.testing.assert_allclose(found + explainer.model.members[0].bias, sight.logits, atol=1e-5)


@pytest.mark.parametrize("row", range(4))
@pytest.mark.parametrize("column", range(4))
def test_it_follows_a_thing_that_is_moved_about(explainer: Explainer, row: int, column: int) -> None:
    (found,) = explainer.explain(png(blob(row, column)), ["red"]).maps
    assert np.abs(np.subtract(hottest(found.grid), [(row + 0.5) / 4, (column + 0.5) / 4])).max() <= 0.125 + 1e-9


def test_it_changes_when_the_weights_of_the_head_are_shuffled(explainer: Explainer, tmp_path: Path) -> None:
    data = draw(tmp_path / "unseen.png", COLOURS["green"], 501).read_bytes()
    (member,) = explainer.model.members
    shuffled = dataclasses.replace(member, kernel=np.random.default_rng(0).permutation(member.kernel))
    other = Explainer(Labeller(dataclasses.replace(explainer.model, members=(shuffled,))))
    (before,), (after,) = (one.explain(data, ["green"]).maps for one in (explainer, other))
    assert abs(np.corrcoef(before.grid.ravel(), after.grid.ravel())[0, 1]) < 0.9


def test_each_label_lights_its_own_of_two_things(explainer: Explainer) -> None:
    pixels = blob(1, 0, "red")
    pixels[:, 32:] = blob(1, 3, "blue")[:, 32:]
    red, blue = explainer.explain(png(pixels), ["red", "blue"]).maps
    assert (red.label, blue.label) == ("red", "blue")
    assert hottest(red.grid)[1] < 0.3 and hottest(blue.grid)[1] > 0.7


def test_without_a_map_places_are_covered_one_by_one(tf_files: Path, squares: Backbone) -> None:
    train(tf_files, head=HeadSettings(steps=40, l2=1e-2), backbone=squares)
    found = Explainer(load(tf_files / "model")).explain(png(blob(0, 3, side=66)), ["red"])
    assert found.way == OCCLUSION and found.maps[0].grid.shape == (8, 8)
    row, column = hottest(np.abs(found.maps[0].grid))
    assert row < 0.4 and column > 0.6


def test_covering_finds_what_the_logit_rests_on() -> None:
    def corner(pixels: np.ndarray) -> np.ndarray:
        return pixels[:, 48:, :16].astype(np.float64).mean(axis=(1, 2))

    grid = maps.occlusion(blob(3, 0).astype(np.uint8), corner)[0]
    assert hottest(grid)[0] > 0.75 and hottest(grid)[1] < 0.25
    assert np.abs(grid[:4, 4:]).max() == 0 < grid.max()


def test_maps_of_several_networks_are_averaged_at_the_finest_size() -> None:
    coarse, fine = np.array([[[0.0, 4.0]]]), np.zeros((1, 2, 4))
    found = maps.mean([coarse, fine])
    assert found.shape == (1, 2, 4) and found[0, :, 0] == pytest.approx(0) and found[0, :, 3] == pytest.approx(2)


def test_of_two_networks_the_map_is_the_mean_of_theirs(explainer: Explainer, tmp_path: Path) -> None:
    data = draw(tmp_path / "unseen.png", COLOURS["green"], 501).read_bytes()
    (member,) = explainer.model.members
    other = dataclasses.replace(member, kernel=np.random.default_rng(0).permutation(member.kernel))
    grids = [
        Explainer(Labeller(dataclasses.replace(explainer.model, members=members))).explain(data, ["green"]).maps[0].grid
        for members in ((member,), (other,), (member, other))
    ]
    assert np.abs(grids[0] - grids[1]).max() > 0.1
    np.testing.assert_allclose(grids[2], (grids[0] + grids[1]) / 2, atol=1e-6)


def test_of_several_views_the_map_is_that_of_the_picture_as_it_is(explainer: Explainer) -> None:
    several = dataclasses.replace(explainer.model, views=("(flip=1)",), temperature={"none": 1.0, "views": 1.0}, way="views")
    plain, found = (Explainer(Labeller(one)).explain(png(blob(1, 0)), ["red"]).maps[0] for one in (explainer.model, several))
    assert np.array_equal(plain.grid, found.grid) and hottest(found.grid)[1] < 0.3


def test_on_a_photo_that_was_read_smaller_the_map_lies_where_it_should(explainer: Explainer) -> None:
    data = io.BytesIO()
    Image.fromarray(blob(1, 0, "red", 800).astype(np.uint8)).resize((1600, 800)).save(data, "JPEG", quality=95)
    explained = explainer.explain(data.getvalue(), ["red"])
    whole = decode(data.getvalue()).image
    assert explained.image.size != whole.size == (1600, 800)
    drawn = np.asarray(panel.draw(explained, whole), int)
    blank = dataclasses.replace(explained, maps=(dataclasses.replace(explained.maps[0], grid=0 * explained.maps[0].grid),))
    heat = np.abs(drawn - np.asarray(panel.draw(blank, whole), int)).sum(axis=2)[100:860]
    row, column = (float((heat.sum(axis=1 - axis) * np.arange(heat.shape[axis])).sum() / heat.sum()) for axis in (0, 1))
    assert 200 < row < 400 and 100 < column < 400


def test_of_cropped_borders_the_map_lies_within_them(tf_files: Path, tiny: Backbone) -> None:
    train(tf_files, head=HeadSettings(steps=40, l2=1e-2), backbone=tiny, crop_borders=True)
    pixels = np.zeros((90, 100, 3), np.uint8)
    pixels[10:74, 20:84] = blob(0, 0) + np.random.default_rng(0).integers(-20, 20, (64, 64, 3))
    found = Explainer(load(tf_files / "model")).explain(png(pixels), ["red"])
    assert found.box == (20, 10, 84, 74)
    grid = found.maps[0].grid
    drawn, without = (np.asarray(colours.overlay(found.image, one, found.box, found.most), int) for one in (grid, 0 * grid))
    heat = np.abs(drawn - without).sum(axis=2)
    assert heat.shape == pixels.shape[:2] and heat[10:26, 20:36].max() > 50
    assert heat[:10].max() == heat[74:].max() == heat[:, :20].max() == heat[:, 84:].max() == 0


# --- where it lies, in words


def test_a_region_is_named_with_its_size_and_edges() -> None:
    grid = np.zeros((6, 6))
    grid[0, 5] = 3.0
    found = region(grid)
    assert (found.share, found.where, found.edges) == (1 / 36, "upper right", ("top", "right"))
    assert str(found) == "half of the evidence lies on 3 % of the picture: upper right"
    assert region(np.ones((6, 6))).where == "all over" and not region(-np.ones((6, 6))).evidence
    middle = np.zeros((7, 7))
    middle[2:5, 2:5] = 1
    assert region(middle).where == "middle" and region(middle).edges == ()


def test_no_region_is_named_where_there_is_no_heat() -> None:
    two = np.zeros((6, 6))
    two[3, 0] = two[3, 5] = 1
    assert region(two).where == "left and right"
    upper = np.zeros((8, 8))
    upper[0] = 1
    assert region(upper).where == "the upper half"
    wide = np.zeros((6, 6))
    wide[1:5, 1:5] = 1
    assert region(wide).where == "around the middle"
    ends = np.zeros((6, 6))
    ends[[0, 0, 5, 5], [0, 5, 0, 5]] = 1
    assert region(ends).where == "all over"


def test_of_a_part_of_a_picture_the_region_is_that_of_the_whole() -> None:
    right = np.zeros((4, 4))
    right[:, 3] = 1
    found = region(right, (0.0, 0.0, 0.25, 1.0))
    assert (found.where, found.share, found.edges) == ("the left half", pytest.approx(1 / 32), ("top",))


def test_the_share_of_heat_along_the_border_counts_parts_of_places() -> None:
    assert border_share(np.ones((4, 4)), 0.25, 0.25) == pytest.approx(0.75)
    assert border_share(np.ones((4, 4)), 0.125, 0.125) == pytest.approx(1 - 0.75**2)
    middle = np.zeros((4, 4))
    middle[1:3, 1:3] = 1
    assert border_share(middle, 0.25, 0.25) == 0 == border_share(-middle, 0.25, 0.25)


def test_the_label_is_told_apart_from_what_was_asked_for(explainer: Explainer) -> None:
    explained = explainer.explain(png(blob(1, 0)), ["blue"])
    first, second, third = (str(score) for score in explained.labelled.scores)
    said = words.lines(explained, [], lambda near: "")
    assert f"label: {first}" in said and f"runner-up: {second}" in said and not any(third in line for line in said[2:])
    assert words.as_json(explained, [])["runner_up"] == explained.labelled.scores[1].label
    assert not any(
        line.startswith("label: ") for line in words.lines(explainer.explain(png(blob(1, 0))), [], lambda near: "")
    )


def remarks(explainer: Explainer, data: bytes, label: str = "red") -> dict[str, str]:
    found = words.remarks(explainer.explain(data, [label]), facts.of_picture(decode(data), len(data)))
    return {one.kind: one.words for one in found}


def test_what_is_odd_about_a_picture_is_said(explainer: Explainer, trained: Path) -> None:
    rng = np.random.default_rng(0)
    assert "dark" in remarks(explainer, png(rng.integers(0, 25, (80, 80, 3))))
    assert "bright" in remarks(explainer, png(rng.integers(243, 255, (80, 80, 3))))
    cropped = remarks(explainer, png(blob(0, 2)))
    assert cropped["cropped"] == "cropped, perhaps: the strongest evidence lies at the edge (top)"
    assert "cropped" not in remarks(explainer, png(blob(1, 2)))
    own = (trained / "data" / "red" / "red000.png").read_bytes()
    assert remarks(explainer, own)["near-duplicate"].startswith(
        "nearly the same as a training picture in red (similarity = "
    )
    stripes = np.zeros((64, 64, 3))
    stripes[::2] = 255
    assert "unknown" in remarks(explainer, png(stripes)) and "unknown" not in remarks(explainer, own)


# --- drawn


@pytest.mark.parametrize("side", [40, 320])
def test_all_maps_have_the_size_of_the_picture_and_one_scale(explainer: Explainer, side: int) -> None:
    pixels = blob(1, 0, "red", side)
    explained = explainer.explain(png(pixels), ["red", "blue"])
    image = Image.fromarray(pixels.astype(np.uint8))
    drawn = panel.draw(explained, image)
    assert drawn.width >= 2 * side and drawn.height > side
    layer = colours.overlay(image, explained.maps[0].grid, (0, 0, side, side), explained.most)
    assert layer.size == image.size
    inside = np.lib.stride_tricks.sliding_window_view(np.asarray(drawn)[:, :, 0], (side, side))[:40, :100]
    assert (inside == np.asarray(layer)[:, :, 0]).all(axis=(2, 3)).any(), "the map is there, pixel for pixel"


def test_labels_are_written_in_any_language(explainer: Explainer) -> None:
    text, font = fitting("été", "0.5", 20, 1000)
    assert text in ("été 0.5", "ete 0.5")
    assert all(bytes(font.getmask(letter)) != bytes(font.getmask("\uffff")) for letter in text if letter != " ")
    text, _ = fitting("a" * 200, "0.99621", 12, 180)
    assert text.startswith("aa") and text.endswith(".. 0.99621")


@pytest.mark.parametrize("size", [(17000, 30), (3000, 4000)])
def test_what_is_too_large_for_all_maps_is_drawn_smaller(explainer: Explainer, size: tuple[int, int]) -> None:
    data = io.BytesIO()
    image = Image.new("RGB", size, (90, 20, 20))
    image.save(data, "PNG")
    drawn = panel.draw(explainer.explain(data.getvalue(), ["red", "blue", "green"]), image)
    assert 7900 < max(drawn.size) < 8600
    for kind in ("WEBP", "JPEG"):
        drawn.save(io.BytesIO(), kind)


@pytest.mark.parametrize("size", [(1, 1), (7, 900), (2000, 3)])
def test_pictures_of_any_shape_are_drawn(explainer: Explainer, size: tuple[int, int]) -> None:
    data = io.BytesIO()
    image = Image.new("RGB", size, (90, 20, 20))
    image.save(data, "PNG")
    drawn = panel.draw(explainer.explain(data.getvalue(), ["red", "blue"]), image)
    assert drawn.width > 2 * size[0] and drawn.height > size[1]


# --- the command


@pytest.fixture
def room(tmp_path: Path, trained: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    shutil.copytree(trained / "model", "tf_files/model")
    Path("red.png").write_bytes(png(blob(1, 0, "red", 100)))
    Path("note.txt").write_text("no picture")
    return tmp_path


def test_explain_says_and_draws_without_tensorflow(room: Path) -> None:
    start = NO_TENSORFLOW + "from retrain.cli import main; main()"
    done = python(start, "explain", "red.png", "--output", "map.png", "--label", "red", "--label", "blue")
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert (
        lines[0].startswith("red (score = ") and lines[1].startswith("evidence: ") and lines[2].startswith("blue (score = ")
    )
    assert any(line.startswith("runner-up: ") for line in lines) and sum(line.startswith("near: ") for line in lines) == 3
    with Image.open("map.png") as drawn:
        assert drawn.width >= 2 * 180 and drawn.height > 100


def test_explain_tells_programs_the_same(retrain: Command, room: Path) -> None:
    found = json.loads(retrain("explain", "red.png", "--json", "--label", "red").out[0])
    (one,) = found["maps"]
    assert found["way"] == ACTIVATION and one["label"] == "red" and found["output"] is None and len(found["neighbours"]) == 3
    assert np.shape(one["map"]) == (8, 8) and found["seen"] == [0, 0, 1, 1] and one["where"] == "left"
    assert found["labels"] == json.loads(retrain("label", "red.png", "--json").out[0])["labels"]


@pytest.mark.parametrize(
    ("typed", "code", "told"),
    [
        ("red.png --label rde", 2, "the model has no label 'rde'; did you mean 'red'?"),
        ("red.png --output red.png", 2, "red.png is there already and is not overwritten; choose another name"),
        ("red.png --output map.xyz", 2, "map.xyz ends in none of .png, .jpg, .jpeg, .webp"),
        ("red.png --output nowhere/map.png", 2, "nowhere is no folder to write map.png to"),
        ("red.png --guided", 2, "--guided draws a picture; say where to with --output"),
        ("note.txt", 4, "note.txt cannot be used: not-an-image"),
        ("tf_files", 4, "tf_files cannot be used: not-a-file"),
        ("red.png --model nowhere", 5, "no model at nowhere"),
    ],
)
def test_what_cannot_be_explained_is_told_in_one_line(
    retrain: Command, room: Path, typed: str, code: int, told: str
) -> None:
    before = sorted(path.name for path in room.iterdir()), Path("red.png").read_bytes()
    done = retrain("explain", *typed.split())
    assert done.code == code and len(done.err) == 1 and told in done.err[0], done
    assert before == (sorted(path.name for path in room.iterdir()), Path("red.png").read_bytes())


@pytest.mark.parametrize("name", ["map.jpg", "map.webp"])
def test_other_kinds_of_pictures_are_written(retrain: Command, room: Path, name: str) -> None:
    assert retrain("explain", "red.png", "--output", name).code == 0
    with Image.open(name) as drawn:
        assert drawn.format == {"map.jpg": "JPEG", "map.webp": "WEBP"}[name]


def test_a_model_explains_from_python(room: Path) -> None:
    found = package.load("tf_files/model").explain("red.png", "blue")
    assert isinstance(found, Explained) and [one.label for one in found.maps] == ["blue"]


# --- guided backprop


def build_guided(activation: Any) -> Any:
    """Two layers with weights that are known, and a ReLU of some kind after the first."""
    import keras

    pixels = keras.Input((4, 4, 1))
    x = keras.layers.Conv2D(2, 1, use_bias=False, activation=activation if isinstance(activation, str) else None)(pixels)
    x = x if isinstance(activation, str) else activation(x)
    model = keras.Model(pixels, keras.layers.Conv2D(2, 1, use_bias=False)(x))
    first, second = np.array([1.0, -1.0]).reshape(1, 1, 1, 2), np.array([[1.0, -1.0], [1.0, 2.0]]).reshape(1, 1, 2, 2)
    model.set_weights([first, second])
    return model


@pytest.mark.parametrize("kind", ["layer", "relu", "relu6"])
def test_only_what_strengthens_is_led_back(kind: str) -> None:
    import keras
    import tensorflow as tf

    model = build_guided(keras.layers.ReLU(6) if kind == "layer" else kind)
    copy = guided(model, "known")
    values = np.array([3.0, -3.0, 0.5, 9.0]).repeat(4).reshape(1, 4, 4, 1).astype(np.float32)
    assert np.array_equal(copy(values), model(values))
    entry = tf.Variable(values)
    with tf.GradientTape() as tape:
        output = tf.reduce_sum(copy(entry)[..., 1])
    found = tape.gradient(output, entry).numpy()[0, :, 0, 0]
    # Of the second output: unit 0 counts -1, which is stopped; unit 1 counts 2, and is on where the input is negative.
    assert found.tolist() == [0, -2, 0, 0]
    with tf.GradientTape() as tape:
        output = tf.reduce_sum(copy(entry)[..., 0])
    most = 0 if kind != "relu" else 1  # beyond 6, ReLU6 does not pass anything on
    assert tape.gradient(output, entry).numpy()[0, :, 0, 0].tolist() == [1, -1, 1, most]


def test_a_network_without_relu_cannot_be_guided() -> None:
    with pytest.raises(UsageError, match="soft has no ReLU that could be guided; drop --guided"):
        guided(build_guided("swish"), "soft")


@pytest.mark.weights
def test_guided_lines_are_drawn_for_the_model_of_the_command(retrain: Command, room: Path, tiny_by_name: str) -> None:
    assert retrain("explain", "red.png", "--output", "lines.png", "--guided").code == 0
    with Image.open("lines.png") as drawn:
        assert np.asarray(drawn).std() > 5


# --- a real network


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory) -> Explainer:
    """What the sample set teaches."""
    folder = tmp_path_factory.mktemp("sample") / "tf_files"
    shutil.copytree(SAMPLES.parent / "tf_files" / "data", folder / "data")
    train(folder)
    return Explainer(load(folder / "model"))


@pytest.mark.weights
def test_the_map_of_a_real_network_is_that_of_grad_cam(sample: Explainer) -> None:
    lite0 = backbones.get(backbones.DEFAULT)
    check_gradient(sample, lite0.build(lite0.weights(), lite0.image_size), (SAMPLES / "leone2.jpg").read_bytes())


def side_by_side(left: str, right: str) -> bytes:
    canvas = Image.new("RGB", (640, 320), "white")
    for number, name in enumerate((left, right)):
        with Image.open(SAMPLES / name) as opened:
            canvas.paste(opened.convert("RGB").resize((240, 240)), (40 + 320 * number, 40))
    data = io.BytesIO()
    canvas.save(data, "PNG")
    return data.getvalue()


@pytest.mark.weights
@pytest.mark.parametrize("turned", [False, True])
def test_of_two_pasted_subjects_each_label_lights_its_own(sample: Explainer, turned: bool) -> None:
    bug, bus = ("bus1.jpg", "ladybug.jpg") if turned else ("ladybug.jpg", "bus1.jpg")
    bugs, vehicles = sample.explain(side_by_side(bug, bus), ["bugs", "vehicles"]).maps
    halves = {one.label: np.maximum(one.grid, 0).sum(axis=0) for one in (bugs, vehicles)}
    left = {name: float(heat[:3].sum() / (heat[:3].sum() + heat[-3:].sum())) for name, heat in halves.items()}
    own, other = ("vehicles", "bugs") if turned else ("bugs", "vehicles")
    assert left[own] > 0.6 and left[other] < 0.4, left


@pytest.mark.weights
def test_a_tuned_network_is_guided_by_its_own_weights(sample: Explainer) -> None:
    (member,) = sample.model.members
    lite0 = backbones.get(backbones.DEFAULT)
    tuned = lite0.build(lite0.weights(), lite0.image_size)
    for variable in tuned.trainable_variables:
        variable.assign(variable * 1.05)
    pixels, number = np.full((224, 224, 3), 90, np.uint8), [0]
    pixels[60:160, 60:160] = 220
    own = dataclasses.replace(member, backbone=member.backbone + backbones.TUNED, tuned=tensors(tuned))
    before, after = gradients(member, pixels, number), gradients(own, pixels, number)
    assert np.abs(after - before).max() > 0.1 * np.abs(before).max() > 0
    with pytest.raises(ModelRefused, match="weights of efficientnet-lite0 here are not those"):
        gradients(dataclasses.replace(member, weights="0" * 64), pixels, number)


@pytest.mark.weights
def test_guided_backprop_of_a_real_network_computes_the_same_and_shows_the_subject(sample: Explainer) -> None:
    lite0 = backbones.get(backbones.DEFAULT)
    model = lite0.build(lite0.weights(), lite0.image_size)
    canvas = np.full((224, 224, 3), 255, np.uint8)
    with Image.open(SAMPLES / "ladybug.jpg") as opened:
        canvas[20:116, 20:116] = np.asarray(opened.convert("RGB").resize((96, 96)))
    assert np.array_equal(guided(model, "lite0")(canvas[np.newaxis] * 1.0)[0], model(canvas[np.newaxis] * 1.0)[0])
    (found,) = np.abs(gradients(sample.model.members[0], canvas, [sample.model.labels.index("bugs")]))
    assert found[:120, :120].sum() > 0.5 * found.sum()
    assert as_picture(found[np.newaxis]).dtype == np.uint8
