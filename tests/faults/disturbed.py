"""Run the whole line with one system call failing or killing it, and say what came of it."""

import contextlib
import os
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from retrain import artifact
from retrain.bottlenecks import Store
from tests.drawing import COLOURS, draw
from tests.faults import whole_line

ROUNDS = int(os.environ.get("RETRAIN_FAULT_ROUNDS", "1"))


@dataclass(frozen=True)
class Ended:
    """How a run ended: its exit code (below 0: the signal), what it said on stderr, and whether the fault struck."""

    code: int
    errors: str
    struck: bool


class Lines:
    """A server of runs: see `whole_line`."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def run(self, room: Path, fault: str = "") -> Ended:
        """Run the line in a room; `fault` is what strace is to do to its main thread, as `fsync:error=EIO:when=3`.

        Several have spaces between them; they have struck if each of them has.
        """
        if not fault:
            return Ended(self._untraced(room), (room / "errors").read_text(), False)
        code, trace = self._traced(room, *fault.split())
        return Ended(code, (room / "errors").read_text(), all(_has_struck(part, trace) for part in fault.split()))

    def calls(self, room: Path, *calls: str) -> list[str]:
        """Return the calls of these names, as strace tells them; a fault may stand for a name, and strikes."""
        return [line for line in self._traced(room, *calls)[1].splitlines() if line[0].isalpha()]

    def writes(self, room: Path, call: str) -> list[int]:
        """Return which calls of that name, counted from 1, have to do with the room; of openat, those that make a file."""
        made = [line for line in self._traced(room, call)[1].splitlines() if line.startswith(f"{call}(")]
        makes = "O_CREAT" if call == "openat" else ""
        return [number for number, line in enumerate(made, start=1) if str(room) in line and makes in line]

    def _untraced(self, room: Path) -> int:
        self._ask(str(room))
        return int(self._ask("go"))

    def _traced(self, room: Path, *faults: str) -> tuple[int, str]:
        """Run under strace; not its other threads, which write nothing: how they load libraries is no matter of ours."""
        pid, trace = self._ask(str(room)), room.parent / "trace"
        calls = ",".join(fault.partition(":")[0] for fault in faults)
        # -y: a path with each descriptor
        line = ["strace", "-y", "-p", pid, "-o", str(trace), "-e", f"trace={calls}"]
        line += [option for fault in faults if ":" in fault for option in ("-e", f"inject={fault}")]
        with subprocess.Popen(line, stderr=subprocess.PIPE, text=True) as strace:
            assert strace.stderr is not None
            assert "attached" in (told := strace.stderr.readline()), told
            code = int(self._ask("go"))
        return code, trace.read_text()

    def _ask(self, line: str) -> str:
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write(f"{line}\n")
        self._process.stdin.flush()
        answer = self._process.stdout.readline().strip()
        assert answer, "the server of runs has ended"
        return answer


def _has_struck(fault: str, trace: str) -> bool:
    if ":signal=KILL" in fault:
        return "killed by SIGKILL" in trace
    call = fault.partition(":")[0]
    return any(line.startswith(f"{call}(") and "(INJECTED)" in line for line in trace.splitlines())


@contextlib.contextmanager
def lines(warm: Path, **environment: str) -> Iterator[Lines]:
    """Start a server; the first run, in the room `warm`, is undisturbed."""
    command, changed = [sys.executable, "-m", "tests.faults.whole_line"], {**os.environ, **environment}
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=changed) as process:
        try:
            served = Lines(process)
            done = served.run(warm)
            assert done.code == 0, done.errors
            yield served
        finally:
            process.kill()


def can_trace() -> bool:
    """True where strace is there and may make calls fail."""
    line = ["strace", "-o", os.devnull, "-e", "inject=fsync:error=EIO", "true"]
    return bool(shutil.which("strace")) and not subprocess.run(line, capture_output=True, check=False).returncode


def can_mount() -> bool:
    """True where a small disk can be had."""
    line = ["unshare", "-m", "sh", "-c", "mount -t tmpfs -o size=1m none /mnt"]
    return bool(shutil.which("unshare")) and not subprocess.run(line, capture_output=True, check=False).returncode


def make_room(room: Path, flatbuffer: bytes, count: int = 5) -> Path:
    """Make a room with pictures of one colour, which the line labels each by its own name."""
    for number in range(count):
        draw(room / "pictures" / f"{number}.png", list(COLOURS.values())[number % 3], number, (24, 20))
    (room / "tiny.tflite").write_bytes(flatbuffer)
    return room


def another(template: Path, room: Path) -> Path:
    """Copy a room; its pictures keep their bytes, not their times."""
    shutil.rmtree(room, ignore_errors=True)
    return Path(shutil.copytree(template, room))


def model_of(room: Path) -> bytes:
    """Return what tells one model from another, after every file of it was verified."""
    artifact.load(room / "model")
    return (room / "model" / "manifest.json").read_bytes()


def vectors(cache: Path) -> dict[bytes, bytes]:
    """Return the features that a cache would give, by picture: committed, and with the checksum of the row."""
    if not cache.exists() or not cache.stat().st_size:
        return {}
    with Store(cache, whole_line.SPACE) as store:
        known = store.hashes()
        return {entry.sha256: entry.vector.tobytes() for entry in store.read(known, whole_line.FEATURES)}


def rows(cache: Path) -> int:
    """Return the number of rows, with nothing but SQLite; a journal that a kill left is rolled back by opening it."""
    with contextlib.closing(sqlite3.connect(cache)) as connection:
        tables = connection.execute("SELECT COUNT(*) FROM sqlite_master WHERE name = 'feature'").fetchone()
        return connection.execute("SELECT COUNT(*) FROM feature").fetchone()[0] if tables[0] else 0


def leftovers(*folders: Path) -> list[str]:
    """Return names below folders that only a run under way may have: temporary files and journals."""
    return [
        str(path)
        for folder in folders
        for path in folder.rglob("*")
        if path.name.endswith((".tmp", "-journal", ".journal", ".pid")) or ".tmp." in path.name
    ]


def contents(folder: Path) -> dict[str, bytes]:
    """Return every file below a folder."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}
