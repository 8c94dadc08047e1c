"""The feature cache between processes, and after damage: right features always, or one line that says why not.

27  four processes at once                test_four_processes_that_fill_one_cache_agree_with_a_lone_run
    a stopped holder                      test_who_waits_for_a_stopped_holder_ends_with_6_and_names_it
    of the other locks
        test_storage.py (a lock file, by process number), test_classify_kill.py (an output folder)
28  cut, flipped, zeroed, overwritten     test_whatever_befalls_the_cache_file_the_features_are_right
    replaced by text, foreign, newer
        test_bottlenecks.py: test_a_file_that_is_no_cache_of_ours_is_put_aside_and_filled_again
    what fuzzing found                    test_damage_that_was_found_by_chance_does_no_harm
    only readable                         test_a_cache_that_can_only_be_read_is_used_and_left_as_it_is
    rows of another space                 test_a_row_that_damage_put_into_another_space_is_not_used
29  another backbone, weights, ...        test_bottlenecks.py: test_another_space_has_no_hits_and_leaves_the_old_one_alone
    renamed pictures                      test_bottlenecks.py: test_a_renamed_file_is_found_by_its_content
    both, as the run record counts them
        test_the_record_counts_no_hit_for_another_network_and_only_hits_for_renamed_pictures
"""

import contextlib
import os
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from retrain.backbones import Backbone
from retrain.bottlenecks import Bottlenecks, Space, Store, extract
from retrain.pipeline import train
from retrain.progress import Silent
from retrain.runner import Network, Runner
from retrain.settings import HeadSettings
from tests.conftest import TINY_FEATURES, TINY_SIZE
from tests.drawing import COLOURS, draw
from tests.faults.disturbed import ROUNDS, make_room, rows, vectors
from tests.faults.promises import in_order
from tests.privileges import where_permissions_count

SPACES = {"squash": Space("tiny", "weights", "one", "engine"), "mirror": Space("tiny", "weights", "other", "engine")}


class Heard(Silent):
    def __init__(self) -> None:
        self.notes: list[str] = []

    def note(self, line: str) -> None:
        self.notes.append(line)


# --- 27


def line(room: Path, **environment: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "tests.faults.whole_line", str(room)]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.Popen(command, text=True, env={**os.environ, **environment}, **pipes)


def finished(process: subprocess.Popen[str]) -> subprocess.CompletedProcess[str]:
    out, errors = process.communicate(timeout=60)
    return subprocess.CompletedProcess([], process.returncode, out, errors)


def test_four_processes_that_fill_one_cache_agree_with_a_lone_run(tmp_path: Path, tiny_flatbuffer: bytes) -> None:
    """Number 27; each has a room of its own but for the cache."""
    rooms = [make_room(tmp_path / str(number), tiny_flatbuffer, 40) for number in range(5)]
    for room in rooms[1:4]:
        (room / "bottlenecks.sqlite").symlink_to(rooms[4] / "bottlenecks.sqlite")
    for done in [finished(process) for process in [line(room) for room in rooms]]:
        in_order(done, 0)
    assert rows(rooms[4] / "bottlenecks.sqlite") == 40
    assert vectors(rooms[4] / "bottlenecks.sqlite") == vectors(rooms[0] / "bottlenecks.sqlite")
    manifests = {(room / "model" / "manifest.json").read_bytes() for room in rooms}
    assert len(manifests) == 1


HOLDER = """
import os, signal, sqlite3, sys
connection = sqlite3.connect(sys.argv[1], isolation_level=None)
connection.execute("BEGIN IMMEDIATE")
print("held", flush=True)
sys.stdin.readline()
connection.execute("COMMIT")
"""


