"""Several backbones: compared on pictures not learnt from, kept where they help, and labelled with as they were judged."""

import hashlib
import json
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from retrain import artifact, backbones, views
from retrain.backbones import Backbone
from retrain.errors import UsageError
from retrain.evaluation.run import evaluate
from retrain.label import Labeller, load
from retrain.pipeline import Result, train
from retrain.pipeline.features import Extractor
from retrain.pipeline.learnt import _Judge
from retrain.runner import Runner
from retrain.scores import softmax
from retrain.settings import AugmentSettings, HeadSettings, SplitSettings
from tests.conftest import Ran
from tests.drawing import draw
from tests.test_augment import files_of
from tests.test_evaluate import draw_mixed
from tests.test_learnt import Heard

QUICK, PARTS = HeadSettings(steps=60, l2=1e-2), SplitSettings(test=35)
Command = Callable[..., Ran]
LOOKS = ("", *(one.name for one in views.TTA))


@pytest.fixture(scope="module")
def both(tiny: Backbone, squares: Backbone) -> list[Backbone]:
    return [tiny, squares]


def trained(folder: Path, both: list[Backbone], all_kept: bool = True, **options: Any) -> Result:
    """Train; where `all_kept`, whatever is added counts as better, whatever was measured."""
    with pytest.MonkeyPatch.context() as context:
        if all_kept:
            context.setattr(_Judge, "better", lambda *_: True)
        return train(folder, options.pop("split", PARTS), QUICK, both, **options)


@pytest.fixture(scope="module")
def working(tmp_path_factory: pytest.TempPathFactory, both: list[Backbone]) -> Path:
    """A working folder whose model has two members, in `model`; `views` holds one that looks at several views, too."""
    folder = tmp_path_factory.mktemp("several") / "tf_files"
    draw_mixed(folder / "data")
    trained(folder, both, tta=True)
    (folder / "model").rename(folder / "views")
    trained(folder, both)
    return folder


@pytest.fixture
def copied(working: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(working, tmp_path / "tf_files"))


@pytest.fixture
def by_name(both: list[Backbone], monkeypatch: pytest.MonkeyPatch) -> str:
    for row in both:
        monkeypatch.setitem(backbones.BACKBONES, row.name, row)
    return "tiny,squares"


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    return draw(tmp_path / "unseen.png", (120, 110, 60), seed=501, size=(60, 44))


def by_hand(model: artifact.Artifact, data: bytes, names: tuple[str, ...], temperature: float) -> dict[str, float]:
    """The mean of what each member says of each view, decoded for each member alone."""
    said: list[np.ndarray] = []
    for member in model.members:
        decoded = views.decode_for(data, member.image_size)
        pixels = np.stack([views.render(decoded, member.view + name, member.image_size) for name in names])
        features = Runner(member.network.data).features(pixels)
        said.append(softmax(features @ member.kernel + member.bias, temperature).mean(axis=0))
    return dict(zip(model.labels, np.mean(said, axis=0), strict=True))


# --- the model


@pytest.mark.parametrize("name", ["model", "views"])
def test_scores_are_the_mean_of_those_of_the_members(working: Path, picture: Path, name: str) -> None:
    model = artifact.load(working / name).artifact
    assert sorted(member.backbone for member in model.members) == ["squares", "tiny"]
    assert sorted(member.image_size for member in model.members) == [32, 33]
    for tta, looks in (("auto", LOOKS if name == "views" else ("",)), ("off", ("",))):
        temperature = model.temperature["views" if len(looks) > 1 else "none"]
        expected = by_hand(model, picture.read_bytes(), looks, temperature)
        assert dict(Labeller(model, tta=tta).label(picture).scores) == pytest.approx(expected, abs=1e-6)
    alone = [by_hand(_only(model, at), picture.read_bytes(), ("",), model.temperature["none"]) for at in range(2)]
    assert max(abs(alone[0][label] - alone[1][label]) for label in model.labels) > 0.01, "they do not say the same"


