"""Class folders of any name and number, copies, and data that moved: numbers 15 to 18 of the list.

15  test_every_class_folder_is_a_class_of_exactly_its_name_up_to_the_folders_of_copies;
    also test_dataset.test_labels_are_the_exact_names_of_the_folders, test_artifact.test_labels_of_any_kind_come_back_exactly
16  test_without_two_classes_that_can_be_learnt_there_is_one_line_and_no_model,
    test_what_is_no_class_is_left_out_and_said_and_a_class_of_one_picture_is_learnt; also test_cli.MISTAKES and
    test_pipeline.test_two_classes_of_one_picture_each_still_give_a_model
17  test_copies_stay_on_one_side_and_those_in_two_classes_are_named;
    also test_dataset.test_every_item_goes_to_one_part_together_with_its_unit_and_no_class_lacks_one
18  test_data_that_moved_or_goes_by_other_names_is_split_and_judged_as_before
"""

import json
import os
import re
import shutil
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

import pytest

from retrain import artifact
from retrain.backbones import Backbone
from retrain.classify import classify
from retrain.dataset import PARTS
from retrain.errors import Exit, NothingUsable
from retrain.label import load
from retrain.pipeline import train
from retrain.progress import Silent
from retrain.settings import HeadSettings, SplitSettings
from tests.drawing import COLOURS, draw
from tests.faults import as_process
from tests.faults.nearest import nearest
from tests.faults.promises import in_order

QUICK = HeadSettings(steps=30)


class Heard(Silent):
    def __init__(self) -> None:
        self.notes: list[str] = []

    def note(self, line: str) -> None:
        self.notes.append(line)


# --- 15: names

CLASSES = [
    "C++", "C#", "C", "c", "A_B", "A-B", "a_b", "A B", "猫", "犬", "CON", "con", "nul.txt", "Ros\u00e9", "Rose\u0301",
    "ROSÉ", "STRASSE", "straße", "x..", "x.", "x", "x ", " x", "a..b", "a..", "~", "x~2", "-rf", "--sort", "manifest.csv",
    "manifest.jsonl", "train", "data", "model", "null", "0", "1e5", "a\\b", "a\nb", "a\rb", "a\tb", "\x1b[31mred",
    "right \u202e to left", "=1+1", "a,b", 'a"b', "a'b", "a:b", "a*b", "a?b", "<b>", "{0}", "%s", "👩‍👩‍👧",
    os.fsdecode(b"caf\xe9"), os.fsdecode(b"caf\xea"), "\\udce9", "y" * 255, "y" * 254, "猫" * 85, "猫" * 84,
]  # fmt: skip
HIDDEN = ("..a", "...", ".git", "Thumbs.db")


