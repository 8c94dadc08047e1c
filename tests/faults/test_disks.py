"""Disks that are full or fail, at each call that writes: the old or the new, whole, and the next run goes well.

25  each write, fsync, rename ... fails   test_whatever_call_fails_at_all_nothing_is_torn (marker faults)
      a few of them                       test_whatever_call_fails_nothing_is_torn_and_the_next_run_goes_well
    from some call on, all fail           test_a_disk_that_stays_full_tears_nothing (marker faults)
    killed at each of these calls         test_whatever_call_kills_at_all_nothing_is_torn (marker faults)
      at a few of them                    test_whatever_call_kills_nothing_is_torn_and_the_next_run_goes_well
    the same of whole trains              test_train_of_which_a_call_fails_ends_with_6_and_goes_on (marker faults)
    no room by a limit                    test_storage.py, test_classify_kill.py
26  a disk of 6 MB
        test_train_on_a_disk_that_is_full_ends_with_6_and_goes_on_when_there_is_room (marker faults)
"""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults import trains
from tests.faults.disturbed import (
    ROUNDS,
    Ended,
    Lines,
    another,
    can_mount,
    can_trace,
    contents,
    leftovers,
    lines,
    make_room,
    model_of,
    rows,
    vectors,
    whole_line,
)
from tests.faults.promises import in_order, placed_by_classify
from tests.faults.trains import Before, check_goes_on, command, manifest

ERRORS = ("ENOSPC", "EIO", "EFBIG")
CALLS = ("write", "pwrite64", "fsync", "fdatasync", "rename", "link", "unlink", "mkdir", "openat")
# Numbers of calls that stand for all of them where there is little time: of a room's fifteen to forty of each.
SOME = {"write": (3, 9, 16), "pwrite64": (2, 19, 30), "fsync": (1, 5, 12), "fdatasync": (1, 4, 9), "rename": (1, 6, 8)}


pytestmark = pytest.mark.skipif(not can_trace(), reason="strace is not installed, or may not trace")


class Rooms:
    """A room as it was before, what a run makes of it, and a server of runs. `first`: there was no model before."""

    def __init__(self, folder: Path, flatbuffer: bytes, first: bool, served: Lines) -> None:
        self.template, self.folder, self.served = make_room(folder / "template", flatbuffer), folder, served
        if not first:
            whole_line.save(self.template, whole_line.OLD)
            (self.template / "bottlenecks.sqlite").unlink()
        self.whole = another(self.template, folder / "whole")
        assert served.run(self.whole).code == 0
        self.models = {model_of(room) for room in ((self.whole,) if first else (self.template, self.whole))}
        self.right = vectors(self.whole / "bottlenecks.sqlite")
        assert len(self.models) == 2 - first and len(self.right) == 5
        self.inputs = contents(self.template / "pictures")

    def check(self, fault: str) -> bool:
        """Disturb a run, look at what it leaves, let another end well; returns whether the fault struck at all."""
        room = another(self.template, self.folder / "room")
        ended = self.served.run(room, fault)
        if ended.struck:
            self.check_end(ended, fault)
            self.check_left(room)
            self.check_next(room)
        return ended.struck

    def check_end(self, ended: Ended, fault: str) -> None:
        """With 6 and one line; or with 0, where it could do without, which `check_next` holds it to."""
        if ":signal=KILL" in fault:
            assert ended.code == -9
            return
        assert ended.code in (0, 6), (fault, ended)
        lines = ended.errors.splitlines()
        assert len(lines) == (ended.code == 6) and all(line.startswith("retrain: ") for line in lines), (fault, ended)
        assert "internal error" not in ended.errors

    def check_left(self, room: Path) -> None:
        if (room / "model" / "manifest.json").exists() or len(self.models) == 2:
            assert model_of(room) in self.models
        assert vectors(another(room, self.folder / "copy") / "bottlenecks.sqlite").items() <= self.right.items()
        copies = [path for path in (room / "out").glob("*") if not path.name.startswith((".", "manifest."))]
        assert {path.read_bytes() for path in copies} <= set(self.inputs.values())

    def check_next(self, room: Path) -> None:
        ended = self.served.run(room)
        assert ended.code == 0 and ended.errors == "", ended
        assert model_of(room) == model_of(self.whole)
        assert vectors(room / "bottlenecks.sqlite") == self.right
        # All names, that is: no temporary file, no half copy, no cache put aside.
        assert set(contents(room)) - set(contents(self.template)) <= set(contents(self.whole))
        assert contents(room / "out").keys() == contents(self.whole / "out").keys() and leftovers(room) == []
        assert contents(room / "pictures") == self.inputs


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory, tiny_flatbuffer: bytes) -> Iterator[Lines]:
    with lines(make_room(tmp_path_factory.mktemp("served") / "warm", tiny_flatbuffer)) as served:
        yield served


