"""A model as a zip: the same model as its folder, and whatever else calls itself a zip is refused before it does harm."""

import io
import json
import os
import shutil
import stat
import struct
import tracemalloc
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from retrain import artifact, label
from retrain.errors import ModelRefused
from retrain.exports import zipped
from tests.conftest import Ran
from tests.drawing import draw
from tests.test_artifact import listed, save

Command = Callable[..., Ran]
MEGABYTE = 2**20


@pytest.fixture
def packed(tmp_path: Path) -> Path:
    """A zip of a model whose labels are as odd as names can be."""
    path = tmp_path / "packed.zip"
    zipped.write(artifact.load(save(tmp_path / "model")).whole(), path)
    return path


@pytest.fixture(scope="module")
def handed_over(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A zip of a model that labels, with nothing beside it."""
    path = tmp_path_factory.mktemp("handed") / "model.zip"
    zipped.write(artifact.load(trained / "model").whole(), path)
    return path


def entries(path: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(path) as file:
        return {name: file.read(name) for name in file.namelist()}


def repacked(path: Path, files: dict[str, bytes], kind: int = zipfile.ZIP_STORED) -> Path:
    with zipfile.ZipFile(path, "w", kind) as file:
        for name, data in files.items():
            file.writestr(name, data)
    return path


def is_refused(path: Path, words: str, most: int) -> None:
    """Hold it to a refusal that takes at most so many bytes of memory."""
    tracemalloc.start()
    try:
        with pytest.raises(ModelRefused, match=words):
            artifact.load(path)
        assert tracemalloc.get_traced_memory()[1] < most
    finally:
        tracemalloc.stop()


def test_a_zip_holds_the_files_of_the_folder_and_nothing_else(packed: Path, tmp_path: Path) -> None:
    assert entries(packed) == {
        path.name: path.read_bytes() for path in (tmp_path / "model").iterdir() if not path.name.startswith(".")
    }


def test_a_zip_is_the_model_that_its_folder_is(packed: Path, tmp_path: Path) -> None:
    one, other = artifact.load(packed), artifact.load(tmp_path / "model")
    assert one.manifest == other.manifest and one.split() == other.split()
    assert one.artifact.labels == other.artifact.labels
    assert one.artifact.members[0].network == other.artifact.members[0].network


def test_packed_twice_it_has_the_same_bytes(packed: Path, tmp_path: Path) -> None:
    again = tmp_path / "again.zip"
    zipped.write(artifact.load(packed).whole(), again)
    assert again.read_bytes() == packed.read_bytes()


def test_compressed_by_another_program_it_is_taken_as_well(packed: Path, tmp_path: Path) -> None:
    other = repacked(tmp_path / "other.zip", entries(packed), zipfile.ZIP_DEFLATED)
    assert artifact.load(other).manifest == artifact.load(packed).manifest


def test_it_labels_as_its_folder_does(handed_over: Path, trained: Path) -> None:
    picture = next((trained / "data").glob("*/*.png"))
    assert label.load(handed_over).label(picture) == label.load(trained / "model").label(picture)


@pytest.mark.parametrize("line", ["label {picture} --neighbours 1", "explain {picture}", "classify {folder} {out}"])
def test_commands_take_it_and_unpack_nothing(
    line: str, handed_over: Path, trained: Path, tmp_path: Path, retrain: Command
) -> None:
    folder = tmp_path / "pictures"
    picture = draw(folder / "one.png", (200, 40, 40), 1, (40, 40))
    words = line.format(picture=picture, folder=folder, out=tmp_path / "out").split()
    assert retrain(*words, "--model", handed_over).code == 0
    assert os.listdir(handed_over.parent) == [handed_over.name]


def test_it_can_be_evaluated(handed_over: Path, trained: Path, tmp_path: Path, retrain: Command) -> None:
    shutil.copytree(trained, tmp_path / "tf_files", dirs_exist_ok=True)
    shutil.rmtree(tmp_path / "tf_files" / "model")
    ran = retrain("evaluate", tmp_path / "tf_files", "--model", handed_over)
    assert ran.code == 0 and any(line.startswith("accuracy:") for line in ran.out)


@pytest.mark.parametrize(
    "name",
    [
        "../manifest.json",
        "/tmp/x",
        "C:\\x",
        "model/manifest.json",
        "x.py",
        "head-0123456789abcdef.py",
        "Manifest.json",
        ".lock",
    ],
)
def test_a_name_that_is_not_ours_is_refused(name: str, packed: Path, tmp_path: Path) -> None:
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(ModelRefused, match="is no model of retrain: it holds"):
        artifact.load(repacked(packed, entries(packed) | {name: b"x"}))
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("mode", [stat.S_IFLNK, stat.S_IFDIR, stat.S_IFIFO, stat.S_IFCHR])
def test_what_is_no_plain_file_is_refused(mode: int, packed: Path) -> None:
    files = entries(packed)
    with zipfile.ZipFile(packed, "w") as file:
        for name, data in files.items():
            entry = zipfile.ZipInfo(name)
            entry.external_attr = (mode if name == "labels.txt" else stat.S_IFREG) << 16
            file.writestr(entry, data)
    with pytest.raises(ModelRefused, match=r"it holds 'labels\.txt'"):
        artifact.load(packed)


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_a_name_that_comes_twice_is_refused(packed: Path) -> None:
    with zipfile.ZipFile(packed, "a") as file:
        file.writestr("labels.txt", b"other")
    with pytest.raises(ModelRefused, match="the same name twice"):
        artifact.load(packed)


def test_a_bomb_is_not_unpacked(packed: Path, tmp_path: Path) -> None:
    files, name = entries(packed), listed(tmp_path / "model", "head").name
    repacked(packed, files | {name: bytes(300 * MEGABYTE)}, zipfile.ZIP_DEFLATED)
    assert packed.stat().st_size < MEGABYTE
    is_refused(packed, r"head-.* is not the file that was saved", 10 * MEGABYTE)


def test_a_bomb_that_lies_about_its_size_is_not_unpacked(packed: Path, tmp_path: Path) -> None:
    files, name = entries(packed), listed(tmp_path / "model", "head").name
    said = len(files[name])
    repacked(packed, files | {name: bytes(300 * MEGABYTE)}, zipfile.ZIP_DEFLATED)
    data = bytearray(packed.read_bytes())
    true = struct.pack("<I", 300 * MEGABYTE)
    while (at := data.find(true)) >= 0:
        data[at : at + 4] = struct.pack("<I", said)
    packed.write_bytes(data)
    is_refused(packed, r"head-.* is damaged|was changed after", 10 * MEGABYTE)


def test_a_list_of_a_million_files_is_not_read(tmp_path: Path) -> None:
    """Its list is that of one small file, a great many times."""
    source = io.BytesIO()
    with zipfile.ZipFile(source, "w") as file:
        file.writestr("labels.txt", b"")
    data = source.getvalue()
    at, end = data.index(b"PK\x01\x02"), data.index(b"PK\x05\x06")
    row, count = data[at:end], 60_000
    tail = struct.pack("<4sHHHHIIH", b"PK\x05\x06", 0, 0, count, count, len(row) * count, at, 0)
    path = tmp_path / "many.zip"
    path.write_bytes(data[:at] + row * count + tail)
    is_refused(path, "it holds 60000 files", MEGABYTE)


def test_a_long_list_that_the_end_does_not_tell_of_is_not_read(packed: Path) -> None:
    """Python believes the record of a larger zip, where there is one."""
    data = packed.read_bytes()
    at = data.rindex(b"PK\x05\x06")
    _, _, _, _, files, length, begin, _ = struct.unpack("<4sHHHHIIH", data[at:])
    end64 = struct.pack("<4sQHHIIQQQQ", b"PK\x06\x06", 44, 45, 45, 0, 0, files, files, length, begin)
    packed.write_bytes(data[:at] + end64 + struct.pack("<4sIQI", b"PK\x06\x07", 0, at, 1) + data[at:])
    with zipfile.ZipFile(packed) as file:
        assert len(file.infolist()) == files
    with pytest.raises(ModelRefused, match="its list is that of a larger zip"):
        artifact.load(packed)


def cut(data: bytes) -> bytes:
    return data[: len(data) // 2]


def without_its_end(data: bytes) -> bytes:
    return data[:-22]


def flipped(data: bytes) -> bytes:
    middle = data.index(b"head-") + 60  # in what is stored under that name
    return data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :]


@pytest.mark.parametrize("damage", [cut, without_its_end, flipped])
def test_a_damaged_zip_is_refused(damage: Callable[[bytes], bytes], packed: Path) -> None:
    packed.write_bytes(damage(packed.read_bytes()))
    with pytest.raises(ModelRefused, match=r"packed\.zip"):
        artifact.load(packed)


def test_an_encrypted_zip_is_refused(packed: Path) -> None:
    data = bytearray(packed.read_bytes())
    data[data.rindex(b"PK\x01\x02") + 8] |= 1
    packed.write_bytes(data)
    with pytest.raises(ModelRefused, match="it holds"):
        artifact.load(packed)


@pytest.mark.parametrize("kind", ["manifest.json", "labels.txt", "head", "reference"])
def test_a_missing_file_is_named(kind: str, packed: Path) -> None:
    files = {name: data for name, data in entries(packed).items() if not name.startswith(kind)}
    with pytest.raises(ModelRefused, match=kind):
        artifact.load(repacked(packed, files))


def test_a_changed_file_is_named(packed: Path) -> None:
    files = entries(packed)
    name = next(name for name in files if name.startswith("head-"))
    changed = files[name][:-1] + bytes([files[name][-1] ^ 1])
    with pytest.raises(ModelRefused, match=f"{name} was changed"):
        artifact.load(repacked(packed, files | {name: changed}))


def foreign(kind: str) -> bytes:
    """Models of other programs, as far as they can be told by their first bytes and names."""
    data = io.BytesIO()
    if kind == "keras":
        with zipfile.ZipFile(data, "w") as file:
            file.writestr("config.json", json.dumps({"class_name": "Lambda"}))
        return data.getvalue()
    return {"h5": b"\x89HDF\r\n\x1a\n" + bytes(2000), "pickle": b"\x80\x04cos\nsystem\n(S'touch canary'\ntR.", "empty": b""}[
        kind
    ]


@pytest.mark.parametrize("kind", ["keras", "h5", "pickle", "empty"])
def test_models_of_other_programs_are_refused_and_not_run(kind: str, tmp_path: Path, retrain: Command) -> None:
    path, picture = tmp_path / f"model.{kind}", draw(tmp_path / "one.png", (200, 40, 40), 1, (40, 40))
    path.write_bytes(foreign(kind))
    ran = retrain("label", picture, "--model", path)
    assert ran.code == 5 and len(ran.err) == 1 and f"model.{kind}" in ran.err[0]
    assert not (tmp_path / "canary").exists()


def test_a_pipe_is_refused_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "model.zip")
    with pytest.raises(ModelRefused, match="is no plain file"):
        artifact.load(tmp_path / "model.zip")
