"""Folders with links, pipes and closed doors: numbers 12 and 13 of the list.

12  test_a_tree_of_traps_is_walked_to_its_end_by_every_command, test_a_folder_linked_from_two_classes_is_read_once,
    test_folders_deeper_than_a_path_can_tell_are_named_and_the_rest_is_used;
    also test_images.test_links_are_followed_unless_they_lead_back_or_nowhere and
    test_dataset.test_a_class_folder_may_be_a_link_to_elsewhere_but_not_one_that_leads_back
13  test_what_may_not_be_read_is_named_and_the_rest_is_used_by_every_command;
    also test_dataset.test_a_class_folder_without_permission_is_a_class_and_skipped_with_the_reason
"""

import contextlib
import json
import os
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from retrain.backbones import Backbone
from retrain.dataset import read
from retrain.label import load
from retrain.storage import Layout
from tests.drawing import COLOURS, draw
from tests.faults import as_process
from tests.faults.promises import in_order, placed_by_classify, placed_by_train
from tests.privileges import where_permissions_count

# --- 12: links, pipes, sockets, devices

TRAPS = {  # name -> where it points; and what becomes of it
    "up": ("..", "link-loop"),
    "here": (".", "link-loop"),
    "top": ("../../..", "link-loop"),
    "ring": ("ring", "link-loop"),
    "ping": ("pong", "link-loop"),
    "pong": ("ping", "link-loop"),
    "again": ("deep", "link-loop"),
    "dangling.jpg": ("nowhere", "missing"),
    "zero.jpg": ("/dev/zero", "not-a-file"),
    "random.png": ("/dev/urandom", "not-a-file"),
    "ours.jpg": ("/proc/self/mem", "unreadable"),
    "below a file.png": ("red000.png/x", "missing"),
}


@contextlib.contextmanager
def traps(folder: Path, outside: Path) -> Iterator[dict[str, str]]:
    """Set all traps in a folder of pictures; yields name -> reason of those that are no pictures."""
    draw(folder / "deep" / "er" / "x.png", COLOURS["red"], 501)
    draw(outside / "y.png", COLOURS["red"], 502)
    for name, (target, _) in TRAPS.items():
        (folder / name).symlink_to(target)
    (folder / "out").symlink_to(outside)
    (folder / "second way out").symlink_to(outside)
    os.link(folder / "red000.png", folder / "hard link.png")
    os.mkfifo(folder / "pipe.png")
    with socket.socket(socket.AF_UNIX) as server, contextlib.chdir(folder):
        server.bind("socket.png")
        reasons = {name: reason for name, (_, reason) in TRAPS.items()}
        yield reasons | {"second way out": "link-loop", "pipe.png": "not-a-file", "socket.png": "not-a-file"}


USED = 12 + 1 + 1 + 1  # what was drawn, what lies deep, what lies outside, and the hard link


def test_a_tree_of_traps_is_walked_to_its_end_by_every_command(tf_files: Path, tmp_path: Path, tiny: Backbone) -> None:
    """Each ends by itself: a pipe that blocks, or a walk without end, runs into the limit of time."""
    red, model = tf_files / "data" / "red", ["--model", tf_files / "model"]
    with traps(red, tmp_path / "outside") as reasons:
        in_order(as_process.run(tiny, "train", tf_files, "--backbone", "tiny", "--steps", 30), 3)
        skipped = placed_by_train(tf_files, range(24 + USED + len(reasons)))
        assert skipped == {str(red / name): reason for name, reason in reasons.items()}
        in_order(as_process.run(tiny, "classify", red, tmp_path / "out", *model), 3)
        placed = placed_by_classify(tmp_path / "out", range(USED + len(reasons)))
        assert {source: placed[source] for source in skipped} == skipped
        assert all((tmp_path / "out" / copy).is_file() for source, copy in placed.items() if source not in skipped)
        files = [red / name for name in reasons]
        ran = as_process.run(tiny, "label", "--json", *model, *files)
        in_order(ran, 4)
        told = {Path(row["image"]).name: row["reason"] for row in map(json.loads, ran.stdout.splitlines())}
    folders = {"up", "here", "top", "again", "second way out"}
    cannot_be_opened = {"ring", "ping", "pong"}
    assert told == reasons | dict.fromkeys(folders, "not-a-file") | dict.fromkeys(cannot_be_opened, "unreadable")


