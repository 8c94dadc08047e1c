"""`check`, end to end on a tiny backbone, and its command."""

import csv
import dataclasses
import json
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from retrain.backbones import Backbone
from retrain.checks.findings import KINDS
from retrain.checks.run import Report, check
from retrain.errors import NothingUsable, UsageError
from retrain.pipeline import train
from tests.conftest import Ran
from tests.drawing import COLOURS, draw
from tests.test_groups_auto import films


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def counts(report: Report) -> Counter[str]:
    return Counter(finding.kind for finding in report.findings)


def patch(path: Path, scene: int, frame: int = 0, spread: float = 0.0, tint: tuple[int, ...] = (0, 0, 0)) -> None:
    """Write a picture of nine squares of colour: by the scene, and a little by the frame."""
    squares = np.random.default_rng(scene).integers(30, 226, (3, 3, 3)) + np.array(tint)
    change = np.random.default_rng([scene, frame]).normal(0, spread, (3, 3, 3))
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.clip(squares + change, 0, 255).astype(np.uint8).repeat(32, axis=0).repeat(32, axis=1)
    Image.fromarray(pixels).save(path)


@pytest.fixture
def spoilt(tmp_path: Path) -> Path:
    """A working folder with about one mistake of each kind."""
    data = tmp_path / "tf_files" / "data"
    for number in range(150):
        name = ("blue", "green", "red")[number % 3]
        tint = [60 if colour == name else -40 for colour in ("red", "green", "blue")]
        patch(data / name / f"{name}{number // 3:03}.png", number, tint=tuple(tint))
    shutil.copy(data / "red" / "red000.png", data / "red" / "again.png")
    shutil.copy(data / "red" / "red001.png", data / "blue" / "stray.png")
    Image.open(data / "green" / "green002.png").resize((144, 120)).save(data / "green" / "larger.png")
    for number in range(3, 7):
        shutil.move(data / "green" / f"green{number:03}.png", data / "red" / f"is-green-{number}.png")
    (data / "blue" / "broken.jpg").write_bytes(b"\xff\xd8\xff nothing")
    Image.new("RGB", (80, 80), "white").save(data / "blue" / "blank.png")
    draw(data / "green" / "small.png", COLOURS["green"], 500, (40, 30))
    (data / "Red").mkdir()
    return data.parent


def test_each_mistake_is_found_and_nothing_is_changed(spoilt: Path, tiny: Backbone) -> None:
    before = contents(spoilt / "data")
    report = check(spoilt, tiny)
    assert contents(spoilt / "data") == before
    found = counts(report)
    for kind in ("unreadable", "same-file", "same-file-two-classes", "near-duplicate", "blank", "too-small", "empty-class"):
        assert found[kind] >= 1, (kind, found)
    assert found["colliding-names"] == 1 and found["unreadable"] == 1
    assert ("mislabelled", "green") in {
        (finding.kind, finding.to) for finding in report.findings if finding.paths and "is-green" in finding.paths[0]
    }
    assert report.exit_code == 3


