"""A plan that is killed while it is applied or undone, or finds the disk full: undone or gone on with, nothing is lost.

Killed at some calls                    test_a_killed_plan_can_be_undone_or_gone_on_with
    at each call that changes a disk    test_a_plan_killed_at_any_call_can_be_undone_or_gone_on_with (marker faults)
Undo, killed at each                    test_undo_killed_at_any_call_can_be_gone_on_with (marker faults)
No room for the journal                 test_nothing_is_moved_where_the_journal_cannot_be_written
A picture that cannot be moved          test_a_disk_that_fails_at_a_picture_ends_it_with_one_line
No renameat2, no hard links             test_pictures_are_moved_also_where_the_system_can_do_less
"""

import os
import shutil
import subprocess
import sys
import traceback
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from retrain.checks import plan
from retrain.checks.apply import APPLIED, Applied, apply, undo
from retrain.checks.plan import Row
from retrain.errors import RetrainError, UsageError
from retrain.storage import SENTINEL, Layout
from tests.faults.disturbed import Lines, can_trace

pytestmark = pytest.mark.skipif(not can_trace(), reason="strace is not installed, or may not trace")

ODD = os.fsdecode(b"\xe4 (1).png")
ROWS = [
    Row("relabel", "red/1.png", to="blue"),  # a taken name
    Row("relabel", "blue/1.png", to="red"),  # the other way round
    Row("relabel", "red/sub/2.png", to="new"),
    Row("move", f"red/{ODD}"),
    Row("move", "blue/sub/deep/3.png"),
    Row("relabel", "blue/link", to="red"),
    Row("keep", "blue/4.png"),
    Row("move", "blue/gone.png"),
]
# How files are moved: as Linux does, with hard links where it cannot, and as on a memory stick of an old system.
WAYS = {"renameat2": "", "link": "renameat2:error=EINVAL ", "rename": "renameat2:error=ENOSYS linkat:error=EPERM "}
MOVES = {"renameat2": "renameat2", "link": "linkat", "rename": "rename"}
CALLS = {
    "renameat2": ("renameat2", "rename", "mkdir", "rmdir", "fsync", "openat"),
    "link": ("linkat", "unlink", "rename"),
    "rename": ("rename",),
}


@dataclass(frozen=True)
class Room:
    """A working folder with pictures, its plan, what is there before and after, and a server of runs: see `serve`."""

    folder: Path
    served: Lines
    before: dict[str, bytes]
    after: dict[str, bytes]
    applied: Applied

    @property
    def layout(self) -> Layout:
        return Layout(self.folder / "tf_files")

    def fresh(self, what: str = "apply") -> "Room":
        """Make it as it was, and choose what is to be run in it."""
        shutil.rmtree(self.layout.root, ignore_errors=True)
        shutil.copytree(self.folder.parent / "template", self.layout.root, symlinks=True)
        if what == "undo":
            self.apply()
        (self.folder / "what").write_text(what)
        return self

    def apply(self) -> Applied:
        return apply(self.layout, plan.read(self.folder / "plan.csv"))

    def run(self, faults: str, code: int) -> str:
        """Run it disturbed, and see that it was and how it ended; returns what it said."""
        ended = self.served.run(self.folder, faults.strip())
        assert ended.code == code and (ended.struck == bool(faults) or code == -9), (faults, ended)
        return ended.errors

    def numbers(self, what: str, way: str, call: str) -> list[int]:
        """Return which calls of that name have to do with the room, counted from 1; of openat, those that make a file."""
        lines = self.fresh(what).served.calls(self.folder, *WAYS[way].split(), call)
        assert self.now() == (self.after if what == "apply" else self.before)
        made = [line for line in lines if line.startswith(f"{call}(")]
        makes = "O_CREAT" if call == "openat" else ""
        return [number for number, line in enumerate(made, 1) if str(self.layout.root) in line and makes in line]

    def now(self) -> dict[str, bytes]:
        return contents(self.layout.root)

    def journals(self) -> int:
        folder = self.layout.reports / APPLIED
        return len(list(folder.glob("*.json"))) if folder.is_dir() else 0


def contents(root: Path) -> dict[str, bytes]:
    """Return every picture, link and folder of data/ and set_aside/, which itself may be there or not; all else is ours."""
    assert set(os.listdir(root)) <= {"data", "set_aside", "reports", ".set_aside.tmp"}
    assert not (root / "set_aside").exists() or (root / "set_aside" / SENTINEL).exists()
    found = {}
    for top in (root / "data", root / "set_aside"):
        for path in sorted(top.rglob("*")):
            if path.name != SENTINEL:
                name = str(path.relative_to(root))
                found[name] = b"folder" if path.is_dir() else b"link" if path.is_symlink() else path.read_bytes()
    return found


