"""The whole line, end to end, on a tiny backbone."""

import hashlib
import json
import os
import shutil
import stat
import subprocess
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from retrain import HeadSettings, SplitSettings, artifact, load
from retrain.backbones import Backbone
from retrain.cli.train import summary
from retrain.errors import NothingUsable, UsageError
from retrain.evaluation import Accuracy
from retrain.pipeline import Result, train
from retrain.progress import Silent
from tests.drawing import COLOURS, draw, draw_classes

QUICK = HeadSettings(steps=50)


class Heard(Silent):
    def __init__(self) -> None:
        self.notes: list[str] = []

    def note(self, line: str) -> None:
        self.notes.append(line)


def notes_of(tf_files: Path, tiny: Backbone, **split: object) -> str:
    """Train and return what was said on the way, a line a note."""
    heard = Heard()
    train(tf_files, split=SplitSettings(**split), head=QUICK, backbone=tiny, progress=heard)
    return "\n".join(heard.notes)


def test_a_folder_of_pictures_becomes_a_model_that_labels_them(tf_files: Path, tiny: Backbone) -> None:
    result = train(tf_files, backbone=tiny)
    assert result.labels == ("blue", "green", "red")
    assert result.accuracy.value > 0.8
    model = load(tf_files / "model")
    unseen = draw(tf_files / "unseen.png", (200, 50, 40), seed=77)
    assert model.label(unseen)[0].label == "red"


def test_a_second_run_computes_nothing_and_a_third_only_what_is_new(tf_files: Path, tiny: Backbone) -> None:
    assert train(tf_files, backbone=tiny).computed == 36
    second = train(tf_files, backbone=tiny)
    assert (second.computed, second.cached) == (0, 36)
    for index in range(10):
        draw(tf_files / "data" / "red" / f"new{index}.png", (200, 50, 40), seed=9000 + index)
    third = train(tf_files, backbone=tiny)
    assert (third.computed, third.cached) == (10, 36)


def test_same_data_settings_and_seed_give_the_same_model_bytes(tf_files: Path, tiny: Backbone, tmp_path: Path) -> None:
    copy = tmp_path / "elsewhere" / "tf_files"
    shutil.copytree(tf_files, copy)
    train(tf_files, backbone=tiny)
    train(copy, backbone=tiny)
    first = {path.name: path.read_bytes() for path in (tf_files / "model").iterdir()}
    second = {path.name: path.read_bytes() for path in (copy / "model").iterdir()}
    assert first == second
    train(tf_files, head=HeadSettings(seed=1), backbone=tiny)
    assert (tf_files / "model" / "manifest.json").read_bytes() != second["manifest.json"]


