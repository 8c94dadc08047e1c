"""Fine-tuning in the line: what is learnt from, what is kept, what the model holds, and what happens on the way.

The network here sees no colours, and colours alone tell the classes: what helps is to learn to see them.
"""

import dataclasses
import hashlib
import json
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from retrain import artifact, backbones, finetune, head, pipeline, views
from retrain.backbones import Backbone
from retrain.dataset import Split
from retrain.errors import EnvironmentProblem, UsageError
from retrain.evaluation.run import evaluate
from retrain.finetune import Epoch, Tuned
from retrain.finetune.network import put_back, tensors
from retrain.label import load
from retrain.pipeline import Result, train
from retrain.pipeline.tuned import can_be_tuned
from retrain.pixels import Pixels
from retrain.runner import Runner
from retrain.settings import AugmentSettings, FineTuneSettings, HeadSettings, SplitSettings
from retrain.storage import Layout
from tests.conftest import Ran
from tests.drawing import COLOURS, draw_classes
from tests.test_augment import files_of
from tests.test_imports import NO_TENSORFLOW, python
from tests.test_learnt import Heard

pytestmark = pytest.mark.weights  # they train networks, most of a minute in all

SIZE, SQUARES, COUNT = 33, 3, 12
STILL = AugmentSettings(flip=False, crop=0, scale=0, brightness=0, colour=0, rotation=0)
PARTS, QUICK = SplitSettings(validation=25, test=25), HeadSettings(steps=40, l2=1e-2)
TWO = FineTuneSettings(fine_tune=True, epochs=2, tuning_batch=4, tuning_rate=0.1, blocks=0)
Command = Callable[..., Ran]


