"""Test-time augmentation: the way a model looks at pictures, from training to every command that labels."""

import dataclasses
import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import retrain as package
from retrain import artifact, views
from retrain.backbones import Backbone
from retrain.errors import ModelRefused, UsageError
from retrain.evaluation.run import evaluate
from retrain.label import Labeller, load
from retrain.pipeline import Result, train
from retrain.pipeline.learnt import _Judge
from retrain.runner import Runner
from retrain.scores import softmax
from retrain.settings import HeadSettings, SplitSettings
from tests.conftest import Ran
from tests.drawing import COLOURS, draw, draw_classes
from tests.test_evaluate import draw_mixed
from tests.test_learnt import Heard

QUICK = HeadSettings(steps=60, l2=1e-2)
PARTS = SplitSettings(test=35)
NAMES = tuple(one.name for one in views.TTA)
Command = Callable[..., Ran]


def trained_for_views(folder: Path, tiny: Backbone, split: SplitSettings = PARTS, kept: bool = True) -> Result:
    """Train with --tta; where `kept`, several views count as better, whatever was measured."""
    with pytest.MonkeyPatch.context() as context:
        context.setattr(_Judge, "better", lambda *_: kept)
        return train(folder, split, QUICK, tiny, tta=True)


@pytest.fixture(scope="module")
def working(tmp_path_factory: pytest.TempPathFactory, tiny: Backbone) -> Path:
    """A working folder whose model looks at several views; `single` holds the same without --tta, `unkept` an idle one."""
    folder = tmp_path_factory.mktemp("tta") / "tf_files"
    draw_mixed(folder / "data")
    train(folder, PARTS, QUICK, tiny, model=folder / "single")
    trained_for_views(folder, tiny, kept=False)
    (folder / "model").rename(folder / "unkept")
    trained_for_views(folder, tiny)
    return folder


@pytest.fixture
def tta(working: Path, tmp_path: Path) -> Path:
    """A copy of it that may be changed."""
    return Path(shutil.copytree(working, tmp_path / "tf_files"))


@pytest.fixture(scope="module")
def in_folds(tmp_path_factory: pytest.TempPathFactory, tiny: Backbone) -> Path:
    folder = tmp_path_factory.mktemp("folds") / "tf_files"
    draw_mixed(folder / "data")
    trained_for_views(folder, tiny, SplitSettings(folds=3))
    return folder


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    """A picture between two classes, its halves unlike."""
    return draw(tmp_path / "unseen.png", (120, 110, 60), seed=501, size=(60, 44))


def record_of(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "reports" / "train.json").read_text())
    return found


def by_label(labeller: Labeller, picture: Path) -> dict[str, float]:
    return dict(labeller.label(picture).scores)


# --- labelling


def test_scores_are_the_mean_over_the_picture_and_its_views_at_their_own_temperature(working: Path, picture: Path) -> None:
    model = artifact.load(working / "model").artifact
    (member,) = model.members
    assert (model.way, model.views) == ("views", NAMES) and set(model.temperature) == {"none", "views"}
    decoded = views.decode_for(picture.read_bytes(), 32)
    pixels = [views.render(decoded, f"squash{name}", 32) for name in ("", *NAMES)]
    assert np.array_equal(pixels[1], pixels[0][:, ::-1])
    features = Runner(member.network.data).features(np.stack(pixels))
    both = softmax(features @ member.kernel + member.bias, model.temperature["views"])
    assert abs(both[0] - both[1]).max() > 0.001, "the mirror image looks different"
    expected = dict(zip(model.labels, both.mean(axis=0), strict=True))
    assert by_label(Labeller(model), picture) == pytest.approx(expected, abs=1e-6)
    single = dict(
        zip(model.labels, softmax(features[0] @ member.kernel + member.bias, model.temperature["none"]), strict=True)
    )
    assert by_label(Labeller(model, tta="off"), picture) == pytest.approx(single, abs=1e-6)


def test_auto_follows_the_model_on_and_off_do_not(working: Path, picture: Path) -> None:
    def said(name: str, tta: str) -> dict[str, float]:
        return by_label(load(working / name, tta=tta), picture)

    on, off = said("model", "on"), said("model", "off")
    assert on != off
    assert said("model", "auto") == said("unkept", "on") == on
    assert said("unkept", "auto") == said("unkept", "off") == off
    assert by_label(load(working / "model"), picture) == on


