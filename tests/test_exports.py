"""Exports: each runs in its own runtime, is compared with the model on pictures that it never saw, and is kept only then."""

import dataclasses
import hashlib
import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from retrain import artifact, backbones, views
from retrain.artifact import Loaded
from retrain.backbones import Backbone
from retrain.cli.export import export as command_line
from retrain.dataset import TEST, TRAIN
from retrain.errors import EnvironmentProblem, NothingUsable, RetrainError, UsageError
from retrain.exports import Exported, export, formats, pictures, proof, run, written
from retrain.exports.composed import compose, inputs
from retrain.finetune.network import tensors
from retrain.label import Labeller
from retrain.pipeline import train
from retrain.storage import Layout
from tests import hub_modules
from tests.conftest import Ran
from tests.drawing import draw, draw_classes

Command = Callable[..., Ran]
NETWORKS = [name for name in formats.FORMATS if name != formats.ZIP]
EXACT = 1e-4  # what scores of float32 may differ by


@pytest.fixture
def working(trained: Path, tmp_path: Path) -> Path:
    """A working folder of one's own."""
    return shutil.copytree(trained, tmp_path / "tf_files")


@pytest.fixture
def in_table(tiny_by_name: str) -> str:
    """The tiny network can be built again by its name."""
    return tiny_by_name


