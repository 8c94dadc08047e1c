"""Training pictures are found again by their bytes, whatever they are called, as long as they lie where they did."""

import csv
import hashlib
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from retrain import artifact
from retrain.storage import Layout
from retrain.whereabouts import FILE, Row, Whereabouts, write

NAMES = [
    "plain.png", "two\nlines.png", "two\rends.png", "both\r\n.png", "comma, \"quoted\" 'name'.png", " spaces .png", "猫.png",
    "=cmd|' /C calc'!A0.png", "-rf.png", os.fsdecode(b"not utf \xe4\xff.png"), "\x1b[31mred.png", "tab\t.png", "'.png",
    '".png',
]  # fmt: skip


def sha256_of(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def row_of(path: Path, label: str = "red") -> Row:
    return Row(str(path), label, "train", "a group", "a source", sha256_of(path))


@pytest.fixture
def pictures(tmp_path: Path) -> list[Path]:
    """Files below a working folder, as it happens without a single picture among them: only bytes count."""
    paths = []
    for number, name in enumerate(NAMES):
        path = tmp_path / "tf_files" / "data" / "red" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(f"bytes {number}".encode())
        paths.append(path)
    return paths


@pytest.fixture
def layout(tmp_path: Path, pictures: list[Path]) -> Layout:
    layout = Layout(tmp_path / "tf_files")
    write(layout, map(row_of, pictures))
    return layout


def test_pictures_are_found_whatever_they_are_called(layout: Layout, pictures: list[Path]) -> None:
    files = Whereabouts(layout)
    assert [files.path(sha256_of(path)) for path in pictures] == [str(path) for path in pictures]


def test_the_file_is_a_table_with_a_line_a_picture_and_paths_from_the_working_folder(layout: Layout) -> None:
    with (layout.reports / FILE).open(encoding="utf-8", errors="surrogateescape", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["path"] for row in rows] == [f"data/red/{name}" for name in NAMES]
    assert {(row["label"], row["part"], row["group"], row["source"]) for row in rows} == {
        ("red", "train", "a group", "a source")
    }
    assert all(len(row["sha256"]) == 64 for row in rows)


def test_a_working_folder_that_was_moved_still_knows_its_pictures(layout: Layout, tmp_path: Path) -> None:
    known = sha256_of(layout.data / "red" / "plain.png")
    layout.root.rename(tmp_path / "elsewhere")
    assert Whereabouts(layout).path(known) == ""
    assert Whereabouts(Layout(tmp_path / "elsewhere")).path(known) == str(tmp_path / "elsewhere" / "data/red/plain.png")


def test_a_relative_working_folder_is_as_good(layout: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(layout.root.parent)
    here = Layout(Path("tf_files"))
    write(here, [row_of(Path("tf_files/data/red/plain.png"))])
    known = sha256_of(Path("tf_files/data/red/plain.png"))
    assert Whereabouts(here).path(known) == "tf_files/data/red/plain.png"
    monkeypatch.chdir("tf_files")
    assert Whereabouts(Layout(Path("."))).path(known) == "data/red/plain.png"


def test_a_picture_beside_the_working_folder_goes_by_its_whole_path(layout: Layout, tmp_path: Path) -> None:
    for folder in ("tests apart", "tf_files more"):  # the second begins like the working folder
        path = tmp_path / folder / "1.png"
        path.parent.mkdir()
        path.write_bytes(folder.encode())
        write(layout, [row_of(path)])
        assert f"{path}," in (layout.reports / FILE).read_text()
        assert Whereabouts(layout).path(sha256_of(path)) == str(path)


def change(path: Path) -> None:
    path.write_bytes(b"other bytes")


def remove(path: Path) -> None:
    path.unlink()


def empty(path: Path) -> None:
    path.write_bytes(b"")


def make_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def make_pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


@pytest.mark.parametrize("edit", [change, remove, empty, make_folder, make_pipe])
def test_a_picture_that_is_not_what_it_was_is_not_shown(layout: Layout, edit: Callable[[Path], None]) -> None:
    path = layout.data / "red" / "plain.png"
    known, other = sha256_of(path), sha256_of(layout.data / "red" / "猫.png")
    files = Whereabouts(layout)
    assert files.path(known) == str(path)
    edit(path)
    assert files.path(known) == "" and Whereabouts(layout).path(known) == "" and files.path(other)


def test_nothing_is_known_of_other_pictures_nor_without_the_file(layout: Layout) -> None:
    files = Whereabouts(layout)
    assert files.path("0" * 64) == files.path("") == files.path("sha256") == ""
    known = sha256_of(layout.data / "red" / "plain.png")
    (layout.reports / FILE).unlink()
    assert Whereabouts(layout).path(known) == ""
    (layout.reports / FILE).mkdir()
    assert Whereabouts(layout).path(known) == ""


@pytest.mark.parametrize(
    "data",
    [
        b"", b"\n\n\n", b"words", b"a,b,c,d,e\n", b"\xff\xfe\x00\x01\n", b'"', b"a" * 300_000 + b",b,c,d,e,f\n",
        b'"' + b"x,\n" * 100_000, b"\0\0\0,,,,,\n", b",,,,,\r\r\r",
    ],
)  # fmt: skip
def test_a_file_that_was_spoilt_is_as_good_as_none(layout: Layout, data: bytes) -> None:
    (layout.reports / FILE).write_bytes(data)
    assert Whereabouts(layout).path(sha256_of(layout.data / "red" / "plain.png")) == ""


def test_a_path_that_cannot_be_is_no_picture(layout: Layout) -> None:
    cells = ["a\0b", "x" * 5000, "..", "", "/dev/zero", "data/red"]
    lines = [f"{path},red,train,g,s,{number:064}\n" for number, path in enumerate(cells)]
    (layout.reports / FILE).write_text("".join(lines))
    files = Whereabouts(layout)
    assert [files.path(f"{number:064}") for number in range(len(cells))] == [""] * len(cells)


def test_the_file_of_an_earlier_run_is_replaced(layout: Layout) -> None:
    first, second = layout.data / "red" / "plain.png", layout.data / "red" / "猫.png"
    write(layout, [row_of(second)])
    assert Whereabouts(layout).path(sha256_of(second)) and not Whereabouts(layout).path(sha256_of(first))


def test_training_writes_where_every_picture_of_the_split_lies(trained: Path) -> None:
    files = Whereabouts(Layout(trained))
    for row in artifact.load(trained / "model").split():
        path = Path(files.path(row.sha256))
        assert sha256_of(path) == row.sha256 and path.parent == trained / "data" / row.label
    with (trained / "reports" / FILE).open(newline="") as file:
        table = {row["sha256"]: row for row in csv.DictReader(file)}
    assert all(
        (table[row.sha256]["label"], table[row.sha256]["part"]) == (row.label, row.part)
        for row in artifact.load(trained / "model").split()
    )
