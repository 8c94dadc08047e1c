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
# The same of several views of it, those whose numbers are given.
Measures = Callable[[bytes, Sequence[int]], tuple[list[np.ndarray], tuple[str, ...]]]


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
    """What a worker gives back for one file. `entries`: number of the view -> row, of those that the cache lacks."""

    path: str
    stamp: Stamp | None
    sha256: bytes | None
    entries: dict[int, Entry]
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
    (found,) = extract_views(paths, (store,), network, (view,), image_size, feature_size, run=run, progress=progress)
    return found


def extract_views(
    paths: Sequence[str],
    stores: Sequence[Store],
    network: Network,
    names: Sequence[str],
    image_size: int,
    feature_size: int,
    *,
    name: str = "bottlenecks",
    run: Run = run_locally,
    progress: Progress = SILENT,
) -> list[Bottlenecks]:
    """Return the features of several views of each file, as `measured` does; a file is decoded once for all of them.

    `names`: of the views; `stores`: the cache, opened for the space of each.
    """
    make = partial(_features_of, network, tuple(names), image_size)
    return _measured_or_again(paths, stores, make, feature_size, name, run, progress)


def stacked(plain: np.ndarray, hashes: Sequence[str], found: Sequence[Bottlenecks]) -> np.ndarray:
    """Return the features of pictures and of views of them, float32 (n, 1 + views, feature_size).

    `plain`: float32 (n, feature_size), of the pictures themselves; `hashes`: their sha256 in hex; `found`: a view each of
    the same list of files. A view that cannot be had, as of a file that has changed since, is the picture itself instead.
    """
    seen = np.repeat(plain[:, np.newaxis], 1 + len(found), axis=1)
    for number, of_view in enumerate(found, start=1):
        for at, row in enumerate(of_view.rows.tolist()):
            if of_view.hashes[at] == hashes[row]:
                seen[row, number] = of_view.features[at]
    return seen


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
    (found,) = _measured_or_again(paths, (store,), partial(_alone, open_measure), size, name, run, progress)
    return found


def _alone(open_measure: Callable[[], Measure]) -> Measures:
    measure = open_measure()

    def measures(data: bytes, _wanted: Sequence[int]) -> tuple[list[np.ndarray], tuple[str, ...]]:
        vector, notes = measure(data)
        return [vector], notes

    return measures


def _measured_or_again(
    paths: Sequence[str],
    stores: Sequence[Store],
    open_measures: Callable[[], Measures],
    size: int,
    name: str,
    run: Run,
    progress: Progress,
) -> list[Bottlenecks]:
    worker = partial(_make_worker, open_measures)
    try:
        return _measured(paths, stores, worker, size, name, run, progress)
    except CacheDamaged:
        for store in stores:  # the first puts the file aside, the others find a new one
            store.renew()
        return _measured(paths, stores, worker, size, name, run, progress)


def _measured(
    paths: Sequence[str], stores: Sequence[Store], worker: Callable, size: int, name: str, run: Run, progress: Progress
) -> list[Bottlenecks]:
    cached = [store.hashes() for store in stores]
    hashes: dict[str, bytes] = stores[0].known_files(paths)
    problems: dict[str, BadImage] = {}
    in_all = set.intersection(*cached)
    todo = [path for path in paths if hashes.get(path) not in in_all]
    computed = _compute(todo, stores, partial(worker, cached), hashes, problems, name, run, progress)
    entries = [_read_back(store, hashes, size) for store in stores]
    lost = [set(hashes.values()) - set(of_view) for of_view in entries]
    if any(lost):
        again = [path for path in paths if hashes.get(path) in set.union(*lost)]
        without = [store.hashes() - gone for store, gone in zip(stores, lost, strict=True)]
        more = _compute(again, stores, partial(worker, without), hashes, problems, name, run, progress)
        computed = [one + other for one, other in zip(computed, more, strict=True)]
        entries = [_read_back(store, hashes, size) for store in stores]
        if any(set(hashes.values()) - set(of_view) for of_view in entries):
            raise CacheDamaged("rows that were just written cannot be read")
        count = sum(map(len, lost))
        progress.note(f"{count} damaged row{'s' if count > 1 else ''} of the feature cache: computed again")
    return [
        _collect(paths, hashes, of_view, problems, size, count) for of_view, count in zip(entries, computed, strict=True)
    ]


def _make_worker(open_measures: Callable[[], Measures], cached: Sequence[set[bytes]]) -> Callable[[str], _Done]:
    measures = open_measures()

    def compute(path: str) -> _Done:
        stamp = Stamp.of(path)
        try:
            data = read_bytes(Path(path))
        except BadImage as problem:
            return _Done(path, None, None, {}, problem)
        sha256 = hashlib.sha256(data).digest()
        wanted = [number for number, known in enumerate(cached) if sha256 not in known]
        entries = _entries(measures, data, sha256, wanted) if wanted else {}
        for entry in entries.values():
            if entry.problem and entry.problem.detail == OUT_OF_MEMORY:  # says nothing of the picture: not kept
                return _Done(path, None, None, {}, entry.problem)
        return _Done(path, stamp if stamp == Stamp.of(path) else None, sha256, entries, None)

    return compute


def _entries(measures: Measures, data: bytes, sha256: bytes, wanted: Sequence[int]) -> dict[int, Entry]:
    try:
        vectors, notes = measures(data, wanted)
    except BadImage as problem:
        return {number: Entry(sha256, None, problem) for number in wanted}
    return {
        number: Entry(sha256, vector, None, notes)
        if np.isfinite(vector).all()
        else Entry(sha256, None, BadImage("bad-features"))
        for number, vector in zip(wanted, vectors, strict=True)
    }


def _features_of(network: Network, names: tuple[str, ...], image_size: int) -> Measures:
    runner = open_network(network)

    def measures(data: bytes, wanted: Sequence[int]) -> tuple[list[np.ndarray], tuple[str, ...]]:
        picture = views.decode_for(data, image_size)
        seen = (views.render(picture, names[number], image_size) for number in wanted)
        return [runner.features(pixels[np.newaxis])[0] for pixels in seen], picture.notes

    return measures


def _compute(
    paths: list[str],
    stores: Sequence[Store],
    make_worker: Callable[[], Callable[[str], _Done]],
    hashes: dict[str, bytes],
    problems: dict[str, BadImage],
    name: str,
    run: Run,
    progress: Progress,
) -> list[int]:
    """Run the workers over files and write what they give; fills `hashes`, `problems`; returns the rows computed a view."""
    computed = [0] * len(stores)
    batch: list[_Done] = []

    def commit() -> None:
        for number, store in enumerate(stores):
            entries = [done.entries[number] for done in batch if number in done.entries]
            if entries or not number:
                store.add(entries, _stamped(batch) if not number else [])
        batch.clear()

    if not paths:
        return computed
    with progress.bar(name, len(paths)) as advance:
        for done in run(make_worker, paths):
            advance()
            if done.problem is not None:
                problems[done.path] = done.problem
            if done.sha256 is not None:
                hashes[done.path] = done.sha256
            for number, entry in done.entries.items():
                computed[number] += entry.vector is not None
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
