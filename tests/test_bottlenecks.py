"""Features are computed once, found again by content, and never wrong, whatever happens to the cache."""

import hashlib
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
import zlib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from retrain.backbones import Backbone
from retrain.bottlenecks import Bottlenecks, Space, Store, extract
from retrain.bottlenecks.store import Entry
from retrain.errors import EnvironmentProblem
from retrain.progress import Silent
from retrain.runner import Network, Runner, run_locally
from retrain.views import decode_for, render
from tests.conftest import TINY_FEATURES, TINY_SIZE
from tests.drawing import draw
from tests.privileges import where_permissions_count

SPACE = Space("tiny", "weights", "preprocessing", "engine")
RED = (200, 50, 40)
ELSEWHERE = """
import os, signal, sys
from pathlib import Path
from retrain.bottlenecks import Space, Store, extract
from retrain.runner import Network, Runner, run_locally

folder, cache, flatbuffer, die_after = sys.argv[1:]
def run(make_worker, tasks):
    for number, result in enumerate(run_locally(make_worker, tasks)):
        if number == int(die_after):
            os.kill(os.getpid(), signal.SIGKILL)
        yield result

with Store(Path(cache), Space("tiny", "weights", "preprocessing", "engine")) as store:
    paths = sorted(str(path) for path in Path(folder).iterdir())
    found = extract(paths, store, Network(Runner.engine, Path(flatbuffer).read_bytes()), "squash", 32, 24, run=run)
    assert len(found.rows) == len(paths), found.problems
"""


class Heard(Silent):
    def __init__(self) -> None:
        self.notes: list[str] = []

    def note(self, line: str) -> None:
        self.notes.append(line)


class Cache:
    """A cache file and what `extract` says of it."""

    def __init__(self, path: Path, flatbuffer: bytes) -> None:
        self.path, self.flatbuffer = path, flatbuffer
        self.notes: list[str] = []

    @property
    def network(self) -> Network:
        return Network(Runner.engine, self.flatbuffer)

    def extract(self, paths: Iterable[object], space: Space = SPACE, view: str = "squash", **options: object) -> Bottlenecks:
        heard = Heard()
        with Store(self.path, space, heard) as store:
            words = [str(path) for path in paths]
            found = extract(words, store, self.network, view, TINY_SIZE, TINY_FEATURES, progress=heard, **options)
        self.notes = heard.notes
        return found

    def sql(self, statement: str, *values: object) -> list[tuple]:
        connection = sqlite3.connect(self.path)
        try:
            with connection:
                return connection.execute(statement, values).fetchall()
        finally:
            connection.close()


@pytest.fixture
def cache(tmp_path: Path, tiny_flatbuffer: bytes) -> Cache:
    return Cache(tmp_path / "bottlenecks.sqlite", tiny_flatbuffer)


@pytest.fixture
def pictures(tmp_path: Path) -> list[Path]:
    return [draw(tmp_path / "pictures" / f"{number:02}.png", RED, number) for number in range(20)]


def computed_anew(flatbuffer: bytes, paths: Iterable[Path]) -> np.ndarray:
    runner = Runner(flatbuffer)
    return np.concatenate(
        [
            runner.features(render(decode_for(path.read_bytes(), TINY_SIZE), "squash", TINY_SIZE)[np.newaxis])
            for path in paths
        ]
    )


def test_features_are_computed_once_and_then_come_from_the_cache(cache: Cache, pictures: list[Path]) -> None:
    first, second = cache.extract(pictures), cache.extract(pictures)
    assert (first.computed, second.computed) == (20, 0)
    assert np.array_equal(first.features, computed_anew(cache.flatbuffer, pictures))
    assert np.array_equal(first.features, second.features) and second.features.dtype == np.float32
    assert first.hashes == second.hashes == tuple(hashlib.sha256(path.read_bytes()).hexdigest() for path in pictures)


def test_results_follow_the_order_of_the_input_with_bad_files_and_repetitions(cache: Cache, pictures: list[Path]) -> None:
    paths = [pictures[5], "/no/such/file", pictures[3], pictures[5], pictures[0]]
    for _ in range(2):
        found = cache.extract(paths)
        assert found.rows.tolist() == [0, 2, 3, 4] and found.rows.dtype == np.int64
        assert np.array_equal(found.features, computed_anew(cache.flatbuffer, [paths[row] for row in found.rows]))
        assert {row: problem.reason for row, problem in found.problems.items()} == {1: "missing"}
    assert cache.extract([]).features.shape == (0, TINY_FEATURES)