def _only(model: artifact.Artifact, number: int) -> artifact.Artifact:
    import dataclasses

    return dataclasses.replace(model, members=(model.members[number],))


def test_the_model_folder_holds_both_networks_and_both_heads(working: Path) -> None:
    loaded = artifact.load(working / "model")
    assert len(list((working / "model").glob("backbone-*"))) == len(list((working / "model").glob("head-*"))) == 2
    kernels = {member.backbone: member.kernel.shape for member in loaded.artifact.members}
    assert kernels == {"tiny": (24, 3), "squares": (27, 3)}
    first = loaded.artifact.members[0]
    assert loaded.reference().features.shape[1] == len(first.kernel), "what is usual is what the first member sees"
    assert loaded.artifact.settings["backbone"] == "tiny,squares"
    assert [one["name"] for one in loaded.artifact.metrics["compared_backbones"]][-1] == " + ".join(
        member.backbone for member in loaded.artifact.members
    )


def test_the_reference_is_of_the_features_of_the_first_member_whichever_was_named_first(
    copied: Path, both: list[Backbone]
) -> None:
    first = [artifact.load(copied / "model").artifact.members[0].backbone]
    trained(copied, both[::-1])
    loaded = artifact.load(copied / "model")
    first.append(loaded.artifact.members[0].backbone)
    assert first[0] == first[1], "the better one is the first"
    reference = loaded.reference()
    member = loaded.artifact.members[0]
    paths = {hashlib.sha256(path.read_bytes()).digest(): path for path in (copied / "data").rglob("*.png")}
    for row in range(5):
        data = paths[reference.hashes[row].tobytes()].read_bytes()
        pixels = views.render(views.decode_for(data, member.image_size), member.view, member.image_size)
        features = Runner(member.network.data).features(pixels[np.newaxis])[0]
        assert reference.features[row] == pytest.approx(features, rel=2e-3, abs=1e-3)


@pytest.mark.parametrize("name", ["model", "views"])
@pytest.mark.parametrize("cached", [True, False])
def test_evaluate_finds_the_figures_of_training(copied: Path, name: str, cached: bool) -> None:
    if not cached:
        (copied / "bottlenecks.sqlite").unlink()
    metrics = artifact.load(copied / name).artifact.metrics
    found = evaluate(copied, model=copied / name)
    assert (found.figures.accuracy.correct, found.figures.accuracy.count) == (metrics["test_correct"], metrics["test_count"])
    assert found.figures.log_loss == pytest.approx(metrics["test_log_loss"], rel=1e-5)
    assert found.figures.uncalibrated_error == pytest.approx(metrics["test_calibration_error_before"], rel=1e-3, abs=1e-6)
    assert 0.3 < found.figures.accuracy.value < 1 and set(found.backbone.split(", ")) == {"tiny", "squares"}


def test_what_training_judged_is_what_the_model_says(working: Path) -> None:
    """The loss of the test part, from labels of the pictures themselves."""
    for name in ("model", "views"):
        loaded = artifact.load(working / name)
        labeller = load(working / name)
        tested = {row.sha256: row.label for row in loaded.split() if row.part == "test"}
        losses = []
        for path in (working / "data").rglob("*.png"):
            sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
            if sha256 in tested:
                losses.append(-np.log(dict(labeller.label(path).scores)[tested[sha256]]))
        assert len(losses) == loaded.artifact.metrics["test_count"]
        assert float(np.mean(losses)) == pytest.approx(loaded.artifact.metrics["test_log_loss"], rel=1e-5)


@pytest.mark.weights
def test_in_folds_what_is_chosen_in_each_is_judged(tmp_path: Path, both: list[Backbone]) -> None:
    draw_mixed(tmp_path / "tf_files" / "data")
    result = trained(tmp_path / "tf_files", both, split=SplitSettings(folds=2), tta=True)
    found = evaluate(tmp_path / "tf_files")
    assert found.figures.accuracy == result.accuracy and result.accuracy.count == 48
    assert found.figures.log_loss == pytest.approx(result.record["test_log_loss"])
    with pytest.raises(UsageError, match="cross-validation"):
        evaluate(tmp_path / "tf_files", tta="off")


