"""`check`: one pass over a folder of pictures that finds what may be wrong with it. Nothing is changed."""

import json
import os
import time
from collections import Counter
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from retrain import backbones, facts, head
from retrain.backbones import Backbone
from retrain.checks import classes, labels, pictures, summary
from retrain.checks.alike import find_alike
from retrain.checks.curve import Curve, TooFewPictures, learning_curve
from retrain.checks.findings import Finding
from retrain.checks.gathered import Pictures, gather, parts_of_model
from retrain.checks.nearness import Alike, Near
from retrain.checks.outliers import outliers
from retrain.checks.sheet import render
from retrain.checks.shortcuts import ShortcutRow, shortcuts
from retrain.dataset import near_duplicates, read
from retrain.errors import Exit
from retrain.evaluation.splits import Gap, divided, gaps, recommended, well_divided
from retrain.pipeline.features import look_up, open_extractor
from retrain.progress import SILENT, Progress
from retrain.runner import Run, run_locally
from retrain.settings import HeadSettings
from retrain.storage import Layout, own_folder, write_atomically

SHEET, RECORD = "check.html", "check.json"
_LEAST = 10  # pictures, for predictions of the others to mean anything
_LEAST_UNITS = 3  # pictures of a class that differ, for it to be learnt where one of them is left out


@dataclass(frozen=True)
class Judged:
    """What models say that never saw the picture in question.

    `rows`: int64 (m,), the pictures of classes that have enough that differ; `logits`: float32 (m, classes), theirs, with
    near-duplicates kept together; `honest`: the predicted classes of all pictures, int64 (n,), -1 for the others, when the
    grouping that is recommended is kept together as well. `units`: int64 (n,), the latter's.
    """

    rows: np.ndarray
    logits: np.ndarray
    honest: np.ndarray
    units: np.ndarray
    gaps: tuple[Gap, ...]
    grouping: str | None
    curve: Curve | None
    no_curve: str = ""


@dataclass(frozen=True)
class Report:
    """What `check` found. `sources`: pictures of each class, by source; `seconds`: by stage."""

    findings: tuple[Finding, ...]
    pictures: Pictures
    judged: Judged | None
    shortcuts: tuple[ShortcutRow, ...]
    sources: dict[str, dict[str, int]]
    sheet: Path
    seconds: dict[str, float]

    @property
    def hashes(self) -> dict[str, str]:
        """The sha256 of each picture in hex, by its path."""
        return dict(zip(self.pictures.paths, self.pictures.hashes, strict=True))

    @property
    def accuracy(self) -> float | None:
        """The share of pictures that models label right which never saw them; None where nothing was predicted."""
        if self.judged is None:
            return None
        rows = self.judged.rows
        return float((self.judged.honest == self.pictures.classes)[rows].mean())

    @property
    def exit_code(self) -> Exit:
        """SKIPPED (3) where something was found that matters."""
        return Exit.SKIPPED if any(finding.matters for finding in self.findings) else Exit.OK


def check(
    tf_files: str | os.PathLike[str],
    backbone: str | Backbone = backbones.DEFAULT,
    *,
    image_size: int | None = None,
    weights: str | os.PathLike[str] | None = None,
    crop_borders: bool = False,
    seed: int = 0,
    run: Run = run_locally,
    progress: Progress = SILENT,
) -> Report:
    """Find what may be wrong with the pictures in `tf_files/data/<class>/...`, without changing any.

    Everything is judged by the features that `train` uses, from the same cache, and by a few facts of each picture.
    Writes `tf_files/reports/check.html`, a page that shows the pictures, and `check.json` with all findings.
    The other arguments are those of `train`; `seed` decides which pictures go into which fold.

    Raises UsageError, NothingUsable and EnvironmentProblem as `train` does.
    """
    layout, clock = Layout(Path(tf_files)), _Clock()
    backbone = look_up(backbone, image_size, weights)
    listing = read(layout)
    own_folder(layout.reports)
    extractor = open_extractor(backbone, image_size, weights, crop_borders, progress)
    clock.lap("listing")
    seen = gather(listing, layout, extractor, run, progress)
    clock.lap("features and facts")
    settings = HeadSettings(seed=seed)
    rows = _alike(seen, layout)
    near = Near(rows)
    judged = _judge(seen, near, settings, progress)
    clock.lap("predictions")
    found, table, short = _findings(listing.labels, layout, seen, rows, near, judged, settings)
    clock.lap("findings")
    report = Report(tuple(found), seen, judged, tuple(short), table, layout.reports / SHEET, clock.seconds)
    when = f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC"
    page = render(summary.of(report, layout, when), report.findings, progress)
    write_atomically(report.sheet, page.encode())
    clock.lap("contact sheet")
    record = json.dumps(summary.as_json(report, layout), indent=1, ensure_ascii=True, allow_nan=False) + "\n"
    write_atomically(layout.reports / RECORD, record.encode())
    return report


