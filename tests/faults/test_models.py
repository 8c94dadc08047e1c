"""A model that is not as it was saved: refused with exit code 5 and the name of the file, and no label is printed.

31  a byte of manifest.json               test_no_byte_of_the_manifest_can_be_changed (every one)
    a byte, the length of another file    test_no_byte_of_any_other_file_can_be_changed, test_no_file_can_be_cut
    each of these by the hundred          test_no_bit_of_any_file_can_be_changed (marker faults)
    missing, link, folder, pipe, swapped
        test_artifact.py: test_a_listed_file_that_is_not_as_saved_..., test_a_listed_file_swapped_...
    the manifest edited, also by one who
    renewed its checksum
        test_artifact.py: test_an_edited_manifest_is_refused, test_a_manifest_edited_by_someone_...
    as commands, labels reordered         test_label_and_classify_refuse_a_changed_model_and_print_no_label

Who renews every checksum that there is has made another model, as anybody can: its manifest has another hash.
"""

import hashlib
import json
import os
import random
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from retrain import artifact
from retrain.errors import Exit, ModelRefused
from tests.drawing import COLOURS, draw
from tests.faults.disturbed import ROUNDS
from tests.faults.promises import in_order
from tests.test_artifact import EDITS, empty, flip, manifest_of, signed, truncate

MANIFEST = "manifest.json"
BIT = 1 << 5  # turns a digit into a control character and a letter into another case


@pytest.fixture
def model(trained: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(trained / "model", tmp_path / "model"))


def names(folder: Path) -> list[str]:
    """The files that make the model."""
    return [MANIFEST, "labels.txt", *sorted(manifest_of(folder)["files"])]


def refused(folder: Path, name: str) -> None:
    with pytest.raises(ModelRefused, match=re.escape(str(folder / name))) as caught:
        artifact.load(folder)
    assert caught.value.exit_code is Exit.MODEL_REFUSED and "\n" not in str(caught.value)


def each_change(data: bytes, places: Iterator[int] | range | list[int], change: int) -> Iterator[bytes]:
    for at in places:
        yield data[:at] + bytes([data[at] ^ change]) + data[at + 1 :]


@pytest.mark.parametrize("change", [1, BIT, 0xFF])
def test_no_byte_of_the_manifest_can_be_changed(model: Path, change: int) -> None:
    """Number 31: all bytes, one after the other."""
    whole = (model / MANIFEST).read_bytes()
    for data in each_change(whole, range(len(whole)), change):
        (model / MANIFEST).write_bytes(data)
        refused(model, MANIFEST)
    (model / MANIFEST).write_bytes(whole)
    artifact.load(model)


def test_no_byte_of_any_other_file_can_be_changed(model: Path) -> None:
    """Number 31: 200 places in each, or all."""
    dice = random.Random(31)
    for name in names(model)[1:]:
        whole = (model / name).read_bytes()
        for data in each_change(whole, dice.sample(range(len(whole)), min(200, len(whole))), 1 << dice.randrange(8)):
            (model / name).write_bytes(data)
            refused(model, name)
        (model / name).write_bytes(whole)
    artifact.load(model)


def test_no_file_can_be_cut(model: Path) -> None:
    """Number 31: at 60 lengths each, none and all but one byte among them."""
    dice = random.Random(310)
    for name in names(model):
        whole = (model / name).read_bytes()
        for length in {0, 1, len(whole) - 1, *(dice.randrange(len(whole)) for _ in range(60))}:
            (model / name).write_bytes(whole[:length])
            refused(model, name)
        (model / name).write_bytes(whole)
    artifact.load(model)


@pytest.mark.faults
def test_no_bit_of_any_file_can_be_changed(model: Path) -> None:
    """Number 31: bits, bytes put in and taken out, and stretches of other bytes."""
    dice = random.Random(3100 + ROUNDS)
    for name in names(model):
        whole = (model / name).read_bytes()
        for _ in range(1500 * ROUNDS):
            at, length = dice.randrange(len(whole)), dice.choice((0, 1, 1, 16))
            data = whole[:at] + dice.randbytes(dice.choice((0, 1, 1, 16))) + whole[at + length :]
            if data != whole:
                (model / name).write_bytes(data)
                refused(model, name)
        (model / name).write_bytes(whole)
    artifact.load(model)


