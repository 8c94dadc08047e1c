"""The model folder: what is saved comes back exactly, and what was changed in between is refused by name."""

import hashlib
import json
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from retrain import artifact
from retrain.artifact import Artifact, Member, Placed, Reference
from retrain.errors import EnvironmentProblem, ModelRefused, UsageError
from retrain.runner import Network, Runner

LABELS = ("C++", "a\\nb", "line\nbreak\r", "name with spaces", 'say "hi", twice', "\udce4 is no UTF-8", "猫")
KINDS = ("backbone", "head", "labels", "reference", "split")
FEATURES = 5


def contents(seed: int = 0, labels: tuple[str, ...] = LABELS) -> tuple[Artifact, Reference, list[Placed]]:
    """A model drawn from a seed; nobody runs its backbone here."""
    rng = np.random.default_rng(seed)
    kernel = rng.normal(size=(FEATURES, len(labels))).astype(np.float32)
    member = Member(
        "tiny",
        "0f" * 32,
        "squash",
        "decoder-1/squash-1/32",
        32,
        Network(Runner.engine, rng.bytes(300)),
        kernel,
        rng.normal(size=len(labels)).astype("f4"),
    )
    reference = Reference(
        rng.normal(size=(4, FEATURES)).astype(np.float16),
        rng.integers(0, 256, (4, 32)).astype(np.uint8),
        np.array([0, 1, 2, 2], np.int32),
    )
    split = [Placed(rng.bytes(32).hex(), label, f"group of {label}", "fan,art", "train") for label in labels]
    model = Artifact(labels, (member,), {"none": 1.0}, {"seed": seed}, {"python": "3"}, {"test_accuracy": 0.5})
    return model, reference, split


def save(folder: Path, seed: int = 0, labels: tuple[str, ...] = LABELS) -> Path:
    model, reference, split = contents(seed, labels)
    artifact.save(folder, model, reference, split, {"test": 20})
    return folder


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    return save(tmp_path / "model")


def listed(folder: Path, kind: str) -> Path:
    (path,) = folder.glob(f"{kind}-*")
    return path


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def lengthen(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b"\n")


def empty(path: Path) -> None:
    path.write_bytes(b"")


def remove(path: Path) -> None:
    path.unlink()


def link(path: Path) -> None:
    elsewhere = path.parent.parent / path.name
    shutil.move(path, elsewhere)
    path.symlink_to(elsewhere)


def make_pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def make_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


EDITS = (flip, truncate, lengthen, empty, remove, link, make_pipe, make_folder)


def test_labels_of_any_kind_come_back_exactly(saved: Path) -> None:
    assert artifact.load(saved).artifact.labels == LABELS


def test_the_head_the_backbone_and_every_figure_come_back_exactly(saved: Path) -> None:
    model, loaded = contents()[0], artifact.load(saved).artifact
    before, after = model.members[0], loaded.members[0]
    assert np.array_equal(before.kernel, after.kernel) and np.array_equal(before.bias, after.bias)
    assert (before.backbone, before.weights, before.view, before.preprocessing, before.image_size, before.network) == (
        after.backbone, after.weights, after.view, after.preprocessing, after.image_size, after.network,
    )  # fmt: skip
    for name in ("temperature", "settings", "versions", "metrics"):
        assert getattr(loaded, name) == getattr(model, name)


def test_the_split_and_the_reference_come_back_exactly(saved: Path) -> None:
    (_, reference, split), loaded = contents(), artifact.load(saved)
    assert sorted(loaded.split()) == sorted(split)
    for name in ("features", "hashes", "labels"):
        before, after = getattr(reference, name), getattr(loaded.reference(), name)
        assert before.dtype == after.dtype and np.array_equal(before, after)


def test_labels_txt_has_one_line_a_label_in_order(saved: Path) -> None:
    lines = (saved / "labels.txt").read_text().splitlines()
    assert lines == ["C++", "a\\\\nb", "line\\nbreak\\r", "name with spaces", 'say "hi", twice', "\\udce4 is no UTF-8", "猫"]