def test_when_all_that_was_found_is_gone_the_check_ends_with_0(tmp_path: Path, tiny: Backbone) -> None:
    for number in range(80):
        name = chr(97 + number // 26) + chr(97 + number % 26)  # no number, so no film
        patch(tmp_path / "data" / "squares" / f"{name}.png", number)
    for _ in range(8):
        report = check(tmp_path, tiny)
        if not report.findings:
            break
        assert report.exit_code == 3
        for path in {finding.paths[0] for finding in report.findings}:
            Path(path).unlink()
    assert report.exit_code == 0 and len(report.pictures.paths) >= 40
    assert "Nothing was found" in (tmp_path / "reports" / "check.html").read_text()


def test_what_does_not_matter_ends_with_0_as_well(spoilt: Path, tiny: Backbone) -> None:
    report = check(spoilt, tiny)
    lesser = tuple(dataclasses.replace(finding, matters=False) for finding in report.findings)
    assert (report.exit_code, dataclasses.replace(report, findings=lesser).exit_code) == (3, 0)


@pytest.mark.weights
def test_a_check_after_training_computes_no_feature_again_and_training_after_a_check_neither(
    tf_files: Path, tiny: Backbone
) -> None:
    assert check(tf_files, tiny).pictures.computed == 36
    assert train(tf_files, backbone=tiny).computed == 0
    assert check(tf_files, tiny).pictures.computed == 0


@pytest.mark.weights
def test_the_same_folder_gives_the_same_findings(spoilt: Path, tiny: Backbone) -> None:
    assert check(spoilt, tiny).findings == check(spoilt, tiny).findings


def test_the_json_has_every_finding_with_its_advice(spoilt: Path, tiny: Backbone) -> None:
    report = check(spoilt, tiny)
    record = json.loads((spoilt / "reports" / "check.json").read_text())
    assert record["counts"] == counts(report) and len(record["findings"]) == len(report.findings)
    assert all(row["advice"] == KINDS[row["kind"]].advice for row in record["findings"])
    assert record["pictures"] == {"used": len(report.pictures.paths), "skipped": 1, "classes": 3}
    assert set(record["split"]) == {"groups", "gaps"} and record["seconds"].keys() >= {"features and facts", "findings"}


def test_scenes_are_found_and_the_split_by_them_is_recommended(tmp_path: Path, squares: Backbone) -> None:
    """What a class is cannot be seen in new scenes; frames of one scene are alike, though not copies."""
    report = check(films(tmp_path, "{scene}/{number}.png"), squares)
    assert report.judged is not None and report.judged.grouping == "folder"
    (leak,) = [finding for finding in report.findings if finding.kind == "leak"]
    assert "--groups folder" in leak.detail and report.exit_code == 3


@pytest.mark.parametrize("classes", [{"red": 0}, {"red": 5}, {"red": 1, "blue": 1}, {"red": 40}])
def test_sets_too_small_to_predict_anything_are_checked_all_the_same(
    classes: dict[str, int], tmp_path: Path, tiny: Backbone
) -> None:
    for name, count in classes.items():
        (tmp_path / "data" / name).mkdir(parents=True)
        for index in range(count):
            draw(tmp_path / "data" / name / f"{index}.png", COLOURS[name], index)
    report = check(tmp_path, tiny)
    assert report.judged is None and (tmp_path / "reports" / "check.html").exists()


def test_sources_and_a_thin_one_are_told(tmp_path: Path, tiny: Backbone) -> None:
    for label, fanart in (("red", 15), ("blue", 1)):
        for index in range(30):
            source = "fanart" if index < fanart else "frames"
            draw(tmp_path / "data" / label / source / f"{index}.png", COLOURS[label], index + 100 * (label == "red"))
    report = check(tmp_path, tiny)
    assert report.sources == {"fanart": {"blue": 1, "red": 15}, "frames": {"blue": 29, "red": 15}}
    (thin,) = [finding for finding in report.findings if finding.kind == "thin-source"]
    assert thin.labels == ("blue",)
    assert "fanart" in (tmp_path / "reports" / "check.html").read_text()


def test_a_folder_without_classes_is_refused(tmp_path: Path, tiny: Backbone) -> None:
    with pytest.raises(NothingUsable, match="no class folders"):
        check(tmp_path, tiny)
    with pytest.raises(UsageError, match="does not exist"):
        check(tmp_path / "nowhere", tiny)


# --- the command


def test_the_whole_way_from_a_plan_to_its_undoing(spoilt: Path, tiny_by_name: str, retrain: Callable[..., Ran]) -> None:
    plan, before = spoilt / "plan.csv", contents(spoilt / "data")
    ran = retrain("check", spoilt, "--plan", plan, "--backbone", tiny_by_name)
    assert ran.code == 3 and any(line.startswith("plan: ") for line in ran.out), ran
    with plan.open(newline="") as file:
        rows = {row["path"]: row for row in csv.DictReader(file)}
    moves = {path: (row["action"], row["label"], row["to"]) for path, row in rows.items()}
    wrong = [Path(path).name for path, move in moves.items() if move == ("relabel", "red", "green")]
    assert wrong and all(name.startswith("is-green") for name in wrong)
    assert rows["blue/broken.jpg"]["action"] == "move"
    ran = retrain("check", spoilt, "--apply", plan)
    assert ran.code == 0 and ran.out[0].startswith("applied: "), ran
    data = spoilt / "data"
    assert all((data / "green" / name).exists() for name in wrong) and not (data / "blue" / "broken.jpg").exists()
    assert (spoilt / "set_aside" / "blue" / "broken.jpg").exists()
    again = retrain("check", spoilt, "--backbone", tiny_by_name)
    assert not any("unreadable" in line for line in again.out)
    ran = retrain("check", spoilt, "--undo")
    assert ran.code == 0 and contents(data) == before


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--plan", "a.csv", "--undo"), "give one of them"),
        (("--undo",), "nothing"),
        (("--apply", "missing.csv"), "missing.csv"),
    ],
)
def test_mistakes_end_with_2(tf_files: Path, retrain: Callable[..., Ran], options: tuple[str, ...], words: str) -> None:
    ran = retrain("check", tf_files, *options)
    assert ran.code == 2 and len(ran.err) == 1 and words in ran.err[0], ran


