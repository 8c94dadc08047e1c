"""`evaluate`: measure a model on pictures that it has not learnt from, and write the report."""

import json
import os
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from retrain import artifact, bottlenecks, views
from retrain.dataset import Listing, Skipped, read
from retrain.errors import UsageError
from retrain.evaluation import chosen, words
from retrain.evaluation.as_json import as_json
from retrain.evaluation.chosen import Chosen
from retrain.evaluation.evaluated import Evaluated, Mistake, Neighbour, Unknown
from retrain.evaluation.figures import measure
from retrain.evaluation.learnt import learnt_from, space_of
from retrain.evaluation.page import render
from retrain.label import Labeller, way_of
from retrain.nearest import Nearest
from retrain.progress import SILENT, Progress
from retrain.runner import Run, run_locally
from retrain.scores import softmax
from retrain.settings import AUTO, UNKNOWN_RATE
from retrain.storage import Layout, own_folder, write_atomically
from retrain.whereabouts import Whereabouts

REPORT = "evaluate.html"
_COMPARED = 100  # mistakes that are shown beside the nearest training pictures
_NEIGHBOURS = 3
_BEGIN = 4096  # bytes of a file that tell whether it is ours
_FORMAT = b'"format": "retrain-evaluation"'


@dataclass(frozen=True)
class Seen:
    """Pictures as the model sees them: rows of `listing.examples` that can be used, their sha256 in hex, and the features
    under each member, float32 (n, feature_size)."""

    listing: Listing
    rows: np.ndarray
    hashes: tuple[str, ...]
    features: tuple[np.ndarray, ...]
    skipped: tuple[Skipped, ...]


def evaluate(
    tf_files: str | os.PathLike[str],
    *,
    model: str | os.PathLike[str] | None = None,
    data: str | os.PathLike[str] | None = None,
    output: str | os.PathLike[str] | None = None,
    unknown: float = UNKNOWN_RATE,
    tta: str = AUTO,
    run: Run = run_locally,
    progress: Progress = SILENT,
) -> Evaluated:
    """Measure the model in `tf_files/model`, or `model`, on its test part, or on the class folders in `data`.

    Writes a report to `tf_files/reports/evaluate.html`, or to `output`, and the same as JSON beside it. Pictures of `data`
    that the model has learnt from are left out; those of classes that it does not know tell whether it says so. `unknown`:
    the share of pictures of known classes that may be called unknown by mistake; 0: none is. `tta`: as for `load`.
    `run` and `progress`: as for `train`. TensorFlow is not needed.

    Raises UsageError where there is nothing to measure on, or the output is a file that is not ours; NothingUsable,
    ModelRefused and EnvironmentProblem as `train` and `load` do.
    """
    layout = Layout(Path(tf_files))
    loaded = artifact.load(layout.model if model is None else Path(model))
    way = way_of(loaded.artifact, tta)
    page = layout.reports / REPORT if output is None else Path(output)
    if output is not None and page.name and not page.parent.is_dir():
        raise UsageError(f"the folder of --output {page} does not exist; make it or choose another")
    _refuse_foreign(page)
    folder = Layout(layout.root if data is None else Path(data))
    listing = read(folder, what="the folder to evaluate on")
    if output is None:
        own_folder(page.parent)
    seen = _look(listing, loaded.artifact, layout, run, progress)
    examples = [seen.listing.examples[row] for row in seen.rows]
    labels, sources = [example.label for example in examples], [example.source for example in examples]
    if data is not None:
        learnt = learnt_from(loaded, seen.hashes, labels, seen.features[0], layout, progress)
        picked = chosen.of_data(loaded, labels, *learnt)
    else:
        picked = chosen.of_test_part(loaded, seen.hashes, labels, sources, layout)
    if picked.said is None:
        looks = _looks(loaded.artifact, seen, picked.known, way, layout, run, progress)
        said = _scores(loaded.artifact, looks, way)
    elif way != loaded.artifact.way:
        raise UsageError(
            "in cross-validation pictures were looked at as the model does; drop --tta, or give others with --data"
        )
    else:
        said = picked.said
    found = _measured(loaded, seen, picked, said, way, folder, layout, unknown)
    _write(page, found, progress)
    return found