def test_the_reference_sample_keeps_the_smallest_hashes_in_order_of_rows() -> None:
    hashes = [hashlib.sha256(str(number).encode()).hexdigest() for number in range(2500)]
    smallest = set(sorted(hashes)[:2000])
    assert [hashes[row] for row in artifact.reference_sample(hashes, np.zeros(2500, np.int64))] == [
        value for value in hashes if value in smallest
    ]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("edit", EDITS)
def test_a_listed_file_that_is_not_as_saved_is_refused_by_name(saved: Path, kind: str, edit: Callable[[Path], None]) -> None:
    path = listed(saved, kind)
    edit(path)
    with pytest.raises(ModelRefused, match=re.escape(path.name)):
        artifact.load(saved)


@pytest.mark.parametrize("kind", KINDS)
def test_a_listed_file_swapped_with_another_is_refused_by_name(saved: Path, kind: str) -> None:
    path, other = listed(saved, kind), listed(saved, KINDS[KINDS.index(kind) - 1])
    first, second = path.read_bytes(), other.read_bytes()
    path.write_bytes(second), other.write_bytes(first)
    with pytest.raises(ModelRefused, match=f"{re.escape(path.name)}|{re.escape(other.name)}"):
        artifact.load(saved)


@pytest.mark.parametrize("edit", EDITS)
def test_labels_txt_that_is_not_as_saved_is_refused_by_name(saved: Path, edit: Callable[[Path], None]) -> None:
    edit(saved / "labels.txt")
    with pytest.raises(ModelRefused, match=re.escape("labels.txt")):
        artifact.load(saved)


@pytest.mark.parametrize("edit", (truncate, flip, lengthen, empty, remove, link))
@pytest.mark.parametrize("name", ("manifest.json", "labels.txt", *KINDS))
def test_saving_again_mends_whatever_was_damaged(saved: Path, name: str, edit: Callable[[Path], None]) -> None:
    edit(saved / name if "." in name else listed(saved, name))
    save(saved)
    assert artifact.load(saved).artifact.labels == LABELS


def manifest_of(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "manifest.json").read_bytes())


def plain(body: dict[str, Any]) -> bytes:
    return (json.dumps(body, indent=1, sort_keys=True) + "\n").encode()


def signed(body: dict[str, Any]) -> bytes:
    """A manifest whose own checksum holds, as someone writes it who knows the code."""
    body = {key: value for key, value in body.items() if key != "sha256"}
    return plain({**body, "sha256": hashlib.sha256(plain(body)[:-1]).hexdigest()})


def nested(depth: int) -> Any:
    return json.loads("[" * depth + "]" * depth)