def test_who_waits_for_a_stopped_holder_ends_with_6_and_names_it(tmp_path: Path, tiny_flatbuffer: bytes) -> None:
    """Number 27."""
    room = make_room(tmp_path / "room", tiny_flatbuffer)
    in_order(finished(line(room)), 0)
    cache = room / "bottlenecks.sqlite"
    command = [sys.executable, "-c", HOLDER, str(cache)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None and holder.stdin is not None
        assert holder.stdout.readline() == "held\n"
        holder.send_signal(signal.SIGSTOP)
        began = time.monotonic()
        refused = finished(line(room, RETRAIN_LOCK_SECONDS="0.5"))
        assert 0.5 < time.monotonic() - began < 30
        in_order(refused, 6)
        (said,) = refused.stderr.splitlines()
        assert said.startswith(f"retrain: the feature cache {cache} is held by another run")
        assert f"(process {holder.pid})" in said or not Path("/proc/locks").exists()
        waiting = line(room)
        time.sleep(1)
        assert waiting.poll() is None
        holder.send_signal(signal.SIGCONT)
        holder.stdin.write("\n")
        holder.stdin.flush()
        in_order(finished(waiting), 0)
    assert holder.returncode == 0 and rows(cache) == 5


@pytest.mark.parametrize("said", ["soon", "", "-1", "nan", "1e9"])
def test_a_waiting_time_that_is_no_number_of_seconds_is_a_mistake(tmp_path: Path, tiny_flatbuffer: bytes, said: str) -> None:
    """Number 27."""
    done = finished(line(make_room(tmp_path / "room", tiny_flatbuffer, 2), RETRAIN_LOCK_SECONDS=said))
    in_order(done, 2)
    assert done.stderr == f"retrain: RETRAIN_LOCK_SECONDS is '{said}'; give a number of seconds\n"


# --- 28


class Damaged:
    """A cache with usable and unusable pictures in two spaces, and what must come out of it whatever befalls the file."""

    def __init__(self, folder: Path, flatbuffer: bytes) -> None:
        self.network, self.path = Network(Runner.engine, flatbuffer), folder / "cache" / "bottlenecks.sqlite"
        self.path.parent.mkdir(parents=True)
        self.pictures = [draw(folder / "in" / f"{number:02}.png", COLOURS["red"], number, (24, 20)) for number in range(12)]
        (folder / "in" / "cut.png").write_bytes(self.pictures[0].read_bytes()[:300])
        (folder / "in" / "page.png").write_bytes(b"%PDF-1.4")
        self.pictures += [folder / "in" / "cut.png", folder / "in" / "page.png"]
        time.sleep(2.1)  # what has changed so recently is not remembered by its times
        self.right = {view: self.features(view)[0] for view in SPACES}
        self.whole = self.path.read_bytes()

    def features(self, view: str) -> tuple[Bottlenecks, list[str]]:
        heard, paths = Heard(), [str(path) for path in self.pictures]
        with Store(self.path, SPACES[view], heard) as store:
            found = extract(paths, store, self.network, view, TINY_SIZE, TINY_FEATURES, progress=heard)
        return found, heard.notes

    def check(self, data: bytes) -> int:
        """Return how many features were computed again."""
        shutil.rmtree(self.path.parent)
        self.path.parent.mkdir()
        self.path.write_bytes(data)
        computed = 0
        for view, right in self.right.items():
            found, notes = self.features(view)
            assert np.array_equal(found.features, right.features) and np.array_equal(found.rows, right.rows)
            assert found.hashes == right.hashes
            assert [problem.reason for problem in found.problems.values()] == ["truncated", "unsupported-format"]
            assert len(notes) <= 1 and all("feature cache" in note for note in notes)
            computed += found.computed
        again, notes = self.features(view)
        assert again.computed == 0 and notes == []
        return computed


@pytest.fixture(scope="module")
def damaged(tmp_path_factory: pytest.TempPathFactory, tiny_flatbuffer: bytes) -> Damaged:
    return Damaged(tmp_path_factory.mktemp("damaged"), tiny_flatbuffer)


def cut(data: bytes, dice: random.Random) -> bytes:
    return data[: dice.randrange(len(data))]


def flipped(data: bytes, dice: random.Random) -> bytes:
    """Change one bit of a byte that is not zero: most of the file is empty, and nothing reads it."""
    changed = bytearray(data)
    changed[dice.choice([at for at, byte in enumerate(data) if byte])] ^= 1 << dice.randrange(8)
    return bytes(changed)


def header_flipped(data: bytes, dice: random.Random) -> bytes:
    """Change one bit of what SQLite goes by: its header, and that of the first page."""
    changed = bytearray(data)
    changed[dice.randrange(120)] ^= 1 << dice.randrange(8)
    return bytes(changed)


def schema_flipped(data: bytes, dice: random.Random) -> bytes:
    """Change one bit of the names of tables and columns."""
    changed, first = bytearray(data), data.index(b"CREATE")
    changed[dice.randrange(first, data.rindex(b"CREATE"))] ^= 1 << dice.randrange(8)
    return bytes(changed)


def zeroed(data: bytes, dice: random.Random) -> bytes:
    at = 4096 * dice.randrange(len(data) // 4096)
    return data[:at] + bytes(4096) + data[at + 4096 :]


def overwritten(data: bytes, dice: random.Random) -> bytes:
    at = dice.choice([at for at, byte in enumerate(data[:-16]) if byte])
    return data[:at] + dice.randbytes(16) + data[at + 16 :]


# How often in the quick test, and in the long one.
DAMAGE: dict[Callable[[bytes, random.Random], bytes], tuple[int, int]] = {
    cut: (6, 60), flipped: (8, 200), header_flipped: (8, 200), schema_flipped: (6, 100), zeroed: (6, 60),
    overwritten: (6, 60),
}  # fmt: skip


@pytest.mark.parametrize("damage", DAMAGE, ids=lambda damage: damage.__name__)
def test_whatever_befalls_the_cache_file_the_features_are_right(damaged: Damaged, damage: Callable) -> None:
    """Number 28, a few of each."""
    dice = random.Random(28)
    assert sum(damaged.check(damage(damaged.whole, dice)) for _ in range(DAMAGE[damage][0])) > 0


@pytest.mark.faults
@pytest.mark.parametrize("damage", DAMAGE, ids=lambda damage: damage.__name__)
def test_whatever_befalls_the_cache_file_by_the_hundred_the_features_are_right(damaged: Damaged, damage: Callable) -> None:
    """Number 28."""
    dice = random.Random(2800 + ROUNDS)
    assert sum(damaged.check(damage(damaged.whole, dice)) for _ in range(DAMAGE[damage][1] * ROUNDS)) > 0


FOUND: dict[str, Callable[[bytes], bytes]] = {  # by chance, and worse than a note once
    "a header that forbids to write": lambda data: data[:18] + b"M" + data[19:],
    "a header with a format of the future": lambda data: data[:47] + b"\x09" + data[48:],
    "a column by another name": lambda data: data.replace(b"reason TEXT", b"rEasox TEXT"),
    "a table's definition that is no UTF-8": lambda data: data.replace(b"CREATE TABLE file", b"CREATE T\xc1BLE file"),
    "a reason that there is not": lambda data: data.replace(b"truncated", b"truncatef"),
}


@pytest.mark.parametrize("name", FOUND)
def test_damage_that_was_found_by_chance_does_no_harm(damaged: Damaged, name: str) -> None:
    """Number 28."""
    data = FOUND[name](damaged.whole)
    assert data != damaged.whole
    damaged.check(data)


def test_a_row_that_damage_put_into_another_space_is_not_used(damaged: Damaged) -> None:
    """Number 28; a bit in the number of a space is enough for that."""
    damaged.check(damaged.whole)
    with contextlib.closing(sqlite3.connect(damaged.path)) as connection, connection:
        for step in ("space + 10", "13 - space"):  # in two steps, for no picture may have two rows in a space
            connection.execute(f"UPDATE feature SET space = {step}")
    assert damaged.check(damaged.path.read_bytes()) == 24


@where_permissions_count
@pytest.mark.parametrize("new", [0, 3])
@pytest.mark.parametrize(("of_file", "of_folder"), [(0o444, 0o755), (0o444, 0o555), (0o644, 0o555)])
def test_a_cache_that_can_only_be_read_is_used_and_left_as_it_is(
    tmp_path: Path, tiny_flatbuffer: bytes, new: int, of_file: int, of_folder: int
) -> None:
    """Number 28: what it lacks is computed and not kept; so it is where only its folder forbids to write."""
    cache = Damaged(tmp_path, tiny_flatbuffer)
    cache.path.chmod(of_file), cache.path.parent.chmod(of_folder)
    cache.pictures += [draw(tmp_path / "new" / f"{number}.png", COLOURS["blue"], number) for number in range(new)]
    for _ in range(2):
        found, notes = cache.features("squash")
        assert found.computed == new and len(found.rows) == 12 + new
        assert np.array_equal(found.features[:12], cache.right["squash"].features)
        (note,) = notes
        assert note.endswith("can only be read: what it lacks is computed and not kept") and str(cache.path) in note
    assert cache.path.read_bytes() == cache.whole and os.listdir(cache.path.parent) == [cache.path.name]


# --- 29


def test_the_record_counts_no_hit_for_another_network_and_only_hits_for_renamed_pictures(
    tf_files: Path, tiny: Backbone, tmp_path: Path
) -> None:
    """Number 29, for a backbone under another name, with other weights, and for another size of pictures."""
    quick = HeadSettings(steps=20)
    other = tmp_path / "other.npy"
    np.save(other, -np.load(tiny.weights()))
    networks = (tiny, replace(tiny, name="tiny-two"), replace(tiny, weights=lambda: other), replace(tiny, image_size=64))
    for network in networks:
        counts = train(tf_files, head=quick, backbone=network).record["counts"]
        assert (counts["computed"], counts["cached"]) == (36, 0), network
    for path in list((tf_files / "data").rglob("*.png")):
        path.rename(path.with_name(f"renamed {path.name}"))
    for network in networks:
        counts = train(tf_files, head=quick, backbone=network).record["counts"]
        assert (counts["computed"], counts["cached"]) == (0, 36), network