def names_below(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def test_the_command_line_has_the_formats_that_there_are() -> None:
    (choice,) = (one.type for one in command_line.params if one.name == "names")
    assert list(choice.choices) == list(formats.FORMATS)


def test_an_unknown_format_is_named_with_the_nearest() -> None:
    with pytest.raises(UsageError, match="did you mean 'onnx'"):
        formats.get("onx")


def test_a_zip_needs_no_network_and_is_proved(working: Path, retrain: Command) -> None:
    ran = retrain("export", working, "--format", "zip")
    assert ran.code == 0 and ran.out[0].startswith("zip: ") and "100.0 %" in ran.out[1]
    folder = working / "export" / "zip"
    assert names_below(folder) == [".retrain", "labels.txt", "metadata.json", "model.zip", "proof.json"]
    told = json.loads((folder / "proof.json").read_text())
    assert told["holds"] and told["same"]["agreement"] == 1 and told["same"]["difference"] == 0
    assert (folder / "labels.txt").read_bytes() == (working / "model" / "labels.txt").read_bytes()
    about = json.loads((folder / "metadata.json").read_text())
    assert about["labels"] == list(artifact.load(working / "model").artifact.labels)
    assert str(working) not in (folder / "metadata.json").read_text() + (folder / "proof.json").read_text()


def test_it_is_compared_on_the_test_part_and_on_nothing_else(working: Path) -> None:
    loaded, layout = artifact.load(working / "model"), Layout(working)
    of = {row.sha256: row.part for row in loaded.split()}
    parts = {of[hashlib.sha256(file).hexdigest()] for file in _compared(loaded, layout).files}
    assert parts == {TEST}


def _compared(loaded: Loaded, layout: Layout, data: Path | None = None) -> pictures.Compared:
    from retrain.progress import SILENT

    return pictures.compared(loaded, layout, data, SILENT)


def test_it_is_calibrated_on_the_training_part_and_on_nothing_else(working: Path) -> None:
    loaded, layout = artifact.load(working / "model"), Layout(working)
    of = {row.sha256: row.part for row in loaded.split()}
    learnt = [
        pictures.as_seen(loaded.artifact, path.read_bytes())["pixels"].tobytes()
        for path in (working / "data").glob("*/*")
        if of.get(hashlib.sha256(path.read_bytes()).hexdigest()) == TRAIN
    ]
    found = [one["pixels"][0].tobytes() for one in pictures.calibration(loaded, layout)]
    assert sorted(found) == sorted(learnt) and found


def test_pictures_of_another_folder_are_taken_and_bad_ones_left_out(working: Path, tmp_path: Path) -> None:
    draw(tmp_path / "other" / "one.png", (200, 40, 40), 1, (40, 40))
    (tmp_path / "other" / "bad.png").write_bytes(b"no picture")
    seen = _compared(artifact.load(working / "model"), Layout(working), tmp_path / "other")
    assert [Path(path).name for path in seen.paths] == ["one.png"]
    assert seen.pixels["pixels"].shape == (1, 32, 32, 3) and seen.pixels["pixels"].dtype == np.uint8


def test_without_any_picture_nothing_can_be_proved(working: Path, tmp_path: Path) -> None:
    (tmp_path / "none").mkdir()
    with pytest.raises(NothingUsable, match="give others with --data"):
        export(working, ["zip"], data=tmp_path / "none")
    shutil.rmtree(working / "data")
    with pytest.raises(UsageError, match="give a folder of pictures with --data"):
        export(working, ["zip"])
    assert not (working / "export").exists()


def test_what_is_there_and_no_export_is_not_touched(working: Path) -> None:
    (working / "export" / "zip").mkdir(parents=True)
    (working / "export" / "zip" / "mine.txt").write_text("mine")
    with pytest.raises(UsageError, match="is there already and is no export"):
        export(working, ["zip"])
    assert (working / "export" / "zip" / "mine.txt").read_text() == "mine"


def test_an_export_takes_the_place_of_the_one_before(working: Path) -> None:
    for _ in range(2):
        (one,) = export(working, ["zip"])
        (one.folder / "stale").touch()
    (one,) = export(working, ["zip"])
    assert "stale" not in names_below(one.folder) and names_below(one.folder.parent) == sorted(
        ["zip", ".retrain", *(f"zip/{name}" for name in names_below(one.folder))]
    )


def test_output_is_for_one_format(working: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="--output is a folder for one format"):
        export(working, ["zip", "onnx"], output=tmp_path / "out")
    (one,) = export(working, ["zip"], output=tmp_path / "out")
    assert one.folder == tmp_path / "out" and not (working / "export").exists()


def test_an_option_that_would_do_nothing_is_refused(working: Path) -> None:
    with pytest.raises(UsageError, match="--weights does nothing for a zip"):
        export(working, ["zip"], weights=Path("weights"))


def test_a_missing_package_is_named_before_anything_is_done(working: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _name: None)
    with pytest.raises(EnvironmentProblem, match=r"pip install 'retrain\[export\]'"):
        export(working, ["onnx"])


def wrong(_name: str, _path: Path, arrays: dict[str, np.ndarray]) -> np.ndarray:
    """A runtime that names the last label of all."""
    return np.tile(np.array([0.1, 0.1, 0.8], np.float32), (len(next(iter(arrays.values()))), 1))


def not_finite(name: str, path: Path, arrays: dict[str, np.ndarray]) -> np.ndarray:
    return wrong(name, path, arrays) * np.nan


@pytest.mark.parametrize("runtime", [wrong, not_finite])
def test_what_disagrees_is_not_kept_and_the_one_before_is(
    runtime: Callable[..., np.ndarray], working: Path, in_table: str, monkeypatch: pytest.MonkeyPatch, retrain: Command
) -> None:
    target = working / "export" / "litert"
    target.mkdir(parents=True)
    for name in (".retrain", "proof.json", "model.tflite"):
        (target / name).write_text("before")
    (working / "export" / ".retrain").touch()
    monkeypatch.setattr(proof, "run", runtime)
    monkeypatch.setattr(written, "write", lambda _one, _network, path, *_rest: path.write_bytes(b"x"))
    monkeypatch.setattr(run, "compose", lambda *_: object())
    ran = retrain("export", working, "--format", "litert", "--format", "zip")
    assert ran.code == 1
    assert any("are demanded; nothing was kept" in line for line in ran.err)
    assert (target / "model.tflite").read_text() == "before" and names_below(target) == [
        ".retrain",
        "model.tflite",
        "proof.json",
    ]
    assert (working / "export" / "zip" / "model.zip").is_file()  # the others go on
    assert names_below(working / "export")[0:2] == [".retrain", "litert"]  # and nothing half done lies about


@pytest.mark.parametrize("moment", ["writing", "placing"])
def test_a_run_that_was_killed_leaves_the_export_before_it(
    moment: str, working: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed while it wrote, or between the two steps of putting a folder in the place of another."""
    (one,) = export(working, ["zip"])
    whole = {name: (one.folder / name).read_bytes() for name in names_below(one.folder)}
    parent = one.folder.parent

    class Killed(BaseException):
        """Nothing is cleared up."""

    def kill(*_: object) -> None:
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(run.shutil, "rmtree", lambda *_, **__: None)
        if moment == "writing":
            patch.setattr(run, "prove", kill)
        else:
            rename = Path.rename
            patch.setattr(Path, "rename", lambda path, to: kill() if path.name.startswith(".zip.") else rename(path, to))
        with pytest.raises(Killed):
            export(working, ["zip"])
    assert len(list(parent.iterdir())) > 2  # it has left something
    with monkeypatch.context() as patch:
        patch.setattr(run, "prove", fail)
        (failed,) = export(working, ["zip"])
    assert failed.problem == "it does not run"
    assert {name: (one.folder / name).read_bytes() for name in names_below(one.folder)} == whole
    assert sorted(path.name for path in parent.iterdir()) == [".retrain", "zip"]


def fail(*_: object) -> None:
    raise RetrainError("it does not run")


# From here on, networks are converted and runtimes started: a minute or two.
weights = pytest.mark.weights


@pytest.fixture(scope="module")
def exported(trained: Path, tiny: Backbone, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Exported]]:
    """All formats of the tiny model."""
    backbones.BACKBONES[tiny.name] = tiny
    folder = shutil.copytree(trained, tmp_path_factory.mktemp("exported") / "tf_files")
    yield {one.format.name: one for one in export(folder, list(formats.FORMATS))}
    del backbones.BACKBONES[tiny.name]


@weights
@pytest.mark.parametrize("name", NETWORKS)
def test_every_format_gives_the_scores_of_the_model(name: str, exported: dict[str, Exported], trained: Path) -> None:
    """Asked once more, with a picture of which nothing was said before, and compared by this test itself."""
    one = exported[name]
    assert not one.problem and one.proof is not None and one.proof.holds
    model = artifact.load(trained / "model").artifact
    picture = draw(one.folder.parent / "new.png", (30, 160, 60), 77, (50, 41)).read_bytes()
    expected = dict(Labeller(model).label_bytes(picture).scores)
    pixels = views.render(views.decode_for(picture, 32), model.members[0].view, 32)
    found = proof.run(name, one.folder / one.format.file, {"pixels": pixels[np.newaxis]})
    assert found.shape == (1, 3)
    assert found[0] == pytest.approx([expected[label] for label in model.labels], abs=0.1 if name == formats.INT8 else EXACT)
    assert one.proof.same.pictures > 3 and one.proof.same.difference < (0.2 if name == formats.INT8 else EXACT)


@weights
def test_a_saved_model_takes_the_bytes_of_files(exported: dict[str, Exported], trained: Path) -> None:
    one = exported[formats.SAVED_MODEL]
    assert one.proof and one.proof.from_bytes and one.proof.from_bytes.agreement == 1 and one.proof.unread == 0
    data = np.frombuffer(next((trained / "data").glob("*/*")).read_bytes(), np.uint8)
    found = proof.run("savedmodel-bytes", one.folder / "1", {"0": data, "1": np.frombuffer(b"no picture", np.uint8)})
    assert found[0].sum() == pytest.approx(1, abs=1e-5) and np.isnan(found[1]).all()


@weights
@pytest.mark.parametrize("name", [name for name in NETWORKS if name != formats.SAVED_MODEL])
def test_exported_twice_it_has_the_same_bytes(
    name: str, exported: dict[str, Exported], trained: Path, in_table: str, tmp_path: Path
) -> None:
    (one,) = export(trained, [name], output=tmp_path / "again")
    file = one.format.file
    assert (one.folder / file).read_bytes() == (exported[name].folder / file).read_bytes()


@weights
def test_a_model_of_several_networks_of_several_sizes(trained: Path, tiny: Backbone, in_table: str, tmp_path: Path) -> None:
    loaded = artifact.load(trained / "model")
    (first,) = loaded.artifact.members
    other = dataclasses.replace(
        first, image_size=40, kernel=first.kernel[:, ::-1].copy(),
        preprocessing=first.preprocessing.replace("32", "40"),
        network=backbones.network(dataclasses.replace(tiny, image_size=40)),
    )  # fmt: skip
    model = dataclasses.replace(loaded.artifact, members=(first, other), temperature={"none": 2.0})
    assert inputs(model) == {"pixels_32": 32, "pixels_40": 40}
    folder = saved(trained, tmp_path, model)
    for one in export(folder, ["savedmodel", "litert", "onnx"]):
        assert one.proof and one.proof.same.agreement == 1 and one.proof.same.difference < EXACT, one.problem


@weights
def test_a_fine_tuned_model_has_its_own_weights(trained: Path, tiny: Backbone, in_table: str, tmp_path: Path) -> None:
    """Weights that the embedded network does not have: an export made of that one would disagree."""
    loaded, network = artifact.load(trained / "model"), backbones.built(tiny)
    network.set_weights([-weights for weights in network.get_weights()])
    (first,) = loaded.artifact.members
    member = dataclasses.replace(
        first, backbone=f"tiny{backbones.TUNED}", tuned=tensors(network), network=backbones.converted(network, tiny)
    )
    folder = saved(trained, tmp_path, dataclasses.replace(loaded.artifact, members=(member,)))
    (one,) = export(folder, ["litert"])
    assert one.proof and one.proof.same.agreement == 1 and one.proof.same.difference < EXACT, one.problem


def saved(trained: Path, tmp_path: Path, model: artifact.Artifact) -> Path:
    """A working folder with another model."""
    folder, loaded = shutil.copytree(trained, tmp_path / "tf_files"), artifact.load(trained / "model")
    artifact.save(folder / "model", model, loaded.reference(), loaded.split(), loaded.manifest["split"]["settings"])
    return folder


@weights
@pytest.mark.parametrize("write", [hub_modules.write_tf1, hub_modules.write_tf2])
def test_a_hub_module(write: Callable[..., Path], tmp_path: Path) -> None:
    module = write(tmp_path / "module", hub_modules.tiny_net(), 32)
    draw_classes(tmp_path / "tf_files" / "data")
    train(tmp_path / "tf_files", backbone=str(module))
    with pytest.raises(UsageError, match="'module'; give it with --weights"):
        export(tmp_path / "tf_files", ["onnx"])
    onnx, keras = export(tmp_path / "tf_files", ["onnx", "keras"], weights=module)
    assert onnx.proof and onnx.proof.same.agreement == 1 and onnx.proof.same.difference < EXACT
    assert "cannot be written for Keras" in keras.problem and not keras.folder.exists()


@weights
def test_transparent_parts_are_white_in_a_saved_model_too(exported: dict[str, Exported], trained: Path) -> None:
    import io

    from PIL import Image

    data = io.BytesIO()
    Image.new("RGBA", (32, 32), (255, 0, 0, 0)).save(data, "PNG")
    model = artifact.load(trained / "model").artifact
    expected = dict(Labeller(model).label_bytes(data.getvalue()).scores)
    one = exported[formats.SAVED_MODEL]
    found = proof.run("savedmodel-bytes", one.folder / "1", {"0": np.frombuffer(data.getvalue(), np.uint8)})
    assert found[0] == pytest.approx([expected[label] for label in model.labels], abs=EXACT)


@weights
def test_the_composed_network_is_what_is_in_all_of_them(trained: Path, in_table: str) -> None:
    model = artifact.load(trained / "model").artifact
    network = compose(model)
    assert list(network.input) == ["pixels"] and network.output.shape == (None, 3)