PLAIN_EDITS: dict[str, Callable[[dict[str, Any]], bytes]] = {
    "labels reordered": lambda body: plain({**body, "labels": body["labels"][::-1]}),
    "a label renamed": lambda body: plain({**body, "labels": ["C", *body["labels"][1:]]}),
    "temperature changed": lambda body: plain({**body, "temperature": {"none": 2.0}}),
    "a key added": lambda body: plain({**body, "more": 1}),
    "a key removed": lambda body: plain({key: value for key, value in body.items() if key != "metrics"}),
    "no checksum": lambda body: plain({key: value for key, value in body.items() if key != "sha256"}),
    "a space at the end": lambda body: plain(body) + b" ",
    "a space at the start": lambda body: b" " + plain(body),
    "no line end": lambda body: plain(body)[:-1],
    "other indentation": lambda body: json.dumps(body, indent=2, sort_keys=True).encode() + b"\n",
    "other order of keys": lambda body: json.dumps(dict(reversed(body.items())), indent=1).encode() + b"\n",
    "another encoding": lambda body: plain(body).decode().encode("utf-16"),
    "a byte order mark": lambda body: b"\xef\xbb\xbf" + plain(body),
    "a key twice": lambda body: plain(body).replace(b'{\n "files"', b'{\n "files": {},\n "files"'),
    "empty": lambda body: b"",
    "not JSON": lambda body: b"\x80\x04\x95 a pickle, say",
    "a list": lambda body: b"[]\n",
    "another program's": lambda body: b'{"name": "model"}\n',
    "not a number": lambda body: plain({**body, "metrics": {"test_accuracy": float("nan")}}),
}
SIGNED_EDITS: dict[str, Callable[[dict[str, Any]], dict[str, Any]]] = {
    "newer version": lambda body: {**body, "version": 2},
    "version is no number": lambda body: {**body, "version": "1"},
    "other format": lambda body: {**body, "format": "other-model"},
    "a name that leads out": lambda body: {**body, "files": {**body["files"], "../secret.txt": {"sha256": "0", "bytes": 1}}},
    "an absolute name": lambda body: {**body, "files": {**body["files"], "/etc/passwd": {"sha256": "0", "bytes": 1}}},
    "files is a list": lambda body: {**body, "files": list(body["files"])},
    "no files": lambda body: {**body, "files": {}},
    "a size that is text": lambda body: {
        **body,
        "files": {name: {**row, "bytes": "9"} for name, row in body["files"].items()},
    },
    "no members": lambda body: {**body, "members": []},
    "members are text": lambda body: {**body, "members": ["tiny"]},
    "fewer labels": lambda body: {**body, "labels": body["labels"][1:]},
    "labels reordered": lambda body: {**body, "labels": body["labels"][::-1]},
    "a label renamed": lambda body: {**body, "labels": ["C", *body["labels"][1:]]},
    "no labels": lambda body: {**body, "labels": []},
    "no split": lambda body: {key: value for key, value in body.items() if key != "split"},
    "no temperature": lambda body: {**body, "temperature": {}},
    "a head that is a flatbuffer": lambda body: _with_head(body, body["members"][0]["backbone"]["file"]),
    "a head that is the reference": lambda body: _with_head(body, body["reference"]["file"]),
}


def _with_head(body: dict[str, Any], name: str) -> dict[str, Any]:
    return {**body, "members": [{**body["members"][0], "head": {"kind": "softmax", "file": name}}]}


def refuse_manifest(folder: Path, data: bytes) -> None:
    (folder / "manifest.json").write_bytes(data)
    with pytest.raises(ModelRefused, match=r"manifest\.json"):
        artifact.load(folder)


@pytest.mark.parametrize("edit", PLAIN_EDITS)
def test_an_edited_manifest_is_refused(saved: Path, edit: str) -> None:
    data = PLAIN_EDITS[edit](manifest_of(saved))
    assert data != (saved / "manifest.json").read_bytes()
    refuse_manifest(saved, data)


@pytest.mark.parametrize("edit", SIGNED_EDITS)
def test_a_manifest_edited_by_someone_who_renewed_its_checksum_is_refused(saved: Path, edit: str) -> None:
    body = manifest_of(saved)
    assert signed(body) == (saved / "manifest.json").read_bytes()
    refuse_manifest(saved, signed(SIGNED_EDITS[edit](body)))


@pytest.mark.parametrize("depth", (50, 990, 100_000))
def test_a_deeply_nested_manifest_is_refused_and_not_a_crash(saved: Path, depth: int) -> None:
    text = (
        (saved / "manifest.json")
        .read_bytes()
        .replace(b'"metrics": {', b'"metrics": {"deep": %s,' % (b"[" * depth + b"]" * depth))
    )
    refuse_manifest(saved, text)


def test_no_byte_of_the_manifest_can_be_changed(saved: Path) -> None:
    whole = (saved / "manifest.json").read_bytes()
    for position in range(0, len(whole), 37):
        data = bytearray(whole)
        data[position] ^= 1
        refuse_manifest(saved, bytes(data))


@pytest.mark.parametrize("edit", (link, make_pipe, make_folder))
def test_a_manifest_that_is_no_file_is_refused(saved: Path, edit: Callable[[Path], None]) -> None:
    edit(saved / "manifest.json")
    with pytest.raises(ModelRefused, match=r"manifest\.json"):
        artifact.load(saved)


