"""A folder of photos in, a folder of faces out, to train on. The detector is one that finds painted squares."""

import csv
import hashlib
import io
import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from retrain import dataset
from retrain.errors import EnvironmentProblem, NothingUsable, UsageError
from retrain.faces import Box, Cutting, Detector, Outcome, cut_faces, run
from retrain.faces.crop import cut
from retrain.settings import SplitSettings
from retrain.storage import Layout
from tests.privileges import where_permissions_count
from tests.test_faces import ONE, OTHER, Painted, paint


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Two classes, four photos, five faces; and one photo that shows nobody."""
    folder = tmp_path / "photos"
    paint(folder / "anna" / "alone.png", ONE, seed=1)
    paint(folder / "anna" / "nobody.png", seed=2)
    paint(folder / "elsa" / "party" / "both.png", ONE, OTHER, seed=3)
    paint(folder / "elsa" / "1.png", ONE, seed=4)
    paint(folder / "elsa" / "2.png", OTHER, seed=5)
    return folder


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "faces"


def rows(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / "faces.jsonl").read_text().splitlines()]


def files(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_each_face_of_each_photo_is_cut_out_below_its_class(photos: Path, out: Path) -> None:
    before = files(photos)
    outcome = cut_faces(photos, out, Painted)
    assert outcome == Outcome(photos=5, faces=5, faceless=["anna/nobody.png"])
    assert sorted(files(out)) == [
        "anna/alone.png/1.png", "elsa/1.png/1.png", "elsa/2.png/1.png", "elsa/party/both.png/1.png",
        "elsa/party/both.png/2.png", "faces.jsonl",
    ]  # fmt: skip
    with Image.open(photos / "elsa" / "party" / "both.png") as photo:
        assert (out / "elsa/party/both.png/2.png").read_bytes() == cut(photo, OTHER)
    assert files(photos) == before


def test_the_manifest_says_which_face_came_from_which_photo(photos: Path, out: Path) -> None:
    (photos / "anna" / "words.jpg").write_text("words")
    cut_faces(photos, out, Painted)
    names = ["anna/alone.png", "anna/nobody.png", "anna/words.jpg", "elsa/1.png", "elsa/2.png", "elsa/party/both.png"]
    assert [row["photo"] for row in rows(out)] == names
    both = rows(out)[-1]
    assert both["sha256"] == hashlib.sha256((photos / both["photo"]).read_bytes()).hexdigest()
    assert [face["box"] for face in both["faces"]] == [list(ONE), list(OTHER)]
    assert [face["file"] for face in both["faces"]] == ["elsa/party/both.png/1.png", "elsa/party/both.png/2.png"]
    assert all(0.95 < face["confidence"] < 1 for face in both["faces"])
    assert rows(out)[1]["faces"] == [] and rows(out)[2] == {
        "photo": "anna/words.jpg", "reason": "not-an-image", "detail": "",
    }  # fmt: skip


@pytest.mark.parametrize("groups", ["folder", "(.*)/[0-9]+[.]png"])
def test_training_keeps_the_faces_of_a_photo_together(photos: Path, out: Path, groups: str) -> None:
    cut_faces(photos, out, Painted)
    examples = dataset.read(Layout(out), groups=groups).examples
    tied = {Path(example.path).relative_to(out).as_posix(): example.group for example in examples}
    assert set(tied) == set(files(out)) - {"faces.jsonl"}
    assert all(group == os.path.dirname(path) for path, group in tied.items())


def test_a_model_can_be_trained_on_the_faces(tmp_path: Path, out: Path, tiny: Any) -> None:
    from retrain.pipeline import train

    for number in range(12):
        for colour, box in (("red", ONE), ("blue", OTHER)):
            boxes = (ONE, OTHER) if number % 3 == 0 else (box,)
            paint(tmp_path / "photos" / colour / f"{number}.png", *boxes, colour=colour, seed=number * (1 + len(colour)))
    cut_faces(tmp_path / "photos", out, Painted)
    result = train(out, backbone=tiny, split=SplitSettings(groups="folder"))
    assert result.accuracy.count and Layout(out).model.is_dir()
    parts: dict[str, set[str]] = {}
    with (out / "reports" / "split.csv").open() as file:
        for row in csv.DictReader(file):
            parts.setdefault(os.path.dirname(row["path"]), set()).add(row["part"])
    assert len(parts) == 24 and all(len(part) == 1 for part in parts.values())
    assert len(set.union(*parts.values())) > 1


# A second run


def test_a_second_run_does_nothing_and_adds_only_what_is_new(photos: Path, out: Path) -> None:
    cut_faces(photos, out, Painted)
    before, told, detector = files(out), [], Painted()
    again = cut_faces(photos, out, lambda: detector, told=told.append)
    assert again == Outcome(present=5, known=5, faceless=["anna/nobody.png"])
    assert files(out) == before and detector.sizes == [] and len(told) == 5
    paint(photos / "anna" / "new.png", OTHER, seed=9)
    assert cut_faces(photos, out, Painted).faces == 1
    assert {name for name in files(out) if name not in before} == {"anna/new.png/1.png"}


def test_a_face_that_was_deleted_does_not_come_back(photos: Path, out: Path) -> None:
    cut_faces(photos, out, Painted)
    (out / "elsa/party/both.png/1.png").unlink()
    cut_faces(photos, out, Painted)
    assert not (out / "elsa/party/both.png/1.png").exists()


def test_a_photo_that_was_replaced_is_cut_anew_and_nothing_overwritten(photos: Path, out: Path) -> None:
    cut_faces(photos, out, Painted)
    before = files(out)
    paint(photos / "anna" / "alone.png", OTHER, seed=77)
    assert cut_faces(photos, out, Painted).faces == 1
    after = files(out)
    assert {name for name in after if name not in before} == {"anna/alone.png/2.png"}
    assert all(after[name] == before[name] for name in before if name != "faces.jsonl")
    assert [row["photo"] for row in rows(out)].count("anna/alone.png") == 2


def test_what_somebody_else_put_there_is_not_overwritten(photos: Path, out: Path) -> None:
    mine = out / "anna" / "alone.png" / "1.png"
    mine.parent.mkdir(parents=True)
    mine.write_text("mine")
    cut_faces(photos, out, Painted)
    assert mine.read_text() == "mine" and mine.with_name("2.png").exists()


class Killed(BaseException):
    pass


@pytest.mark.parametrize("after", range(5))
def test_after_a_stop_the_next_run_goes_on(photos: Path, out: Path, tmp_path: Path, after: int) -> None:
    cut_faces(photos, tmp_path / "whole", Painted)
    heard: list[Cutting] = []

    def stop(row: Cutting) -> None:
        heard.append(row)
        if len(heard) > after:
            raise Killed

    with pytest.raises(Killed):
        cut_faces(photos, out, Painted, told=stop)
    assert len(rows(out)) == after + 1
    assert cut_faces(photos, out, Painted).present == after + 1
    assert files(out) == files(tmp_path / "whole")


def test_faces_that_a_killed_run_wrote_but_did_not_list_are_not_written_twice(photos: Path, out: Path) -> None:
    cut_faces(photos, out, Painted)
    whole, lines = files(out), (out / "faces.jsonl").read_text().splitlines(keepends=True)
    (out / "faces.jsonl").write_text("".join(lines[:2]) + lines[2][:30])  # in the middle of a line
    assert cut_faces(photos, out, Painted).present == 2
    assert files(out) == whole


# What cannot be used


def test_bad_pictures_are_skipped_with_their_reason_and_tried_again(photos: Path, out: Path) -> None:
    bad, told = photos / "elsa" / "late.png", []
    bad.touch()
    outcome = cut_faces(photos, out, Painted, told=told.append)
    assert outcome.skipped == {"empty": 1} and outcome.faces == 5
    assert [row.reason for row in told if row.reason] == ["empty"]
    paint(bad, ONE, seed=6)
    again = cut_faces(photos, out, Painted)
    assert again.faces == 1 and not again.skipped and all("reason" not in row for row in rows(out))


def test_a_folder_without_any_face_is_nothing_to_go_on_with(tmp_path: Path, out: Path) -> None:
    paint(tmp_path / "photos" / "anna" / "1.png")
    with pytest.raises(
        NothingUsable, match=r"no face was found in .*photos \(pictures: 1, skipped: 0\); give photos that show faces"
    ):
        cut_faces(tmp_path / "photos", out, Painted)
    (tmp_path / "photos" / "anna" / "2.png").touch()
    with pytest.raises(NothingUsable, match=r"no face was found in .*photos \(pictures: 1, skipped: 1\)"):
        cut_faces(tmp_path / "photos", out, Painted)
    (tmp_path / "empty").mkdir()
    with pytest.raises(NothingUsable, match="empty holds no files; give a folder of photos"):
        cut_faces(tmp_path / "empty", out, Painted)


@pytest.mark.parametrize(
    ("source", "target", "said"),
    [
        ("phtos", "out", "phtos, does not exist; did you mean 'photos'?"),
        ("file", "out", "file is a file; for the faces of single pictures: retrain label .*file --faces"),
        ("photos", "file", "file is a file; give a folder for the faces"),
        ("photos", "photos", "lie inside one another"),
        ("photos", "photos/out", "lie inside one another"),
        ("photos/anna", "photos", "lie inside one another"),
        ("file/below", "out", "file/below, does not exist"),
    ],
)
def test_folders_that_do_not_go_together_are_refused_before_a_detector_is_opened(
    photos: Path, tmp_path: Path, source: str, target: str, said: str
) -> None:
    (tmp_path / "file").write_text("words")

    def unwanted() -> Detector:
        raise AssertionError

    with pytest.raises(UsageError, match=said):
        cut_faces(tmp_path / source, tmp_path / target, unwanted)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("line", ["words", "[]", '{"photo": 1}', '{"photo": "a", "faces": [1]}', '{"other": "a"}'])
def test_a_manifest_that_is_not_ours_is_refused_and_left_alone(photos: Path, out: Path, line: str) -> None:
    out.mkdir()
    (out / "faces.jsonl").write_text(f"{line}\n")
    with pytest.raises(
        UsageError, match=r"faces.jsonl was not written by retrain faces, or is damaged in line 1; move it away"
    ):
        cut_faces(photos, out, Painted)
    assert files(out) == {"faces.jsonl": f"{line}\n".encode()}


def test_a_file_where_a_folder_of_faces_must_be_is_told(photos: Path, out: Path) -> None:
    (out / "anna").mkdir(parents=True)
    (out / "anna" / "alone.png").write_text("mine")
    with pytest.raises(EnvironmentProblem, match=r"cannot write the face .*anna/alone.png: File exists"):
        cut_faces(photos, out, Painted)


@where_permissions_count
def test_a_closed_output_folder_is_told(photos: Path, out: Path) -> None:
    out.mkdir(mode=0o500)
    with pytest.raises(EnvironmentProblem, match=r"cannot write to .*faces: permission denied"):
        cut_faces(photos, out, Painted)


def test_short_memory_for_a_face_is_told_of_its_photo(photos: Path, out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_room(*_: object) -> bytes:
        raise MemoryError

    monkeypatch.setattr(run, "cut", no_room)
    shutil.rmtree(photos / "elsa")
    with pytest.raises(NothingUsable, match=r"\(pictures: 1, skipped: 1\)"):
        cut_faces(photos, out, Painted)
    assert [row.get("reason") for row in rows(out)] == ["too-large", None]


def test_names_that_are_no_text_come_through(tmp_path: Path, out: Path) -> None:
    folder = tmp_path / "photos" / "anna"
    paint(folder / "1.png", ONE)
    os.rename(os.fsencode(folder / "1.png"), os.fsencode(folder) + b"/\xff\n.png")
    cut_faces(tmp_path / "photos", out, Painted)
    assert os.path.exists(os.fsencode(out) + b"/anna/\xff\n.png/1.png") and len(rows(out)) == 1
    assert cut_faces(tmp_path / "photos", out, Painted).present == 1


def test_a_face_has_its_full_size_and_margin(photos: Path, out: Path) -> None:
    cut_faces(photos, out, Painted)
    with Image.open(io.BytesIO((out / "elsa/1.png/1.png").read_bytes())) as face:
        margin = Box(14, 21, 46, 69)
        assert face.format == "PNG" and face.size == (margin.width, margin.height)
