"""`train`, readable as the pipeline that it is."""

import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from retrain import artifact, backbones, bottlenecks, views
from retrain.backbones import Backbone
from retrain.dataset import PARTS, Listing, Skipped, read
from retrain.errors import UsageError
from retrain.evaluate import Accuracy
from retrain.pipeline.examples import Examples, usable
from retrain.pipeline.judged import Judged, divide_examples, fit_and_judge
from retrain.pipeline.record import Record
from retrain.progress import SILENT, Progress
from retrain.runner import Network, Run, open_network, run_locally
from retrain.settings import HeadSettings, SplitSettings, as_plain
from retrain.storage import Layout, own_folder


@dataclass(frozen=True)
class Result:
    """What `train` did.

    `accuracy`: on pictures that the judged heads never saw, `judged_on` says which. `computed`: features computed in
    this run. `record`: what went into `reports/train.json`.
    """

    model: Path
    labels: tuple[str, ...]
    accuracy: Accuracy
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
    backbone: str | Backbone = backbones.DEFAULT,
    *,
    image_size: int | None = None,
    weights: str | os.PathLike[str] | None = None,
    model: str | os.PathLike[str] | None = None,
    run: Run = run_locally,
    progress: Progress = SILENT,
) -> Result:
    """Train a classifier on `tf_files/data/<class>/...` and write it to `tf_files/model/`, or to `model`.

    `backbone`: the name of a row of `retrain backbones`, the address of a TF Hub module, the path of a SavedModel folder or
    a .tar.gz of one, or a row of your own. `image_size`: in pixels, in place of the usual one. `weights`: the file for a
    network of keras.applications. `run` spreads the work of computing features; `progress` hears how far it is.

    Pictures that cannot be used are left out and listed in the result. A run record goes to `tf_files/reports/train.json`,
    also when the run fails.

    Raises UsageError, NothingUsable and EnvironmentProblem, each with one line that says what to do next.
    """
    layout = Layout(Path(tf_files))
    backbone = _looked_up(backbone, image_size, weights)
    named = backbone if isinstance(backbone, str) else backbone.name
    target = layout.model if model is None else Path(model)
    with Record(layout, named, split, head) as record:
        with record.stage("listing"):
            listing = read(layout, split.groups, split.validation_dir, split.test_dir)
            record.listed = True
            own_folder(layout.reports)
            own_folder(target, "" if model is None else "move it away or choose another --model")
        with record.stage("backbone"):
            chosen = _fetched(backbone, image_size, weights, progress)
            network, weights_sha256 = backbones.network(chosen, progress), backbones.weights_hash(chosen)
            record.chosen(chosen, weights_sha256, network.engine)
        with record.stage("bottlenecks"):
            space = _space(chosen, weights_sha256, network)
            found = _extract(listing, layout, space, chosen, network, run, progress)
            examples = usable(listing, found, record, progress)
        with record.stage("split"):
            parts = divide_examples(examples, split, target, record, progress)
        with record.stage("head"):
            judged = fit_and_judge(examples, parts, head, record, progress)
        with record.stage("save"):
            member = _member(chosen, weights_sha256, network, judged)
            _save(target, member, examples, judged, record)
    return Result(
        target, examples.labels, judged.accuracy, judged.judged_on, record.used, tuple(record.skipped), found.computed,
        record.cached, record.as_json(),
    )  # fmt: skip


def _looked_up(backbone: str | Backbone, image_size: int | None, weights: str | os.PathLike[str] | None) -> str | Backbone:
    """Return the row of a name, so that a mistake ends the run before it begins; a handle stays as it is."""
    if isinstance(backbone, Backbone):
        if weights is not None:
            raise UsageError("weights= goes with the name of a network of keras.applications, not with a row of your own")
        return backbone if image_size is None else replace(backbone, image_size=image_size)
    if backbones.is_handle(backbone):
        return backbone
    return backbones.get(backbone, image_size, None if weights is None else Path(weights))


def _fetched(
    backbone: str | Backbone, image_size: int | None, weights: str | os.PathLike[str] | None, progress: Progress
) -> Backbone:
    """Return the backbone with its weights on this machine, downloaded if need be."""
    if isinstance(backbone, str):
        backbone = backbones.get(backbone, image_size, None if weights is None else Path(weights), progress)
    backbone.fetch(progress)
    return backbone


def _extract(
    listing: Listing,
    layout: Layout,
    space: bottlenecks.Space,
    backbone: Backbone,
    network: Network,
    run: Run,
    progress: Progress,
) -> bottlenecks.Bottlenecks:
    paths = [example.path for example in listing.examples]
    size, features = backbone.image_size, _feature_size(backbone, network)
    with bottlenecks.Store(layout.bottlenecks, space, progress) as store:
        return bottlenecks.extract(paths, store, network, views.DEFAULT_VIEW, size, features, run=run, progress=progress)


def _feature_size(backbone: Backbone, network: Network) -> int:
    """Return the number of features; of what comes from elsewhere, the network itself knows best."""
    return backbone.feature_size if backbone.name in backbones.EMBEDDED else open_network(network).feature_size


def _space(backbone: Backbone, weights: str, network: Network) -> bottlenecks.Space:
    preprocessing = views.preprocessing_id(views.DEFAULT_VIEW, backbone.image_size)
    return bottlenecks.Space(backbone.name, weights, preprocessing, network.engine)


def _member(backbone: Backbone, weights: str, network: Network, judged: Judged) -> artifact.Member:
    preprocessing = views.preprocessing_id(views.DEFAULT_VIEW, backbone.image_size)
    return artifact.Member(
        backbone.name, weights, views.DEFAULT_VIEW, preprocessing, backbone.image_size, network,
        judged.head.kernel, judged.head.bias,
    )  # fmt: skip


def _save(target: Path, member: artifact.Member, examples: Examples, judged: Judged, record: Record) -> None:
    parts = judged.parts
    learnt = np.arange(len(parts.parts)) if parts.folds else parts.rows("train", "validation")
    rows = learnt[artifact.reference_sample([examples.hashes[row] for row in learnt])]
    reference = artifact.Reference(
        examples.features[rows].astype(np.float16),
        np.array([list(bytes.fromhex(examples.hashes[row])) for row in rows], np.uint8),
        examples.classes[rows].astype(np.int32),
    )
    placed = [
        artifact.Placed(examples.hashes[row], examples.label_of(row), parts.units[row], examples.sources[row], part)
        for row, part in enumerate(parts.parts)
        if part in PARTS or parts.folds
    ]
    model = artifact.Artifact(
        examples.labels, (member,), {"none": 1.0}, record.settings_for_model(), record.versions, judged.metrics()
    )
    artifact.save(target, model, reference, placed, as_plain(record.split_settings, paths=False))
