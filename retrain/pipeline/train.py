"""`train`, readable as the pipeline that it is."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from retrain import artifact, backbones, views, whereabouts
from retrain.backbones import Backbone
from retrain.dataset import PARTS, Skipped
from retrain.evaluation import Accuracy, predictions
from retrain.finetune import RateCurve
from retrain.pipeline.examples import Examples
from retrain.pipeline.features import Extractor, named
from retrain.pipeline.judged import Judged
from retrain.pipeline.learnt import Learnt
from retrain.pipeline.line import Line
from retrain.pipeline.record import Record
from retrain.pipeline.reference import reference_of
from retrain.pipeline.seen import Seen
from retrain.pipeline.tuned import Outcome
from retrain.pipeline.wanted import Wanted
from retrain.progress import SILENT, Progress
from retrain.runner import Run, run_locally
from retrain.settings import AugmentSettings, FineTuneSettings, HeadSettings, SplitSettings, as_plain
from retrain.storage import RATE_RECORD, Layout


@dataclass(frozen=True)
class Result:
    """What `train` did.

    `accuracy`: on pictures that the judged heads never saw, `judged_on` says which; `by_source`: the same for each source
    among them. `computed`: features computed in this run. `record`: what went into `reports/train.json`.
    """

    model: Path
    labels: tuple[str, ...]
    accuracy: Accuracy
    by_source: dict[str, Accuracy]
    judged_on: str
    used: int
    skipped: tuple[Skipped, ...]
    computed: int
    cached: int
    record: dict[str, Any]


def train(
    tf_files: str | os.PathLike[str],
    split: SplitSettings = SplitSettings(),
    head: HeadSettings = HeadSettings(),
    backbone: str | Backbone | Sequence[str | Backbone] = backbones.DEFAULT,
    *,
    augment: AugmentSettings = AugmentSettings(),
    tuning: FineTuneSettings = FineTuneSettings(),
    tta: bool = False,
    search: float = 0.0,
    image_size: int | Sequence[int] | None = None,
    weights: str | os.PathLike[str] | None = None,
    crop_borders: bool = False,
    model: str | os.PathLike[str] | None = None,
    devices: Sequence[str] = (),
    summaries: str | os.PathLike[str] | None = None,
    run: Run = run_locally,
    progress: Progress = SILENT,
) -> Result:
    """Train a classifier on `tf_files/data/<class>/...` and write it to `tf_files/model/`, or to `model`.

    `backbone`: the name of a row of `retrain backbones`, the address of a TF Hub module, the path of a SavedModel folder or
    a .tar.gz of one, or a row of your own; of several the best is kept, or their average where it is better by more than
    noise. `augment`: views to learn from; `tuning`: whether and how the backbone is trained, too; `tta`: find out whether it
    helps to look at several views of a picture that is labelled; `search`: seconds to spend on finding what of all this,
    and of what else there is, makes a better model. `image_size`: in pixels, in place of the usual one; of
    several, fine-tuning trains at one after the other. `weights`: the file for a network of keras.applications.
    `crop_borders` cuts borders of one colour off each picture, here and wherever the model labels one. `devices`: to
    fine-tune on, such as GPU:0, by default all GPUs; `summaries`: folder for TensorBoard. `run` spreads the work of
    computing features; `progress` hears how far it is.

    Pictures that cannot be used are left out and listed in the result. A run record goes to `tf_files/reports/train.json`,
    also when the run fails.

    Raises UsageError, NothingUsable and EnvironmentProblem, each with one line that says what to do next.
    """
    wanted = Wanted(
        Path(tf_files), split, head, tuple(named(backbone)), augment, tuning, tta=tta, search=search, image_size=image_size,
        weights=weights, crop_borders=crop_borders, model=model, devices=devices, summaries=summaries,
    )  # fmt: skip
    line = Line(wanted, run, progress)
    with line.record as record:
        line.prepare()
        with record.stage("head"):
            judged = line.frozen()
        extractors: Sequence[Extractor] = line.extractors
        seen: Sequence[Seen] = line.seen
        outcome, found = None, None
        if search:
            with record.stage("search"):
                found = line.searcher(judged).spend(search)
            extractors, seen, judged, outcome = found.extractors, found.seen, found.judged, found.outcome
        elif tuning.fine_tune:
            with record.stage("fine-tuning"):
                outcome = line.tuner(judged).fine_tune(tta, record)
            extractors, seen, judged = [outcome.extractor], [outcome.seen], outcome.judged
        tell_of_choices(judged.final, outcome, progress)
        record.judged(judged.facts() | ({"fine_tuning": outcome.facts} if outcome else {}))
        if found:
            record.judged({"search": found.as_json()})
            progress.note(f"search: {found.over_default} of the test pictures more are right than by default")
        with record.stage("save"):
            _save(line.target, extractors, seen, line.examples, judged, outcome, line.layout, record, progress)
    return Result(
        line.target, line.examples.labels, judged.accuracy, judged.figures.by_source, judged.judged_on, record.used,
        tuple(record.skipped), record.computed, record.cached, record.as_json(),
    )  # fmt: skip


def find_rate(
    tf_files: str | os.PathLike[str],
    split: SplitSettings = SplitSettings(),
    head: HeadSettings = HeadSettings(),
    backbone: str | Backbone = backbones.DEFAULT,
    *,
    augment: AugmentSettings = AugmentSettings(),
    tuning: FineTuneSettings = FineTuneSettings(),
    image_size: int | Sequence[int] | None = None,
    weights: str | os.PathLike[str] | None = None,
    crop_borders: bool = False,
    devices: Sequence[str] = (),
    run: Run = run_locally,
    progress: Progress = SILENT,
) -> RateCurve:
    """Find out with which learning rate to fine-tune; no model is written. Arguments and errors are those of `train`.

    A page that draws the curve goes to `tf_files/reports/learning_rate.html`.
    """
    wanted = Wanted(
        Path(tf_files), split, head, tuple(named(backbone)), augment, replace(tuning, fine_tune=True), image_size=image_size,
        weights=weights, crop_borders=crop_borders, devices=devices,
    )  # fmt: skip
    line = Line(wanted, run, progress)
    line.record.name = RATE_RECORD  # that of a model that is there stays
    with line.record as record:
        line.prepare(to_save=False)
        with record.stage("head"):
            judged = line.frozen()
        with record.stage("learning rate"):
            return line.tuner(judged).find_rate()


def tell_of_choices(final: Learnt, outcome: Outcome | None, progress: Progress) -> None:
    """Say what was compared, and what came of it."""
    tuned = outcome.compared if outcome else ()
    for compared in (*final.backbones, *tuned, *final.views):
        progress.note(f"{'kept' if compared.kept else 'tried'}: {compared}")
    if tuned and tuned[0].kept:
        progress.note("fine-tuning did not help on the validation part: the backbone stays as it was")
    if final.views and final.way == views.PLAIN:
        progress.note("test-time augmentation is off: it was not better by more than noise on pictures not learnt from")


def _members(extractors: Sequence[Extractor], final: Learnt, tuned: Mapping[str, np.ndarray]) -> tuple[artifact.Member, ...]:
    return tuple(
        artifact.Member(
            one.backbone.name, one.weights, one.view, one.preprocessing, one.backbone.image_size, one.network,
            fitted.head.kernel, fitted.head.bias, tuned,
        )
        for one, fitted in ((extractors[number], fitted) for number, fitted in final.kept())
    )  # fmt: skip


def _save(
    target: Path, extractors: Sequence[Extractor], seen: Sequence[Seen], examples: Examples, judged: Judged,
    outcome: Outcome | None, layout: Layout, record: Record, progress: Progress,
) -> None:  # fmt: skip
    parts, final = judged.parts, judged.final
    placed = [
        artifact.Placed(examples.hashes[row], examples.label_of(row), parts.units[row], examples.sources[row], part)
        for row, part in enumerate(parts.parts)
        if part in PARTS or parts.folds
    ]
    tuned = outcome.tuned if outcome else {}
    model = artifact.Artifact(
        examples.labels, _members(extractors, final, tuned), final.temperature, record.settings_for_model(), record.versions,
        judged.metrics(), final.way, tuple(one.name for one in views.TTA) if views.SEVERAL in final.temperature else (),
    )  # fmt: skip
    split = as_plain(record.split_settings, paths=False)
    first = seen[final.members[0]].features, outcome.held_out if outcome else None
    sha256 = artifact.save(target, model, reference_of(examples, judged, *first), placed, split)
    record.saved(target, sha256)
    for path in (layout.checkpoint, layout.second_checkpoint) if outcome else ():
        path.unlink(missing_ok=True)
    if tuned:
        extractors[0].forget_others(layout, progress)
    columns = examples.paths, map(examples.label_of, range(len(parts.parts))), parts.parts, parts.units, examples.sources
    whereabouts.write(layout, map(whereabouts.Row, *columns, examples.hashes))
    if parts.folds:
        predictions.save(layout, sha256, examples.hashes, judged.scores, judged.uncalibrated)
