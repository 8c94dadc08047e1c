"""Compute what the cache lacks, and read it back."""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np

from retrain import views
from retrain.bottlenecks.store import CacheDamaged, Entry, Stamp, Store
from retrain.errors import BadImage
from retrain.images import OUT_OF_MEMORY, read_bytes
from retrain.progress import SILENT, Progress
from retrain.runner import Network, Run, open_network, run_locally

_COMMIT_ROWS = 256
# The bytes of a picture file -> a vector, float32, and remarks of the decoder; raises BadImage.
Measure = Callable[[bytes], tuple[np.ndarray, tuple[str, ...]]]


@dataclass(frozen=True)
class Bottlenecks:
    """The features of a list of files.

    `rows`: index into the list of each file that could be used, int64 (n,); `hashes`: their sha256, in hex; `features`:
    float32 (n, feature_size). `problems`: index -> why a file could not be used. `notes`: index -> remarks of the
    decoder. `computed` of the features were computed in this run, the others came from the cache.
    """

    rows: np.ndarray
    hashes: tuple[str, ...]
    features: np.ndarray
    problems: dict[int, BadImage]
    notes: dict[int, tuple[str, ...]]
    computed: int


class _Done(NamedTuple):
    """What a worker gives back for one file. `entry` is None where the cache has the row already."""

    path: str
    stamp: Stamp | None
    sha256: bytes | None
    entry: Entry | None
    problem: BadImage | None


def extract(
    paths: Sequence[str],
    store: Store,
    network: Network,
    view: str,
    image_size: int,
    feature_size: int,
    *,
    run: Run = run_locally,
    progress: Progress = SILENT,
) -> Bottlenecks:
    """Return the features of one view of each file, as `measured` does."""
    return measured(paths, store, partial(_features_of, network, view, image_size), feature_size, run=run, progress=progress)


def measured(
    paths: Sequence[str],
    store: Store,
    open_measure: Callable[[], Measure],
    size: int,
    *,
    name: str = "bottlenecks",
    run: Run = run_locally,
    progress: Progress = SILENT,
) -> Bottlenecks:
    """Return a vector of `size` numbers for each file, computing only those that the cache lacks.

    `open_measure` is called once in each worker and gives what measures; `name` is that of the progress bar. A file is
    read once and hashed, decoded and measured from the same bytes. A file that cannot be used is reported, never raised.
    Rows are committed every few hundred files, so that a killed run loses no more than those.

    Raises EnvironmentProblem where the cache cannot be written.
    """
    worker = partial(_make_worker, open_measure)
    try:
        return _measured(paths, store, worker, size, name, run, progress)
    except CacheDamaged:
        store.renew()
        return _measured(paths, store, worker, size, name, run, progress)


def _measured(
    paths: Sequence[str], store: Store, worker: Callable, size: int, name: str, run: Run, progress: Progress
) -> Bottlenecks:
    cached = store.hashes()
    hashes: dict[str, bytes] = store.known_files(paths)
    problems: dict[str, BadImage] = {}
    todo = [path for path in paths if hashes.get(path) not in cached]
    computed = _compute(todo, store, partial(worker, cached), hashes, problems, name, run, progress)
    entries = _read_back(store, hashes, size)
    lost = set(hashes.values()) - set(entries)
    if lost:
        again = [path for path in paths if hashes.get(path) in lost]
        computed += _compute(again, store, partial(worker, cached - lost), hashes, problems, name, run, progress)
        entries = _read_back(store, hashes, size)
        if set(hashes.values()) - set(entries):
            raise CacheDamaged("rows that were just written cannot be read")
        progress.note(f"{len(lost)} damaged row{'s' if len(lost) > 1 else ''} of the feature cache: computed again")
    return _collect(paths, hashes, entries, problems, size, computed)


def _make_worker(open_measure: Callable[[], Measure], cached: set[bytes]) -> Callable[[str], _Done]:
    measure = open_measure()

    def compute(path: str) -> _Done:
        stamp = Stamp.of(path)
        try:
            data = read_bytes(Path(path))
        except BadImage as problem:
            return _Done(path, None, None, None, problem)
        sha256 = hashlib.sha256(data).digest()
        entry = None if sha256 in cached else _entry(measure, data, sha256)
        if entry and entry.problem and entry.problem.detail == OUT_OF_MEMORY:  # says nothing of the picture: not kept
            return _Done(path, None, None, None, entry.problem)
        return _Done(path, stamp if stamp == Stamp.of(path) else None, sha256, entry, None)

    return compute


def _entry(measure: Measure, data: bytes, sha256: bytes) -> Entry:
    try:
        vector, notes = measure(data)
    except BadImage as problem:
        return Entry(sha256, None, problem)
    if not np.isfinite(vector).all():
        return Entry(sha256, None, BadImage("bad-features"))
    return Entry(sha256, vector, None, notes)


def _features_of(network: Network, view: str, image_size: int) -> Measure:
    runner = open_network(network)

    def measure(data: bytes) -> tuple[np.ndarray, tuple[str, ...]]:
        picture = views.decode_for(data, image_size)
        pixels = views.render(picture, view, image_size)
        return runner.features(pixels[np.newaxis])[0], picture.notes

    return measure


def _compute(
    paths: list[str],
    store: Store,
    make_worker: Callable[[], Callable[[str], _Done]],
    hashes: dict[str, bytes],
    problems: dict[str, BadImage],
    name: str,
    run: Run,
    progress: Progress,
) -> int:
    """Run the workers over files and write what they give; fills `hashes` and `problems`; returns the rows computed."""
    computed = 0
    batch: list[_Done] = []

    def commit() -> None:
        store.add([done.entry for done in batch if done.entry], _stamped(batch))
        batch.clear()

    if not paths:
        return 0
    with progress.bar(name, len(paths)) as advance:
        for done in run(make_worker, paths):
            advance()
            if done.problem is not None:
                problems[done.path] = done.problem
            if done.sha256 is not None:
                hashes[done.path] = done.sha256
            computed += done.entry is not None and done.entry.vector is not None
            batch.append(done)
            if len(batch) >= _COMMIT_ROWS:
                commit()
        commit()
    return computed


def _stamped(batch: list[_Done]) -> list[tuple[str, Stamp, bytes]]:
    return [(done.path, done.stamp, done.sha256) for done in batch if done.stamp and done.sha256]


def _read_back(store: Store, hashes: dict[str, bytes], size: int) -> dict[bytes, Entry]:
    return {entry.sha256: entry for entry in store.read(set(hashes.values()), size)}


def _collect(
    paths: Sequence[str],
    hashes: dict[str, bytes],
    entries: dict[bytes, Entry],
    problems: dict[str, BadImage],
    size: int,
    computed: int,
) -> Bottlenecks:
    found = [entries.get(hashes.get(path, b"")) for path in paths]
    bad = {
        index: problems.get(path) or (entry.problem if entry and entry.problem else BadImage("changed"))
        for index, (path, entry) in enumerate(zip(paths, found, strict=True))
        if entry is None or entry.problem is not None
    }
    good = [(index, entry) for index, entry in enumerate(found) if entry is not None and entry.vector is not None]
    features = np.empty((len(good), size), np.float32)
    for row, (_, entry) in enumerate(good):
        features[row] = entry.vector
    return Bottlenecks(
        rows=np.array([index for index, _ in good], np.int64),
        hashes=tuple(entry.sha256.hex() for _, entry in good),
        features=features,
        problems=bad,
        notes={index: entry.notes for index, entry in good if entry.notes},
        computed=computed,
    )