def test_a_renamed_file_is_found_by_its_content(cache: Cache, pictures: list[Path], tmp_path: Path) -> None:
    before = cache.extract(pictures)
    moved = [path.rename(tmp_path / f"moved-{path.name}") for path in pictures]
    after = cache.extract(moved)
    assert after.computed == 0 and np.array_equal(after.features, before.features)


def test_a_file_that_was_edited_under_its_old_name_is_computed_again(cache: Cache, pictures: list[Path]) -> None:
    before = cache.extract(pictures)
    draw(pictures[4], (40, 60, 200), 99)
    after = cache.extract(pictures)
    assert after.computed == 1 and not np.array_equal(after.features[4], before.features[4])
    assert np.array_equal(after.features, computed_anew(cache.flatbuffer, pictures))


def test_a_file_replaced_by_one_of_the_same_size_and_time_is_noticed(cache: Cache, tmp_path: Path) -> None:
    paths = [tmp_path / "red.bmp", tmp_path / "other.bmp"]
    for path in paths:
        Image.new("RGB", (32, 32), RED).save(path)
    time.sleep(2.1)  # only what has not changed for two seconds is known by its times
    before = cache.extract(paths)
    with Store(cache.path, SPACE) as store:
        assert set(store.known_files(map(str, paths))) == set(map(str, paths))
    assert cache.extract(paths, run=lambda *_: pytest.fail("files are read though nothing changed")).computed == 0
    old = paths[0].stat()
    Image.new("RGB", (32, 32), (40, 60, 200)).save(paths[0])
    os.utime(paths[0], ns=(old.st_atime_ns, old.st_mtime_ns))
    assert (paths[0].stat().st_size, paths[0].stat().st_mtime_ns) == (old.st_size, old.st_mtime_ns)
    after = cache.extract(paths)
    assert after.computed == 1 and not np.array_equal(after.features[0], before.features[0])


def test_two_files_with_the_same_bytes_have_one_row(cache: Cache, pictures: list[Path]) -> None:
    shutil.copy(pictures[0], pictures[1])
    found = cache.extract(pictures)
    assert len(found.rows) == 20 and np.array_equal(found.features[0], found.features[1])
    assert cache.sql("SELECT COUNT(*), COUNT(DISTINCT sha256) FROM feature") == [(19, 19)]


def test_bad_files_are_remembered_with_their_reason_and_not_decoded_again(cache: Cache, pictures: list[Path]) -> None:
    entries = []

    def run(make_worker: Callable, tasks: Iterable) -> Iterator:
        for result in run_locally(make_worker, tasks):
            entries.append(result.entries.get(0))
            yield result

    pictures[1].write_bytes(pictures[1].read_bytes()[:500])
    pictures[2].write_bytes(b"%PDF-1.4")
    pictures[3].write_bytes(b"")
    for _ in range(2):
        entries.clear()
        found = cache.extract(pictures, run=run)
        assert {row: str(problem) for row, problem in found.problems.items()} == {
            1: "truncated",
            2: "unsupported-format: PDF",
            3: "empty",
        }
        assert found.rows.tolist() == [0, *range(4, 20)]
    assert not any(entries)


def test_a_file_that_was_missing_is_used_once_it_is_there(cache: Cache, pictures: list[Path], tmp_path: Path) -> None:
    assert cache.extract([tmp_path / "late.png"]).problems[0].reason == "missing"
    shutil.copy(pictures[0], tmp_path / "late.png")
    assert cache.extract([tmp_path / "late.png"]).rows.tolist() == [0]


def test_remarks_of_the_decoder_are_kept_too(cache: Cache, pictures: list[Path], tmp_path: Path) -> None:
    frames = [Image.new("RGB", (32, 32), colour) for colour in ("red", "blue")]
    frames[0].save(tmp_path / "moving.gif", save_all=True, append_images=frames[1:])
    for _ in range(2):
        assert cache.extract([*pictures, tmp_path / "moving.gif"]).notes == {20: ("first-frame",)}