def test_off_gives_the_scores_of_a_model_that_was_trained_without(working: Path, picture: Path) -> None:
    for tta in ("auto", "off"):
        assert (
            load(working / "single", tta=tta).label(picture).scores
            == load(working / "model", tta="off").label(picture).scores
        )
    loaded = [artifact.load(working / name).artifact for name in ("single", "model")]
    assert loaded[0].members[0].kernel.tobytes() == loaded[1].members[0].kernel.tobytes()
    assert loaded[0].temperature == {"none": loaded[1].temperature["none"]}
    assert (loaded[0].way, loaded[0].views) == ("none", ())


def test_how_usual_a_picture_is_and_what_is_near_do_not_depend_on_the_way_of_looking(working: Path, picture: Path) -> None:
    on, off = (load(working / "model", tta=tta).label(picture, neighbours=3) for tta in ("on", "off"))
    assert on.typicality == off.typicality is not None and on.neighbours == off.neighbours and len(on.neighbours) == 3
    assert on.scores != off.scores


def test_a_copy_for_another_thread_looks_in_the_same_way(working: Path, picture: Path) -> None:
    for tta in ("on", "off"):
        labeller = load(working / "model", threads=2, tta=tta)
        assert labeller.copy().label(picture) == labeller.copy().copy().label(picture) == labeller.label(picture)
        assert labeller.copy().way == labeller.way == {"on": "views", "off": "none"}[tta]


def test_the_model_object_for_python_looks_as_it_was_told(working: Path, picture: Path, tmp_path: Path) -> None:
    draw(tmp_path / "images" / "a.png", (120, 110, 60), seed=501, size=(60, 44))
    for tta in ("auto", "on", "off"):
        model = package.load(working / "model", tta=tta)
        expected = load(working / "model", tta=tta).label(picture).scores
        assert model.label(picture) == list(expected) and model.label_bytes(picture.read_bytes()).scores == expected
        outcome = model.classify(tmp_path / "images", tmp_path / tta)
        (copy,) = (tmp_path / tta).glob("*.png")
        assert outcome.copied == 1 and copy.stem.endswith(f"{expected[0].score:.5f}")
    with pytest.raises(UsageError, match="trained without --tta"):
        package.load(working / "single", tta="on")


@pytest.mark.parametrize("tta", ["yes", "ON", True, None])
def test_a_way_that_is_not_known_is_refused(working: Path, tta: Any) -> None:
    model = artifact.load(working / "model").artifact
    for asked in (
        lambda: package.load(working / "model", tta=tta),
        lambda: Labeller(model, tta=tta),
        lambda: evaluate(working, tta=tta),
    ):
        with pytest.raises(UsageError, match="is none of auto, on, off"):
            asked()


# --- commands


@pytest.mark.parametrize("name", ["label", "classify", "evaluate"])
def test_several_views_of_a_model_that_was_trained_without_are_a_mistake_told_in_a_line(
    working: Path, picture: Path, tmp_path: Path, retrain: Command, name: str
) -> None:
    given = {
        "label": ("label", picture),
        "classify": ("classify", working / "data" / "red", tmp_path / "out"),
        "evaluate": ("evaluate", working, "--output", tmp_path / "page.html"),
    }[name]
    ran = retrain(*given, "--model", working / "single", "--tta", "on")
    assert ran.code == 2 and ran.out == [] and len(ran.err) == 1
    assert ran.err[0].endswith(
        "the model was trained without --tta, so it cannot look at several views; train it with --tta"
    )
    assert not (tmp_path / "out").exists() and not (tmp_path / "page.html").exists()
    assert retrain(*given, "--model", working / "single", "--tta", "off").code in (0, 3)


def test_label_and_classify_look_as_they_are_told(working: Path, picture: Path, tmp_path: Path, retrain: Command) -> None:
    shutil.copy(picture, tmp_path / "one.png")
    (tmp_path / "images").mkdir()
    shutil.move(tmp_path / "one.png", tmp_path / "images")
    for tta in ("on", "off", "auto"):
        expected = [str(score) for score in load(working / "model", tta=tta).label(picture).scores]
        options = ("--model", working / "model", "--unknown", "off", *(("--tta", tta) if tta != "auto" else ()))
        assert retrain("label", picture, *options).out == expected
        assert retrain("classify", tmp_path / "images", tmp_path / tta, *options).code == 0
        score = load(working / "model", tta=tta).label(picture).scores[0]
        assert [path.name for path in (tmp_path / tta).glob("*.png")] == [f"{score.label}-{score.score:.5f}.png"]
    names = {next((tmp_path / tta).glob("*.png")).name for tta in ("on", "off")}
    assert len(names) == 2, "there is a difference to see"