def reordered(folder: Path) -> None:
    """Turn the order of the labels round in all files that state it, with names and checksums that fit each other."""
    body = manifest_of(folder)
    turned = "".join(f"{label}\n" for label in reversed(body["labels"])).encode()
    name = f"labels-{hashlib.sha256(turned).hexdigest()[:16]}.txt"
    for path in (folder / name, folder / "labels.txt"):
        path.write_bytes(turned)
    files = {key: row for key, row in body["files"].items() if key != body["labels_file"]}
    files[name] = {"sha256": hashlib.sha256(turned).hexdigest(), "bytes": len(turned)}
    body |= {"labels": body["labels"][::-1], "labels_file": name, "files": files}
    (folder / MANIFEST).write_bytes((json.dumps(body, indent=1, sort_keys=True) + "\n").encode())


def edited(edit: Callable[[dict[str, Any]], dict[str, Any]]) -> Callable[[Path], None]:
    return lambda folder: (folder / MANIFEST).write_bytes(signed(edit(manifest_of(folder)))) and None


def on(name: str, edit: Callable[[Path], None]) -> Callable[[Path], None]:
    """Change the file whose name begins so."""

    def change(folder: Path) -> None:
        (path,) = folder.glob(f"{name}*")
        edit(path)

    return change


CHANGES: dict[str, tuple[str, Callable[[Path], None]]] = {
    **{f"manifest {edit.__name__}": (MANIFEST, on(MANIFEST, edit)) for edit in EDITS},
    **{f"{kind} flip": (f"{kind}-", on(f"{kind}-", flip)) for kind in ("head", "backbone", "split", "reference", "labels")},
    "head truncate": ("head-", on("head-", truncate)),
    "backbone empty": ("backbone-", on("backbone-", empty)),
    "labels reordered everywhere": (MANIFEST, reordered),
    "labels reordered, signed": (MANIFEST, edited(lambda body: {**body, "labels": body["labels"][::-1]})),
    "a label renamed, signed": (MANIFEST, edited(lambda body: {**body, "labels": ["grey", *body["labels"][1:]]})),
    "a name that leads out, signed": (
        MANIFEST,
        edited(lambda body: {**body, "files": {**body["files"], "../data/x": {"sha256": "0", "bytes": 1}}}),
    ),
}


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("verb", ["label", "classify"])
def test_label_and_classify_refuse_a_changed_model_and_print_no_label(
    model: Path, tmp_path: Path, command: Callable[..., subprocess.CompletedProcess[str]], change: str, verb: str
) -> None:
    """Number 31."""
    name, edit = CHANGES[change]
    picture = draw(tmp_path / "in" / "picture.png", COLOURS["red"], 1)
    edit(model)
    what = [picture] if verb == "label" else [picture.parent, tmp_path / "out"]
    done = command(verb, *what, "--model", model)
    in_order(done, 5)
    assert done.stdout == "" and not (tmp_path / "out").exists()
    (said,) = done.stderr.splitlines()
    assert said.startswith("retrain: ") and str(model) in said and name in said
    assert not any(colour in said.replace(str(tmp_path), "") for colour in COLOURS)


def test_a_model_that_cannot_be_opened_at_all_is_refused(
    model: Path, command: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    """Number 31: a folder whose manifest leads to itself, and one that is a link to nowhere."""
    (model / MANIFEST).unlink()
    (model / MANIFEST).symlink_to(MANIFEST)
    os.symlink("nowhere", model.parent / "gone")
    for folder in (model, model.parent / "gone"):
        done = command("label", "x.png", "--model", folder)
        in_order(done, 5)
        assert done.stdout == "" and str(folder) in done.stderr
