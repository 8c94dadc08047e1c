"""Runs that are killed or asked to end at any moment: the old model or the new, nothing computed lost, and on they go.

24  kill -9 of train                      test_train_goes_on_after_a_kill_at_any_moment
    kill -9 of classify                   test_classify_goes_on_after_a_kill_at_any_moment
    at chosen moments
        test_classify_kill.py; test_bottlenecks.py: test_a_killed_process_loses_no_more_than_...
    at each system call                   test_disks.py, number 25
30  SIGINT, SIGTERM of train              test_train_that_is_stopped_in_any_stage_says_so_and_goes_on
    SIGINT, SIGTERM of classify
        test_classify_that_is_stopped_at_any_picture_says_so_and_goes_on, test_classify_kill.py
"""

import contextlib
import ctypes
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.drawing import COLOURS, draw
from tests.faults.disturbed import ROUNDS, contents, leftovers
from tests.faults.promises import in_order, placed_by_classify
from tests.faults.trains import Before, another, check_disturbed, check_goes_on, command, manifest, run

pytestmark = pytest.mark.faults
needs_strace = pytest.mark.skipif(not shutil.which("strace"), reason="strace is not installed")


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A hundred pictures that take a moment each."""
    folder = tmp_path_factory.mktemp("pictures") / "in"
    for number in range(100):
        draw(folder / f"{number % 5}" / f"{number:02}.png", list(COLOURS.values())[number % 3], number, (300, 200))
    return folder


@pytest.fixture(scope="module")
def undisturbed(before: Before, pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, bytes], float]:
    """What `classify` makes of the pictures, and in how many seconds."""
    out, began = tmp_path_factory.mktemp("undisturbed") / "out", time.monotonic()
    in_order(run(classifying(pictures, out, before)), 0)
    seconds = time.monotonic() - began
    return contents(out), seconds


def classifying(pictures: Path, out: Path, before: Before) -> list[str]:
    """The command line of a run of `classify`."""
    return [sys.executable, "-m", "retrain", "classify", *map(str, (pictures, out, "--model", before.tf_files / "model"))]


# --- 24


@pytest.mark.parametrize("part", range(10))
def test_train_goes_on_after_a_kill_at_any_moment(before: Before, tmp_path: Path, part: int) -> None:
    """Number 24: each tenth of a run has its kill, and with RETRAIN_FAULT_ROUNDS its kills."""
    for turn in range(ROUNDS):
        dice = random.Random(2400 + 10 * turn + part)
        tf_files = another(before.tf_files, tmp_path / f"{turn}")
        with subprocess.Popen(command(tf_files, before.net), stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
            time.sleep((part + dice.random()) / 10 * before.seconds)
            process.kill()
            process.communicate(timeout=60)
        check_goes_on(before, tf_files)
        shutil.rmtree(tf_files)


@pytest.mark.parametrize("part", range(10))
def test_classify_goes_on_after_a_kill_at_any_moment(
    before: Before, pictures: Path, undisturbed: tuple[dict[str, bytes], float], tmp_path: Path, part: int
) -> None:
    """Number 24."""
    whole, model = contents(pictures), manifest(before.tf_files)
    made, seconds = undisturbed
    for turn in range(ROUNDS):
        line = classifying(pictures, out := tmp_path / f"{turn}", before)
        dice = random.Random(240 + 10 * turn + part)
        with subprocess.Popen(line, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
            time.sleep((part + dice.random()) / 10 * seconds)
            process.kill()
        copies = [path for path in out.glob("*") if not path.name.startswith((".", "manifest."))]
        assert {path.read_bytes() for path in copies} <= set(whole.values())
        in_order(run(line), 0)
        assert contents(out) == made and leftovers(out) == []
        placed_by_classify(out, list(pictures.rglob("*.png")))
    assert contents(pictures) == whole and manifest(before.tf_files) == model


# --- 30

STAGES = {  # a path below the working folder, or of the network, that is opened in the middle of each stage
    "listing": "data/green",
    "backbone": "NET/variables/variables.index",
    "bottlenecks, cache made": "bottlenecks.sqlite",
    "bottlenecks, computed": "data/green/green100.png",
    "bottlenecks, committed": "bottlenecks.sqlite-journal",
    "split": "model/manifest.json",
    "save": "model/.lock",
    "save, under way": "model/labels.txt",
}
NOTES = {  # what is said at the beginning of a stage that makes no system call worth the name
    "features done": "bottlenecks: ",
    "head": "training the head",
}
STOPS = {signal.SIGINT: (130, "interrupted"), signal.SIGTERM: (143, "terminated")}


def check_stopped(done: subprocess.CompletedProcess[str], number: signal.Signals) -> None:
    code, word = STOPS[number]
    in_order(done, code)
    assert done.stderr.splitlines()[-1] == f"retrain: {word}; what was done so far is kept, run again to go on"
    assert done.stderr.count("retrain: ") == 1 and done.stdout == ""


@pytest.mark.parametrize("stage", STAGES)
def test_train_that_is_stopped_in_any_stage_says_so_and_goes_on(before: Before, tmp_path: Path, stage: str) -> None:
    """Number 30: by Ctrl-C, then by SIGTERM at the same place, then it may end."""
    name = STAGES[stage]
    tf_files = another(before.tf_files, tmp_path / "tf_files")
    path = before.net / name[4:] if name.startswith("NET/") else tf_files / name
    for number in STOPS:
        check_stopped(stopped_at(path, command(tf_files, before.net), number), number)
        check_disturbed(before, tf_files)
    check_goes_on(before, tf_files)


def stopped_at(path: Path, line: list[str], number: signal.Signals) -> subprocess.CompletedProcess[str]:
    """Run a command, and send it a signal once it opens a file or folder, or makes it."""
    with (
        watched(path) as opened,
        subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process,
    ):
        opened()
        process.send_signal(number)
        out, errors = process.communicate(timeout=60)
    return subprocess.CompletedProcess(line, process.returncode, out, errors)


@contextlib.contextmanager
def watched(path: Path) -> Iterator[Callable[[], None]]:
    """Watch a folder from now on; gives what waits until `path`, a name in it, was opened or made."""
    system = ctypes.CDLL(None, use_errno=True)
    watch = system.inotify_init1(os.O_CLOEXEC)
    opened = 0x20  # IN_OPEN, of a file or folder in it; what is made is opened as well
    assert watch >= 0 and system.inotify_add_watch(watch, os.fsencode(path.parent), opened) >= 0

    def wait() -> None:
        deadline = time.monotonic() + 60
        while os.fsencode(path.name) + b"\0" not in os.read(watch, 1 << 16)[16:]:
            assert time.monotonic() < deadline

    try:
        yield wait
    finally:
        os.close(watch)


@needs_strace
def test_train_that_is_stopped_while_it_writes_its_record_says_so_and_goes_on(before: Before, tmp_path: Path) -> None:
    """Number 30: at the very last, so that only strace is quick enough."""
    tf_files = another(before.tf_files, tmp_path / "tf_files")
    inject = ["-e", "trace=fsync", "-e", f"inject=fsync:signal={signal.SIGTERM.value}:when=1"]
    done = run(["strace", "-f", "-o", os.devnull, "-P", str(tf_files / "reports"), *inject, *command(tf_files, before.net)])
    check_stopped(done, signal.SIGTERM)
    assert manifest(tf_files) == before.new
    check_goes_on(before, tf_files)


@pytest.mark.parametrize("stage", NOTES)
def test_train_that_is_stopped_after_a_note_says_so_and_goes_on(before: Before, tmp_path: Path, stage: str) -> None:
    """Number 30: where a stage computes and nothing else."""
    tf_files = another(before.tf_files, tmp_path / "tf_files")
    for number in STOPS:
        line, pipe = command(tf_files, before.net, "--steps", "100000"), subprocess.PIPE
        with subprocess.Popen(line, stdout=pipe, stderr=pipe, text=True) as process:
            assert process.stdout is not None and process.stderr is not None
            said = ""
            while not said.rpartition("\n")[0].rpartition("\n")[2].startswith(NOTES[stage]):
                heard = process.stderr.readline()
                assert heard, said
                said += heard
            time.sleep(0.2)
            began = time.monotonic()
            process.send_signal(number)
            out, errors = process.communicate(timeout=60)
            assert time.monotonic() - began < 30
        check_stopped(subprocess.CompletedProcess(line, process.returncode, out, said + errors), number)
        check_disturbed(before, tf_files)
    check_goes_on(before, tf_files)


@needs_strace
@pytest.mark.parametrize("at", [("write", ".manifest.journal"), ("openat", ".copy.tmp"), ("rename", ".manifest.csv.tmp")])
def test_classify_that_is_stopped_at_any_picture_says_so_and_goes_on(
    before: Before, pictures: Path, tmp_path: Path, at: tuple[str, str]
) -> None:
    """Number 30."""
    out = tmp_path / "out"
    line = classifying(pictures, out, before)
    for turn, number in enumerate(STOPS, start=1):
        inject = f"inject={at[0]}:signal={number.value}:when={turn}"
        strace = ["strace", "-f", "-o", str(tmp_path / "trace"), "-P", str(out / at[1]), "-e", f"trace={at[0]}"]
        done = run([*strace, "-e", inject, *line])
        check_stopped(done, number)
        assert {Path(path).name for path in leftovers(out)} <= {".manifest.journal"}  # which the next run merges
    in_order(run(line), 0)
    assert len(placed_by_classify(out, list(pictures.rglob("*.png")))) == 100 and leftovers(out) == []