def test_json_has_the_same_keys_whatever_the_way(working: Path, picture: Path, retrain: Command) -> None:
    found = [
        json.loads(retrain("label", picture, "--model", working / "model", "--json", "--tta", tta).out[0])
        for tta in ("auto", "on", "off")
    ]
    assert all(list(one) == ["image", "labels", "unknown", "typicality", "notes"] for one in found)
    assert found[0] == found[1] and found[0]["labels"] != found[2]["labels"]
    assert all(set(label) == {"label", "score"} for one in found for label in one["labels"])


@pytest.mark.parametrize("name", ["label", "classify", "evaluate", "train"])
def test_the_option_is_in_the_help_of_each_command(retrain: Command, name: str) -> None:
    text = " ".join(" ".join(retrain(name, "--help").out).split())
    assert ("--tta [auto|on|off]" in text) is (name != "train") and "--tta " in text
    assert "augmentation" in text.lower() and "several views of " in text


def test_a_value_that_is_not_known_is_refused_with_a_suggestion(working: Path, picture: Path, retrain: Command) -> None:
    ran = retrain("label", picture, "--model", working / "model", "--tta", "onn")
    assert ran.code == 2 and len(ran.err) == 1 and "'onn' is not one of auto, on, off; did you mean 'on'" in ran.err[0]


# --- training