@pytest.fixture(scope="module")
def room(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Room]:
    folder = tmp_path_factory.mktemp("plans") / "room"
    data = folder.parent / "template" / "data"
    for name in ("red/1.png", "red/sub/2.png", f"red/{ODD}", "blue/1.png", "blue/4.png", "blue/sub/deep/3.png"):
        (data / name).parent.mkdir(parents=True, exist_ok=True)
        (data / name).write_bytes(os.fsencode(name))
    (data / "blue" / "link").symlink_to("/nowhere")
    rows = [row._replace(sha256=plan.content_hash(data / row.path)) for row in ROWS]
    text = ["action,path,to,sha256"]
    text += [f"{row.action},{row.path},{row.to},{row.sha256}".replace(ODD, "\\udce4 (1).png") for row in rows]
    folder.mkdir()
    (folder / "plan.csv").write_text("\n".join(text))
    assert plan.read(folder / "plan.csv") == rows
    line = [sys.executable, "-m", "tests.faults.test_plan_kills"]
    with subprocess.Popen(line, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        empty = Room(folder, Lines(process), {}, {}, Applied()).fresh()
        before, applied = empty.now(), replace(empty.apply(), journal=None)
        assert applied == Applied(2, 4, 1, (("blue/gone.png", "missing"),), ("new",))
        yield replace(empty, before=before, after=empty.now(), applied=applied)
        process.kill()


def serve() -> None:
    """Answer each room with the number of a process that waits for a further line, and then with how it ended."""
    for request in sys.stdin:
        heard, go = os.pipe()
        process = os.fork()
        if not process:
            os.read(heard, 1)
            code = 99
            try:
                code = run(Path(request.strip()))
            finally:
                if code == 99:
                    traceback.print_exc()
                os._exit(code)
        print(process, flush=True)
        sys.stdin.readline()
        os.write(go, b"!")
        os.close(go), os.close(heard)
        print(os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]), flush=True)


def run(room: Path) -> int:
    """Do what `what` says; what went wrong is in `errors`."""
    with (room / "errors").open("w") as errors:
        try:
            if (room / "what").read_text() == "undo":
                undo(Layout(room / "tf_files"))
            else:
                apply(Layout(room / "tf_files"), plan.read(room / "plan.csv"))
        except RetrainError as error:
            print(error, file=errors)
            return error.exit_code
    return 0


def check_killed(room: Room, what: str, way: str, fault: str) -> None:
    """Kill it; then what is there can be undone, and can be gone on with as if it had not been killed."""
    for then in ("undo", "apply"):
        room.fresh(what).run(f"{WAYS[way]}{fault}", -9)
        assert lying(room.now()) == lying(room.before), "every picture is somewhere"
        if what == "apply" and then == "apply":
            check_gone_on(room)
        elif what == "undo" and then == "apply":
            room.apply()
            assert lying(room.now()) == lying(room.before)
            while room.now() != room.before:  # what was left of the plan, and what it made anew
                assert undo(room.layout).complete
        elif room.journals():
            check_undone(room)
        else:
            check_not_begun(room)


def lying(now: dict[str, bytes]) -> set[bytes]:
    return set(now.values()) - {b"folder"}


def check_undone(room: Room) -> None:
    try:
        assert undo(room.layout).complete
    except UsageError as error:
        assert "nothing to undo" in str(error)  # killed when all was done
    assert room.now() == room.before
    with pytest.raises(UsageError, match="there is nothing to undo"):
        undo(room.layout)


def check_not_begun(room: Room) -> None:
    assert room.now() == room.before
    with pytest.raises(UsageError, match="there is nothing to undo"):
        undo(room.layout)


def check_gone_on(room: Room) -> None:
    finished = room.now() == room.after
    done = room.apply()
    assert room.now() == room.after
    if not finished or done.moved:
        assert replace(done, journal=None) == room.applied
    assert room.journals() == 1
    check_undone(room)


# --- a few, quickly

SOME = [("renameat2", "renameat2", 3), ("link", "linkat", 2), ("link", "unlink", 2), ("rename", "rename", 1)]


@pytest.mark.parametrize(("way", "call", "number"), SOME)
def test_a_killed_plan_can_be_undone_or_gone_on_with(room: Room, way: str, call: str, number: int) -> None:
    check_killed(room, "apply", way, f"{call}:signal=KILL:when={number}")


