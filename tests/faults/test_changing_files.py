"""Files and folders that change while they are read: number 14 of the list.

14  test_features_belong_to_the_hash_they_are_stored_under_while_files_change, its longer sister,
    test_copies_belong_to_the_answer_they_are_named_by_while_files_change,
    test_a_walk_over_folders_that_come_and_go_ends_and_names_what_was_missing,
    test_a_class_folder_that_goes_away_after_it_was_listed_is_named_picture_by_picture;
    also test_bottlenecks.test_a_file_replaced_by_one_of_the_same_size_and_time_is_noticed
"""

import contextlib
import hashlib
import json
import os
import shutil
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from retrain import artifact, backbones, views
from retrain.backbones import Backbone
from retrain.classify import classify
from retrain.errors import BadImage
from retrain.images import find
from retrain.label import Labeller, load
from retrain.pipeline import train
from retrain.progress import Silent
from retrain.runner import open_network
from retrain.settings import HeadSettings
from tests.drawing import COLOURS, draw, draw_classes
from tests.faults.changing import changing

QUICK = HeadSettings(steps=30)
ROUNDS = int(os.environ.get("RETRAIN_FAULT_ROUNDS", "1"))


@pytest.fixture
def versions(tmp_path: Path) -> Path:
    """Pictures to take the place of others."""
    for seed in range(30):
        draw(tmp_path / "versions" / f"{seed}.png", COLOURS["red"], 800 + seed)
    return tmp_path / "versions"


def stored(tf_files: Path) -> dict[str, np.ndarray]:
    with contextlib.closing(sqlite3.connect(tf_files / "bottlenecks.sqlite")) as cache:
        return {
            sha256.hex(): np.frombuffer(vector, "<f4")
            for sha256, vector in cache.execute("SELECT sha256, vector FROM feature")
        }


def check_stored(tf_files: Path, contents: list[bytes], tiny: Backbone) -> int:
    """Compute what can be computed again, and compare; returns how many rows that were."""
    runner, rows, compared = open_network(backbones.network(tiny)), stored(tf_files), 0
    for content in contents:
        vector = rows.get(hashlib.sha256(content).hexdigest())
        if vector is None:
            continue
        picture = views.decode_for(content, tiny.image_size)
        again = runner.features(views.render(picture, views.DEFAULT_VIEW, tiny.image_size)[np.newaxis])[0]
        assert np.array_equal(again, vector), "features are stored under the hash of another picture"
        compared += 1
    return compared


def train_while_changing(tf_files: Path, versions: Path, tiny: Backbone, seed: int) -> None:
    known = [path.read_bytes() for folder in (tf_files, versions) for path in folder.rglob("*.png")]
    with changing(tf_files / "data" / "red", versions, seed):
        result = train(tf_files, head=QUICK, backbone=tiny)
    assert {item.reason for item in result.skipped} <= {
        "missing",
        "truncated",
        "corrupt",
        "not-an-image",
        "empty",
        "changed",
    }
    assert result.used + len(result.skipped) >= 24 and check_stored(tf_files, known, tiny) >= 24
    # Once all is quiet again, the next run goes by what is there now, whatever the last one remembers.
    for number, path in enumerate(sorted((tf_files / "data" / "red").rglob("*.*"))):
        path.unlink() if path.suffix != ".png" else draw(path, COLOURS["red"], 900 + number)
    result = train(tf_files, head=QUICK, backbone=tiny)
    now = {hashlib.sha256(path.read_bytes()).hexdigest() for path in (tf_files / "data").rglob("*.png")}
    assert result.skipped == () and {row.sha256 for row in artifact.load(tf_files / "model").split()} == now
    assert check_stored(tf_files, [path.read_bytes() for path in (tf_files / "data").rglob("*.png")], tiny) == len(now)


def test_features_belong_to_the_hash_they_are_stored_under_while_files_change(
    tf_files: Path, versions: Path, tiny: Backbone
) -> None:
    train_while_changing(tf_files, versions, tiny, seed=0)


@pytest.mark.faults
@pytest.mark.parametrize("seed", range(1, 4 * ROUNDS + 1))
def test_features_belong_to_their_hash_while_many_files_change(
    tmp_path: Path, versions: Path, tiny: Backbone, seed: int
) -> None:
    draw_classes(tmp_path / "tf_files" / "data", count=120)
    train_while_changing(tmp_path / "tf_files", versions, tiny, seed)


def answers(labeller: Labeller, content: bytes) -> tuple[str, float] | None:
    try:
        return tuple(labeller.label_bytes(content).scores[0])
    except BadImage:
        return None


def test_copies_belong_to_the_answer_they_are_named_by_while_files_change(
    trained: Path, tmp_path: Path, versions: Path
) -> None:
    """Whatever bytes were read, the copy has those that were labelled, and nothing is left over."""
    shutil.copytree(trained / "data", tmp_path / "in")
    labeller, out = load(trained / "model", unknown=0), tmp_path / "out"
    deadline = time.monotonic() + 0.7
    with changing(tmp_path / "in", versions, seed=5):
        while time.monotonic() < deadline:
            classify(labeller, tmp_path / "in", out)
    rows = list(map(json.loads, (out / "manifest.jsonl").read_text().splitlines()))
    for row in filter(lambda row: row["copy"], rows):
        content = (out / row["copy"]).read_bytes()
        assert answers(labeller, content) == (row["label"], row["score"]), row
    assert not [path.name for path in out.iterdir() if path.name.startswith(".")]
    for copy in out.glob("*.png"):
        label, score = answers(labeller, copy.read_bytes()) or ("", 0.0)
        assert copy.name.startswith(f"{label}-{score:.5f}"), copy.name


class Removing(Silent):
    """Hears that the features are about to be computed, and takes away a folder that was listed."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def bar(self, what: str, total: int | None) -> contextlib.AbstractContextManager:
        if what == "bottlenecks":
            shutil.rmtree(self._folder)
        return super().bar(what, total)


def test_a_class_folder_that_goes_away_after_it_was_listed_is_named_picture_by_picture(
    tf_files: Path, tiny: Backbone
) -> None:
    result = train(tf_files, head=QUICK, backbone=tiny, progress=Removing(tf_files / "data" / "red"))
    assert result.labels == ("blue", "green") and result.used == 24 and len(result.skipped) == 12
    assert {(Path(item.path).parent.name, item.reason) for item in result.skipped} == {("red", "missing")}


COME_AND_GO = """
import os, random, sys
while True:
    folder = os.path.join(sys.argv[1], f"{random.randrange(30)}", "sub")
    os.rename(folder, folder + ".away")
    os.rename(folder + ".away", folder)
"""


@pytest.mark.faults
def test_a_walk_over_folders_that_come_and_go_ends_and_names_what_was_missing(tmp_path: Path) -> None:
    for number in range(30):
        draw(tmp_path / f"{number}" / "sub" / "x.png", COLOURS["red"], number)
    with subprocess.Popen([sys.executable, "-c", COME_AND_GO, tmp_path]) as process:
        try:
            deadline = time.monotonic() + 4 * ROUNDS
            while time.monotonic() < deadline:
                for found in find(tmp_path):
                    assert found.problem is None or found.problem.reason == "missing"
            assert process.poll() is None
        finally:
            process.kill()