# --- the choice


def test_less_is_kept_unless_more_is_better_and_what_was_compared_is_told(copied: Path, both: list[Backbone]) -> None:
    heard = Heard()
    trained(copied, both, all_kept=False, progress=heard)
    model = artifact.load(copied / "model").artifact
    first, second, pair = model.metrics["compared_backbones"]
    assert first["log_loss"] < second["log_loss"] and first["kept"] and not second["kept"]
    gain = pair["gain"]
    better = gain["mean"] > 2 * gain["standard_error"] and pair["accuracy"] >= first["accuracy"]
    assert pair["kept"] is better and pair["name"] == f"{first['name']} + {second['name']}"
    assert [member.backbone for member in model.members] == [first["name"], *([second["name"]] if better else [])]
    assert gain["mean"] == pytest.approx(first["log_loss"] - pair["log_loss"])
    told = [note for note in heard.notes if note.startswith(("kept: ", "tried: "))]
    assert len(told) == 3 and all("ms a picture" in note for note in told)
    assert "milliseconds" not in json.dumps(dict(model.metrics))


@pytest.mark.weights
def test_a_single_backbone_in_a_list_is_that_backbone(copied: Path, tiny: Backbone) -> None:
    shutil.rmtree(copied / "model")
    train(copied, PARTS, QUICK, [tiny])
    expected = files_of(copied / "model")
    shutil.rmtree(copied / "model")
    result = train(copied, PARTS, QUICK, tiny)
    assert files_of(copied / "model") == expected and "backbones" not in result.record
    assert result.record["backbone"]["name"] == "tiny"


@pytest.mark.weights
def test_the_same_settings_give_the_same_model_bytes(tmp_path: Path, both: list[Backbone]) -> None:
    models = []
    draw_mixed(tmp_path / "one" / "data")
    shutil.copytree(tmp_path / "one", tmp_path / "other")
    for name in ("one", "other"):
        trained(tmp_path / name, both, augment=AugmentSettings(2), tta=True)
        models.append(files_of(tmp_path / name / "model"))
    assert models[0] == models[1] and len(artifact.load(tmp_path / "one" / "model").artifact.members) == 2


# --- pictures that one of them cannot use


def forbid(folder: Path, backbone: str, name: str) -> Path:
    """Have the cache remember of a picture that a backbone makes no numbers of it."""
    path = next((folder / "data").rglob(name))
    sha256 = hashlib.sha256(path.read_bytes()).digest()
    connection = sqlite3.connect(folder / "bottlenecks.sqlite")
    with connection:
        ((space,),) = connection.execute(
            "SELECT id FROM space WHERE backbone = ? AND preprocessing NOT LIKE '%(%'", (backbone,)
        ).fetchall()
        deleted = connection.execute("DELETE FROM feature WHERE space = ? AND sha256 = ?", (space, sha256)).rowcount
        connection.execute("INSERT INTO bad VALUES (?, ?, 'bad-features', '')", (space, sha256))
    connection.close()
    assert deleted == 1
    return path


def test_a_picture_that_one_cannot_use_is_used_by_none_and_counted_once(copied: Path, both: list[Backbone]) -> None:
    path = forbid(copied, both[1].name, "003.png")
    (copied / "data" / "red" / "page.jpg").write_text("<!doctype html><p>not found")
    shutil.rmtree(copied / "model")
    result = trained(copied, both, augment=AugmentSettings(1))
    assert sorted((Path(item.path).name, item.reason) for item in result.skipped) == [
        ("003.png", "bad-features"),
        ("page.jpg", "not-an-image"),
    ]
    assert result.used == 47 and result.record["counts"]["skipped"] == 2 and result.record["exit_code"] == 3
    split = list(artifact.load(copied / "model").split())
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    assert len(split) == 47 and sha256 not in {row.sha256 for row in split}
    found = evaluate(copied)
    assert found.figures.accuracy == result.accuracy
    fresh = evaluate(copied, data=copied)  # everything but the test part was learnt from
    assert [item.reason for item in fresh.skipped if Path(item.path) == path] == ["bad-features"]
    assert fresh.figures.accuracy == result.accuracy


