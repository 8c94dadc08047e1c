"""Little memory for the whole process: it ends with 0 or with 6 and one line, whatever the amount.

7   a limit from the start (`ulimit -v`)          test_whatever_memory_a_command_may_take_it_ends_with_0_or_6
      by small steps                              test_by_small_steps_a_command_ends_with_0_or_6 (marker faults)
    memory gets short while packages are loaded   test_a_library_that_finds_no_room_is_no_damaged_package
    in the middle of a picture, of a model        test_inputs.py, number 7; test_bad_pictures.py
"""

import array
import fcntl
import functools
import resource
import subprocess
import sys
import termios
import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.faults.promises import in_order

Ended = subprocess.CompletedProcess[str]
COMMANDS = ("label", "classify")
OUT_OF_MEMORY = "retrain: out of memory; close other programs or use fewer pictures at once\n"
LEAST, MOST = 60, 1000  # megabytes; below, Python itself may not start
PLENTY = 16384
AT_ONCE = 4


class Short:
    """Commands that have little memory. Each classifies into a folder of its own."""

    def __init__(self, trained: Path, room: Path) -> None:
        self.model, self.pictures, self.room = trained / "model", trained / "data" / "red", room

    def line(self, *words: object) -> list[str]:
        return [sys.executable, "-m", "retrain", *map(str, words), "--model", str(self.model)]

    def limited(self, name: str, megabytes: int) -> Ended:
        """Run a command under a limit that it finds."""
        given = [self.pictures / "red000.png"] if name == "label" else [self.pictures, self.room / f"out {megabytes}"]
        limit = functools.partial(resource.setrlimit, resource.RLIMIT_AS, (megabytes << 20, megabytes << 20))
        line, seconds = self.line(name, *given), 120
        return subprocess.run(line, capture_output=True, text=True, timeout=seconds, check=False, preexec_fn=limit)

    def check(self, name: str, sizes: Iterable[int]) -> set[int]:
        """Hold each size to the promise; returns the exit codes that were met."""
        with ThreadPoolExecutor(AT_ONCE) as pool:
            return {check_end(done) for done in pool.map(functools.partial(self.limited, name), sizes)}

    def limited_late(self, megabytes: int, *options: str) -> Ended:
        """Have `label` find memory short once it waits for its picture: the model is loaded then, what runs it is not."""
        picture = (self.pictures / "red000.png").read_bytes()
        line, pipe = self.line(*options, "label", "-"), subprocess.PIPE
        with subprocess.Popen(line, stdin=pipe, stdout=pipe, stderr=pipe, bufsize=0) as process:
            assert process.stdin is not None
            process.stdin.write(picture[:1])
            wait_until_read(process.stdin.fileno())
            resource.prlimit(process.pid, resource.RLIMIT_AS, (megabytes << 20, megabytes << 20))
            out, errors = process.communicate(picture[1:], timeout=60)
        return subprocess.CompletedProcess(line, process.returncode, out.decode(), errors.decode())


def wait_until_read(pipe: int) -> None:
    deadline, left = time.monotonic() + 60, array.array("i", [1])
    while left[0]:
        assert time.monotonic() < deadline
        time.sleep(0.002)
        fcntl.ioctl(pipe, termios.FIONREAD, left)


def check_end(done: Ended) -> int:
    in_order(done, 0, 6)
    lines = done.stderr.splitlines()
    assert len(lines) == (done.returncode == 6) and all(line.startswith("retrain: ") for line in lines), done
    return done.returncode


@pytest.fixture
def short(trained: Path, tmp_path: Path) -> Short:
    return Short(trained, tmp_path)


@pytest.mark.parametrize("name", COMMANDS)
def test_whatever_memory_a_command_may_take_it_ends_with_0_or_6(short: Short, name: str) -> None:
    """Number 7."""
    assert short.check(name, (*range(LEAST, MOST, 80), PLENTY)) == {0, 6}


@pytest.mark.faults
@pytest.mark.parametrize("name", COMMANDS)
def test_by_small_steps_a_command_ends_with_0_or_6(short: Short, name: str) -> None:
    """Number 7."""
    assert short.check(name, (*range(LEAST, MOST, 10), PLENTY)) == {0, 6}


HELD = """
import importlib
for name in ("retrain.model", "ai_edge_litert.interpreter"):
    importlib.import_module(name)
    print(next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmPeak")))
"""


def test_a_library_that_finds_no_room_is_no_damaged_package(short: Short) -> None:
    """Number 7: at least one size is too small for a library of LiteRT, which Python tells as an ImportError."""
    said = subprocess.run([sys.executable, "-c", HELD], capture_output=True, text=True, check=True, timeout=60).stdout
    first, last = (int(kilobytes) // 1024 for kilobytes in said.split())
    sizes = range(first - 10, last + 10, 3)
    with ThreadPoolExecutor(AT_ONCE) as pool:
        done = list(pool.map(short.limited_late, sizes))
        why = list(pool.map(lambda size: short.limited_late(size, "--debug").stderr, sizes))
    assert {check_end(ended) for ended in done} <= {0, 6}
    unmapped = [ended for ended, told in zip(done, why, strict=True) if "\nImportError: " in told]
    assert unmapped, why
    assert {ended.stderr for ended in done} <= {"", OUT_OF_MEMORY}, why
