"""`--groups auto`: what belongs together is found by what a random split would flatter by."""

import json
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from retrain import HeadSettings, SplitSettings, artifact
from retrain.backbones import Backbone
from retrain.pipeline import Result, train
from retrain.progress import Silent

QUICK = HeadSettings(steps=300)
NOT_MEASURED = "groups: none; neither folders nor names tell groups that could be compared"


class Heard(Silent):
    def __init__(self) -> None:
        self.notes: list[str] = []

    def note(self, line: str) -> None:
        self.notes.append(line)


def frame(path: Path, scene: int, number: int, alike: bool) -> None:
    """Write nine squares of colour: those of the scene, changed a little, or any."""
    rng = np.random.default_rng([scene, number])
    squares = np.random.default_rng(scene if alike else [9, scene, number]).choice([0, 255], (3, 3, 3))
    pixels = np.clip(squares + rng.normal(0, 60, (3, 3, 3)), 0, 255).astype(np.uint8).repeat(20, axis=0).repeat(20, axis=1)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


def films(folder: Path, layout: str, alike: bool = True, scenes: range = range(24)) -> Path:
    """Write scenes of six frames each; whether a scene is of the one class or the other cannot be seen."""
    for scene in scenes:
        for number in range(6):
            name = layout.format(scene=f"{chr(97 + scene // 26)}{chr(97 + scene % 26)}", number=number)
            frame(folder / "data" / ("even", "odd")[scene % 2] / name, scene, number, alike)
    return folder


def trained(folder: Path, squares: Backbone, **split: Any) -> tuple[Result, str]:
    heard = Heard()
    result = train(folder, SplitSettings(groups="auto", **split), QUICK, squares, progress=heard)
    return result, next(note for note in heard.notes if note.startswith("groups: "))


@pytest.mark.parametrize(("layout", "grouping"), [("{scene}/{number}.png", "folder"), ("{scene}-{number}.png", "name")])
def test_scenes_are_kept_together_and_the_accuracy_says_so(
    layout: str, grouping: str, tmp_path: Path, squares: Backbone
) -> None:
    result, told = trained(films(tmp_path, layout), squares)
    assert told.startswith(f"groups: {grouping}; a random split would say ")
    parts = defaultdict(set)
    loaded = artifact.load(tmp_path / "model")
    for row in loaded.split():
        parts[row.group].add(row.part)
    assert {len(found) for found in parts.values()} == {1} and len(parts) == 24  # some scenes are alike
    assert loaded.manifest["split"]["settings"]["groups"] == grouping
    assert result.record["settings"]["groups"] == grouping and result.record["groups_found"]["groups"] == grouping
    (gap,) = [gap for gap in result.record["groups_found"]["gaps"] if gap["grouping"] == grouping]
    assert gap["interval"][0] > 0.01 and gap["accuracy_by_groups"] < gap["accuracy_by_random"] - 0.1


@pytest.mark.parametrize("layout", ["{scene}/{number}.png", "{scene}-{number}.png", "{scene}{number}.png"])
def test_where_a_random_split_would_not_flatter_nothing_is_kept_together(
    layout: str, tmp_path: Path, squares: Backbone
) -> None:
    result, told = trained(films(tmp_path, layout, alike=False), squares)
    assert told.startswith("groups: none")
    assert result.record["settings"]["groups"] is None


def test_folders_that_all_classes_have_are_sources_and_no_groups(tmp_path: Path, squares: Backbone) -> None:
    for scene in range(2):
        for number in range(40):
            frame(
                tmp_path / "data" / ("even", "odd")[scene] / ("frames", "fanart")[number % 2] / f"{number}.png",
                scene,
                number,
                False,
            )
    result, told = trained(tmp_path, squares)
    assert told == NOT_MEASURED
    assert "folder" not in {gap["grouping"] for gap in result.record["groups_found"]["gaps"]}