def build_grey(_weights: Path, image_size: int = SIZE) -> Any:
    """The mean of nine squares, each in three colours, which are all shades of grey before anything is learnt."""
    import keras

    pixels = keras.Input((image_size, image_size, 3))
    colours = keras.layers.Conv2D(3, 1, use_bias=False, name="colours")
    seen = colours(keras.layers.Rescaling(1 / 128, offset=-1)(pixels))
    spatial = keras.layers.AveragePooling2D(image_size // SQUARES)(seen)
    colours.set_weights([np.full((1, 1, 3, 3), 1 / 3, np.float32) * np.array([1, 0.5, -0.5], np.float32)])
    return keras.Model(pixels, [keras.layers.Flatten()(spatial), spatial])


def draw_tinted(data: Path, count: int = COUNT, first_seed: int = 0) -> Path:
    """Class folders of pictures of nine squares, as bright in one class as in the others, each class with a tint."""
    for number, name in enumerate(COLOURS):
        tint = np.full(3, -30) + 90 * np.eye(3, dtype=int)[2 - number]
        for index in range(count):
            rng = np.random.default_rng(first_seed + 1000 * number + index)
            pixels = (rng.integers(60, 190, (SQUARES, SQUARES, 1)) + tint).clip(0, 255).astype(np.uint8)
            path = data / name / f"{index:03}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).resize((45, 45), Image.Resampling.NEAREST).save(path)
    return data


@pytest.fixture(scope="module")
def grey(tmp_path_factory: pytest.TempPathFactory) -> Backbone:
    weights = tmp_path_factory.mktemp("weights") / "grey"
    weights.write_bytes(b"grey")
    return Backbone("grey", SIZE, 27, "Apache-2.0", "drawn by the tests", lambda: weights, build_grey)


@pytest.fixture
def by_name(grey: Backbone, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setitem(backbones.BACKBONES, grey.name, grey)
    return grey.name


def tuned(folder: Path, grey: Backbone, settings: FineTuneSettings = TWO, **options: Any) -> Result:
    return train(
        folder, options.pop("split", PARTS), options.pop("head", QUICK), grey, tuning=settings, augment=STILL, **options
    )


@dataclasses.dataclass
class Asked:
    """Fine-tuning that was asked for: the pictures to learn from and to choose by, as squares, and all else."""

    learnt: list[bytes]
    validated: list[bytes]
    settings: FineTuneSettings
    options: dict[str, Any]


class Asking:
    """Keeps what is asked of `fine_tune`; where `kernel` is given, that is what comes of it, without any training.

    `kernel`: what the colours of the network become, one of them after the other; its heads learn from the pictures that
    were asked for, and are `sure` times as sure of it.
    """

    def __init__(self, context: pytest.MonkeyPatch, *kernels: np.ndarray, sure: float = 1.0) -> None:
        self.asked: list[Asked] = []
        self._kernels, self._sure, self._fine_tune = kernels, sure, finetune.fine_tune
        context.setattr(finetune, "fine_tune", self._asked)

    def _asked(
        self, backbone: Backbone, first: Any, pixels: Pixels, labels: np.ndarray, learn: np.ndarray, validate: np.ndarray,
        settings: FineTuneSettings, augment: AugmentSettings, **options: Any,
    ) -> Tuned:  # fmt: skip
        bytes_of = [[pixels.squares[row].tobytes() for row in rows] for rows in (learn, validate)]
        self.asked.append(Asked(*bytes_of, settings, options))
        if not self._kernels:
            return self._fine_tune(backbone, first, pixels, labels, learn, validate, settings, augment, **options)
        number = min(len(self.asked), len(self._kernels)) - 1
        model = backbone.build(backbone.weights(), backbone.image_size)
        model.get_layer("colours").set_weights([self._kernels[number].reshape(1, 1, 3, 3).astype(np.float32)])
        shown = [Image.fromarray(square).resize((SIZE, SIZE), Image.Resampling.BOX) for square in pixels.squares[learn]]
        features = np.asarray(model(np.stack([np.asarray(one, np.float32) for one in shown]))[0])
        found = head.fit(features, labels[learn], 3, 1e-3, QUICK)
        history = tuple(Epoch(backbone.image_size, 1.0, 0.5, 0.1) for _ in range(settings.epochs))
        sure = np.float32(self._sure ** len(self.asked))
        return Tuned(model, head.Head(sure * found.kernel, sure * found.bias), tensors(model), history, 1, False)


COLOURFUL, BLIND = np.eye(3), np.zeros((3, 3))
HALF_BLIND = np.array([[1, 0.3, 0], [0, 0.3, 0], [0, 0.3, 0]])  # sees red, and how bright it is


class Stopped(Heard):
    """Ends a run, as Ctrl-C would, where a bar begins for the second time, or so."""

    def __init__(self, bar: str, time: int = 1) -> None:
        super().__init__()
        self._bar, self._time = bar, time

    def bar(self, what: str, total: int | None) -> AbstractContextManager[Callable[[], None]]:
        self._time -= what.startswith(self._bar)
        if self._time == 0:
            raise KeyboardInterrupt
        return super().bar(what, total)


@dataclasses.dataclass
class Line:
    """A run that many tests look at; tests must not change its folder (copy it first)."""

    folder: Path
    result: Result
    asked: list[Asked]
    notes: list[str]


@pytest.fixture(scope="module")
def line(tmp_path_factory: pytest.TempPathFactory, grey: Backbone) -> Line:
    folder, heard = tmp_path_factory.mktemp("tuned") / "tf_files", Heard()
    draw_tinted(folder / "data")
    with pytest.MonkeyPatch.context() as context:
        asking = Asking(context)
        result = tuned(folder, grey, progress=heard)
    return Line(folder, result, asking.asked, heard.notes)


@pytest.fixture
def copied(line: Line, tmp_path: Path) -> Path:
    return Path(shutil.copytree(line.folder, tmp_path / "tf_files"))


@pytest.fixture
def tinted(tmp_path: Path) -> Path:
    """A working folder in which nothing has been done."""
    draw_tinted(tmp_path / "tf_files" / "data")
    return tmp_path / "tf_files"


def squares_of(folder: Path, *parts: str, model: str = "model") -> set[bytes]:
    """The pictures of some parts, as squares of the size at which they are fine-tuned."""
    wanted = {row.sha256 for row in artifact.load(folder / model).split() if row.part in parts}
    found = [path.read_bytes() for path in (folder / "data").rglob("*.png")]
    side = 40
    return {
        views.render(views.decode_for(data, side), "squash", side).tobytes()
        for data in found
        if hashlib.sha256(data).hexdigest() in wanted
    }


def spaces(folder: Path) -> dict[tuple[str, str], int]:
    """How many features the cache holds for each backbone and its weights."""
    connection = sqlite3.connect(folder / "bottlenecks.sqlite")
    rows = connection.execute(
        "SELECT backbone, weights, count(*) FROM feature JOIN space ON space.id = feature.space GROUP BY backbone, weights"
    ).fetchall()
    connection.close()
    return {(backbone, weights): count for backbone, weights, count in rows}


# --- the model


def test_the_model_holds_the_weights_of_the_tuned_network_by_name(line: Line, grey: Backbone) -> None:
    (path,) = (line.folder / "model").glob("weights-*.safetensors")
    loaded = artifact.load(line.folder / "model")
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    assert path.name == f"weights-{sha256[:16]}.safetensors" and loaded.manifest["files"][path.name]["sha256"] == sha256
    (member,) = loaded.artifact.members
    fresh = grey.build(grey.weights(), SIZE)
    assert loaded.manifest["members"][0]["tuned"] == path.name and member.tuned.keys() == tensors(fresh).keys()
    assert all(array.dtype == np.float32 for array in member.tuned.values())
    assert member.backbone == "grey+fine-tuned" and member.weights != backbones.weights_hash(grey)
    before = np.asarray(grey.build(grey.weights(), SIZE).get_weights()[0])
    put_back(fresh, member.tuned)
    assert np.abs(fresh.get_weights()[0] - before).max() > 0.1, "it has learnt"
    pixels = np.random.default_rng(0).integers(0, 256, (3, SIZE, SIZE, 3), dtype=np.uint8)
    expected = np.asarray(fresh(pixels.astype(np.float32))[0])
    assert np.abs(Runner(member.network.data).features(pixels) - expected).max() < 1e-4
    assert (
        line.result.record["model"]["sha256"] == json.loads((line.folder / "model" / "manifest.json").read_text())["sha256"]
    )


def test_a_damaged_file_of_weights_is_refused(copied: Path) -> None:
    (path,) = (copied / "model").glob("weights-*")
    path.write_bytes(path.read_bytes()[::-1])
    with pytest.raises(artifact.ModelRefused, match="changed after it was saved"):
        artifact.load(copied / "model")


def test_a_tuned_model_labels_classifies_explains_and_is_evaluated_where_there_is_no_tensorflow(
    copied: Path, tmp_path: Path
) -> None:
    (copied / "bottlenecks.sqlite").unlink()  # so that the network runs, too
    fresh = draw_tinted(tmp_path / "fresh", 2, first_seed=90_000)
    model = str(copied / "model")
    lines = [
        ["label", str(fresh / "red" / "000.png"), "--model", model],
        ["classify", str(fresh / "red"), str(tmp_path / "out"), "--model", model, "--unknown", "off"],
        ["explain", str(fresh / "red" / "000.png"), "--model", model, "--output", str(tmp_path / "map.png")],
        ["evaluate", str(copied)],
    ]
    code = (
        f"{NO_TENSORFLOW}import json, sys\nfrom retrain.cli import main\nfor line in json.loads(sys.argv[1]):\n"
        "    try:\n        main(line)\n    except SystemExit as ended:\n        print('ended with', int(ended.code or 0))\n"
    )
    ran = python(code, json.dumps(lines))
    assert ran.stdout.count("ended with 0") == 4 and (tmp_path / "map.png").exists(), ran.stderr
    accuracy = json.loads((copied / "reports" / "train.json").read_text())
    assert f"{accuracy['test_correct']} of {accuracy['test_count']})" in ran.stdout
    assert len(list((tmp_path / "out").glob("*.png"))) == 2
    scores = load(copied / "model").label(fresh / "red" / "000.png").scores
    assert str(scores[0]) in ran.stdout


def test_what_was_judged_is_what_the_model_says_and_it_is_better_than_before(line: Line) -> None:
    record, found = line.result.record, evaluate(line.folder)
    assert found.figures.accuracy == line.result.accuracy and found.backbone == "grey+fine-tuned"
    assert found.figures.log_loss == pytest.approx(record["test_log_loss"], rel=1e-5)
    assert record["fine_tuning"]["before"]["test_count"] == record["test_count"] >= 6
    assert record["fine_tuning"]["before"]["test_log_loss"] > record["test_log_loss"]


def test_what_is_unlike_the_pictures_learnt_from_is_still_unknown(line: Line, tmp_path: Path) -> None:
    loaded = artifact.load(line.folder / "model")
    reference, validated = loaded.reference(), sum(row.part == "validation" for row in loaded.split())
    learnt = sum(row.part in ("train", "validation") for row in loaded.split())
    assert len(reference.held_out) == validated >= 6 and len(reference.features) == learnt
    known, odd = draw_tinted(tmp_path / "known", 1, 50_000) / "red" / "000.png", tmp_path / "odd.png"
    board = np.kron(np.indices((SQUARES, SQUARES)).sum(axis=0)[..., None] % 2 * [255, 255, 255], np.ones((15, 15, 1)))
    Image.fromarray(board.astype(np.uint8)).save(odd)
    usual, unusual = (load(line.folder / "model", unknown=0.2).label(path).typicality for path in (known, odd))
    assert usual is not None and unusual is not None and unusual < usual


# --- the record


def test_the_record_tells_of_each_epoch_what_was_compared_and_how_good_it_was_before(line: Line) -> None:
    record = line.result.record
    found = record["fine_tuning"]
    assert set(found) == {"best_epoch", "stopped", "epochs", "before", "compared"}
    assert [epoch["size"] for epoch in found["epochs"]] == [SIZE, SIZE] and found["stopped"] is False
    losses = [epoch["validation_loss"] for epoch in found["epochs"]]
    assert found["best_epoch"] == 1 + losses.index(min(losses))
    before, after = found["compared"]
    assert (before["name"], before["kept"], after["name"], after["kept"]) == ("grey", False, "grey+fine-tuned", True)
    assert after["gain"]["mean"] == pytest.approx(before["log_loss"] - after["log_loss"]) and after["gain"]["mean"] > 0
    assert record["settings"]["fine_tune"] is True and record["settings"]["epochs"] == 2
    assert json.loads((line.folder / "reports" / "train.json").read_text())["fine_tuning"] == json.loads(json.dumps(found))
    told = [note for note in line.notes if note.startswith(("kept: ", "tried: "))]
    assert [note.split(":")[:2] for note in told] == [["tried", " grey"], ["kept", " grey+fine-tuned"]]


# --- what is learnt from


def test_the_second_time_validation_pictures_are_learnt_from_too_and_test_pictures_never(line: Line) -> None:
    first, second = line.asked
    train_part, validation, test = (squares_of(line.folder, part) for part in ("train", "validation", "test"))
    assert set(first.learnt) == train_part and set(first.validated) == validation and len(test) >= 6
    assert set(second.learnt) == train_part | validation and second.validated == []
    assert len(first.learnt) == len(train_part) and len(second.learnt) == len(train_part) + len(validation)
    assert not test & (set(second.learnt) | set(first.learnt) | set(first.validated))
    assert first.options["checkpoint"] != second.options["checkpoint"]


def test_without_refit_validation_pictures_are_not_learnt_from_and_temperatures_are_the_same(
    copied: Path, grey: Backbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second time, what comes of it is ten times as sure: its temperature must be that of the first all the same."""
    found = []
    for refit in (True, False):
        asking = Asking(monkeypatch, HALF_BLIND, sure=10.0)
        result = tuned(copied, grey, dataclasses.replace(TWO, refit=refit))
        found.append((artifact.load(copied / "model").artifact, len(asking.asked)))
        monkeypatch.undo()
    (again, twice), (once, alone) = found
    assert (twice, alone) == (2, 1) and again.temperature == once.temperature and once.temperature["none"] > 2
    assert np.abs(again.members[0].kernel).max() > 5 * np.abs(once.members[0].kernel).max()
    validation = squares_of(copied, "validation")
    assert set(asking.asked[0].validated) == validation and not validation & set(asking.asked[0].learnt)
    # The model has not learnt from validation pictures, so what it says of them is what was compared.
    labeller, loaded, losses = load(copied / "model"), artifact.load(copied / "model"), []
    of_part = {row.sha256: row.label for row in loaded.split() if row.part == "validation"}
    for path in (copied / "data").rglob("*.png"):
        sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
        if sha256 in of_part:
            losses.append(-np.log(dict(labeller.label(path).scores)[of_part[sha256]]))
    assert float(np.mean(losses)) == pytest.approx(result.record["fine_tuning"]["compared"][1]["log_loss"], rel=1e-4)


def test_where_it_does_not_help_the_backbone_stays_as_it_was_and_that_is_said(
    copied: Path, grey: Backbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    heard, asking = Heard(), Asking(monkeypatch, BLIND, sure=1000.0)
    record = tuned(copied, grey, progress=heard).record
    assert "fine-tuning did not help on the validation part: the backbone stays as it was" in heard.notes
    before, after = record["fine_tuning"]["compared"]
    assert before["kept"] and not after["kept"] and after["gain"]["mean"] < 0 and len(asking.asked) == 1
    assert record["fine_tuning"]["before"] is None
    model = artifact.load(copied / "model").artifact
    (member,) = model.members
    assert member.backbone == "grey" and not member.tuned
    assert not any(name.startswith("weights-") for name in artifact.load(copied / "model").manifest["files"])
    assert not any(one.exists() for one in (Layout(copied).checkpoint, Layout(copied).second_checkpoint))
    train(copied, PARTS, QUICK, grey, augment=STILL)
    frozen = artifact.load(copied / "model").artifact
    assert frozen.members[0].kernel.tobytes() == member.kernel.tobytes() and frozen.temperature == model.temperature
    assert frozen.metrics == model.metrics


def test_a_destructive_learning_rate_does_not_harm_the_model(tmp_path: Path, tiny: Backbone) -> None:
    draw_classes(tmp_path / "data")
    heard = Heard()
    result = tuned(tmp_path, tiny, dataclasses.replace(TWO, tuning_rate=10.0, clip_norm=0.0), progress=heard)
    assert "fine-tuning did not help on the validation part: the backbone stays as it was" in heard.notes
    assert artifact.load(tmp_path / "model").artifact.members[0].backbone == "tiny" and result.accuracy.value > 0.5


def test_several_views_are_looked_at_with_the_tuned_network_too(
    copied: Path, grey: Backbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    Asking(monkeypatch, COLOURFUL)
    result = tuned(copied, grey, tta=True)
    model = artifact.load(copied / "model").artifact
    assert set(model.temperature) == {"none", "views"} and model.views == tuple(one.name for one in views.TTA)
    assert model.members[0].backbone == "grey+fine-tuned" and len(result.record["compared_views"]) == 2
    found = evaluate(copied)
    assert found.figures.accuracy == result.accuracy
    assert found.figures.log_loss == pytest.approx(result.record["test_log_loss"], rel=1e-5)
    assert evaluate(copied, tta="on").figures.log_loss != evaluate(copied, tta="off").figures.log_loss


# --- interrupted


def test_a_run_that_was_interrupted_twice_goes_on_and_ends_as_if_it_had_not_been(
    line: Line, grey: Backbone, tinted: Path
) -> None:
    kept = Layout(tinted).checkpoint, Layout(tinted).second_checkpoint
    with pytest.raises(KeyboardInterrupt):
        tuned(tinted, grey, progress=Stopped("epoch 2"))
    assert [path.exists() for path in kept] == [True, False] and not (tinted / "model" / "manifest.json").exists()
    assert json.loads((tinted / "reports" / "train.json").read_text())["status"] == "interrupted"
    other = Stopped("epoch 1")
    with pytest.raises(KeyboardInterrupt):
        tuned(tinted, grey, head=dataclasses.replace(QUICK, seed=1), progress=other)
    assert not any("goes on" in note for note in other.notes)
    again = Stopped("epoch 2", time=2)
    with pytest.raises(KeyboardInterrupt):
        tuned(tinted, grey, progress=again)
    assert [path.exists() for path in kept] == [True, True]
    heard = Heard()
    tuned(tinted, grey, progress=heard)
    gone_on = "fine-tuning goes on after epoch {} of 2, where another run stopped"
    assert [note for note in again.notes if "goes on" in note] == [gone_on.format(1)]
    assert [note for note in heard.notes if "goes on" in note] == [gone_on.format(2), gone_on.format(1)]
    assert all_but_names(tinted / "model") == all_but_names(line.folder / "model")
    assert not any(path.exists() for path in kept)


def all_but_names(model: Path) -> dict[str, Any]:
    """All of a model folder; in place of the flatbuffer, in which layers have names, the features that it gives."""
    files = files_of(model)
    manifest = json.loads(files.pop("manifest.json"))
    name = manifest["members"][0]["backbone"].pop("file")
    assert len(manifest["files"].pop(name)) == 2 and manifest.pop("sha256")
    pixels = np.random.default_rng(0).integers(0, 256, (3, SIZE, SIZE, 3), dtype=np.uint8)
    features = Runner(files.pop(name)).features(pixels).tobytes()
    kept = {one: files[one] for one in manifest["files"]}  # files of the model before may still lie there
    return {**kept, "manifest.json": manifest, "features": features}


def test_a_network_gives_the_same_bytes_whatever_was_built_before(grey: Backbone) -> None:
    first, second = (backbones.converted(backbones.built(grey), grey).data for _ in range(2))
    assert first == second


def test_nothing_is_left_of_a_run_that_came_to_its_end(line: Line) -> None:
    left = {path.name for path in (line.folder / "reports").iterdir()}
    assert "train.json" in left and not any("tuning" in name or "pixels" in name for name in left)


# --- the cache


def test_the_cache_forgets_what_earlier_tuned_weights_gave_and_nothing_else(
    copied: Path, grey: Backbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    def weights() -> str:
        return str(artifact.load(copied / "model").artifact.members[0].weights)

    frozen, first = ("grey", backbones.weights_hash(grey)), ("grey+fine-tuned", weights())
    assert spaces(copied) == {frozen: 36, first: 36}
    Asking(monkeypatch, COLOURFUL)
    tuned(copied, grey, dataclasses.replace(TWO, refit=False))
    assert first[1] != weights() and spaces(copied) == {frozen: 36, ("grey+fine-tuned", weights()): 36}
    again = evaluate(copied)
    assert again.figures.accuracy.count >= 6


# --- pictures that are gone


class Meddling(Heard):
    """Does something when the pictures are about to be read for fine-tuning."""

    def __init__(self, meddle: Callable[[], None]) -> None:
        super().__init__()
        self._meddle = meddle

    def bar(self, what: str, total: int | None) -> AbstractContextManager[Callable[[], None]]:
        if what == "pictures":
            self._meddle()
        return super().bar(what, total)


@pytest.mark.parametrize("what", ["vanished", "changed"])
def test_a_picture_that_is_not_what_it_was_ends_the_run_before_anything_is_trained(
    what: str, copied: Path, grey: Backbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    of_part = {row.sha256: row.part for row in artifact.load(copied / "model").split()}
    paths = {path: of_part[hashlib.sha256(path.read_bytes()).hexdigest()] for path in (copied / "data").rglob("*.png")}
    touched = min(path for path, part in paths.items() if part == "train")
    before = (copied / "model" / "manifest.json").read_bytes()

    def meddle() -> None:
        if what == "vanished":
            touched.unlink()
        else:
            shutil.copy(next(path for path, part in paths.items() if part == "test"), touched)

    heard, asking = Meddling(meddle), Asking(monkeypatch, COLOURFUL)
    with pytest.raises(EnvironmentProblem, match=rf"{touched.name} has changed since the run began .*; run it again"):
        tuned(copied, grey, progress=heard)
    assert not asking.asked and (copied / "model" / "manifest.json").read_bytes() == before


# --- the learning rate


def test_a_search_for_the_rate_learns_from_the_training_part_alone_and_writes_a_page_and_no_model(
    tinted: Path, by_name: str, retrain: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[set[bytes]] = []
    find_rate = finetune.find_rate

    def noted(backbone: Backbone, first: Any, pixels: Pixels, labels: Any, rows: Any, *rest: Any, **options: Any) -> Any:
        seen.append({pixels.squares[row].tobytes() for row in rows})
        return find_rate(backbone, first, pixels, labels, rows, *rest, steps=25, **options)

    monkeypatch.setattr(finetune, "find_rate", noted)
    options = ("--validation", 25, "--test", 25, "--steps", 40, "--l2", 0.01, "--tuning-batch", 4)
    ran = retrain("train", tinted, "--backbone", by_name, "--lr-find", *options)
    assert ran.code == 0, ran.err
    assert ran.out[0].startswith("learning rate: --tuning-rate ") and " is proposed: " in ran.out[0] and len(ran.out) == 2
    page = tinted / "reports" / "learning_rate.html"
    assert ran.out[1].endswith(str(page)) and ran.out[0].split()[3] in page.read_text()
    assert not (tinted / "model" / "manifest.json").exists() and not list((tinted / "reports").glob("*.safetensors"))
    assert json.loads((tinted / "reports" / "learning_rate.json").read_text())["status"] == "finished"
    assert not (tinted / "reports" / "train.json").exists() and not (tinted / "model").exists()
    train(tinted, PARTS, QUICK, backbones.get(by_name), augment=STILL)
    assert seen == [squares_of(tinted, "train")]


# --- sizes and devices


def test_several_sizes_are_trained_at_one_after_the_other_and_the_last_one_is_that_of_the_model(
    tinted: Path, by_name: str, retrain: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tests.test_tuned.SIZE", 48)
    asking = Asking(monkeypatch, COLOURFUL)
    options = ("--steps", 40, "--l2", 0.01, "--fine-tune", "--epochs", 2)
    ran = retrain("train", tinted, "--backbone", by_name, "--image-size", "32, 48", *options)
    assert ran.code == 0, ran.err
    assert [one.options["image_sizes"] for one in asking.asked] == [(32, 48)] * len(asking.asked)
    model = artifact.load(tinted / "model").artifact
    assert model.members[0].image_size == 48 and model.settings["image_sizes"] == [32, 48]


@pytest.mark.parametrize("sizes", ["16,48", "48,", "32,48,2000", "a,b", "32;48", "", "-32,48", "32.5"])
def test_bad_sizes_are_refused_in_a_line_before_anything_is_done(
    tinted: Path, by_name: str, retrain: Command, sizes: str
) -> None:
    ran = retrain("train", tinted, "--backbone", by_name, "--image-size", sizes, "--fine-tune")
    assert ran.code == 2 and len(ran.err) == 1 and "is no size from 32 to 1024, nor several" in ran.err[0]
    assert sorted(path.name for path in tinted.iterdir()) == ["data"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--backbone", "grey,tiny", "--fine-tune"), "--fine-tune trains one backbone; name the better of these"),
        (("--backbone", "grey,tiny", "--lr-find"), "--fine-tune trains one backbone; name the better of these"),
        (("--backbone", "grey", "--image-size", "33,48"), "--image-size takes several sizes with --fine-tune only"),
    ],
)
@pytest.mark.usefixtures("by_name", "tiny_by_name")
def test_what_does_not_go_together_is_refused_before_anything_is_done(
    tinted: Path, retrain: Command, options: tuple[str, ...], message: str
) -> None:
    ran = retrain("train", tinted, *options)
    assert ran.code == 2 and ran.out == [] and len(ran.err) == 1 and message in ran.err[0]
    assert sorted(path.name for path in tinted.iterdir()) == ["data"]


@pytest.mark.parametrize("few", [True, False])
@pytest.mark.parametrize("option", ["--fine-tune", "--lr-find"])
def test_folds_are_refused(tmp_path: Path, by_name: str, retrain: Command, few: bool, option: str) -> None:
    draw_tinted(tmp_path / "data", 2 if few else 4)
    folds = () if few else ("--folds", 2)
    ran = retrain("train", tmp_path, "--backbone", by_name, option, "--steps", 40, "--l2", 0.01, *folds)
    assert ran.code == 2 and "--fine-tune needs a validation and a test part" in ran.err[-1], ran.err
    assert "Traceback" not in "".join(ran.err) and not (tmp_path / "model" / "manifest.json").exists()


def test_a_device_that_is_not_there_is_refused_in_a_line(copied: Path, by_name: str, retrain: Command) -> None:
    before = files_of(copied / "model")
    options = ("--validation", 25, "--test", 25, "--steps", 40, "--l2", 0.01)
    ran = retrain("train", copied, "--backbone", by_name, "--fine-tune", "--devices", "CPU:7", *options)
    assert ran.code == 2 and "there is no device 'CPU:7' here; there are CPU:0" in ran.err[-1], ran.err
    assert files_of(copied / "model") == before and "Traceback" not in "".join(ran.err)


def test_from_python_too_what_does_not_go_together_is_refused(tinted: Path, grey: Backbone, tiny: Backbone) -> None:
    with pytest.raises(UsageError, match="trains one backbone"):
        train(tinted, backbone=[grey, tiny], tuning=TWO)
    with pytest.raises(UsageError, match="several sizes with --fine-tune only"):
        train(tinted, backbone=grey, image_size=(33, 48))
    with pytest.raises(UsageError, match="needs a validation and a test part"):
        pipeline.find_rate(tinted, dataclasses.replace(PARTS, validation=10, test=20, folds=3), QUICK, grey)


@pytest.mark.parametrize(
    ("units", "folds", "possible"), [("abbc", 0, False), ("abdc", 0, True), ("abdc", 2, False)], ids=["one", "two", "folds"]
)
def test_pictures_of_one_group_are_not_enough_to_validate_on(units: str, folds: int, possible: bool) -> None:
    parts = ("train", "validation", "validation", "test")
    assert can_be_tuned(Split(parts, tuple(units), folds)) is possible
