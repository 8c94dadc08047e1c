"""`train`, readable as the pipeline that it is."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from retrain import artifact, backbones, views, whereabouts
from retrain.backbones import Backbone
from retrain.dataset import PARTS, Skipped, read
from retrain.errors import UsageError
from retrain.evaluation import Accuracy, predictions
from retrain.finetune import RateCurve
from retrain.pipeline.examples import Examples, usable
from retrain.pipeline.features import Extractor, look_up, named, open_extractor
from retrain.pipeline.groups import choose_groups
from retrain.pipeline.judged import Judged, divide_examples, fit_and_judge
from retrain.pipeline.learnt import Learnt
from retrain.pipeline.look import extract_all, look
from retrain.pipeline.record import Record
from retrain.pipeline.reference import reference_of
from retrain.pipeline.search import Search
from retrain.pipeline.seen import Seen
from retrain.pipeline.tuned import FineTuner, Outcome, Tuning, check_parts
from retrain.progress import SILENT, Progress
from retrain.runner import Run, run_locally
from retrain.settings import AugmentSettings, FineTuneSettings, HeadSettings, SplitSettings, as_plain
from retrain.storage import RATE_RECORD, Layout, own_folder


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
    line = _Line(
        Layout(Path(tf_files)), split, head, named(backbone), augment, tuning, tta, search, image_size, weights,
        crop_borders, model, devices, summaries, run, progress,
    )  # fmt: skip
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
    line = _Line(
        Layout(Path(tf_files)), split, head, named(backbone), augment, tuning, False, 0.0, image_size, weights, crop_borders,
        None, devices, None, run, progress,
    )  # fmt: skip
    line.record.name = RATE_RECORD  # that of a model that is there stays
    with line.record as record:
        line.prepare(to_save=False)
        with record.stage("head"):
            judged = line.frozen()
        with record.stage("learning rate"):
            return line.tuner(judged).find_rate()


class _Line:
    """The stages that `train` and `find_rate` share, in their order."""

    def __init__(
        self,
        layout: Layout,
        split: SplitSettings,
        head: HeadSettings,
        several: Sequence[str | Backbone],
        augment: AugmentSettings,
        tuning: FineTuneSettings,
        tta: bool,
        search: float,
        image_size: int | Sequence[int] | None,
        weights: str | os.PathLike[str] | None,
        crop_borders: bool,
        model: str | os.PathLike[str] | None,
        devices: Sequence[str],
        summaries: str | os.PathLike[str] | None,
        run: Run,
        progress: Progress,
    ) -> None:
        *smaller, size = (image_size,) if image_size is None or isinstance(image_size, int) else tuple(image_size) or (None,)
        if not 0 <= search < float("inf"):
            raise UsageError(f"--search {search} is no number of seconds; give 0 or more")
        sizes = [one for one in (*smaller, size) if one is not None]
        if not all(isinstance(one, int) and 32 <= one <= 1024 for one in sizes):
            raise UsageError(f"--image-size {', '.join(map(str, sizes))} is out of range; give 32 to 1024 pixels")
        if tuning.fine_tune and len(several) > 1:
            raise UsageError("--fine-tune trains one backbone; name the better of these, found without --fine-tune")
        if search and (len(several) > 1 or tuning.fine_tune):
            raise UsageError("--search tries backbones and fine-tuning by itself; give one --backbone, and no --fine-tune")
        if smaller and not tuning.fine_tune:
            raise UsageError("--image-size takes several sizes with --fine-tune only; give one")
        self.layout, self._split, self._head, self._augment, self._tta = layout, split, head, augment, tta
        self._size, self._weights, self._crop_borders, self._search = size, weights, crop_borders, search
        self._run, self._progress, self._moved = run, progress, model is not None
        self._several = [look_up(one, size, weights) for one in several]
        self._tuning = Tuning(
            tuning,
            augment,
            head,
            tuple(smaller),
            (devices,) if isinstance(devices, str) else tuple(devices),
            None if summaries is None else Path(summaries),
        )
        self.target = layout.model if model is None else Path(model)
        names = ",".join(one if isinstance(one, str) else one.name for one in self._several)
        further = {**as_plain(augment), **as_plain(tuning), "tta": tta, "search": search, "image_sizes": [*smaller, size]}
        self.record = Record(layout, names, split, head, crop_borders, further)

    def prepare(self, to_save: bool = True) -> None:
        """List the pictures, open the backbones, compute features, split, and compute views."""
        record, layout, progress = self.record, self.layout, self._progress
        with record.stage("listing"):
            listing = read(
                layout, self._split.groups, self._split.validation_dir, self._split.test_dir, self._split.test_source
            )
            record.listed = True
            own_folder(layout.reports)
            if to_save:
                own_folder(self.target, "move it away or choose another --model" if self._moved else "")
        with record.stage("backbone"):
            self.extractors = [
                open_extractor(one, self._size, self._weights, self._crop_borders, progress) for one in self._several
            ]
            record.chosen([(one.backbone, one.weights, one.network.engine) for one in self.extractors])
        with record.stage("bottlenecks"):
            found = extract_all(listing, self.extractors, layout, self._run, progress)
            examples = usable(listing, found[0], record, progress, found[1:])
        with record.stage("split"):
            examples, split = choose_groups(listing, examples, self._split, self._head, self.target, record, progress)
            self.parts = divide_examples(examples, split, self.target, record, progress)
            self.examples = examples
            # Now, and not after the head was trained.
            if self._tuning.settings.fine_tune:
                check_parts(self.parts)
            if self._search and self.parts.folds:
                raise UsageError("--search needs a validation and a test part, not folds; add pictures, or drop --search")
        with record.stage("views"):
            self.seen = look(
                listing, found, self.extractors, examples, self.parts, self._augment, self._tta, layout, self._run, record,
                progress, timed_too=bool(self._search) or self._tuning.settings.fine_tune,
            )  # fmt: skip

    def frozen(self) -> Judged:
        """Learn with the backbones as they are."""
        return fit_and_judge(self.examples, self.parts, self._head, self.record, self._progress, self.seen)

    def searcher(self, default: Judged) -> Search:
        """Return what looks for a better model."""
        return Search(
            self.extractors[0], self.seen[0], self.examples, self.parts, default, self._tuning, self.layout, self._run,
            self.record, self._progress,
        )  # fmt: skip

    def tuner(self, frozen: Judged) -> FineTuner:
        """Return what trains the backbone, too."""
        return FineTuner(
            self.extractors[0], self.examples, self.parts, self.seen[0], frozen, self._tuning, self.layout, self._run,
            self._progress,
        )  # fmt: skip


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
