"""Whole runs of `retrain train` as processes to disturb, and what must be true of the folder that they leave."""

import functools
import json
import os
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from retrain import artifact
from tests.drawing import draw_classes
from tests.faults.disturbed import contents, leftovers, rows
from tests.faults.promises import in_order
from tests.hub_modules import tiny_net, write_tf2

PICTURES = 200  # of each of three classes: they are committed in three pieces


@dataclass(frozen=True)
class Before:
    """A working folder whose model is an old one, what an undisturbed run makes of it, and how long that takes."""

    tf_files: Path
    net: Path
    old: bytes
    new: bytes
    seconds: float


def command(tf_files: Path, net: Path, *more: str) -> list[str]:
    """The command line of a run."""
    plain = ["train", str(tf_files), "--backbone", str(net), "--image-size", "32", "--steps", "200"]
    return [sys.executable, "-m", "retrain", *plain, *more]


def run(line: list[str]) -> subprocess.CompletedProcess[str]:
    """Run a command line to its end."""
    return subprocess.run(line, capture_output=True, text=True, timeout=120, check=False)


def prepare(folder: Path) -> Before:
    """Draw pictures, write a network, train an old model, and the new one in a copy. The old one's features are deleted."""
    net = write_tf2(folder / "net", tiny_net())
    draw_classes(folder / "before" / "data", PICTURES)
    in_order(run(command(folder / "before", net, "--seed", "1")), 0)
    (folder / "before" / "bottlenecks.sqlite").unlink()
    after = another(folder / "before", folder / "after")
    began = time.monotonic()
    in_order(run(command(after, net)), 0)
    seconds = time.monotonic() - began
    return Before(folder / "before", net, manifest(folder / "before"), manifest(after), seconds)


def another(tf_files: Path, target: Path) -> Path:
    """Copy a working folder; the pictures are links, for nothing writes to them."""
    shutil.copytree(tf_files, target, ignore=shutil.ignore_patterns("data"))
    return shutil.copytree(tf_files / "data", target / "data", copy_function=os.link) and target


def manifest(tf_files: Path) -> bytes:
    """Return what tells one model from another, after every file of it was verified."""
    artifact.load(tf_files / "model")
    return (tf_files / "model" / "manifest.json").read_bytes()


def record(tf_files: Path) -> dict:
    """Return the run record."""
    found: dict = json.loads((tf_files / "reports" / "train.json").read_text())
    return found


@functools.cache
def drawn(data: Path) -> dict[str, bytes]:
    """Return the pictures as they were drawn."""
    return contents(data)


def check_disturbed(before: Before, tf_files: Path) -> int:
    """The model is the old one or the new one; returns the number of features that were committed."""
    assert manifest(tf_files) in (before.old, before.new)
    cache = tf_files / "bottlenecks.sqlite"
    return rows(cache) if cache.exists() else 0


def check_goes_on(before: Before, tf_files: Path) -> None:
    """A further run computes only what was not committed, makes the same model and leaves nothing else behind."""
    committed = check_disturbed(before, tf_files)
    done = run(command(tf_files, before.net))
    in_order(done, 0)
    counts = record(tf_files)["counts"]
    assert (counts["computed"], counts["cached"]) == (3 * PICTURES - committed, committed)
    assert manifest(tf_files) == before.new
    assert leftovers(tf_files) == []
    assert contents(tf_files / "data") == drawn(before.tf_files / "data")
    names = {path.name for path in tf_files.iterdir()}
    assert names == {"data", "bottlenecks.sqlite", "model", "reports"}, "a cache was put aside, though nothing damaged it"
