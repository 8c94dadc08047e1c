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


class Heard(Silent):
    def __init__(self) -> None:
        self.notes: list[str] = []

    def note(self, line: str) -> None:
        self.notes.append(line)


def frame(path: Path, scene: int, number: int, alike: bool) -> None:
    """Write nine squares of colour: those of the scene, changed a little, or any."""
    rng = np.random.default_rng([scene, number])
    squares = np.random.default_rng(scene if alike else [9, scene, number]).integers(30, 226, (3, 3, 3))
    pixels = np.clip(squares + rng.normal(0, 30, (3, 3, 3)), 0, 255).astype(np.uint8).repeat(20, axis=0).repeat(20, axis=1)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


def films(folder: Path, layout: str, alike: bool = True, scenes: range = range(24)) -> Path:
    """Write scenes of six frames each; whether a scene is of the one class or the other cannot be seen."""
    for scene in scenes:
        for number in range(6):
            name = layout.format(scene=f"{chr(97 + scene)}x", number=number)
            frame(folder / "data" / ("even", "odd")[scene % 2] / name, scene, number, alike)
    return folder


def trained(folder: Path, tiny: Backbone, **split: Any) -> tuple[Result, str]:
    heard = Heard()
    result = train(folder, SplitSettings(groups="auto", **split), QUICK, tiny, progress=heard)
    return result, next(note for note in heard.notes if note.startswith("groups: "))


@pytest.mark.parametrize(("layout", "grouping"), [("{scene}/{number}.png", "folder"), ("{scene}-{number}.png", "name")])
def test_scenes_are_kept_together_and_the_accuracy_says_so(
    layout: str, grouping: str, tmp_path: Path, tiny: Backbone
) -> None:
    result, told = trained(films(tmp_path, layout), tiny)
    assert told.startswith(f"groups: {grouping}; a random split would say ")
    parts = defaultdict(set)
    loaded = artifact.load(tmp_path / "model")
    for row in loaded.split():
        parts[row.group].add(row.part)
    assert {len(found) for found in parts.values()} == {1} and 2 < len(parts) <= 24  # some scenes are alike
    assert loaded.manifest["split"]["settings"]["groups"] == grouping
    assert result.record["settings"]["groups"] == grouping and result.record["groups_found"]["groups"] == grouping
    (gap,) = [gap for gap in result.record["groups_found"]["gaps"] if gap["grouping"] == grouping]
    assert gap["interval"][0] > 0.01 and gap["accuracy_by_groups"] < gap["accuracy_by_random"] - 0.1


@pytest.mark.parametrize("layout", ["{scene}/{number}.png", "{scene}-{number}.png", "{scene}{number}.png"])
def test_where_a_random_split_would_not_flatter_nothing_is_kept_together(
    layout: str, tmp_path: Path, tiny: Backbone
) -> None:
    result, told = trained(films(tmp_path, layout, alike=False), tiny)
    assert told == "groups: none that a random split would flatter by"
    assert result.record["settings"]["groups"] is None


def test_folders_that_all_classes_have_are_sources_and_no_groups(tmp_path: Path, tiny: Backbone) -> None:
    for scene in range(2):
        for number in range(40):
            frame(
                tmp_path / "data" / ("even", "odd")[scene] / ("frames", "fanart")[number % 2] / f"{number}.png",
                scene,
                number,
                False,
            )
    result, told = trained(tmp_path, tiny)
    assert told == "groups: none that a random split would flatter by"
    assert [gap["grouping"] for gap in result.record["groups_found"]["gaps"]] == ["near-duplicates"]


def test_the_split_stays_when_pictures_are_added(tmp_path: Path, tiny: Backbone) -> None:
    trained(films(tmp_path, "{scene}/{number}.png"), tiny)
    before = {row.sha256: row.part for row in artifact.load(tmp_path / "model").split()}
    trained(films(tmp_path, "{scene}/{number}.png", scenes=range(24, 26)), tiny)
    after = {row.sha256: row.part for row in artifact.load(tmp_path / "model").split()}
    assert before.items() <= after.items() and len(after) == len(before) + 12


def test_pictures_that_are_set_apart_do_not_decide(tmp_path: Path, tiny: Backbone) -> None:
    films(tmp_path, "{scene}/{number}.png")
    films(tmp_path / "apart", "{scene}/{number}.png", scenes=range(24, 26))
    alone, _ = trained(tmp_path, tiny)
    result, told = trained(tmp_path, tiny, test_dir=tmp_path / "apart" / "data")
    assert told.startswith("groups: folder") and result.judged_on == "test folder"
    assert result.record["groups_found"] == alone.record["groups_found"]


@pytest.mark.parametrize("count", [1, 3])
def test_sets_too_small_to_compare_anything_have_none(count: int, tmp_path: Path, tiny: Backbone) -> None:
    for label in ("even", "odd"):
        for number in range(count):
            frame(tmp_path / "data" / label / "scene" / f"{label}{number}.png", len(label), number, False)
    _, told = trained(tmp_path, tiny)
    assert told == "groups: none that a random split would flatter by"


def test_the_record_is_json(tmp_path: Path, tiny: Backbone) -> None:
    trained(films(tmp_path, "{scene}/{number}.png"), tiny)
    record = json.loads((tmp_path / "reports" / "train.json").read_text())
    assert {gap["grouping"] for gap in record["groups_found"]["gaps"]} == {"near-duplicates", "folder"}
