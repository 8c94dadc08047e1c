"""`retrain label --faces` and `retrain faces` as people meet them. The detector is one that finds painted squares."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from retrain import faces
from retrain.faces import detect
from retrain.label import load
from tests.conftest import Ran
from tests.privileges import where_permissions_count
from tests.test_cli import check_one_line
from tests.test_faces import ONE, OTHER, Painted, paint

Retrain = Callable[..., Ran]


@pytest.fixture
def room(tmp_path: Path, trained: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A current folder with a model, a picture of two faces, one of nobody, and one that is none."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(faces, "check_installed", lambda: None)
    monkeypatch.setattr(faces, "open_detector", Painted)
    shutil.copytree(trained / "model", "tf_files/model")
    paint(Path("both.png"), ONE, OTHER)
    paint(Path("nobody.png"), colour="blue", seed=2)
    Path("words.png").write_text("words")
    return tmp_path


def test_each_face_is_named_with_its_box_and_labelled(room: Path, retrain: Retrain) -> None:
    done = retrain("label", "both.png", "--faces", "--unknown", "off")
    seen = faces.look(Path("both.png").read_bytes(), Painted(), load("tf_files/model").label_bytes)
    lines = []
    for number, one, box in zip((1, 2), seen.faces, ("(20, 30) to (40, 60)", "(70, 10) to (90, 30)"), strict=True):
        lines.append(f"face {number} of 2, {box}, confidence = {one.face.confidence:.5f}:")
        lines += map(str, one.labelled.scores)
    assert done == Ran(0, lines, [])


def test_where_there_is_no_face_the_line_says_so_and_the_whole_picture_is_labelled(room: Path, retrain: Retrain) -> None:
    plain, done = retrain("label", "nobody.png"), retrain("label", "nobody.png", "--faces")
    assert done.code == 0 and done.out == ["no face found; the whole picture:", *plain.out]


def test_json_has_a_list_of_faces_with_boxes_in_the_words_of_whole_pictures(room: Path, retrain: Retrain) -> None:
    done = retrain("label", "both.png", "nobody.png", "words.png", "--faces", "--json", "--top", 1, "--neighbours", 1)
    both, nobody, words = map(json.loads, done.out)
    (whole,) = map(json.loads, retrain("label", "nobody.png", "--json", "--top", 1, "--neighbours", 1).out)
    assert done.code == 3
    assert list(both) == ["image", "faces", "notes"] and [face["box"] for face in both["faces"]] == [list(ONE), list(OTHER)]
    assert all(set(face) == {"box", "confidence"} | set(whole) - {"image", "notes"} for face in both["faces"])
    assert nobody == {**whole, "faces": []}
    assert set(words) == {"image", "reason", "detail"} and words["reason"] == "not-an-image"


def test_without_faces_the_output_is_as_ever(room: Path, retrain: Retrain) -> None:
    (said,) = map(json.loads, retrain("label", "both.png", "--json").out)
    assert list(said) == ["image", "labels", "unknown", "typicality", "notes"]


@pytest.mark.parametrize(("name", "kind"), [("copy.png", "PNG"), ("copy.jpg", "JPEG")])
def test_a_copy_is_drawn_on_and_the_picture_stays_as_it_is(room: Path, retrain: Retrain, name: str, kind: str) -> None:
    before = Path("both.png").read_bytes()
    assert retrain("label", "both.png", "--faces", "--output", name).code == 0
    with Image.open(name) as copy, Image.open("both.png") as picture:
        assert copy.format == kind and copy.size == picture.size
        different = np.abs(np.asarray(copy).astype(int) - np.asarray(picture)).max(axis=2) > 60
    assert different[ONE.top, ONE.left : ONE.right].mean() > 0.9 and not different[ONE.top + 5 : ONE.bottom - 5, 25:35].any()
    assert Path("both.png").read_bytes() == before
    assert sorted(path.name for path in room.iterdir()) == sorted([name, "both.png", "nobody.png", "tf_files", "words.png"])


def test_copies_of_several_pictures_go_into_a_folder(room: Path, retrain: Retrain) -> None:
    Path("drawn").mkdir()
    done = retrain("label", "both.png", "nobody.png", "words.png", "both.png", "--faces", "--output", "drawn")
    assert done.code == 3 and sorted(path.name for path in Path("drawn").iterdir()) == ["both.jpg", "nobody.jpg"]


MISTAKES = [
    ("label both.png --output copy.png", 2, "--output draws the faces of a picture; add --faces"),
    ("label both.png --faces --output both.png", 2, "both.png is there already and is not overwritten; choose another name"),
    ("label both.png --faces --output copy.gif", 2, "--output copy.gif ends in none of .jpg, .jpeg, .png; name a picture"),
    ("label both.png --faces --output drawn", 2, "--output drawn ends in none of"),
    ("label both.png --faces --output no/copy.png", 2, "no is no folder to write copy.png to; make it, or choose another"),
    (
        "label both.png nobody.png --faces --output copy.png",
        2,
        "copy.png is no folder, and the copies of several pictures need",
    ),
    ("label both.png tf_files/both.png --faces --output drawn", 2, "drawn/both.jpg would be the copy of two pictures"),
    ("label both.png nobody.png --faces --output taken", 2, "taken/nobody.jpg is there already and is not overwritten"),
    ("label both.png --faces --model nowhere", 5, "no model at nowhere"),
    ("faces", 2, "Missing argument 'PHOTOS'"),
    ("faces photos", 2, "Missing argument 'OUT'"),
    ("faces phtos out", 2, "the folder of photos, phtos, does not exist; did you mean 'photos'?"),
    ("faces photos photos/out", 2, "photos/out and photos lie inside one another"),
    ("faces empty out", 4, "empty holds no files; give a folder of photos"),
    ("faces faceless out", 4, "no face was found in faceless (pictures: 1, skipped: 0); give photos that show faces"),
    ("faces photos taken/nobody.jpg/out", 6, "taken/nobody.jpg/out"),
]


@pytest.mark.parametrize(("typed", "code", "part"), MISTAKES)
def test_a_mistake_is_one_line_that_says_what_next(room: Path, retrain: Retrain, typed: str, code: int, part: str) -> None:
    for folder in ("drawn", "taken", "empty"):
        Path(folder).mkdir()
    paint(Path("faceless/anna/1.png"))
    paint(Path("photos/anna/1.png"), ONE)
    Path("taken/nobody.jpg").write_text("mine")
    before = Path("both.png").read_bytes()
    ran = retrain(*typed.split())
    check_one_line(ran, code, part)
    assert not ran.out and Path("both.png").read_bytes() == before and Path("taken/nobody.jpg").read_text() == "mine"


@where_permissions_count
def test_a_closed_folder_for_the_copy_is_told_first(room: Path, retrain: Retrain) -> None:
    Path("closed").mkdir(mode=0o500)
    check_one_line(retrain("label", "both.png", "--faces", "--output", "closed/copy.png"), 6, "permission denied")


@pytest.mark.parametrize("typed", ["label both.png --faces", "label nothing --faces --model nowhere", "faces phtos out"])
def test_a_missing_extra_is_told_before_anything_else(
    tmp_path: Path, retrain: Retrain, monkeypatch: pytest.MonkeyPatch, typed: str
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(detect.importlib.util, "find_spec", lambda name: None if name == "mtcnn" else name)
    check_one_line(
        retrain(*typed.split()), 6, "mtcnn is not installed, needed to find faces; run: pip install retrain[faces]"
    )
    assert list(tmp_path.iterdir()) == []


def test_a_picture_that_cannot_be_used_leaves_no_copy(room: Path, retrain: Retrain) -> None:
    done = retrain("label", "words.png", "--faces", "--output", "copy.png")
    assert done.code == 4 and "skipped words.png: not-an-image" in done.err[0] and not Path("copy.png").exists()


# retrain faces


def test_a_folder_of_photos_becomes_a_folder_of_faces(room: Path, retrain: Retrain) -> None:
    paint(Path("photos/anna/1.png"), ONE)
    paint(Path("photos/elsa/2.png"), ONE, OTHER, seed=4)
    paint(Path("photos/elsa/3.png"), seed=5)
    done = retrain("faces", "photos", "out")
    assert done == Ran(
        0,
        ["photos: 3 cut, 0 skipped, 1 without a face", "faces:  3, in out, listed in out/faces.jsonl"],
        ["no face in photos/elsa/3.png"],
    )
    assert retrain("faces", "photos", "out").out == [
        "nothing new: every photo was cut by an earlier run",
        "photos: 0 cut, 3 there already, 0 skipped, 1 without a face",
        "faces:  0, in out, listed in out/faces.jsonl",
    ]
    Path("photos/elsa/words.png").write_text("words")
    done = retrain("faces", "photos", "out")
    assert done.code == 3 and "skipped photos/elsa/words.png: not-an-image" in "".join(done.err)
    assert done.out[1] == "photos: 0 cut, 3 there already, 1 skipped, 1 without a face"


# With the real detector


@pytest.mark.weights
def test_the_astronaut_is_found_labelled_and_drawn_from_the_command_line(
    tmp_path: Path, trained: Path, command: Callable
) -> None:
    data = Path(pytest.importorskip("skimage").__file__).parent / "data"
    (tmp_path / "photos" / "astronaut").mkdir(parents=True)
    shutil.copy(data / "astronaut.png", tmp_path / "photos" / "astronaut")
    words = ("label", data / "astronaut.png", "--faces", "--json", "--output", tmp_path / "copy.jpg")
    done = command(*words, "--model", trained / "model")
    assert (done.returncode, done.stderr) == (0, "")
    (face,) = json.loads(done.stdout)["faces"]
    assert np.abs(np.subtract(face["box"], (182, 64, 265, 171))).max() <= 12 and face["confidence"] > 0.99
    with Image.open(tmp_path / "copy.jpg") as copy:
        assert copy.size == (512, 512)
    cut = command("faces", tmp_path / "photos", tmp_path / "faces")
    assert (cut.returncode, cut.stderr) == (0, "")
    with Image.open(tmp_path / "faces" / "astronaut" / "astronaut.png" / "1.png") as cut_out:
        assert abs(cut_out.height - 1.6 * (face["box"][3] - face["box"][1])) <= 2