def test_features_that_are_not_finite_make_a_bad_file(cache: Cache, pictures: list[Path], tiny: Backbone) -> None:
    weight = np.load(tiny.weights())[0, 0, 0, 0] / np.float32(128)  # the converter fuses the scaling of pixels
    assert cache.flatbuffer.count(weight.tobytes()) == 1
    cache.flatbuffer = cache.flatbuffer.replace(weight.tobytes(), np.float32(np.inf).tobytes())
    for _ in range(2):
        found = cache.extract(pictures[:3])
        assert len(found.rows) == 0 and {problem.reason for problem in found.problems.values()} == {"bad-features"}


@pytest.mark.parametrize("field", Space._fields)
def test_another_space_has_no_hits_and_leaves_the_old_one_alone(cache: Cache, pictures: list[Path], field: str) -> None:
    pictures[0].write_bytes(b"no picture")
    cache.extract(pictures)
    assert cache.extract(pictures, SPACE._replace(**{field: "another"})).computed == 19
    assert cache.extract(pictures).computed == 0


def test_spaces_do_not_mix(cache: Cache, pictures: list[Path]) -> None:
    mirrored = SPACE._replace(preprocessing="mirrored")
    first = [cache.extract(pictures), cache.extract(pictures, mirrored, "mirror")]
    again = [cache.extract(pictures), cache.extract(pictures, mirrored, "mirror")]
    assert not np.array_equal(first[0].features, first[1].features)
    for before, after in zip(first, again, strict=True):
        assert after.computed == 0 and np.array_equal(before.features, after.features)


# --- damage


def rewritten(statement: str) -> Callable[[Cache], None]:
    return lambda cache: cache.sql(statement) and None