def test_a_file_that_is_no_plan_is_refused_before_the_work_begins(
    tf_files: Path, tiny_by_name: str, retrain: Callable[..., Ran]
) -> None:
    mine = tf_files / "mine.csv"
    mine.write_text("name,age\nElsa,21\n")
    ran = retrain("check", tf_files, "--plan", mine, "--backbone", tiny_by_name)
    assert ran.code == 2 and "mine.csv" in ran.err[-1] and mine.read_text().startswith("name,age")
    assert not (tf_files / "bottlenecks.sqlite").exists()


def test_classes_of_one_picture_each_are_not_called_mislabelled(tmp_path: Path, tiny: Backbone) -> None:
    for number in range(30):
        patch(tmp_path / "data" / f"class {number}" / "only.png", number)
    report = check(tmp_path, tiny)
    assert report.judged is None and counts(report)["mislabelled"] == 0 and counts(report)["tiny-class"] == 30


def test_a_class_too_small_to_be_learnt_does_not_keep_the_others_from_being_judged(spoilt: Path, tiny: Backbone) -> None:
    patch(spoilt / "data" / "rare" / "one.png", 999)
    report = check(spoilt, tiny)
    assert report.judged is not None and report.accuracy is not None and report.accuracy > 0.6
    rare = report.pictures.names.index("rare")
    assert [
        report.judged.honest[row] for row in range(len(report.pictures.paths)) if report.pictures.classes[row] == rare
    ] == [-1]
    assert not any("rare" in finding.labels for finding in report.findings if finding.kind == "mislabelled")


def test_a_frame_that_marks_a_class_is_found_and_gone_with_its_cure(tmp_path: Path, squares: Backbone) -> None:
    for number in range(80):
        path = tmp_path / "data" / ("even", "odd")[number % 2] / f"{chr(97 + number // 26)}{chr(97 + number % 26)}.png"
        patch(path, number)
        if number % 2:
            framed = Image.new("RGB", (112, 112))
            framed.paste(Image.open(path), (8, 8))
            framed.save(path)
    assert counts(check(tmp_path, squares))["border"] == 1
    cured = check(tmp_path, squares, crop_borders=True).findings
    left = [finding.detail for finding in cured if finding.kind in ("border", "shortcut")]
    assert all(detail.startswith("file size alone") for detail in left)  # the files are larger still
