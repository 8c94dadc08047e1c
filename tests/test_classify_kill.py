"""`retrain classify` that is killed, stopped, short of disk or run twice at once: nothing lost, nothing doubled."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from retrain.classify import classify
from retrain.label import load
from tests.drawing import COLOURS, draw

# Limits and signal handlers are set inside the new process, before anything of ours is loaded.
START = "from retrain.cli import main; main()"
INTERRUPTIBLE = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); " + START
SMALL_FILES = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, ({0}, {0})); " + START


@pytest.fixture
def many(tmp_path: Path) -> Path:
    """240 pictures of eight kinds that take a moment each: few bytes, many pixels."""
    for number in range(8):
        sheet = Image.new("RGB", (900, 900), COLOURS[("blue", "green", "red")[number % 3]])
        sheet.paste((number * 30, 90, 90), (0, 0, 100 + number, 100))
        sheet.save(tmp_path / f"{number}.png")
    for number in range(240):
        target = tmp_path / "in" / f"{number % 7}" / f"{number:03}.png"
        target.parent.mkdir(parents=True, exist_ok=True)
        os.link(tmp_path / f"{number % 8}.png", target)
    return tmp_path / "in"


@contextlib.contextmanager
def started(code: str, images: Path, out: Path, trained: Path) -> Iterator[subprocess.Popen[str]]:
    line = [sys.executable, "-c", code, "classify", str(images), str(out), "--model", str(trained / "model")]
    with subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


def wait_for_copies(process: subprocess.Popen[str], out: Path, count: int) -> None:
    deadline = time.monotonic() + 60
    while len(visible(out)) < count:
        assert process.poll() is None, "it ended before it could be disturbed"
        assert time.monotonic() < deadline
        time.sleep(0.002)


def visible(out: Path) -> list[str]:
    return [name for name in os.listdir(out) if not name.startswith((".", "manifest."))] if out.is_dir() else []


def hidden(out: Path) -> list[str]:
    """Whatever is neither copy nor manifest; a lock may stay."""
    return [path.name for path in out.rglob(".*") if not path.name.startswith(".lock")]


def rows(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / "manifest.jsonl").read_text().splitlines()]


def check_complete(images: Path, out: Path) -> None:
    """Every source has its one copy, every copy its one source, and nothing else is left."""
    sources = sorted(str(path) for path in images.rglob("*") if path.is_file())
    assert [row["source"] for row in rows(out)] == sources
    assert sorted(row["copy"] for row in rows(out)) == sorted(visible(out)) and len(visible(out)) == len(sources)
    assert all((out / row["copy"]).read_bytes() == Path(row["source"]).read_bytes() for row in rows(out))
    assert hidden(out) == []


@pytest.mark.parametrize("count", [1, 40, 120])
def test_a_run_after_a_kill_makes_each_copy_once(trained: Path, many: Path, tmp_path: Path, count: int) -> None:
    out = tmp_path / "out"
    with started(START, many, out, trained) as process:
        wait_for_copies(process, out, count)
        process.send_signal(signal.SIGKILL)
    assert count <= len(visible(out)) < 240
    whole = {path.read_bytes() for path in many.rglob("*.png")}
    assert all((out / name).read_bytes() in whole for name in visible(out))
    earlier = len(visible(out))
    outcome = classify(load(trained / "model"), many, out)
    assert outcome.present in (earlier, earlier - 1) and outcome.copied + outcome.present == 240
    check_complete(many, out)


def test_what_a_kill_in_the_middle_of_a_copy_leaves_is_collected_and_never_written_through(
    trained: Path, many: Path, tmp_path: Path
) -> None:
    """A temporary name can share its bytes with a copy, and in a container every run has the same process number."""
    out = tmp_path / "out"
    with started(START, many, out, trained) as process:
        wait_for_copies(process, out, 1)
        while process.poll() is None:
            if set(hidden(out)) - {".manifest.journal"}:
                process.send_signal(signal.SIGSTOP)  # frozen, to see whether it was caught in the act
                os.waitid(os.P_PID, process.pid, os.WSTOPPED | os.WNOWAIT)
                if set(hidden(out)) - {".manifest.journal"}:
                    break
                process.send_signal(signal.SIGCONT)
        process.kill()
    for name in set(hidden(out)) - {".manifest.journal"}:
        (out / name).unlink()
        os.link(out / visible(out)[0], out / name.replace(str(process.pid), str(os.getpid())))
    classify(load(trained / "model"), many, out)
    check_complete(many, out)


@pytest.mark.parametrize("name", [".copy.tmp", ".manifest.jsonl.tmp", ".manifest.csv.tmp"])
def test_no_temporary_name_is_written_through(trained: Path, tmp_path: Path, name: str) -> None:
    images, out = tmp_path / "in", tmp_path / "out"
    for number in range(3):
        draw(images / f"{number}.png", COLOURS["red"], number)
    classify(load(trained / "model"), images, out)
    (out / ".manifest.journal").write_bytes((out / "manifest.jsonl").read_bytes())
    (out / "manifest.jsonl").unlink(), (out / "manifest.csv").unlink()
    os.link(out / visible(out)[0], out / name)
    classify(load(trained / "model"), images, out)
    check_complete(images, out)


@pytest.mark.parametrize("tail", [b'{"source": "/torn', b"", b'{"source": "a", "co\n', b"\0" * 40])
def test_a_torn_last_line_of_the_journal_is_passed_over(trained: Path, tmp_path: Path, tail: bytes) -> None:
    images, out = tmp_path / "in", tmp_path / "out"
    for number in range(3):
        draw(images / f"{number}.png", COLOURS["red"], number)
    classify(load(trained / "model"), images, out)
    before = {name: (out / name).read_bytes() for name in os.listdir(out)}
    journal = before["manifest.jsonl"]
    (out / "manifest.jsonl").unlink(), (out / "manifest.csv").unlink()
    (out / ".manifest.journal").write_bytes(journal + tail)
    outcome = classify(load(trained / "model"), images, out)
    assert (outcome.copied, outcome.present) == (0, 3)
    assert {name: (out / name).read_bytes() for name in os.listdir(out)} == before


def test_a_dry_run_after_a_kill_knows_the_copies_that_were_made(trained: Path, many: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    with started(START, many, out, trained) as process:
        wait_for_copies(process, out, 20)
        process.send_signal(signal.SIGKILL)
    made, before = len(visible(out)), sorted(os.listdir(out))
    outcome = classify(load(trained / "model"), many, out, dry_run=True)
    assert outcome.present in (made, made - 1) and sorted(os.listdir(out)) == before


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_run_that_is_stopped_says_so_and_writes_its_manifest(
    trained: Path, many: Path, tmp_path: Path, number: signal.Signals, code: int
) -> None:
    out = tmp_path / "out"
    with started(INTERRUPTIBLE, many, out, trained) as process:
        wait_for_copies(process, out, 10)
        process.send_signal(number)
        _, errors = process.communicate(timeout=60)
    assert process.returncode == code
    (line,) = errors.strip().splitlines()
    assert line.startswith("retrain: ") and "run again to go on" in line
    made = visible(out)
    assert sorted(row["copy"] for row in rows(out) if (out / row["copy"]).exists()) == sorted(made) and hidden(out) == []
    classify(load(trained / "model"), many, out)
    check_complete(many, out)


@pytest.mark.parametrize(("limit", "sizes"), [(6000, [(8, 8), (8, 8), (90, 90), (8, 8)]), (3000, [(8, 8)] * 40)])
def test_a_disk_that_is_full_ends_the_run_with_whole_copies_only(
    trained: Path, tmp_path: Path, limit: int, sizes: list[tuple[int, int]]
) -> None:
    """The first is short of room for a copy, the second for the manifest."""
    images, out = tmp_path / "in", tmp_path / "out"
    for number, size in enumerate(sizes):
        Image.effect_noise(size, 90).save(_parent(images / f"{number:02}.png"))
    with started(SMALL_FILES.format(limit), images, out, trained) as process:
        _, errors = process.communicate(timeout=60)
    assert process.returncode == 6, errors
    (line,) = errors.splitlines()
    assert line.startswith("retrain: ") and str(out) in line
    whole = {path.read_bytes() for path in images.iterdir()}
    assert visible(out) and all((out / name).read_bytes() in whole for name in visible(out))
    classify(load(trained / "model"), images, out)
    check_complete(images, out)


def _parent(path: Path) -> Path:
    path.parent.mkdir(exist_ok=True)
    return path


def test_two_runs_into_one_output_at_once_lose_and_double_nothing(
    trained: Path, many: Path, tmp_path: Path, command: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    out, other = tmp_path / "out", tmp_path / "other"
    for number in range(5):
        draw(other / f"{number}.png", COLOURS["red"], number)
    with started(START, many, out, trained) as process:
        wait_for_copies(process, out, 5)
        beside = command("classify", other, out, "--model", trained / "model")
        process.communicate(timeout=60)
    assert process.returncode == 0
    assert beside.returncode == 0 or (beside.returncode == 6 and "another run" in beside.stderr)
    sources = {str(path) for folder in (many, other) for path in folder.rglob("*.png")}
    expected = sources if beside.returncode == 0 else {source for source in sources if source.startswith(f"{many}/")}
    assert {row["source"] for row in rows(out)} == expected and len(rows(out)) == len(visible(out)) == len(expected)