def _look(listing: Listing, model: artifact.Artifact, layout: Layout, run: Run, progress: Progress) -> Seen:
    """Return the features of all pictures, from the cache as far as they are there."""
    Labeller(model)  # refuses a model whose pictures this version cannot prepare
    paths = [example.path for example in listing.examples]
    found = []
    for member in model.members:
        with bottlenecks.Store(layout.bottlenecks, space_of(member), progress) as store:
            found.append(
                bottlenecks.extract(
                    paths, store, member.network, member.view, member.image_size, len(member.kernel),
                    run=run, progress=progress,
                )
            )  # fmt: skip
    usable = sorted(set.intersection(*(set(one.rows.tolist()) for one in found)))
    places = [np.searchsorted(one.rows, usable) for one in found]
    hashes = tuple(found[0].hashes[place] for place in places[0])
    features = tuple(one.features[rows] for one, rows in zip(found, places, strict=True))
    problems = {row: problem for one in found for row, problem in one.problems.items()}
    skipped = [Skipped(paths[row], problem.reason, problem.detail) for row, problem in sorted(problems.items())]
    return Seen(listing, np.array(usable, np.int64), hashes, features, (*listing.skipped, *skipped))


def _looks(
    model: artifact.Artifact, seen: Seen, rows: np.ndarray, way: str, layout: Layout, run: Run, progress: Progress
) -> list[np.ndarray]:
    """Return the features of rows under each member, float32 (m, views, feature_size), in all views that are looked at."""
    plain = [features[rows] for features in seen.features]
    if way == views.PLAIN:
        return [features[:, np.newaxis] for features in plain]
    paths, hashes = [seen.listing.examples[seen.rows[row]].path for row in rows], [seen.hashes[row] for row in rows]
    looks = []
    for member, features in zip(model.members, plain, strict=True):
        names = [member.view + name for name in model.views]
        with ExitStack() as opened:
            stores = [
                opened.enter_context(bottlenecks.Store(layout.bottlenecks, space_of(member, name), progress))
                for name in names
            ]
            found = bottlenecks.extract_views(
                paths, stores, member.network, names, member.image_size, len(member.kernel), name="views",
                run=run, progress=progress,
            )  # fmt: skip
        looks.append(bottlenecks.stacked(features, hashes, found))
    return looks


def _measured(
    loaded: artifact.Loaded, seen: Seen, picked: Chosen, said: tuple[np.ndarray, np.ndarray], way: str, folder: Layout,
    layout: Layout, rate: float,
) -> Evaluated:  # fmt: skip
    model, examples = loaded.artifact, [seen.listing.examples[row] for row in seen.rows]
    known = picked.known
    number = {label: index for index, label in enumerate(model.labels)}
    truth = np.array([number[examples[row].label] for row in known], np.int64)
    scores, before = said
    nearest = Nearest(loaded.reference())
    typicality = None
    if picked.said is None and rate and nearest.can_tell(rate):  # all pictures of folds were learnt from
        typicality = np.ones(len(seen.rows))
        compared = np.concatenate([known, picked.foreign])
        typicality[compared] = _typicality(model, nearest, seen.features[0][compared])
    figures = measure(scores, truth, model.labels, [examples[row].source for row in known], before)
    wrong = scores.argmax(axis=1) != truth
    refused = None if typicality is None else typicality <= rate
    skipped = [*picked.skipped([example.path for example in examples]), *(seen.skipped if picked.everything else ())]
    return Evaluated(
        model=loaded.folder,
        data=folder.data,
        when=f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC",
        judged_on=picked.what,
        split=(*words.of_split(loaded), *picked.notes),
        backbone=", ".join(member.backbone for member in model.members),
        temperature=model.temperature[way],
        labels=model.labels,
        figures=figures,
        mistakes=_mistakes(seen, known, scores, truth, model.labels, refused, nearest, Whereabouts(layout), _units(loaded)),
        unknown=None if refused is None else Unknown(
            rate, len(known), int(refused[known].sum()), int((refused[known] & wrong).sum()),
            len(picked.foreign), int(refused[picked.foreign].sum()),
        ),
        curve=words.curve_of(loaded, layout),
        skipped=tuple(skipped),
    )  # fmt: skip