@pytest.fixture(scope="module")
def rooms(tmp_path_factory: pytest.TempPathFactory, tiny_flatbuffer: bytes, served: Lines) -> Rooms:
    """An old model is there."""
    return Rooms(tmp_path_factory.mktemp("rooms"), tiny_flatbuffer, False, served)


@pytest.fixture(scope="module")
def first_rooms(tmp_path_factory: pytest.TempPathFactory, tiny_flatbuffer: bytes, served: Lines) -> Rooms:
    """No model is there yet."""
    return Rooms(tmp_path_factory.mktemp("first"), tiny_flatbuffer, True, served)


# --- 25


@pytest.mark.parametrize("call", SOME)
def test_whatever_call_fails_nothing_is_torn_and_the_next_run_goes_well(rooms: Rooms, call: str) -> None:
    """Number 25, at a few calls."""
    for error, number in zip(ERRORS, SOME[call], strict=True):
        assert rooms.check(f"{call}:error={error}:when={number}")


@pytest.mark.parametrize("call", SOME)
def test_whatever_call_kills_nothing_is_torn_and_the_next_run_goes_well(first_rooms: Rooms, call: str) -> None:
    """Number 25, at a few calls of a run that is the first in its folder."""
    for number in SOME[call]:
        assert first_rooms.check(f"{call}:signal=KILL:when={number}")


def disturb_each(rooms: Rooms, call: str, *hows: str) -> int:
    """Disturb each call in turn, in one way or in all, until there is none left; returns their number."""
    numbers = rooms.served.writes(another(rooms.template, rooms.folder / "room"), call)
    for turn, number in enumerate(numbers):
        for how in hows if ROUNDS > 1 else (hows[turn % len(hows)],):
            assert rooms.check(f"{call}:{how}:when={number}"), (call, how, number)
    return len(numbers)


@pytest.mark.faults
@pytest.mark.parametrize("call", CALLS)
def test_whatever_call_fails_at_all_nothing_is_torn(rooms: Rooms, call: str) -> None:
    """Number 25: each call of a whole line, with the errors in turn, and all of them with RETRAIN_FAULT_ROUNDS."""
    assert disturb_each(rooms, call, *(f"error={error}" for error in ERRORS)) >= 2


@pytest.mark.faults
@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("before", ["rooms", "first_rooms"])
def test_whatever_call_kills_at_all_nothing_is_torn(request: pytest.FixtureRequest, call: str, before: str) -> None:
    """Number 25: the process ends at each call of a whole line."""
    assert disturb_each(request.getfixturevalue(before), call, "signal=KILL") >= 2


@pytest.mark.faults
@pytest.mark.parametrize("call", ["pwrite64", "fsync", "fdatasync", "rename", "unlink"])
def test_a_disk_that_stays_full_tears_nothing(rooms: Rooms, call: str) -> None:
    """Number 25: from some call on, all of its kind fail, those that were to clear up as well."""
    numbers = rooms.served.writes(another(rooms.template, rooms.folder / "room"), call)
    for turn, number in enumerate(numbers[:: 1 if ROUNDS > 1 else 3]):
        assert rooms.check(f"{call}:error={ERRORS[turn % 2]}:when={number}+")


WHOLE = {  # the system call, which of them fails, of those on a path below the working folder, and what is then named
    "the first rows": ("pwrite64", 1, "bottlenecks.sqlite", "bottlenecks.sqlite"),
    "a commit": ("fdatasync", 4, "bottlenecks.sqlite", "bottlenecks.sqlite"),
    "the folder of the model": ("fsync", 2, "model", "model/"),
    "the manifest": ("rename", 3, "", "model/manifest.json"),
    "the list of the split": ("rename", 4, "", "reports/split.csv"),
    "the record": ("rename", 5, "", "reports/train.json"),
}