@pytest.mark.parametrize(
    ("links", "read_as", "named"),
    [
        ({"cats": "", "dogs": ""}, {"cats/x.png", "cats/inner/y.png"}, {"dogs", "dogs/inner"}),
        ({"cats/a": "", "dogs/a": ""}, {"cats/a/x.png", "cats/a/inner/y.png"}, {"dogs/a", "dogs/a/inner"}),
        ({"cats": "", "dogs/a": "inner"}, {"cats/x.png", "cats/inner/y.png"}, {"dogs/a"}),
        ({"cats/a": "inner", "dogs": ""}, {"cats/a/y.png", "dogs/x.png"}, {"dogs/inner"}),
    ],
)
def test_a_folder_linked_from_two_classes_is_read_once(
    tmp_path: Path, links: dict[str, str], read_as: set[str], named: set[str]
) -> None:
    """As the documentation has it, links are followed unless they lead to a folder that is read anyway."""
    data = tmp_path / "data"
    for name in ("x.png", "inner/y.png"):
        draw(tmp_path / "outside" / name, COLOURS["red"], 600)
    for name, target in links.items():
        (data / name).parent.mkdir(parents=True, exist_ok=True)
        (data / name).symlink_to(tmp_path / "outside" / target)
    listing = read(Layout(tmp_path))
    assert {os.path.relpath(example.path, data) for example in listing.examples} == read_as
    assert {(os.path.relpath(item.path, data), item.reason) for item in listing.skipped} == {
        (name, "link-loop") for name in named
    }
    assert len(listing.examples) == len(read_as) and len(listing.skipped) == len(named)


def test_folders_deeper_than_a_path_can_tell_are_named_and_the_rest_is_used(tmp_path: Path) -> None:
    """The path of the last folder is just short enough, that of any file in it too long."""
    red = tmp_path / "data" / "red"
    draw(red / "x.png", COLOURS["red"], 1)
    with contextlib.chdir(red):
        length = len(os.fsencode(os.getcwd()))
        while length < 4090:
            name = "d" * (min(200, 4090 - length) - 1)
            os.mkdir(name), os.chdir(name)
            length += len(name) + 1
        Path("too deep.png").touch()
    try:
        listing = read(Layout(tmp_path))
        assert [example.path for example in listing.examples] == [str(red / "x.png")]
        assert [item.reason for item in listing.skipped] == ["unreadable"]
    finally:
        subprocess.run(["rm", "-rf", red], check=True)  # Python's own way ends at the same limit


# --- 13: closed files and folders


@where_permissions_count
def test_what_may_not_be_read_is_named_and_the_rest_is_used_by_every_command(tf_files: Path, tiny: Backbone) -> None:
    data, out, model = tf_files / "data", tf_files / "out", ["--model", tf_files / "model"]
    files = [path for path in data.rglob("*.png") if path.parent.name != "closed"]
    closed = [data / "red" / "red003.png", data / "closed", data / "blue" / "within"]
    for number, folder in enumerate(closed[1:]):
        draw(folder / "x.png", COLOURS["red"], 700 + number)
    inside = [folder / "x.png" for folder in closed[1:]]
    for path in closed:
        path.chmod(0)
    expected = {str(path): "unreadable" for path in closed}
    try:
        in_order(as_process.run(tiny, "train", tf_files, "--backbone", "tiny", "--steps", 30), 3)
        assert placed_by_train(tf_files, [*files, *closed[1:]]) == expected
        assert load(tf_files / "model").model.labels == ("blue", "green", "red")
        in_order(as_process.run(tiny, "classify", data, out, *model), 3)
        placed = placed_by_classify(out, [*files, *closed[1:]])
        assert {source: copy for source, copy in placed.items() if source in expected} == expected
        ran = as_process.run(tiny, "label", "--json", *model, closed[0], *inside, files[0])
        in_order(ran, 3)
        assert [row.get("reason") for row in map(json.loads, ran.stdout.splitlines())] == ["unreadable"] * 3 + [None]
        in_order(as_process.run(tiny, "classify", inside[0].parent / "sub", tf_files / "out2", *model), 2)
    finally:
        for path in closed:
            path.chmod(0o700)