class _Clock:
    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._last = time.perf_counter()

    def lap(self, name: str) -> None:
        now = time.perf_counter()
        self.seconds[name] = round(now - self._last, 3)
        self._last = now


def _alike(seen: Pictures, layout: Layout) -> Alike:
    return Alike(
        seen.paths, seen.labels(), seen.hashes, seen.features, facts.hashes_of_rows(seen.vectors),
        parts_of_model(layout.model, seen.hashes), facts.of_rows(seen.vectors),
    )  # fmt: skip


def _judge(seen: Pictures, near: Near, settings: HeadSettings, progress: Progress) -> Judged | None:
    """Predict pictures by models that did not learn from them; None where there is too little to learn from."""
    if len(seen.names) < 2 or len(seen.paths) < _LEAST:
        return None
    # What the split of training keeps together, and what only the hashes of pictures tell.
    pairs = np.concatenate([near_duplicates(seen.features, seen.classes), near.within.links()])
    units, _ = divided(seen.hashes, seen.classes, pairs.tolist(), [""] * len(seen.paths))
    rows = np.flatnonzero(well_divided(units, seen.classes, _LEAST_UNITS))
    if len(np.unique(seen.classes[rows])) < 2:
        return None
    progress.note("predicting each picture by models that have not seen it")
    everything = len(rows) == len(seen.paths)
    features, classes = seen.features if everything else seen.features[rows], seen.classes[rows]  # the first: no copy
    hashes = [seen.hashes[row] for row in rows]
    place = np.full(len(seen.paths), -1)
    place[rows] = np.arange(len(rows))
    among = place[pairs][(place[pairs] >= 0).all(axis=1)].tolist()
    groupings = {name: [groups[row] for row in rows] for name, groups in seen.groupings.items()}
    count = len(seen.names)
    parts, folds = divided(hashes, classes, among, [""] * len(rows))
    logits, l2 = head.out_of_fold(features, classes, count, folds, settings)
    found = gaps(features, classes, hashes, among, groupings, l2, settings)
    grouping, honest = recommended(found), logits
    if grouping is not None:
        parts, folds = divided(hashes, classes, among, groupings[grouping])
        honest, l2 = head.out_of_fold(features, classes, count, folds, settings)
        units, _ = divided(seen.hashes, seen.classes, pairs.tolist(), seen.groupings[grouping])
    curve, why = None, ""
    try:
        curve = learning_curve(features, classes, count, folds, l2, settings, None if grouping is None else parts)
    except TooFewPictures as error:
        why = str(error)
    predicted = np.full(len(seen.paths), -1)
    predicted[rows] = honest.argmax(axis=1)
    return Judged(rows, logits, predicted, units, tuple(found), grouping, curve, why)


def _findings(
    all_labels: tuple[str, ...],
    layout: Layout,
    seen: Pictures,
    rows: Alike,
    near: Near,
    judged: Judged | None,
    settings: HeadSettings,
) -> tuple[list[Finding], dict[str, dict[str, int]], list[ShortcutRow]]:
    of_picture, given = rows.facts, rows.labels
    counts = Counter(given)
    table, found = classes.sources(given, seen.sources)
    found += pictures.unreadable(seen.skipped, lambda path: _label_of(path, layout))
    found += pictures.strange(seen.paths, given, of_picture)
    found += classes.sizes({label: counts[label] for label in all_labels}) + classes.names(all_labels)
    found += find_alike(rows, near)
    if judged is None:
        return found, table, []
    paths = tuple(seen.paths[row] for row in judged.rows)
    found += labels.mislabelled(judged.logits, seen.classes[judged.rows], seen.names, paths)
    found += outliers(seen.features, seen.classes, seen.names, seen.paths)
    short, more = shortcuts(of_picture, seen.classes, seen.names, judged.units, settings.seed)
    return [*found, *more, *_leaks(judged)], table, short


def _leaks(judged: Judged) -> list[Finding]:
    return [
        Finding(
            "leak",
            f"by a random split {100 * gap.by_random.value:.1f} % are right, with each {gap.grouping} kept together"
            f" {100 * gap.by_groups.value:.1f} %:"
            f" a random split flatters by {100 * gap.gap:.1f} points ({100 * gap.low:.1f} to {100 * gap.high:.1f});"
            f" train with --groups {gap.grouping}, or auto",
            score=min(1.0, gap.gap),
        )
        for gap in judged.gaps
        if gap.grouping == judged.grouping
    ]


def _label_of(path: str, layout: Layout) -> str:
    parts = Path(os.path.relpath(path, layout.data)).parts
    return parts[0] if len(parts) > 1 else ""
