"""`evaluate`: measure a model on pictures that it has not learnt from, and write the report."""

import json
import os
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from retrain import artifact, views
from retrain.dataset import read
from retrain.errors import UsageError
from retrain.evaluation import chosen, words
from retrain.evaluation.as_json import as_json
from retrain.evaluation.chosen import Chosen
from retrain.evaluation.evaluated import Evaluated, Mistake, Neighbour, Unknown
from retrain.evaluation.figures import measure
from retrain.evaluation.heat import Found
from retrain.evaluation.learnt import learnt_from
from retrain.evaluation.look import File
from retrain.evaluation.maps import MISTAKES, Candidates, look
from retrain.evaluation.mistakes import first
from retrain.evaluation.page import render
from retrain.evaluation.seen import Seen, see, see_views
from retrain.label import way_of
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
    seen = see(listing, loaded.artifact, layout, run, progress)
    examples = [seen.listing.examples[row] for row in seen.rows]
    labels, sources = [example.label for example in examples], [example.source for example in examples]
    if data is not None:
        learnt = learnt_from(loaded, seen.hashes, labels, seen.features[0], layout, progress)
        picked = chosen.of_data(loaded, labels, *learnt)
    else:
        picked = chosen.of_test_part(loaded, seen.hashes, labels, sources, layout)
    if picked.said is None:
        looks = see_views(loaded.artifact, seen, picked.known, way, layout, run, progress)
        said = _scores(loaded.artifact, looks, way)
    elif way != loaded.artifact.way:
        raise UsageError(
            "in cross-validation pictures were looked at as the model does; drop --tta, or give others with --data"
        )
    else:
        said = picked.said
    found = _measured(loaded, seen, picked, said, way, folder, layout, unknown)
    found = replace(found, maps=_maps(loaded, seen, picked, said[0], found, run, progress))
    _write(page, found, progress)
    return found


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


def _maps(
    loaded: artifact.Loaded, seen: Seen, picked: Chosen, scores: np.ndarray, found: Evaluated, run: Run, progress: Progress
) -> Found:
    """Return what speaks for labels: in the mistakes that are shown first, and in pictures that got their label."""
    model, examples = loaded.artifact, [seen.listing.examples[row] for row in seen.rows]
    files = [File(one.path, one.label, sha256) for one, sha256 in zip(examples, seen.hashes, strict=True)]
    by_path = {file.path: file for file in files}
    said = [model.labels[number] for number in scores.argmax(axis=1)]
    right = [files[row] for row, label in zip(picked.known, said, strict=True) if files[row].label == label]
    placed, judged = {(row.sha256, row.label) for row in loaded.split()}, set(picked.known.tolist())
    rows = [row for row, file in enumerate(files) if row not in judged and (file.sha256, file.label) in placed]
    again = _scores(model, [its[rows][:, np.newaxis] for its in seen.features], views.PLAIN)[0].argmax(axis=1)
    learnt = [files[row] for row, number in zip(rows, again, strict=True) if files[row].label == model.labels[number]]
    worst = [(by_path[one.path], one) for one in first(found, MISTAKES)]
    candidates = Candidates(right, learnt) if picked.said is None else Candidates((), right + learnt)
    return look(model, worst, candidates, run, progress)


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