UNUSABLE: dict[str, Callable[[Cache], object]] = {
    "garbage": lambda cache: cache.path.write_bytes(b"no database at all " * 999),
    "truncated": lambda cache: os.truncate(cache.path, cache.path.stat().st_size // 2),
    "zeroed": lambda cache: cache.path.write_bytes(bytes(cache.path.stat().st_size)),
    "foreign": rewritten("PRAGMA application_id = 77"),
    "newer": rewritten("PRAGMA user_version = 99"),
}


@pytest.mark.parametrize("name", UNUSABLE)
def test_a_file_that_is_no_cache_of_ours_is_put_aside_and_filled_again(
    cache: Cache, pictures: list[Path], name: str
) -> None:
    before = cache.extract(pictures)
    UNUSABLE[name](cache)
    damaged = cache.path.read_bytes()
    after = cache.extract(pictures)
    assert after.computed == 20 and np.array_equal(after.features, before.features)
    (aside,) = cache.path.parent.glob("bottlenecks.sqlite.*")
    assert aside.read_bytes() == damaged
    assert len(cache.notes) == 1 and str(cache.path) in cache.notes[0] and aside.name in cache.notes[0]
    assert cache.extract(pictures).computed == 0 and cache.notes == []


def test_files_damaged_within_the_same_second_are_all_put_aside(cache: Cache, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("time.strftime", lambda _: "20250102-030405")
    damaged = [f"no database, number {number}".encode() * 99 for number in range(3)]
    for data in damaged:
        cache.path.write_bytes(data)
        cache.extract([])
    aside = {path.name: path.read_bytes() for path in cache.path.parent.glob("bottlenecks.sqlite.*")}
    first = "bottlenecks.sqlite.corrupt-20250102-030405"
    assert aside == dict(zip([first, f"{first}-2", f"{first}-3"], damaged, strict=True))


def test_of_two_that_find_the_same_damage_only_one_puts_the_file_aside(cache: Cache, pictures: list[Path]) -> None:
    cache.extract(pictures[:3])
    heard = [Heard(), Heard()]
    with Store(cache.path, SPACE, heard[0]) as first, Store(cache.path, SPACE, heard[1]) as second:
        first.renew()
        fresh = cache.path.stat().st_ino
        second.renew()
        assert cache.path.stat().st_ino == fresh
        assert len(list(cache.path.parent.glob("bottlenecks.sqlite.corrupt-*"))) == 1
    assert [len(each.notes) for each in heard] == [1, 0]
    assert [cache.extract(pictures).computed, cache.extract(pictures).computed] == [20, 0]


@pytest.mark.parametrize(
    "name", ["space", "sqlite_autoindex_space_1", "feature", "sqlite_autoindex_feature_1", "bad", "file"]
)
def test_a_cache_with_a_damaged_page_gives_right_features_and_one_note(
    cache: Cache, pictures: list[Path], name: str
) -> None:
    before = cache.extract(pictures)
    ((page,),) = cache.sql("SELECT rootpage FROM sqlite_master WHERE name = ?", name)
    ((size,),) = cache.sql("PRAGMA page_size")
    with cache.path.open("r+b") as file:
        file.seek((page - 1) * size)
        file.write(b"\xa5" * size)
    after = cache.extract(pictures)
    assert len(after.rows) == 20 and np.array_equal(after.features, before.features)
    assert len(cache.notes) == 1
    assert cache.extract(pictures).computed == 0


def flip_vector(blob: bytes) -> bytes:
    return blob[:9] + bytes([blob[9] ^ 1]) + blob[10:]


@pytest.mark.parametrize(
    "damage",
    [
        lambda cache, key, blob: cache.sql("UPDATE feature SET vector = ? WHERE sha256 = ?", flip_vector(blob), key),
        lambda cache, key, blob: cache.sql(
            "UPDATE feature SET vector = ?, crc32 = ? WHERE sha256 = ?", blob[:-4], zlib.crc32(blob[:-4]), key
        ),
        lambda cache, key, blob: cache.sql("UPDATE feature SET crc32 = crc32 + 1 WHERE sha256 = ?", key),
        lambda cache, key, blob: cache.sql("UPDATE feature SET notes = CAST(x'c3' AS TEXT) WHERE sha256 = ?", key),
    ],
    ids=["flipped", "shortened", "checksum", "notes"],
)
def test_a_row_that_was_damaged_is_computed_again(
    cache: Cache, pictures: list[Path], damage: Callable[[Cache, bytes, bytes], object]
) -> None:
    before = cache.extract(pictures)
    ((key, blob),) = cache.sql("SELECT sha256, vector FROM feature WHERE id = 7")
    damage(cache, key, blob)
    after = cache.extract(pictures)
    assert after.computed == 1 and np.array_equal(after.features, before.features)
    assert len(cache.notes) == 1 and "1 damaged row" in cache.notes[0]
    assert cache.extract(pictures).computed == 0 and cache.notes == []


def test_a_damaged_index_never_gives_one_picture_the_features_of_another(cache: Cache, pictures: list[Path]) -> None:
    before = cache.extract(pictures)
    raw = cache.path.read_bytes()
    ((key,),) = cache.sql("SELECT sha256 FROM feature WHERE id = 7")
    entry = key + bytes([7])  # an entry of the index: what is looked up, and in which row the rest is
    assert raw.count(entry) == 1
    cache.path.write_bytes(raw.replace(entry, key + bytes([8])))
    after = cache.extract(pictures)
    assert len(after.rows) == 20 and np.array_equal(after.features, before.features)


# --- several processes, and none at the end


def elsewhere(folder: Path, cache: Cache, die_after: int = -1) -> subprocess.Popen:
    flatbuffer = cache.path.with_name("tiny.tflite")
    flatbuffer.write_bytes(cache.flatbuffer)
    line = [sys.executable, "-c", ELSEWHERE, str(folder), str(cache.path), str(flatbuffer), str(die_after)]
    return subprocess.Popen(line, stderr=subprocess.PIPE, text=True)


def test_two_processes_may_fill_the_same_cache_at_once(cache: Cache, pictures: list[Path]) -> None:
    both = [elsewhere(pictures[0].parent, cache) for _ in range(2)]
    assert [(process.communicate(timeout=100)[1], process.returncode) for process in both] == [("", 0)] * 2
    assert cache.sql("SELECT COUNT(*), COUNT(DISTINCT sha256) FROM feature") == [(20, 20)]
    found = cache.extract(pictures)
    assert found.computed == 0 and np.array_equal(found.features, computed_anew(cache.flatbuffer, pictures))


def test_who_finds_the_cache_held_by_another_waits(cache: Cache, pictures: list[Path]) -> None:
    cache.extract(pictures[:3])
    connection = sqlite3.connect(cache.path, isolation_level=None)
    connection.execute("BEGIN EXCLUSIVE")
    waiting = elsewhere(pictures[0].parent, cache)
    time.sleep(2)  # long enough for the other to come to the lock
    connection.execute("COMMIT")
    connection.close()
    assert (waiting.communicate(timeout=100)[1], waiting.returncode) == ("", 0)


READER = """
import sqlite3, sys
connection = sqlite3.connect(sys.argv[1], isolation_level=None)
connection.execute("BEGIN")
print(*connection.execute("SELECT COUNT(*) FROM feature").fetchone(), flush=True)
sys.stdin.readline()
"""


def test_a_commit_that_a_reader_hinders_can_be_tried_again(
    cache: Cache, pictures: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What could not be committed is undone, else the next transaction could not begin."""
    cache.extract(pictures[:3])
    monkeypatch.setenv("RETRAIN_LOCK_SECONDS", "0.2")
    new, line = Entry(b"new", np.ones(TINY_FEATURES, "<f4"), None), [sys.executable, "-c", READER, str(cache.path)]
    with Store(cache.path, SPACE) as store, subprocess.Popen(line, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as reader:
        assert reader.stdout is not None and reader.stdout.readline() == b"3\n"
        with pytest.raises(EnvironmentProblem, match="is held by another run"):
            store.add([new], [])
        reader.communicate(b"\n", timeout=60)
        store.add([new], [])
        assert [entry.sha256 for entry in store.read([b"new"], TINY_FEATURES)] == [b"new"]
    assert cache.sql("SELECT COUNT(*) FROM feature") == [(4,)]


def test_a_killed_process_loses_no_more_than_its_last_few_hundred_files(cache: Cache, tmp_path: Path) -> None:
    paths = [draw(tmp_path / "many" / f"{number:03}.bmp", RED, number, (8, 8)) for number in range(600)]
    process = elsewhere(tmp_path / "many", cache, die_after=590)
    process.communicate(timeout=100)
    assert process.returncode == -signal.SIGKILL
    found = cache.extract(paths)
    assert found.computed == 600 - 512 and cache.notes == []
    assert np.array_equal(found.features[::50], computed_anew(cache.flatbuffer, paths[::50]))


def test_a_cache_that_cannot_be_opened_is_the_environments_fault(cache: Cache, tmp_path: Path) -> None:
    (tmp_path / "folder.sqlite").mkdir()
    for path in (tmp_path / "folder.sqlite", tmp_path / "no" / "such" / "folder.sqlite"):
        with pytest.raises(EnvironmentProblem, match=r"folder\.sqlite cannot be used"):
            Store(path, SPACE)


@where_permissions_count
def test_a_folder_that_cannot_be_written_is_the_environments_fault(cache: Cache, tmp_path: Path) -> None:
    folder = tmp_path / "closed"
    folder.mkdir(mode=0o500)
    with pytest.raises(EnvironmentProblem, match="closed"):
        Store(folder / "bottlenecks.sqlite", SPACE)


_SHORT_OF_MEMORY = """
import resource, sys
from pathlib import Path
from retrain.bottlenecks import Space, Store, extract
from retrain.runner import Network, Runner
network, cache, small, large = Network(Runner.engine, Path(sys.argv[1]).read_bytes()), Path(sys.argv[2]), *sys.argv[3:]
with Store(cache, Space(*sys.stdin.read().split())) as store:
    extract([small], store, network, "squash", 32, 24)  # loads what is needed
    size = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (size + 100 * 2**20, resource.RLIM_INFINITY))
    print(extract([large], store, network, "squash", 32, 24).problems)
"""


def test_that_memory_was_short_is_not_remembered_of_a_picture(cache: Cache, pictures: list[Path], tmp_path: Path) -> None:
    Image.new("RGB", (7000, 7000), RED).save(large := tmp_path / "large.png")
    (tmp_path / "network").write_bytes(cache.flatbuffer)
    line = [sys.executable, "-c", _SHORT_OF_MEMORY, *map(str, (tmp_path / "network", cache.path, pictures[0], large))]
    ran = subprocess.run(line, input=" ".join(SPACE), capture_output=True, text=True, timeout=120, check=False)
    assert "too-large" in ran.stdout and "out of memory" in ran.stdout, ran.stderr
    assert cache.sql("SELECT * FROM bad") == []
    found = cache.extract([pictures[0], large])
    assert found.computed == 1 and found.problems == {}