@pytest.mark.weights
def test_with_a_class_that_is_left_out_each_picture_keeps_its_own_features(tmp_path: Path, both: list[Backbone]) -> None:
    """One class, in the midst of the others, has pictures to test on alone."""
    draw_mixed(tmp_path / "data")
    for index in range(3):
        draw(tmp_path / "data" / "cyan" / "web" / f"{index}.png", (40, 200, 200), 900 + index)
    result = trained(tmp_path, both, split=SplitSettings(test_source="web"), tta=True)
    assert result.labels == ("blue", "green", "red") and sum("cyan" in item.path for item in result.skipped) == 3
    found = evaluate(tmp_path)
    assert found.figures.accuracy == result.accuracy and result.judged_on == "source 'web'"
    assert found.figures.log_loss == pytest.approx(result.record["test_log_loss"], rel=1e-5)


def test_a_picture_that_changes_between_the_backbones_is_used_by_none(
    copied: Path, both: list[Backbone], monkeypatch: pytest.MonkeyPatch
) -> None:
    extract, victim = Extractor.extract, copied / "data" / "red" / "web" / "003.png"

    def meddled(extractor: Extractor, *rest: Any) -> Any:
        found = extract(extractor, *rest)
        draw(victim, (9, 200, 90), 77_000)
        return found

    monkeypatch.setattr(Extractor, "extract", meddled)
    result = trained(copied, both)
    assert [(Path(item.path), item.reason) for item in result.skipped] == [(victim, "changed")] and result.used == 47
    assert len(list(artifact.load(copied / "model").split())) == 47


# --- names


def test_names_with_commas_between_them_are_several_backbones(copied: Path, by_name: str, retrain: Command) -> None:
    ran = retrain("train", copied, "--backbone", "squares, tiny", "--test", 35, "--steps", 60, "--l2", 0.01)
    assert ran.code == 0, ran.err
    said = [line for line in ran.err if line.startswith(("kept: ", "tried: ")) or "kept: " in line or "tried: " in line]
    assert len(said) == 3
    record = json.loads((copied / "reports" / "train.json").read_text())
    assert record["settings"]["backbone"] == "squares,tiny" and {one["name"] for one in record["backbones"]} >= {"tiny"}
    assert by_name == "tiny,squares"


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ("tiny,tiny", "--backbone names tiny twice; name it once"),
        ("tiny, squares ,tiny", "--backbone names tiny twice; name it once"),
        ("tiny,sqares", "--backbone 'sqares' is not known; did you mean 'squares'"),
        ("tiny,nothing-like-it", "--backbone 'nothing-like-it' is not known"),
        ("tiny,", "--backbone 'tiny,' names nothing; for the names see: retrain backbones"),
        (",", "names nothing"),
        ("", "names nothing"),
    ],
)
@pytest.mark.usefixtures("by_name")
def test_a_mistake_in_the_names_is_told_in_a_line_before_anything_is_done(
    tf_files: Path, retrain: Command, names: str, message: str
) -> None:
    ran = retrain("train", tf_files, "--backbone", names)
    assert ran.code == 2 and ran.out == [] and len(ran.err) == 1 and message in ran.err[0]
    assert sorted(path.name for path in tf_files.iterdir()) == ["data"]


@pytest.mark.parametrize("names", [["tiny", "tiny"], "tiny,tiny", [], ["tiny", "squares", "tiny"]])
@pytest.mark.usefixtures("by_name")
def test_from_python_too_each_is_named_once(tf_files: Path, names: Any) -> None:
    with pytest.raises(UsageError, match=r"names tiny twice|names nothing"):
        train(tf_files, backbone=names)