def test_files_that_are_not_listed_do_not_matter_and_are_not_opened(saved: Path) -> None:
    (saved / "junk.bin").write_bytes(b"\x80\x04junk")
    os.mkfifo(saved / "pipe")
    os.mkfifo(saved / "head-0123456789abcdef.safetensors")  # opening one would block
    (saved / "dangling").symlink_to("nowhere")
    assert artifact.load(saved).artifact.labels == LABELS


def test_without_a_model_the_message_says_to_train_one(tmp_path: Path) -> None:
    with pytest.raises(ModelRefused, match=f"no model at .*; train one first: retrain train {re.escape(str(tmp_path))}$"):
        artifact.load(tmp_path / "model")


def test_a_file_or_a_foreign_folder_in_place_of_a_model_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "folder").mkdir()
    with pytest.raises(ModelRefused, match="is a file, not a model folder"):
        artifact.load(tmp_path / "file")
    with pytest.raises(ModelRefused, match=r"is no model folder, manifest\.json is missing"):
        artifact.load(tmp_path / "folder")


def hash_named(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir() if path.name.startswith(tuple(f"{kind}-" for kind in KINDS))}


def test_the_files_of_a_replaced_model_stay_for_one_generation(saved: Path) -> None:
    first = hash_named(saved)
    second = hash_named(save(saved, seed=1)) - first
    assert first <= hash_named(saved) and len(second) == 4
    third = hash_named(save(saved, seed=2)) - second
    assert (first & hash_named(saved)) == (first & third) == {listed(saved, "labels").name}
    assert second <= hash_named(saved)


@pytest.mark.parametrize("name", ("notes.txt", "model.keras", "head-mine.safetensors", ".hidden", ".notes.tmp"))
def test_files_of_the_user_in_a_model_folder_are_never_collected(saved: Path, name: str) -> None:
    (saved / name).write_text("mine")
    for seed in (1, 2, 3):
        save(saved, seed=seed)
    assert (saved / name).read_text() == "mine"


def test_what_a_killed_run_left_behind_is_collected(saved: Path) -> None:
    (saved / ".manifest.json.4194305.tmp").write_bytes(b"half")
    save(saved, seed=1)
    assert not list(saved.glob(".*.tmp"))


def test_a_save_that_was_cut_short_before_the_manifest_leaves_the_old_model(saved: Path, tmp_path: Path) -> None:
    other = save(tmp_path / "other", seed=7, labels=("cat", "dog"))
    for name in [*hash_named(other), "labels.txt"]:
        shutil.copy(other / name, saved / name)
    loaded = artifact.load(saved)
    assert loaded.artifact.labels == LABELS and loaded.artifact.settings == {"seed": 0}
    save(saved, seed=8, labels=("cat", "cow"))
    assert artifact.load(saved).artifact.labels == ("cat", "cow")
    assert not hash_named(saved) & (hash_named(other))


def test_nothing_is_saved_into_a_folder_that_holds_something_else(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "me.jpg").write_bytes(b"picture")
    with pytest.raises(UsageError, match="was not made by retrain"):
        save(tmp_path / "photos")
    assert [path.name for path in (tmp_path / "photos").iterdir()] == ["me.jpg"]


def test_a_model_folder_that_cannot_be_made_is_an_error_that_names_it(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match="file is a file"):
        save(tmp_path / "file")
    with pytest.raises(EnvironmentProblem, match=re.escape(str(tmp_path / "file" / "model"))):
        save(tmp_path / "file" / "model")


def test_the_manifest_of_a_trained_model_holds_no_path_and_no_time(trained: Path) -> None:
    text = (trained / "model" / "manifest.json").read_text()
    assert not re.search(r'"(/|~|[A-Za-z]:\\)', text) and str(trained.parent) not in text
    assert not re.search(r"\d{4}-\d\d-\d\d|\d\d:\d\d|seconds|duration|started", text)


def test_the_same_model_saved_twice_gives_the_same_bytes(saved: Path, tmp_path: Path) -> None:
    before = {path.name: path.read_bytes() for path in saved.iterdir()}
    again = {path.name: path.read_bytes() for path in save(tmp_path / "again").iterdir()}
    onto_itself = {path.name: path.read_bytes() for path in save(saved).iterdir()}
    assert before == again == onto_itself