def _scores(model: artifact.Artifact, looks: Sequence[np.ndarray], way: str) -> tuple[np.ndarray, np.ndarray]:
    """Return the scores of all labels, float64 (n, classes), after and before calibration."""
    after, before = [], []
    for member, its in zip(model.members, looks, strict=True):
        logits = its @ member.kernel + member.bias
        after.append(softmax(logits, model.temperature[way]).mean(axis=1))
        before.append(softmax(logits).mean(axis=1))
    return np.mean(after, axis=0), np.mean(before, axis=0)


def _typicality(model: artifact.Artifact, nearest: Nearest, features: np.ndarray) -> np.ndarray:
    first = model.members[0]
    return nearest.typicality(features, features @ first.kernel + first.bias)


def _units(loaded: artifact.Loaded) -> dict[str, set[str]]:
    """Return for each picture of the split those of its unit: what judged it in a fold had not learnt from them either."""
    units: dict[str, set[str]] = defaultdict(set)
    for row in loaded.split():
        units[row.group].add(row.sha256)
    return {row.sha256: units[row.group] for row in loaded.split()}


def _mistakes(
    seen: Seen,
    known: np.ndarray,
    scores: np.ndarray,
    truth: np.ndarray,
    labels: Sequence[str],
    refused: np.ndarray | None,
    nearest: Nearest,
    files: Whereabouts,
    units: Mapping[str, Collection[str]],
) -> tuple[Mistake, ...]:
    """Return what was labelled wrongly, the surest first; the first ones with the training pictures nearest to them."""
    said = scores.argmax(axis=1)
    wrong = np.flatnonzero(said != truth)
    found: list[Mistake] = []
    for place in wrong[np.argsort(-scores[wrong, said[wrong]], kind="stable")]:
        row = known[place]
        near: list[Neighbour] = []
        if len(found) < _COMPARED:
            near = [
                Neighbour(labels[one.label], one.similarity, files.path(one.sha256))
                for one in nearest.neighbours(seen.features[0][row], _NEIGHBOURS, without=units.get(seen.hashes[row], ()))
            ]
        found.append(
            Mistake(
                seen.listing.examples[seen.rows[row]].path, labels[truth[place]], labels[said[place]],
                float(scores[place, said[place]]), float(scores[place, truth[place]]),
                refused is not None and bool(refused[row]), tuple(near),
            )
        )  # fmt: skip
    return tuple(found)


def _refuse_foreign(page: Path) -> None:
    """Raise UsageError where a page, or its twin, cannot be written or would replace a file that we did not write."""
    if not page.name or page.is_dir():
        raise UsageError(f"--output {page} is a folder; give the name of a page in it")
    if page.suffix == ".json":
        raise UsageError(f"--output {page} is the name of the JSON file; give one that ends in .html")
    for path, marks in ((page, (b"<!DOCTYPE html>", b"<title>Evaluation of ")), (json_beside(page), (_FORMAT,))):
        if path.exists() and not path.is_file():
            raise UsageError(f"{path} is no file; choose another --output")
        try:
            with path.open("rb") as file:
                begin = file.read(_BEGIN)
        except FileNotFoundError:
            continue
        except OSError as error:
            why = (error.strerror or str(error)).lower()
            raise UsageError(f"the report cannot be written to {path}: {why}; choose another --output") from None
        if not all(mark in begin for mark in marks):
            raise UsageError(f"{path} was not written by retrain evaluate; move it away or choose another --output")


def json_beside(page: Path) -> Path:
    """Return the path of the JSON file that goes with a page."""
    return page.with_suffix(".json")


def _write(page: Path, found: Evaluated, progress: Progress) -> None:
    html = render(found, progress)
    record = json.dumps(as_json(found), indent=1, ensure_ascii=True, allow_nan=False) + "\n"
    write_atomically(page, html.encode())
    write_atomically(json_beside(page), record.encode())