def test_bad_pictures_are_named_and_the_run_goes_on(tf_files: Path, tiny: Backbone) -> None:
    (tf_files / "data" / "red" / "empty.jpg").touch()
    (tf_files / "data" / "red" / "page.jpg").write_text("<!doctype html><p>not found")
    whole = (tf_files / "data" / "red" / "red000.png").read_bytes()
    (tf_files / "data" / "red" / "cut.png").write_bytes(whole[: len(whole) // 2])
    result = train(tf_files, backbone=tiny)
    assert {(Path(item.path).name, item.reason) for item in result.skipped} == {
        ("empty.jpg", "empty"),
        ("page.jpg", "not-an-image"),
        ("cut.png", "truncated"),
    }
    record = json.loads((tf_files / "reports" / "train.json").read_text())
    counts = {"used": 36, "skipped": 3, "computed": 36, "cached": 0}
    assert record["counts"] == counts | {"views_computed": 0, "views_cached": 0}
    assert len(record["skipped"]) == 3 and record["exit_code"] == 3
    again = train(tf_files, backbone=tiny)
    assert {item.reason for item in again.skipped} == {"empty", "not-an-image", "truncated"}


def test_the_run_record_says_what_was_done(trained: Path) -> None:
    record = json.loads((trained / "reports" / "train.json").read_text())
    assert record["status"] == "finished" and record["error"] is None
    assert 0 <= record["test_accuracy_interval"][0] <= record["test_accuracy"] <= record["test_accuracy_interval"][1] <= 1
    assert set(record["seconds"]) == {"listing", "backbone", "bottlenecks", "split", "views", "head", "save", "total"}
    assert record["settings"]["backbone"] == "tiny" and len(record["data"]["sha256"]) == 64
    counts = record["split"]["classes"]
    assert all(counts[label][part] >= 1 for label in counts for part in ("train", "validation", "test"))


def test_the_run_record_is_written_when_the_run_fails(tmp_path: Path, tiny: Backbone) -> None:
    draw(tmp_path / "tf_files" / "data" / "only" / "one.png", (9, 9, 9), 1)
    with pytest.raises(NothingUsable, match="at least two class folders"):
        train(tmp_path / "tf_files", backbone=tiny)
    record = json.loads((tmp_path / "tf_files" / "reports" / "train.json").read_text())
    assert record["status"] == "failed" and record["exit_code"] == 4 and "only" in record["error"]
    assert not (tmp_path / "tf_files" / "model" / "manifest.json").exists()


def test_classes_too_small_to_split_are_judged_by_cross_validation(tmp_path: Path, tiny: Backbone) -> None:
    for name, colour in (("blue", (40, 60, 200)), ("red", (200, 50, 40))):
        for index in range(2):
            draw(tmp_path / "data" / name / f"{index}.png", colour, seed=hash(name) % 97 + index)
    result = train(tmp_path, backbone=tiny)
    assert result.judged_on == "cross-validation, 4 folds" and result.accuracy.count == 4


def test_two_classes_of_one_picture_each_still_give_a_model(tmp_path: Path, tiny: Backbone) -> None:
    draw(tmp_path / "data" / "blue" / "a.png", (40, 60, 200), 1)
    draw(tmp_path / "data" / "red" / "b.png", (200, 50, 40), 2)
    assert train(tmp_path, backbone=tiny).accuracy.count == 2


def test_adding_pictures_moves_none_to_another_part(tf_files: Path, tiny: Backbone) -> None:
    train(tf_files, backbone=tiny)
    before = {row.sha256: row.part for row in load(tf_files / "model").split()}
    for index in range(10):
        draw(tf_files / "data" / "blue" / f"new{index}.png", (40, 60, 200), seed=9000 + index)
    train(tf_files, backbone=tiny)
    after = {row.sha256: row.part for row in load(tf_files / "model").split()}
    assert len(after) == 46 and {key: after[key] for key in before} == before


def test_a_test_folder_is_the_test_part_and_copies_of_it_are_not_learnt(
    tf_files: Path, tiny: Backbone, tmp_path: Path
) -> None:
    for name, colour in (("blue", (40, 60, 200)), ("red", (200, 50, 40)), ("green", (50, 170, 60))):
        draw(tmp_path / "held" / name / "x.png", colour, seed=500)
        shutil.copy(tmp_path / "held" / name / "x.png", tf_files / "data" / name / "copy_of_x.png")
    result = train(tf_files, split=SplitSettings(test_dir=tmp_path / "held"), backbone=tiny)
    assert result.judged_on == "test folder" and result.accuracy.count == 3
    assert sorted(Path(item.path).name for item in result.skipped if item.reason == "left-out") == ["copy_of_x.png"] * 3


def test_pictures_of_the_data_folder_leave_the_test_part_once_there_is_a_test_folder(
    tf_files: Path, tiny: Backbone, tmp_path: Path
) -> None:
    held = [draw_classes(tmp_path / f"held{number}", 2, first_seed=100 * (1 + number)) for number in range(2)]

    def tested(test_dir: Path | None) -> set[str]:
        train(tf_files, split=SplitSettings(test_dir=test_dir), head=QUICK, backbone=tiny)
        return {row.sha256 for row in load(tf_files / "model").split() if row.part == "test"}

    def content(folder: Path) -> set[str]:
        return {hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.rglob("*.png")}

    assert tested(None) <= content(tf_files / "data")
    assert tested(held[0]) == content(held[0])
    for path in held[0].rglob("*.png"):  # tested on so far, now to be learnt from
        shutil.copy(path, tf_files / "data" / path.parent.name / f"was_held_{path.name}")
    assert tested(held[1]) == content(held[1])


TOO_LARGE, NEVER_LEARNT = "the test part holds ", "is never learnt where it is tested"


@pytest.mark.parametrize("folds", [0, 3])
def test_of_ordinary_pictures_nothing_is_said_about_their_groups(tf_files: Path, tiny: Backbone, folds: int) -> None:
    draw_classes(tf_files / "data", 30)
    # By its name each picture goes to the same part whatever bytes this version of Pillow writes.
    said = notes_of(tf_files, tiny, groups=r"\w+\.png", folds=folds)
    assert "training the head" in said and TOO_LARGE not in said and NEVER_LEARNT not in said


def test_a_test_part_much_larger_than_was_asked_for_is_told(tf_files: Path, tiny: Backbone) -> None:
    for index in range(20):  # the hash of this name puts the group into the test part
        draw(tf_files / "data" / "red" / "g8" / f"{index}.png", COLOURS["red"], 500 + index)
    said = notes_of(tf_files, tiny, groups="folder")
    split = load(tf_files / "model").split()
    percent = 100 * sum(row.part == "test" for row in split) / len(split)
    words = f"{percent:.0f} % of the pictures, 20 % were asked for: "
    largest = max(Counter(row.group for row in split if row.group).values())
    assert percent > 30 and largest >= 20
    assert TOO_LARGE + words in said and "pictures that belong together cannot be divided" in said


@pytest.mark.parametrize("folds", [0, 3])  # without folds, too few groups lead to cross-validation
def test_a_class_of_a_single_group_is_named_where_folds_judge(tf_files: Path, tiny: Backbone, folds: int) -> None:
    (tf_files / "data" / "red").rename(tf_files / "take")
    (tf_files / "data" / "red").mkdir()
    (tf_files / "take").rename(tf_files / "data" / "red" / "take")
    said = notes_of(tf_files, tiny, groups="folder", folds=folds)
    assert f"class 'red': all pictures are one group, or alike, so it {NEVER_LEARNT}" in said


@pytest.mark.parametrize("folds", [0, 3])
def test_groups_that_hold_all_pictures_as_one_are_a_mistake(tf_files: Path, tiny: Backbone, folds: int) -> None:
    words = r"^--groups 'png' puts all pictures into one group; use an expression that tells them apart$"
    with pytest.raises(UsageError, match=words):
        train(tf_files, split=SplitSettings(groups="png", folds=folds), backbone=tiny)
    assert not (tf_files / "model" / "manifest.json").exists()


def test_a_folder_that_was_given_by_mistake_is_left_as_it_was(tmp_path: Path, tiny: Backbone) -> None:
    (tmp_path / "letters").mkdir()
    (tmp_path / "letters" / "aunt.txt").write_text("dear aunt")
    with pytest.raises(NothingUsable, match="has no class folders"):
        train(tmp_path / "letters", backbone=tiny)
    assert [path.name for path in tmp_path.rglob("*")] == ["letters", "aunt.txt"]
    (tmp_path / "letters" / "data").mkdir()  # now it is meant
    with pytest.raises(NothingUsable, match="has no class folders"):
        train(tmp_path / "letters", backbone=tiny)
    assert (tmp_path / "letters" / "reports" / "train.json").exists()


@pytest.mark.parametrize("umask", [0o002, 0o027, 0o077])
def test_who_may_read_and_write_what_comes_out_is_left_to_the_umask(umask: int, tf_files: Path, tiny: Backbone) -> None:
    before = {path: path.stat().st_mode for path in tf_files.rglob("*")}
    kept = os.umask(umask)
    try:
        train(tf_files, backbone=tiny)
        load(tf_files / "model").classify(tf_files / "data", tf_files.parent / "out")
    finally:
        os.umask(kept)
    made = [path for folder in (tf_files, tf_files.parent / "out") for path in folder.rglob("*") if path not in before]
    assert len(made) > 40
    for path in made:
        assert stat.S_IMODE(path.stat().st_mode) == (0o777 if path.is_dir() else 0o666) & ~umask, path
    assert {path: path.stat().st_mode for path in before} == before


def with_frame(path: Path, to: Path) -> Path:
    """Write a picture with a black frame."""
    image = Image.open(path)
    page = Image.new("RGB", (image.width + 12, image.height + 12))
    page.paste(image, (6, 6))
    to.parent.mkdir(parents=True, exist_ok=True)
    page.save(to)
    return to


def test_a_model_that_cuts_off_borders_sees_a_picture_the_same_with_a_frame(
    tf_files: Path, tiny: Backbone, tmp_path: Path, command: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    plain = train(tf_files, head=QUICK, backbone=tiny, model=tmp_path / "plain")
    result = train(tf_files, head=QUICK, backbone=tiny, crop_borders=True)
    assert (plain.computed, result.computed, result.cached) == (36, 36, 0)  # each has its space in the cache
    assert train(tf_files, head=QUICK, backbone=tiny, crop_borders=True).computed == 0
    bare = draw(tmp_path / "images" / "bare.png", COLOURS["red"], 77)
    framed = with_frame(bare, tmp_path / "images" / "framed.png")
    model, other = load(tf_files / "model"), load(tmp_path / "plain")
    assert model.label(framed) == model.label(bare) and other.label(framed) != other.label(bare)

    told = [command("label", path, "--model", tf_files / "model").stdout for path in (bare, framed)]
    assert told[0] == told[1] != "" and f"{model.label(bare)[0]}\n" in told[0]
    model.classify(tmp_path / "images", tmp_path / "out")
    copies = sorted(path.name for path in (tmp_path / "out").glob("*.png"))
    assert len(copies) == 2 and copies[0] == copies[1].replace(".png", "-2.png")


@pytest.mark.parametrize("crop_borders", [False, True])
def test_whether_borders_were_cut_off_is_in_the_record_and_in_the_model(
    tf_files: Path, tiny: Backbone, crop_borders: bool
) -> None:
    result = train(tf_files, head=QUICK, backbone=tiny, crop_borders=crop_borders)
    manifest = artifact.load(tf_files / "model").manifest
    assert result.record["settings"]["crop_borders"] is manifest["settings"]["crop_borders"] is crop_borders
    assert manifest["members"][0]["view"] == ("crop-borders" if crop_borders else "squash")


def draw_sources(data: Path, sources: dict[str, int]) -> None:
    """Move the classes into folders of their sources, with so many pictures a class each."""
    for number, (name, colour) in enumerate(COLOURS.items()):
        for start, (source, count) in enumerate(sources.items()):
            for index in range(count):
                seed = 1000 * number + 100 * start + index
                draw(data / name / source / f"{source}{index}.png", colour, seed)


def test_a_source_can_be_tested_on_and_copies_of_it_are_not_learnt(tmp_path: Path, tiny: Backbone) -> None:
    draw_sources(tmp_path / "data", {"frames": 8, "fanart": 4})
    shutil.copy(tmp_path / "data" / "red" / "fanart" / "fanart0.png", tmp_path / "data" / "red" / "frames" / "copy.png")
    draw(tmp_path / "data" / "rare" / "fanart" / "only.png", (200, 200, 30), 900)
    heard = Heard()
    split = SplitSettings(test_source="fanart")
    result = train(tmp_path, split=split, head=QUICK, backbone=tiny, progress=heard)
    assert result.judged_on == "source 'fanart'" and result.accuracy.count == 12 == result.by_source["fanart"].count
    placed = load(tmp_path / "model").split()
    assert {(row.source, row.part) for row in placed} == {("frames", "train"), ("frames", "validation"), ("fanart", "test")}
    left_out = {Path(item.path).name: item.detail for item in result.skipped if item.reason == "left-out"}
    assert left_out.pop("only.png") == "class 'rare' has no picture to learn from"
    # Others may be alike to a network that sees little more than colours.
    assert "copy.png" in left_out and not any(name.startswith("fanart") for name in left_out)
    assert set(left_out.values()) == {"same or nearly the same as a picture of source 'fanart'"}
    assert "class 'rare' is left out: it has no picture to learn from" in heard.notes
    record = json.loads((tmp_path / "reports" / "train.json").read_text())
    assert (record["judged_on"], record["settings"]["test_source"]) == ("source 'fanart'", "fanart")


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        ("copies", r"nothing to learn from but copies of test pictures: 'blue' .* add pictures or drop --test-source$"),
        ("unreadable", r"^source 'fanart': no usable picture of these classes; give another or leave out --test-source$"),
    ],
)
def test_a_source_that_cannot_be_tested_on_is_named(tmp_path: Path, tiny: Backbone, spoil: str, words: str) -> None:
    draw_sources(tmp_path / "data", {"frames": 4, "fanart": 4})
    for path in (tmp_path / "data").glob("*/fanart/*.png"):
        if spoil == "unreadable":
            path.write_bytes(b"")
        elif "blue" in path.parts:
            shutil.copy(path, path.parent.parent / "frames" / path.name.replace("fanart", "frames"))
    with pytest.raises(NothingUsable, match=words):
        train(tmp_path, split=SplitSettings(test_source="fanart"), head=QUICK, backbone=tiny)


def result_with(by_source: dict[str, tuple[int, int]], loose: int = 0) -> Result:
    figures = {source: Accuracy(right / count, (0.0, 1.0), right, count) for source, (right, count) in by_source.items()}
    count = loose + sum(figure.count for figure in figures.values())
    return Result(Path("m"), ("a", "b"), Accuracy(0.5, (0.4, 0.6), count // 2, count), figures, "test part", 9, (), 9, 0, {})


@pytest.mark.parametrize(
    ("by_source", "loose", "lines"),
    [
        ({}, 5, []),
        ({"fanart": (52, 57)}, 0, []),
        ({"fanart": (52, 57)}, 3, ["  fanart       91.2 % (52 of 57)"]),
        (
            {"b": (1, 2), "a": (2, 2), "a_long_name_of_a_source": (3, 4)},
            0,
            [
                "  a_long_name_of_a_source 75.0 % (3 of 4)",
                "  a            100.0 % (2 of 2)",
                "  b            50.0 % (1 of 2)",
            ],
        ),
    ],
)
def test_the_summary_has_a_line_for_each_source(by_source: dict, loose: int, lines: list[str]) -> None:
    told = summary(result_with(by_source, loose))
    after = next(row for row, line in enumerate(told) if line.startswith("test accuracy:"))
    assert told[after + 1 : after + 1 + len(lines)] == lines and told[after + 1 + len(lines)].startswith("model:")


@pytest.mark.parametrize(("count", "shown", "last"), [(10, 10, "  s00"), (11, 9, "  and 2 more, all in reports/train.json")])
def test_of_many_sources_the_summary_names_those_with_the_most_pictures(count: int, shown: int, last: str) -> None:
    told = [line for line in summary(result_with({f"s{row:02}": (1, 1 + row) for row in range(count)})) if line[:2] == "  "]
    told = [line for line in told if "retrain classify" not in line]
    assert len(told) == 10 and told[-1].startswith(last) and sum(" of " in line for line in told) == shown