def compared(folder: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    plain, several = artifact.load(folder).artifact.metrics["compared_views"]
    return plain, several


def test_views_that_are_not_better_are_there_but_not_used(working: Path) -> None:
    model = artifact.load(working / "unkept").artifact
    assert (model.way, model.views) == ("none", NAMES) and model.settings["tta"] is True
    plain, several = compared(working / "unkept")
    assert (plain["name"], plain["kept"], several["name"], several["kept"]) == (
        "tiny",
        True,
        f"{1 + len(NAMES)} views",
        False,
    )
    assert several["gain"]["pictures"] > 20 and plain["gain"] is None
    assert "compared_views" not in metrics(working / "single")
    assert metrics(working / "model")["compared_views"][1]["kept"] is True


def test_the_run_record_holds_what_was_measured_of_the_ways_to_look_and_the_counts(working: Path) -> None:
    record = record_of(working)
    assert record["compared_views"] == list(compared(working / "model")) and record["counts"]["used"] == 48
    assert record["counts"]["views_computed"] + record["counts"]["views_cached"] == 48 * len(NAMES)


def build_left(_weights: Path, image_size: int = 32) -> object:
    """A network that sees the colours of eight squares in the left half of a picture, and nothing of the right half."""
    import keras

    pixels = keras.Input((image_size, image_size, 3))
    left = keras.layers.Cropping2D(((0, 0), (0, image_size // 2)))(keras.layers.Rescaling(1 / 128, offset=-1)(pixels))
    squares = keras.layers.AveragePooling2D(image_size // 4)(left)
    return keras.Model(pixels, [keras.layers.Flatten()(squares), squares])


def test_views_that_help_by_more_than_noise_are_used(tmp_path: Path) -> None:
    """What tells the classes is in the left half of every other picture; the mirror image shows it where it is not."""
    rng = np.random.default_rng(0)
    for name, colour in COLOURS.items():
        for index in range(24):
            pixels = np.repeat(rng.integers(60, 200, (8, 8, 1)), 3, axis=2)
            pixels[1:7, slice(4) if index % 2 else slice(4, 8)] = colour + rng.integers(-40, 40, (6, 4, 3))
            path = tmp_path / "data" / name / f"{index}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).resize((48, 48), Image.Resampling.NEAREST).save(path)
    (tmp_path / "none").write_bytes(b"none")
    left = Backbone("left", 32, 24, "Apache-2.0", "drawn by the tests", lambda: tmp_path / "none", build_left)
    heard = Heard()
    result = train(tmp_path, PARTS, QUICK, left, tta=True, progress=heard)
    plain, several = compared(tmp_path / "model")
    assert artifact.load(tmp_path / "model").artifact.way == "views"
    assert several["kept"] and not plain["kept"] and several["accuracy"] > plain["accuracy"]
    assert several["gain"]["mean"] > 2 * several["gain"]["standard_error"] > 0
    assert several["gain"]["mean"] == pytest.approx(plain["log_loss"] - several["log_loss"])
    assert any(note.startswith(f"kept: {1 + len(NAMES)} views: ") for note in heard.notes)
    found, without = evaluate(tmp_path), evaluate(tmp_path, tta="off")
    assert found.figures.accuracy == result.accuracy and result.accuracy.value > without.figures.accuracy.value


# --- evaluate


def agrees(folder: Path, found: Any, result: dict[str, Any]) -> None:
    assert (found.figures.accuracy.correct, found.figures.accuracy.count) == (result["test_correct"], result["test_count"])
    assert found.figures.log_loss == pytest.approx(result["test_log_loss"], rel=1e-5)
    assert found.figures.calibration_error == pytest.approx(result["test_calibration_error"], rel=1e-3, abs=1e-6)
    assert found.figures.uncalibrated_error == pytest.approx(result["test_calibration_error_before"], rel=1e-3, abs=1e-6)


def metrics(folder: Path) -> dict[str, Any]:
    return dict(artifact.load(folder).artifact.metrics)


@pytest.mark.parametrize("cached", [True, False])
def test_evaluate_finds_the_figures_of_training_in_either_way(tta: Path, cached: bool) -> None:
    model = artifact.load(tta / "model").artifact
    if not cached:
        (tta / "bottlenecks.sqlite").unlink()
    with_views, without = evaluate(tta), evaluate(tta, tta="off")
    agrees(tta, with_views, metrics(tta / "model"))
    agrees(tta, without, metrics(tta / "single"))
    assert with_views.figures.log_loss != without.figures.log_loss
    assert (with_views.temperature, without.temperature) == (model.temperature["views"], model.temperature["none"])
    for same in (evaluate(tta, tta="on"), evaluate(tta, model=tta / "unkept", tta="on")):
        assert same.figures.log_loss == with_views.figures.log_loss and same.temperature == with_views.temperature
    agrees(tta, evaluate(tta, model=tta / "unkept"), metrics(tta / "unkept"))
    assert metrics(tta / "unkept")["test_log_loss"] == metrics(tta / "single")["test_log_loss"]


def test_evaluate_scores_each_picture_as_label_does(tta: Path) -> None:
    for way in ("on", "off"):
        found, labeller = evaluate(tta, tta=way), load(tta / "model", tta=way)
        assert len(found.mistakes) >= 2
        for one in found.mistakes:
            path = Path(one.path) if Path(one.path).is_absolute() else found.data / one.path
            scores = by_label(labeller, path)
            assert (one.score, one.own_score) == pytest.approx((scores[one.predicted], scores[one.label]), abs=1e-5)


def test_other_pictures_are_evaluated_on_in_either_way(tta: Path, tmp_path: Path, retrain: Command) -> None:
    fresh = draw_mixed(tmp_path / "fresh", first_seed=70_000)
    found = {way: evaluate(tta, data=fresh, tta=way) for way in ("on", "off")}
    for way, one in found.items():
        labeller = load(tta / "model", tta=way)
        counted = set(map(str, fresh.rglob("*.png"))) - {item.path for item in one.skipped}
        losses = [-np.log(by_label(labeller, Path(path))[Path(path).parts[-3]]) for path in counted]
        assert len(losses) == one.figures.accuracy.count >= 10
        assert one.figures.log_loss == pytest.approx(float(np.mean(losses)), rel=1e-5)
    assert found["on"].figures.log_loss != found["off"].figures.log_loss
    assert found["on"].figures.accuracy.count == found["off"].figures.accuracy.count
    told = [retrain("evaluate", tta, "--data", fresh, "--tta", way).out for way in ("auto", "on")]
    assert told[0] == told[1]


def test_in_cross_validation_the_way_is_that_of_the_model(in_folds: Path, tmp_path: Path, retrain: Command) -> None:
    page = tmp_path / "page.html"
    for way in ("auto", "on"):
        agrees(in_folds, evaluate(in_folds, tta=way, output=page), metrics(in_folds / "model"))
    page.unlink()
    ran = retrain("evaluate", in_folds, "--tta", "off", "--output", page)
    assert ran.code == 2 and len(ran.err) == 1 and "drop --tta, or give others with --data" in ran.err[0]
    assert not page.exists()
    fresh = draw_classes(tmp_path / "fresh", 3, first_seed=148_000)
    other = evaluate(in_folds, data=fresh, tta="off", output=page)
    assert other.figures.accuracy.count >= 6 and other.temperature == metrics_temperature(in_folds, "none")


def metrics_temperature(folder: Path, way: str) -> float:
    return artifact.load(folder / "model").artifact.temperature[way]


# --- manifests


def rewritten(folder: Path, change: Callable[[dict[str, Any]], Any]) -> Path:
    """Change the manifest of a model, its checksum renewed, as somebody might who knows how."""
    path = folder / "manifest.json"
    body = json.loads(path.read_text())
    del body["sha256"]
    change(body)
    plain = json.dumps(body, indent=1, sort_keys=True, ensure_ascii=True)
    body["sha256"] = hashlib.sha256(plain.encode()).hexdigest()
    path.write_text(json.dumps(body, indent=1, sort_keys=True, ensure_ascii=True) + "\n")
    return folder


def test_a_model_from_before_there_were_ways_to_look_still_labels(tta: Path, picture: Path) -> None:
    expected = load(tta / "single").label(picture)
    old = rewritten(tta / "single", lambda body: body.pop("look"))
    assert load(old).label(picture) == expected and load(old).way == "none"
    assert load(old, tta="off").label(picture) == expected
    with pytest.raises(UsageError, match="trained without --tta"):
        load(old, tta="on")
    loaded = artifact.load(old).artifact
    assert (loaded.way, loaded.views) == ("none", ())


EDITS: dict[str, Callable[[dict[str, Any]], Any]] = {
    "several views, but none named": lambda body: body["look"].update(views=[]),
    "no temperature for views": lambda body: body["temperature"].pop("views"),
    "no temperature without": lambda body: body["temperature"].pop("none"),
    "temperature 0": lambda body: body["temperature"].update(views=0),
    "temperature below 0": lambda body: body["temperature"].update(views=-1.5),
    "temperature 0 without": lambda body: body["temperature"].update(none=0.0),
    "temperature in words": lambda body: body["temperature"].update(views="1"),
    "temperature null": lambda body: body["temperature"].update(views=None),
    "another way": lambda body: body["look"].update(way="spiral"),
    "no way": lambda body: body["look"].pop("way"),
    "no views": lambda body: body["look"].pop("views"),
    "look is null": lambda body: body.update(look=None),
    "look is a list": lambda body: body.update(look=["views"]),
    "views are a number": lambda body: body["look"].update(views=2),
    "way is a list": lambda body: body["look"].update(way=["views"]),
}


@pytest.mark.parametrize("name", EDITS)
def test_a_manifest_whose_ways_do_not_fit_is_refused(tta: Path, name: str) -> None:
    folder = rewritten(tta / "model", EDITS[name])
    for tta_option in ("auto", "off"):
        with pytest.raises(ModelRefused, match=r"does not fit its files .*; train again"):
            load(folder, tta=tta_option)


def test_an_unused_way_needs_its_temperature_too(tta: Path) -> None:
    folder = rewritten(tta / "unkept", lambda body: body["temperature"].pop("views"))
    with pytest.raises(ModelRefused, match="does not fit its files"):
        artifact.load(folder)


UNKNOWN_VIEWS = {
    "of a later version": ["(shear=1)"],
    "no name": [""],
    "a word": "(flip=1)",
    "a number": [1],
    "a list": [["(flip=1)"]],
}


@pytest.mark.parametrize("name", UNKNOWN_VIEWS)
def test_a_model_with_a_view_that_this_version_does_not_know_is_refused(tta: Path, name: str) -> None:
    folder = rewritten(tta / "model", lambda body: body["look"].update(views=UNKNOWN_VIEWS[name]))
    for opened in (artifact.load, load):
        with pytest.raises(ModelRefused, match="does not fit its files"):
            opened(folder)


def test_a_model_with_a_way_that_this_version_does_not_know_is_refused(tta: Path) -> None:
    def change(body: dict[str, Any]) -> None:
        body["look"]["way"] = "spiral"
        body["temperature"]["spiral"] = 1.0

    with pytest.raises(ModelRefused, match="does not fit its files"):
        artifact.load(rewritten(tta / "model", change))


def test_ways_and_views_come_back_as_they_were_saved(tta: Path, tmp_path: Path) -> None:
    loaded = artifact.load(tta / "model")
    changed = dataclasses.replace(
        loaded.artifact, way="none", views=("(flip=1)", "(turn=5)"), temperature={"none": 0.5, "views": 2.5}
    )
    artifact.save(tmp_path / "other", changed, loaded.reference(), list(loaded.split()), {})
    back = artifact.load(tmp_path / "other").artifact
    assert (back.way, back.views, dict(back.temperature)) == (changed.way, changed.views, changed.temperature)
    scores = load(tmp_path / "other", tta="on").label(draw(tmp_path / "x.png", COLOURS["red"], 5)).scores
    assert sum(score.score for score in scores) == pytest.approx(1)
