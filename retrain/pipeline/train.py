"""`train`, readable as the pipeline that it is."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from retrain import artifact, backbones, views, whereabouts
from retrain.backbones import Backbone
from retrain.dataset import PARTS, Skipped, read
from retrain.evaluation import Accuracy, predictions
from retrain.pipeline.examples import Examples, usable
from retrain.pipeline.features import Extractor, look_up, named, open_extractor
from retrain.pipeline.groups import choose_groups
from retrain.pipeline.judged import Judged, divide_examples, fit_and_judge
from retrain.pipeline.learnt import Learnt, tell_of_choices
from retrain.pipeline.look import extract_all, look
from retrain.pipeline.record import Record
from retrain.pipeline.reference import reference_of
from retrain.pipeline.seen import Seen
from retrain.progress import SILENT, Progress
from retrain.runner import Run, run_locally
from retrain.settings import AugmentSettings, HeadSettings, SplitSettings, as_plain
from retrain.storage import Layout, own_folder


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
    tta: bool = False,
    image_size: int | None = None,
    weights: str | os.PathLike[str] | None = None,
    crop_borders: bool = False,
    model: str | os.PathLike[str] | None = None,
    run: Run = run_locally,
    progress: Progress = SILENT,
) -> Result:
    """Train a classifier on `tf_files/data/<class>/...` and write it to `tf_files/model/`, or to `model`.

    `backbone`: the name of a row of `retrain backbones`, the address of a TF Hub module, the path of a SavedModel folder or
    a .tar.gz of one, or a row of your own; of several the best is kept, or their average where it is better by more than
    noise. `tta`: find out whether it helps to look at several views of a picture that is labelled. `image_size`: in pixels,
    in place of the usual one. `weights`: the file for a network of keras.applications. `crop_borders` cuts borders of one
    colour off each picture, here and wherever the model labels one. `run` spreads the work of computing features; `progress`
    hears how far it is.

    Pictures that cannot be used are left out and listed in the result. A run record goes to `tf_files/reports/train.json`,
    also when the run fails.

    Raises UsageError, NothingUsable and EnvironmentProblem, each with one line that says what to do next.
    """
    layout = Layout(Path(tf_files))
    several = [look_up(one, image_size, weights) for one in named(backbone)]
    names = ",".join(one if isinstance(one, str) else one.name for one in several)
    target = layout.model if model is None else Path(model)
    with Record(layout, names, split, head, crop_borders, {**as_plain(augment), "tta": tta}) as record:
        with record.stage("listing"):
            listing = read(layout, split.groups, split.validation_dir, split.test_dir, split.test_source)
            record.listed = True
            own_folder(layout.reports)
            own_folder(target, "" if model is None else "move it away or choose another --model")
        with record.stage("backbone"):
            extractors = [open_extractor(one, image_size, weights, crop_borders, progress) for one in several]
            record.chosen([(one.backbone, one.weights, one.network.engine) for one in extractors])
        with record.stage("bottlenecks"):
            found = extract_all(listing, extractors, layout, run, progress)
            examples = usable(listing, found[0], record, progress)
        with record.stage("split"):
            examples, split = choose_groups(listing, examples, split, head, target, record, progress)
            parts = divide_examples(examples, split, target, record, progress)
        with record.stage("views"):
            seen = look(listing, found, extractors, examples, parts, augment, tta, layout, run, record, progress)
        with record.stage("head"):
            judged = fit_and_judge(examples, parts, head, record, progress, seen)
            tell_of_choices(judged.final, progress)
        with record.stage("save"):
            _save(target, extractors, seen, examples, judged, layout, record)
    return Result(
        target, examples.labels, judged.accuracy, judged.figures.by_source, judged.judged_on, record.used,
        tuple(record.skipped), found[0].computed, record.cached, record.as_json(),
    )  # fmt: skip


def _members(extractors: Sequence[Extractor], final: Learnt) -> tuple[artifact.Member, ...]:
    return tuple(
        artifact.Member(
            one.backbone.name, one.weights, one.view, one.preprocessing, one.backbone.image_size, one.network,
            fitted.head.kernel, fitted.head.bias,
        )
        for one, fitted in ((extractors[number], fitted) for number, fitted in final.kept())
    )  # fmt: skip


def _save(
    target: Path, extractors: Sequence[Extractor], seen: Sequence[Seen], examples: Examples, judged: Judged, layout: Layout,
    record: Record,
) -> None:  # fmt: skip
    parts, final = judged.parts, judged.final
    placed = [
        artifact.Placed(examples.hashes[row], examples.label_of(row), parts.units[row], examples.sources[row], part)
        for row, part in enumerate(parts.parts)
        if part in PARTS or parts.folds
    ]
    model = artifact.Artifact(
        examples.labels, _members(extractors, final), final.temperature, record.settings_for_model(), record.versions,
        judged.metrics(), final.way, tuple(one.name for one in views.TTA) if views.SEVERAL in final.temperature else (),
    )  # fmt: skip
    split = as_plain(record.split_settings, paths=False)
    sha256 = artifact.save(target, model, reference_of(examples, judged, seen[final.members[0]].features), placed, split)
    record.saved(target, sha256)
    columns = examples.paths, map(examples.label_of, range(len(parts.parts))), parts.parts, parts.units, examples.sources
    whereabouts.write(layout, map(whereabouts.Row, *columns, examples.hashes))
    if parts.folds:
        predictions.save(layout, sha256, examples.hashes, judged.scores, judged.uncalibrated)
