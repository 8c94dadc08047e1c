"""Two things that go wrong in one run: a call that fails, and what was to make up for it.

25  a commit fails, and so does its undoing     test_where_undoing_fails_as_well_nothing_that_was_committed_is_lost
      while another reads
        test_bottlenecks.py: test_a_commit_that_a_reader_hinders_can_be_tried_again
    no hard links, and a kill                   test_a_kill_where_there_are_no_hard_links_leaves_no_half_copy
    no hard links, and a disk that gets full    test_where_there_are_no_hard_links_a_copy_takes_no_room_twice
"""

import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

from tests.drawing import COLOURS, draw
from tests.faults.disturbed import (
    Lines,
    another,
    can_mount,
    can_trace,
    contents,
    leftovers,
    lines,
    make_room,
    vectors,
)
from tests.faults.promises import in_order, placed_by_classify

pytestmark = pytest.mark.skipif(not can_trace(), reason="strace is not installed, or may not trace")

NO_LINKS = "link:error=EPERM"
KEPT = "unlink:error=EIO"  # the journal, which was to be deleted


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory, tiny_flatbuffer: bytes) -> Iterator[Lines]:
    warm = make_room(tmp_path_factory.mktemp("served") / "warm", tiny_flatbuffer)
    with lines(warm, RETRAIN_LOCK_SECONDS="0.2") as served:
        yield served


# --- a commit that fails


@pytest.fixture(scope="module")
def half_known(tmp_path_factory: pytest.TempPathFactory, tiny_flatbuffer: bytes, served: Lines) -> Path:
    """A room whose cache has the features of five of its eight pictures: there is one transaction to come."""
    room = make_room(tmp_path_factory.mktemp("known") / "template", tiny_flatbuffer)
    assert served.run(room).code == 0
    for number in range(5, 8):
        draw(room / "pictures" / f"{number}.png", COLOURS["red"], number, (24, 20))
    return room


def undone(calls: list[str]) -> dict[str, list[str]]:
    """Return, by what fails first, the faults of a commit and of its undoing; `calls` are names, in their order."""
    writes, locks = calls.count("pwrite64"), calls[: calls.index("pwrite64")].count("fcntl")
    syncs = [at for at, call in enumerate(calls) if call == "fdatasync"]
    to_journal = calls[: syncs[-2]].count("pwrite64")
    return {
        "a write to the journal": [f"pwrite64:error=ENOSPC:when={number}+ {KEPT}" for number in range(1, to_journal + 1)],
        "a sync of the journal": [f"fdatasync:error=EIO:when={number}+ {KEPT}" for number in range(1, len(syncs))],
        # From here on the file is half new, and only the journal knows what was before.
        "a write to the file": [f"pwrite64:error=EIO:when={number}+" for number in range(to_journal + 1, writes + 1)],
        "a sync of the file": [f"fdatasync:error=EIO:when={len(syncs)}+ pwrite64:error=EIO:when={writes + 1}+"],
        "the lock": [f"fcntl:error=EAGAIN:when={locks + 1}+ {KEPT}"],
    }


def undoings(served: Lines, room: Path, first: str) -> list[str]:
    calls = served.calls(room, "fcntl", "pwrite64", "fdatasync")
    return undone([line.partition("(")[0] for line in calls])[first]


FIRST = ("a write to the journal", "a sync of the journal", "a write to the file", "a sync of the file", "the lock")


def check_undone(served: Lines, half_known: Path, room: Path, fault: str) -> None:
    known = vectors(another(half_known, room) / "bottlenecks.sqlite")
    ended = served.run(another(half_known, room), fault)
    assert ended.struck and ended.code == 6, (fault, ended)
    (said,) = ended.errors.splitlines()
    assert said.startswith(f"retrain: the feature cache {room / 'bottlenecks.sqlite'} "), said
    assert ("is held by another run" if fault.startswith("fcntl") else "cannot be used") in said
    left = vectors(another(room, room.with_name("copy")) / "bottlenecks.sqlite")
    assert len(known) == 5 and known.items() <= left.items(), fault
    ended = served.run(room)
    assert (ended.code, ended.errors) == (0, ""), (fault, ended)
    now = vectors(room / "bottlenecks.sqlite")
    assert known.items() <= now.items() and len(now) == 8 and leftovers(room) == []
    assert not list(room.glob("*.corrupt-*"))