@pytest.mark.faults
@pytest.mark.parametrize("case", WHOLE)
def test_train_of_which_a_call_fails_ends_with_6_and_goes_on(before: Before, tmp_path: Path, case: str) -> None:
    """Number 25, of whole runs of `retrain train`."""
    call, number, name, named = WHOLE[case]
    tf_files = trains.another(before.tf_files, tmp_path / "tf_files")
    only = ["-P", str(tf_files / name)] if name else []
    error = ERRORS[list(WHOLE).index(case) % 2]
    strace = ["strace", "-f", "-o", str(tmp_path / "trace"), *only, "-e", f"trace={call}"]
    done = trains.run([*strace, "-e", f"inject={call}:error={error}:when={number}", *command(tf_files, before.net)])
    assert "(INJECTED)" in (tmp_path / "trace").read_text()
    in_order(done, 6)
    assert done.stderr.count("retrain: ") == 1 and str(tf_files / named) in done.stderr.splitlines()[-1]
    check_goes_on(before, tf_files)


def test_where_there_are_no_hard_links_copies_are_whole_all_the_same(trained: Path, tmp_path: Path) -> None:
    """As on a memory stick; number 25."""
    pictures, trace, links = trained / "data" / "red", tmp_path / "trace", "link,linkat"
    strace = ["strace", "-f", "-o", str(trace), "-e", f"trace={links}", "-e", f"inject={links}:error=EPERM"]
    retrain = [sys.executable, "-m", "retrain", "classify", str(pictures), str(tmp_path / "out"), "--model"]
    line = [*strace, *retrain, str(trained / "model")]
    done = subprocess.run(line, capture_output=True, text=True, timeout=120, check=False)
    in_order(done, 0)
    assert trace.read_text().count("EPERM (Operation not permitted) (INJECTED)") >= 12
    placed = placed_by_classify(tmp_path / "out", list(pictures.iterdir()))
    for source, copy in placed.items():
        assert (tmp_path / "out" / copy).read_bytes() == Path(source).read_bytes()
    assert leftovers(tmp_path / "out") == []


# --- 26


FULL = """
mount -t tmpfs -o size=6m none "$1" && cp -r "$2"/. "$1" && shift 2 || exit 99
filler=$1/filler; keep=$2; shift 2
dd if=/dev/zero of="$filler" bs=1k 2>"$filler.said"; truncate -s -"$keep" "$filler"
"$@"; echo "ended with $?" >&2
sed 1,99d "$filler.said"; rm "$filler" "$filler.said"; cp -r "$TF_FILES" "$ROOM/full"
"$@"; echo "ended with $?" >&2; cp -r "$TF_FILES" "$ROOM/after"
"""


@pytest.mark.faults
@pytest.mark.skipif(not can_mount(), reason="mounting is not allowed here")
@pytest.mark.parametrize("kilobytes", [0, 40, 200])
def test_train_on_a_disk_that_is_full_ends_with_6_and_goes_on_when_there_is_room(
    before: Before, tmp_path: Path, kilobytes: int
) -> None:
    """Number 26: the disk is full at once, while rows are written, and when the model is saved."""
    (disk := tmp_path / "disk").mkdir()
    script = [str(disk), str(before.tf_files), str(disk), f"{kilobytes}k", *command(disk, before.net)]
    environment = {**os.environ, "TF_FILES": str(disk), "ROOM": str(tmp_path)}
    line = ["unshare", "-m", "sh", "-c", FULL, "sh", *script]
    done = subprocess.run(line, capture_output=True, text=True, timeout=120, check=False, env=environment)
    full, _, after = done.stderr.partition("ended with 6\n")
    assert after.endswith("ended with 0\n"), done.stderr
    assert full.count("retrain: ") == 1 and full.splitlines()[-1].startswith("retrain: ") and str(disk) in full
    assert "full" in full.splitlines()[-1] or "No space left" in full.splitlines()[-1]
    assert manifest(tmp_path / "full") == before.old
    assert rows(tmp_path / "full" / "bottlenecks.sqlite") % 256 in (0, 88) or kilobytes == 0
    assert manifest(tmp_path / "after") == before.new and leftovers(tmp_path / "after") == []
    assert contents(tmp_path / "after" / "data") == contents(before.tf_files / "data")