def test_nothing_is_moved_where_the_journal_cannot_be_written(room: Room) -> None:
    for call, index in (("openat", 2), ("fsync", 0), ("rename", 1)):  # before it, folders of ours are marked and put there
        first = room.numbers("apply", "renameat2", call)[index]
        said = room.fresh().run(f"{call}:error=ENOSPC:when={first}", 6)
        assert said.startswith("cannot write ") and said.count("\n") == 1
        assert "0001.json: No space left on device; free space" in said
        assert room.now() == room.before and list((room.layout.reports / APPLIED).iterdir()) == []
        check_gone_on(room)


@pytest.mark.parametrize("way", WAYS)
def test_a_disk_that_fails_at_a_picture_ends_it_with_one_line(room: Room, way: str) -> None:
    third = 5 if way == "rename" else 3  # a folder of ours and the journal are renamed before
    said = room.fresh().run(f"{WAYS[way]}{MOVES[way]}:error=EIO:when={third}", 6)
    assert said.startswith("cannot change ") and said.count("\n") == 1
    assert "Input/output error; free space or fix permissions, then rerun" in said
    assert room.now() not in (room.before, room.after)
    check_gone_on(room)


@pytest.mark.parametrize("way", WAYS)
def test_pictures_are_moved_also_where_the_system_can_do_less(room: Room, way: str) -> None:
    room.fresh().run(WAYS[way], 0)
    assert room.now() == room.after
    (room.folder / "what").write_text("undo")
    room.run(WAYS[way], 0)
    assert room.now() == room.before


def test_names_taken_since_a_plan_was_killed_are_not_overwritten(room: Room) -> None:
    """Killed before anything was moved, and then somebody else puts files where the pictures belong."""
    room.fresh().run("renameat2:signal=KILL:when=1", -9)
    strangers = [name for name in room.after if name not in room.before and room.after[name] != b"folder"]
    for name in strangers:
        (room.layout.root / name).parent.mkdir(parents=True, exist_ok=True)
        (room.layout.root / name).write_bytes(b"stranger")
    done = room.apply()
    assert (done.moved, done.relabelled) == (room.applied.moved, room.applied.relabelled)
    now = room.now()
    assert {now[name] for name in strangers} == {b"stranger"} and lying(now) == {*lying(room.before), b"stranger"}
    check_back_among_strangers(room)


def test_undo_of_a_killed_plan_leaves_alone_what_others_put_there(room: Room) -> None:
    room.fresh().run("renameat2:signal=KILL:when=1", -9)
    for name in set(room.after) - set(room.before):
        if room.after[name] != b"folder":
            (room.layout.root / name).parent.mkdir(parents=True, exist_ok=True)
            (room.layout.root / name).write_bytes(b"stranger")
    check_back_among_strangers(room)


def check_back_among_strangers(room: Room) -> None:
    assert undo(room.layout).complete
    left = {name: content for name, content in room.now().items() if content not in (b"stranger", b"folder")}
    assert left == {name: content for name, content in room.before.items() if content != b"folder"}


def test_a_picture_changed_since_the_plan_was_killed_is_left(room: Room) -> None:
    room.fresh().run("renameat2:signal=KILL:when=1", -9)
    (room.layout.data / "red" / "1.png").write_bytes(b"changed")
    assert ("red/1.png", "changed") in room.apply().skipped
    assert (room.layout.data / "red" / "1.png").read_bytes() == b"changed"
    assert undo(room.layout).complete and room.now() == {**room.before, "data/red/1.png": b"changed"}


def test_a_killed_plan_and_another_one_are_both_undone(room: Room) -> None:
    room.fresh().run("renameat2:signal=KILL:when=4", -9)
    between = room.now()
    assert apply(room.layout, [Row("move", "blue/4.png")]).moved == 1 and room.journals() == 2
    undo(room.layout)
    assert room.now() == between
    check_undone(room)


# --- each


@pytest.mark.faults
@pytest.mark.parametrize(("way", "call"), [(way, call) for way in WAYS for call in CALLS[way] if call != "rmdir"])
def test_a_plan_killed_at_any_call_can_be_undone_or_gone_on_with(room: Room, way: str, call: str) -> None:
    numbers = room.numbers("apply", way, call)
    assert numbers
    for number in numbers:
        check_killed(room, "apply", way, f"{call}:signal=KILL:when={number}")


@pytest.mark.faults
@pytest.mark.parametrize(("way", "call"), [(way, call) for way in WAYS for call in CALLS[way] if call != "mkdir"])
def test_undo_killed_at_any_call_can_be_gone_on_with(room: Room, way: str, call: str) -> None:
    numbers = room.numbers("undo", way, call)
    assert numbers
    for number in numbers:
        check_killed(room, "undo", way, f"{call}:signal=KILL:when={number}")


if __name__ == "__main__":
    serve()