@pytest.mark.parametrize("first", FIRST)
def test_where_undoing_fails_as_well_nothing_that_was_committed_is_lost(
    served: Lines, half_known: Path, tmp_path: Path, first: str
) -> None:
    """Number 25."""
    for fault in undoings(served, another(half_known, tmp_path / "room"), first):
        check_undone(served, half_known, tmp_path / "room", fault)


# --- no hard links


def kills(served: Lines, room: Path) -> list[str]:
    """Return what kills at each call between the link of the first copy, which fails, and that of the second."""
    seen: Counter[str] = Counter()
    found = []
    for line in served.calls(room, NO_LINKS, "openat", "write", "rename", "unlink"):
        call = line.partition("(")[0]
        seen[call] += 1
        if seen["link"] == 1 and call != "link":
            found.append(f"{call}:signal=KILL:when={seen[call]}")
    return found


def copies(out: Path) -> dict[str, bytes]:
    return {name: data for name, data in contents(out).items() if not name.startswith((".", "manifest."))}


def check_copied(out: Path, pictures: Path) -> None:
    placed, made = placed_by_classify(out, list(pictures.iterdir())), copies(out)
    assert {made.pop(copy) == Path(source).read_bytes() for source, copy in placed.items()} == {True}
    assert not made


def test_a_kill_where_there_are_no_hard_links_leaves_no_half_copy(
    served: Lines, tmp_path: Path, tiny_flatbuffer: bytes
) -> None:
    """Number 25, at each call of a copy."""
    template, room = make_room(tmp_path / "template", tiny_flatbuffer, 3), tmp_path / "room"
    whole = set(contents(template / "pictures").values())
    faults = kills(served, another(template, room))
    assert {fault.partition(":")[0] for fault in faults} == {"openat", "write", "rename", "unlink"}
    for fault in faults:
        ended = served.run(another(template, room), f"{NO_LINKS} {fault}")
        assert ended.struck and ended.code == -9, (fault, ended)
        assert set(copies(room / "out").values()) <= whole | {b""}, fault
        ended = served.run(room, NO_LINKS)
        assert (ended.code, ended.errors) == (0, ""), (fault, ended)
        check_copied(room / "out", room / "pictures")
        assert leftovers(room) == [], fault


SMALL = """
mount -t tmpfs -o size=1200k none "$1" && disk=$1 left=$2 && shift 2 || exit 99
"$@"; code=$?; cp -a "$disk" "$left"; exit $code
"""


@pytest.mark.skipif(not can_mount(), reason="mounting is not allowed here")
def test_where_there_are_no_hard_links_a_copy_takes_no_room_twice(trained: Path, tmp_path: Path) -> None:
    """Number 25: where half of a copy would be written, and the rest of it has no room, a kill leaves no half copy."""
    pictures, disk, left = tmp_path / "in", tmp_path / "disk", tmp_path / "left"
    disk.mkdir()
    pictures.mkdir()
    Image.new("RGB", (600, 400), COLOURS["red"]).save(pictures / "large.bmp")
    model, plain = str(trained / "model"), tmp_path / "plain"
    retrain = [sys.executable, "-m", "retrain", "classify", str(pictures)]
    in_order(run([*retrain, str(plain), "--model", model]), 0)
    (name,) = copies(plain)
    faults = ["-e", "inject=link:error=EPERM", "-e", "inject=write:signal=KILL:when=2"]
    strace = ["strace", "-f", "-o", str(tmp_path / "trace"), "-P", str(disk / name), "-e", "trace=link,write", *faults]
    line = ["unshare", "-m", "sh", "-c", SMALL, "sh", str(disk), str(left), *strace, *retrain, str(disk), "--model", model]
    done = run(line)
    assert "EPERM (Operation not permitted) (INJECTED)" in (tmp_path / "trace").read_text()
    assert set(copies(left).values()) <= {(pictures / "large.bmp").read_bytes(), b""}
    in_order(done, 0)
    assert contents(left).keys() == contents(plain).keys()


def run(line: list[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(line, capture_output=True, text=True, timeout=120, check=False)
