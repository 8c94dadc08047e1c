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
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from retrain.backbones import Backbone
from retrain.bottlenecks import Bottlenecks, Space, Store, extract, extract_views, stacked
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

    def views(self, paths: Iterable[object], names: Sequence[str], **options: object) -> list[Bottlenecks]:
        """What `extract_views` says, each view in the space of its name."""
        heard = Heard()
        with ExitStack() as opened:
            spaces = [SPACE._replace(preprocessing=name) for name in names]
            stores = [opened.enter_context(Store(self.path, space, heard)) for space in spaces]
            words = [str(path) for path in paths]
            options = {"progress": heard, **options}
            found = extract_views(words, stores, self.network, names, TINY_SIZE, TINY_FEATURES, **options)
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


def computed_anew(flatbuffer: bytes, paths: Iterable[Path], view: str = "squash") -> np.ndarray:
    runner = Runner(flatbuffer)
    return np.concatenate(
        [runner.features(render(decode_for(path.read_bytes(), TINY_SIZE), view, TINY_SIZE)[np.newaxis]) for path in paths]
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


# --- several views


SEVERAL = ("squash(flip=1)", "squash(width=0.8,turn=5)", "squash")


def computed(found: Iterable[Bottlenecks]) -> list[int]:
    return [of_view.computed for of_view in found]


@pytest.fixture
def rendered(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What is read, decoded and rendered: 'read', 'decode', and names of views."""
    seen: list[str] = []

    def noted(module: str, name: str, say: Callable) -> None:
        function = getattr(sys.modules[module], name)
        monkeypatch.setattr(sys.modules[module], name, lambda *given: (seen.append(say(*given)), function(*given))[1])

    noted("retrain.bottlenecks.extract", "read_bytes", lambda *_: "read")
    noted("retrain.views", "decode_for", lambda *_: "decode")
    noted("retrain.views", "render", lambda _picture, view, _size: view)
    return seen


@pytest.fixture
def long_unchanged(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let files count as unchanged for long, so that they are known by their times."""
    monkeypatch.setattr("retrain.bottlenecks.store._FRESH_NS", 0)


def test_of_several_views_each_has_the_features_that_it_has_alone(cache: Cache, pictures: list[Path]) -> None:
    found = cache.views(pictures, SEVERAL)
    assert computed(found) == [20, 20, 20]
    for name, of_view in zip(SEVERAL, found, strict=True):
        assert np.array_equal(of_view.features, computed_anew(cache.flatbuffer, pictures, name))
        assert of_view.hashes == found[0].hashes and of_view.rows.tolist() == list(range(20))
        again = cache.extract(pictures, SPACE._replace(preprocessing=name), name)
        assert again.computed == 0 and np.array_equal(again.features, of_view.features)
    assert len({of_view.features.tobytes() for of_view in found}) == 3


def test_a_file_is_read_and_decoded_once_for_all_of_its_views(
    cache: Cache, pictures: list[Path], rendered: list[str]
) -> None:
    cache.views(pictures, SEVERAL)
    assert Counter(rendered) == {"read": 20, "decode": 20, **dict.fromkeys(SEVERAL, 20)}


@pytest.mark.parametrize("unchanged", [False, True])
def test_views_are_computed_once_and_of_more_of_them_only_the_new_ones(
    cache: Cache, pictures: list[Path], rendered: list[str], unchanged: bool, request: pytest.FixtureRequest
) -> None:
    if unchanged:
        request.getfixturevalue("long_unchanged")
    first = cache.views(pictures, SEVERAL[:2])
    rendered.clear()
    second = cache.views(pictures, SEVERAL[:2])
    assert computed(second) == [0, 0] and rendered == ([] if unchanged else ["read"] * 20)
    rendered.clear()
    third = cache.views(pictures, SEVERAL)
    assert computed(third) == [0, 0, 20]
    assert Counter(rendered) == {"read": 20, "decode": 20, SEVERAL[2]: 20}
    for before, after in zip(first, third, strict=False):
        assert np.array_equal(before.features, after.features)


def test_of_new_files_all_views_are_computed_and_of_old_ones_those_that_are_lacking(
    cache: Cache, pictures: list[Path], rendered: list[str]
) -> None:
    cache.views(pictures[:15], SEVERAL[:1])
    cache.views(pictures[5:10], SEVERAL[1:2])
    rendered.clear()
    found = cache.views(pictures, SEVERAL[:2])
    assert computed(found) == [5, 15]
    assert Counter(rendered) == {"read": 20, "decode": 15, SEVERAL[0]: 5, SEVERAL[1]: 15}
    for name, of_view in zip(SEVERAL, found, strict=False):
        assert np.array_equal(of_view.features, computed_anew(cache.flatbuffer, pictures, name))


def test_a_bad_file_is_bad_in_every_view_and_is_not_decoded_again(
    cache: Cache, pictures: list[Path], rendered: list[str]
) -> None:
    pictures[4].write_bytes(b"%PDF-1.4")
    (pictures[5]).unlink()
    for _ in range(2):
        rendered.clear()
        for of_view in cache.views(pictures, SEVERAL):
            reasons = {row: problem.reason for row, problem in of_view.problems.items()}
            assert reasons == {4: "unsupported-format", 5: "missing"}
            assert of_view.rows.tolist() == [0, 1, 2, 3, *range(6, 20)]
    assert rendered.count("decode") == 0 and rendered.count("read") == 20


@pytest.mark.usefixtures("long_unchanged")
@pytest.mark.parametrize("survives", [0, 1, 2])
def test_a_run_killed_while_views_are_written_lacks_no_more_than_those_and_they_are_computed(
    cache: Cache, pictures: list[Path], survives: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    add, added = Store.add, []

    def killed(store: Store, *given: object) -> None:
        if len(added) == survives:
            raise KeyboardInterrupt
        added.append(add(store, *given))

    with monkeypatch.context() as context:
        context.setattr(Store, "add", killed)
        with pytest.raises(KeyboardInterrupt):
            cache.views(pictures, SEVERAL)
    found = cache.views(pictures, SEVERAL)
    assert computed(found) == [0] * survives + [20] * (3 - survives) and cache.notes == []
    for name, of_view in zip(SEVERAL, found, strict=True):
        assert np.array_equal(of_view.features, computed_anew(cache.flatbuffer, pictures, name))


@pytest.mark.parametrize("unchanged", [False, True])
def test_a_damaged_row_of_one_view_is_computed_again_and_no_other(
    cache: Cache, pictures: list[Path], rendered: list[str], unchanged: bool, request: pytest.FixtureRequest
) -> None:
    if unchanged:
        request.getfixturevalue("long_unchanged")
    before = cache.views(pictures, SEVERAL)
    cache.sql("UPDATE feature SET crc32 = crc32 + 1 WHERE id IN (SELECT id FROM feature WHERE space = 2 LIMIT 3)")
    rendered.clear()
    after = cache.views(pictures, SEVERAL)
    assert computed(after) == [0, 3, 0] and [name for name in rendered if name in SEVERAL] == [SEVERAL[1]] * 3
    assert len(cache.notes) == 1 and cache.notes[0].startswith("3 damaged rows of the feature cache")
    for one, other in zip(before, after, strict=True):
        assert np.array_equal(one.features, other.features)
    assert computed(cache.views(pictures, SEVERAL)) == [0, 0, 0] and cache.notes == []


@pytest.mark.parametrize("name", UNUSABLE)
def test_a_cache_that_is_none_is_put_aside_once_for_all_views(cache: Cache, pictures: list[Path], name: str) -> None:
    before = cache.views(pictures, SEVERAL)
    UNUSABLE[name](cache)
    after = cache.views(pictures, SEVERAL)
    assert computed(after) == [20, 20, 20] and len(cache.notes) == 1
    assert len(list(cache.path.parent.glob("bottlenecks.sqlite.*"))) == 1
    assert all(np.array_equal(one.features, other.features) for one, other in zip(before, after, strict=True))
    assert computed(cache.views(pictures, SEVERAL)) == [0, 0, 0]


@pytest.mark.parametrize("name", ["feature", "sqlite_autoindex_feature_1", "bad", "file"])
def test_a_damaged_page_that_is_found_when_all_views_are_open_costs_one_note(
    cache: Cache, pictures: list[Path], name: str
) -> None:
    before = cache.views(pictures, SEVERAL)
    ((page,),) = cache.sql("SELECT rootpage FROM sqlite_master WHERE name = ?", name)
    ((size,),) = cache.sql("PRAGMA page_size")
    with cache.path.open("r+b") as file:
        file.seek((page - 1) * size)
        file.write(b"\xa5" * size)
    after = cache.views(pictures, SEVERAL)
    assert all(np.array_equal(one.features, other.features) for one, other in zip(before, after, strict=True))
    assert len(cache.notes) == 1 and computed(cache.views(pictures, SEVERAL)) == [0, 0, 0]


def no_number_of_dark_ones(runner: Runner) -> Runner:
    """Let a network give what is no number for pictures that are nearly black."""
    features = runner.features
    runner.features = lambda pixels: features(pixels) * (1 if pixels.mean() > 40 else np.float32(np.nan))  # type: ignore
    return runner


def test_a_view_with_features_that_are_no_numbers_is_bad_alone_and_the_picture_stands_in_for_it(
    cache: Cache, pictures: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    names = ("squash", "squash(brightness=0.2)", "squash(flip=1)")
    module = sys.modules["retrain.bottlenecks.extract"]  # by its name a function is found
    monkeypatch.setattr(module, "open_network", lambda network: no_number_of_dark_ones(Runner(network.data)))
    for again in (False, True):
        plain, dark, mirrored = cache.views(pictures, names)
        assert len(plain.rows) == len(mirrored.rows) == 20 and len(dark.rows) == 0
        assert {problem.reason for problem in dark.problems.values()} == {"bad-features"} and len(dark.problems) == 20
        assert computed((plain, dark, mirrored)) == ([0, 0, 0] if again else [20, 0, 20])
        seen = stacked(plain.features, plain.hashes, [dark, mirrored])
        assert np.array_equal(seen[:, 0], plain.features) and np.array_equal(seen[:, 1], plain.features)
        assert np.array_equal(seen[:, 2], mirrored.features)


def of_view(rows: list[int], hashes: Sequence[str], value: float) -> Bottlenecks:
    features = np.full((len(rows), 2), value, np.float32) + np.arange(len(rows), dtype=np.float32)[:, np.newaxis]
    return Bottlenecks(np.array(rows, np.int64), tuple(hashes), features, {}, {}, 0)


def test_views_are_stacked_beside_their_picture_and_only_where_the_bytes_are_the_same() -> None:
    plain = np.arange(8, dtype=np.float32).reshape(4, 2)
    seen = stacked(plain, ["a", "b", "c", "d"], [of_view([0, 2, 3], "acd", 100), of_view([0, 1, 2, 3], "abXd", 200)])
    assert seen.shape == (4, 3, 2) and seen.dtype == np.float32
    assert np.array_equal(seen[:, 0], plain)
    assert seen[:, 1, 0].tolist() == [100, plain[1, 0], 101, 102]
    assert seen[:, 2, 0].tolist() == [200, 201, plain[2, 0], 203]
    assert np.array_equal(stacked(plain, "abcd", []), plain[:, np.newaxis])


def test_a_file_that_changes_between_the_picture_and_its_views_is_seen_as_the_picture_was(
    cache: Cache, pictures: list[Path]
) -> None:
    plain = cache.extract(pictures)
    draw(pictures[3], (40, 60, 200), 99)
    pictures[7].write_bytes(b"gone")
    found = cache.views(pictures, SEVERAL[:2])
    seen = stacked(plain.features, plain.hashes, found)
    for row in range(20):
        same = np.array_equal(seen[row, 1], plain.features[row]) and np.array_equal(seen[row, 2], plain.features[row])
        assert same is (row in (3, 7))


def test_what_was_computed_before_damage_was_found_is_not_computed_again(
    cache: Cache, pictures: list[Path], rendered: list[str]
) -> None:
    cache.views(pictures, SEVERAL[:1])
    cache.sql("UPDATE feature SET crc32 = crc32 + 1")
    rendered.clear()
    found = cache.views(pictures, SEVERAL[:2])
    assert computed(found) == [20, 20] and rendered.count(SEVERAL[1]) == 20


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