def test_a_path_with_a_comma_is_one_backbone(tf_files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from retrain.pipeline.features import named

    monkeypatch.chdir(tmp_path)
    (tmp_path / "one,two").mkdir()
    assert named("one,two") == ["one,two"] and named("one,three") == ["one", "three"] and tf_files.exists()


# --- the record


def test_the_record_tells_what_each_was_and_how_many_views_both_had(tmp_path: Path, both: list[Backbone]) -> None:
    draw_mixed(tmp_path / "data")
    result = trained(tmp_path, both, augment=AugmentSettings(1), tta=True)
    learnt = sum(row.part != "test" for row in artifact.load(tmp_path / "model").split())
    counted = result.record["counts"]
    assert (counted["views_computed"], counted["views_cached"]) == (2 * (learnt + 48 * len(views.TTA)), 0)
    assert (counted["computed"], counted["cached"], counted["used"]) == (2 * 48, 0, 48)
    assert result.record["settings"]["backbone"] == "tiny,squares" and "backbone" not in result.record


def test_the_record_says_where_each_backbone_is_from(copied: Path, both: list[Backbone]) -> None:
    record = json.dumps(trained(copied, both).record)
    loaded = artifact.load(copied / "model").artifact
    assert '"drawn by the tests"' in record and all(member.weights in record for member in loaded.members)
    assert '"compared_backbones"' in record


def test_what_any_backbone_computed_is_counted_as_computed(tmp_path: Path, both: list[Backbone]) -> None:
    draw_mixed(tmp_path / "data")
    train(tmp_path, PARTS, QUICK, both[0])
    heard = Heard()
    result = trained(tmp_path, both, progress=heard)
    assert (result.computed, result.cached) == (48, 48)
    assert "bottlenecks: 48 computed, 48 from the cache" in heard.notes


# --- pictures decoded for several sizes


def large_jpeg(folder: Path) -> bytes:
    """A picture of which a decoder of JPEG makes fewer pixels for a small network than for a large one."""
    pixels = np.random.default_rng(4).integers(0, 256, (60, 75, 3), dtype=np.uint8)
    Image.fromarray(pixels).resize((1200, 960), Image.Resampling.BICUBIC).save(folder / "large.jpg", quality=90)
    return (folder / "large.jpg").read_bytes()


def of_sizes(working: Path, tiny: Backbone, *sizes: int) -> Iterator[artifact.Member]:
    """Members that see pictures at these sizes."""
    import dataclasses

    member = next(one for one in artifact.load(working / "model").artifact.members if one.backbone == "tiny")
    for size in sizes:
        network = backbones.network(dataclasses.replace(tiny, image_size=size))
        yield dataclasses.replace(
            member, image_size=size, network=network, preprocessing=views.preprocessing_id(member.view, size)
        )


@pytest.mark.parametrize(
    "sizes",
    [
        (32, 160),
        (160, 32),
        (32, 160, 160),
        (32, 160, 32),
    ],
)
def test_each_member_sees_the_picture_as_it_was_decoded_for_its_size(
    working: Path, tiny: Backbone, tmp_path: Path, sizes: tuple[int, ...]
) -> None:
    import dataclasses

    data = large_jpeg(tmp_path)
    apart = [views.render(views.decode_for(data, size), "squash", 32).astype(int) for size in (32, 160)]
    assert np.abs(apart[0] - apart[1]).max() > 1, "it makes a difference"
    model = dataclasses.replace(
        artifact.load(working / "model").artifact, members=tuple(of_sizes(working, tiny, *sizes)), temperature={"none": 1.0}
    )
    expected = by_hand(model, data, ("",), 1.0)
    assert dict(Labeller(model).label_bytes(data).scores) == pytest.approx(expected, abs=1e-7)