def test_the_split_stays_when_pictures_are_added(tmp_path: Path, squares: Backbone) -> None:
    trained(films(tmp_path, "{scene}/{number}.png"), squares)
    before = {row.sha256: row.part for row in artifact.load(tmp_path / "model").split()}
    trained(films(tmp_path, "{scene}/{number}.png", scenes=range(24, 26)), squares)
    after = {row.sha256: row.part for row in artifact.load(tmp_path / "model").split()}
    assert before.items() <= after.items() and len(after) == len(before) + 12


def test_pictures_that_are_set_apart_do_not_decide(tmp_path: Path, squares: Backbone) -> None:
    films(tmp_path, "{scene}/{number}.png")
    films(tmp_path / "apart", "{scene}/{number}.png", scenes=range(24, 26))
    alone, _ = trained(tmp_path, squares)
    result, told = trained(tmp_path, squares, test_dir=tmp_path / "apart" / "data")
    assert told.startswith("groups: folder") and result.judged_on == "test folder"
    assert result.record["groups_found"] == alone.record["groups_found"]


@pytest.mark.parametrize("count", [1, 3])
def test_sets_too_small_to_compare_anything_have_none(count: int, tmp_path: Path, squares: Backbone) -> None:
    for label in ("even", "odd"):
        for number in range(count):
            frame(tmp_path / "data" / label / "scene" / f"{label}{number}.png", len(label), number, False)
    _, told = trained(tmp_path, squares)
    assert told == NOT_MEASURED


def test_the_record_is_json(tmp_path: Path, squares: Backbone) -> None:
    trained(films(tmp_path, "{scene}/{number}.png"), squares)
    record = json.loads((tmp_path / "reports" / "train.json").read_text())
    assert {gap["grouping"] for gap in record["groups_found"]["gaps"]} == {"near-duplicates", "folder"}


def test_scenes_of_the_same_names_in_all_classes_are_no_sources(tmp_path: Path, squares: Backbone) -> None:
    films(tmp_path, "{scene}/{number}.png")
    for label in ("even", "odd"):
        for number, scene in enumerate(sorted((tmp_path / "data" / label).iterdir())):
            scene.rename(scene.with_name(f"scene {number}"))
    _, told = trained(tmp_path, squares)
    assert told.startswith("groups: folder")


def test_names_as_cameras_give_them_tie_nothing_together(tmp_path: Path, squares: Backbone) -> None:
    films(tmp_path, "IMG_{scene}{number}.png")
    for label in ("even", "odd"):
        for number, picture in enumerate(sorted((tmp_path / "data" / label).iterdir())):
            picture.rename(picture.with_name(f"IMG_{number:04}.png"))
    _, told = trained(tmp_path, squares)
    assert told == NOT_MEASURED


def test_a_class_whose_pictures_lie_in_one_folder_is_not_tied_together(tmp_path: Path, squares: Backbone) -> None:
    films(tmp_path, "{scene}/{number}.png")
    for number in range(20):
        frame(tmp_path / "data" / "other" / "one" / f"{number}.png", 50 + number, 0, True)
    _, told = trained(tmp_path, squares)
    assert told.startswith("groups: folder")
    parts = {row.part for row in artifact.load(tmp_path / "model").split() if row.label == "other"}
    assert parts == {"train", "validation", "test"}


@pytest.mark.weights
def test_what_the_model_was_split_by_is_kept_while_it_matters(tmp_path: Path, squares: Backbone) -> None:
    films(tmp_path, "{scene}/{scene}-{number}.png")
    for before in ("name", "folder", "name"):
        train(tmp_path, SplitSettings(groups=before), QUICK, squares)
        assert trained(tmp_path, squares)[1].startswith(f"groups: {before}")
    for picture in (tmp_path / "data").rglob("*.png"):
        picture.rename(picture.with_name(f"{picture.stem.rpartition('-')[2]}.png"))
    heard = Heard()
    train(tmp_path, SplitSettings(groups="auto"), QUICK, squares, progress=heard)
    assert any(note.startswith("groups: folder") for note in heard.notes)
    assert "the model that is replaced was split by name: the split is drawn anew" in heard.notes