def one_picture_each(data: Path, names: list[str]) -> dict[str, Path]:
    """A picture in each class folder, all of different colours."""
    colours = [(number % 4 * 80, number // 4 % 4 * 80, number // 16 * 60) for number in range(len(names))]
    return {
        name: draw(data / name / "x.png", colour, seed)
        for seed, (name, colour) in enumerate(zip(names, colours, strict=True))
    }


def test_every_class_folder_is_a_class_of_exactly_its_name_up_to_the_folders_of_copies(
    tmp_path: Path, tiny: Backbone
) -> None:
    data, out = tmp_path / "data", tmp_path / "out"
    pictures = one_picture_each(data, [*CLASSES, *HIDDEN])
    train(tmp_path, head=HeadSettings(steps=30, l2=0.0), split=SplitSettings(folds=2), backbone=tiny)
    model = load(tmp_path / "model").model
    assert model.labels == tuple(sorted(CLASSES, key=os.fsencode))
    in_order(as_process.run(tiny, "label", pictures["C++"], "--model", tmp_path / "model"), 0)

    # A head that is always right, so that every label gets its copy.
    classify(nearest(model, {name: pictures[name] for name in model.labels}), data, out, sort=True)
    rows = [json.loads(line) for line in (out / "manifest.jsonl").read_text().splitlines()]
    label_of = {row["source"]: row["label"] for row in rows if Path(row["source"]).parent.name in CLASSES}
    assert label_of == {str(pictures[name]): name for name in CLASSES}
    folders = {Path(row["copy"]).parent.name for row in rows}
    assert len({name.casefold() for name in folders}) == len(CLASSES)
    assert {path.name for path in out.iterdir() if path.is_dir()} == folders and all(map(plain_name, folders))


def plain_name(name: str) -> bool:
    """Usable as the name of a folder on every system."""
    return name == name.strip(" ").rstrip(".") and not set(name) & set('<>:"/\\|?*\n\r\t\x1b') and len(name.encode()) <= 255


# --- 16: folders that are no classes, and too few

FEW: dict[str, tuple[list[str], str]] = {  # what lies below the data folder; what is said
    "nothing": ([], "has no class folders; put pictures into"),
    "only files": (["x.png"], "has no class folders"),
    "only hidden folders": ([".red/x.png", "..blue/x.png"], "has no class folders"),
    "one class": (["red/x.png"], "only one class with usable pictures, 'red'; at least two class folders"),
    "one class and a hidden one": (["red/x.png", ".blue/x.png"], "only one class with usable pictures, 'red'"),
    "one class and an empty one": (["red/x.png", "blue/"], "only one class with usable pictures, 'red'"),
    "one class and one of hidden files": (["red/x.png", "blue/.x.png", "blue/Thumbs.db"], "only one class"),
    "empty classes": (["red/", "blue/"], "no class with usable pictures; at least two class folders"),
    "classes of empty folders": (["red/a/b/", "blue/a/"], "no class with usable pictures"),
}


@pytest.mark.parametrize("case", FEW)
def test_without_two_classes_that_can_be_learnt_there_is_one_line_and_no_model(
    tmp_path: Path, tiny: Backbone, case: str
) -> None:
    names, words = FEW[case]
    data = tmp_path / "data"
    data.mkdir()
    for number, name in enumerate(names):
        (data / name).mkdir(parents=True) if name.endswith("/") else draw(tmp_path / "x.png", COLOURS["red"], number)
        if not name.endswith("/"):
            (data / name).parent.mkdir(exist_ok=True)
            (tmp_path / "x.png").rename(data / name)
    with pytest.raises(NothingUsable, match=re.escape(words)) as caught:
        train(tmp_path, head=QUICK, backbone=tiny)
    assert caught.value.exit_code == Exit.NOTHING_USABLE and "\n" not in str(caught.value)
    assert not (tmp_path / "model" / "manifest.json").exists()


def test_what_is_no_class_is_left_out_and_said_and_a_class_of_one_picture_is_learnt(tf_files: Path, tiny: Backbone) -> None:
    data, heard = tf_files / "data", Heard()
    for name in (".hidden/x.png", ".git/x.png", "one/x.png", "red/.thumbnails/x.png"):
        draw(data / name, COLOURS["green"], 300)
    for name in ("empty", "hollow/within", "Desktop.ini"):
        (data / name).mkdir(parents=True)
    result = train(tf_files, head=QUICK, backbone=tiny, progress=heard)
    assert result.labels == ("blue", "green", "one", "red") and result.used == 37 and result.skipped == ()
    said = [note for note in heard.notes if "left out" in note]
    assert said == [f"class '{name}' is left out: it has no usable picture" for name in ("empty", "hollow")]
    assert any("missing in class 'one' (2 more)" in note for note in heard.notes)


# --- 17: copies


def test_copies_stay_on_one_side_and_those_in_two_classes_are_named(tf_files: Path, tiny: Backbone) -> None:
    """Of every picture there are three copies in its class, in other folders and under other names."""
    data, heard = tf_files / "data", Heard()
    for path in sorted(data.rglob("*.png")):
        for number in range(2):
            copy = path.with_name(f"{number}") / f"{path.stem[::-1]}.png"
            copy.parent.mkdir(exist_ok=True)
            shutil.copy(path, copy)
    shared = [shutil.copy(data / "blue" / f"blue00{number}.png", data / "red" / f"also{number}.png") for number in range(3)]
    result = train(tf_files, head=QUICK, backbone=tiny, progress=heard)
    split = artifact.load(tf_files / "model").split()
    parts, labels = defaultdict(set), defaultdict(set)
    for row in split:
        parts[row.sha256].add(row.part)
        labels[row.sha256].add(row.label)
    assert len(split) == result.used == 3 * 36 + 3 and len(parts) == 36
    assert all(len(sides) == 1 for sides in parts.values()) and {part for sides in parts.values() for part in sides} == set(
        PARTS
    )
    assert sorted(map(len, labels.values())) == [1] * 33 + [2] * 3
    said = [note for note in heard.notes if "lies in two classes" in note]
    assert len(said) == 3
    assert all(any(str(copy) in note and f"{data}/blue/" in note for note in said) for copy in shared)


# --- 18: data that moved


def rename_files(root: Path) -> None:
    """Other names, in another order, other endings, and some deeper down."""
    for number, path in enumerate(sorted((root / "data").rglob("*.png"), reverse=True)):
        target = (
            path.parent
            / (f"{path.parent.name}er" if number % 3 else "")
            / f"{number * 7919 % 1000:03}{('.jpg', '', '.PNG')[number % 3]}"
        )
        target.parent.mkdir(exist_ok=True)
        path.rename(target)


def move(root: Path) -> Path:
    return root.rename(root.with_name("an other place"))


MOVES: dict[str, Callable[[Path], Path]] = {
    "moved and renamed": lambda root: rename_files(root) or move(root),
    "touched": lambda root: [os.utime(path, (1, 1)) for path in root.rglob("*.png")] and root,
    "copied": lambda root: Path(shutil.copytree(root, root.with_name("copy"))),
    "without the model before": lambda root: shutil.rmtree(root / "model") or move(root),
}


@pytest.mark.parametrize("change", MOVES)
def test_data_that_moved_or_goes_by_other_names_is_split_and_judged_as_before(
    tf_files: Path, tiny: Backbone, change: str
) -> None:
    before = train(tf_files, head=QUICK, backbone=tiny)
    parts = sorted(artifact.load(tf_files / "model").split())
    root = MOVES[change](tf_files)
    after = train(root, head=QUICK, backbone=tiny)
    assert sorted(artifact.load(root / "model").split()) == parts
    assert (after.computed, after.cached, after.skipped) == (0, 36, ())
    assert after.accuracy == before.accuracy and after.record["data"]["sha256"] == before.record["data"]["sha256"]
