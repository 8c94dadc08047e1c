"""Which pictures a model is measured on: never one that it has learnt from."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from retrain import artifact
from retrain.dataset import TEST, Skipped
from retrain.errors import NothingUsable, UsageError
from retrain.evaluation import predictions
from retrain.storage import Layout


@dataclass(frozen=True)
class Chosen:
    """Rows to measure on.

    `known`: int64, of classes that the model has; `foreign`: int64, of others. `what`: these pictures in a few words;
    `notes`: sentences on what was left out. `said`: scores of `known`, after and before calibration, where they are not to
    be computed, since the model has learnt from these pictures meanwhile. `left_out`: rows that are not counted, and why.
    `everything`: all pictures of the folder were asked for, so that what cannot be read is missing.
    """

    known: np.ndarray
    what: str
    notes: tuple[str, ...] = ()
    foreign: np.ndarray = field(default_factory=lambda: np.empty(0, np.int64))
    said: tuple[np.ndarray, np.ndarray] | None = None
    left_out: tuple[int, ...] = ()
    missing: tuple[str, ...] = ()
    everything: bool = False

    def skipped(self, paths: Sequence[str]) -> list[Skipped]:
        """Return the rows that were left out, and test pictures that are gone. `paths`: of all rows."""
        learnt = [Skipped(paths[row], "learnt-from") for row in self.left_out]
        return learnt + [Skipped(f"sha256 {sha256}", "missing", "a picture of the test part") for sha256 in self.missing]


def of_data(loaded: artifact.Loaded, hashes: Sequence[str], labels: Sequence[str]) -> Chosen:
    """Choose, of a folder of class folders, all pictures that the model has not learnt from.

    `hashes`: sha256 in hex; `labels`: the class folders. Raises NothingUsable where none is left of a class that it has.
    """
    learnt = {row.sha256 for row in loaded.split() if row.part != TEST}
    fresh = [row for row, sha256 in enumerate(hashes) if sha256 not in learnt]
    known = [row for row in fresh if labels[row] in loaded.artifact.labels]
    others = [row for row in fresh if labels[row] not in loaded.artifact.labels]
    left_out = tuple(row for row, sha256 in enumerate(hashes) if sha256 in learnt)
    if not known:
        why = f"the model has learnt from all {len(left_out)} of them" if left_out else "none is of a class that it knows"
        raise NothingUsable(f"there is no picture to evaluate on: {why}; give other pictures with --data")
    notes = []
    if left_out:
        notes.append(f"{len(left_out):,} of the pictures were left out, since the model has learnt from them.")
    if others:
        names = sorted({labels[row] for row in others})
        told = ", ".join(f"'{name}'" for name in names[:5]) + (", ..." if len(names) > 5 else "")
        notes.append(
            f"{len(others):,} pictures are of classes that the model does not know ({told}); they count only as to whether"
            " it calls them unknown."
        )
    return Chosen(
        np.array(known, np.int64), "a folder of their own", tuple(notes), np.array(others, np.int64),
        left_out=left_out, everything=True,
    )  # fmt: skip


def of_test_part(loaded: artifact.Loaded, hashes: Sequence[str], labels: Sequence[str], layout: Layout) -> Chosen:
    """Choose the test part of the model's split; of a model that was judged in folds, all pictures, as the folds saw them.

    Raises UsageError where the test pictures lie elsewhere, or what the folds said is gone; NothingUsable where none is
    left.
    """
    split, settings = loaded.split(), loaded.manifest["split"]["settings"]
    placed = {row.sha256 for row in split}
    added = sum(sha256 not in placed for sha256 in hashes)
    notes: tuple[str, ...] = (f"{added:,} pictures have been added since, and are not counted.",) if added else ()
    if any(row.part.startswith("fold-") for row in split):
        return _of_folds(loaded, hashes, labels, layout, notes)
    if settings.get("test_dir"):
        raise UsageError("the model was tested on a folder of its own (--test-dir); give that folder: --data DIR")
    wanted = Counter((row.sha256, row.label) for row in split if row.part == TEST)
    known = [row for row, pair in enumerate(zip(hashes, labels, strict=True)) if pair in wanted]
    gone = wanted - Counter((hashes[row], labels[row]) for row in known)
    if not known:
        raise NothingUsable(
            f"none of the {wanted.total()} test pictures of the model lies in {layout.data} any more; train again, or give"
            " other pictures with --data"
        )
    if gone:
        notes += (f"{gone.total():,} pictures of the test part are gone, or lie in another class now.",)
    source = settings.get("test_source")
    what = "test part" if source is None else f"source '{source}'"
    return Chosen(np.array(known, np.int64), what, notes, missing=tuple(sorted(sha256 for sha256, _ in gone.elements())))


def _of_folds(
    loaded: artifact.Loaded, hashes: Sequence[str], labels: Sequence[str], layout: Layout, notes: tuple[str, ...]
) -> Chosen:
    said = predictions.load(layout, loaded.manifest["sha256"], len(loaded.artifact.labels))
    if said is None:
        raise UsageError(
            "the model was judged by cross-validation, and what was said then is not in"
            f" {layout.reports / predictions.FILE} any more; train again, or give new pictures with --data"
        )
    place = {sha256: number for number, sha256 in enumerate(said.hashes)}
    placed = {(row.sha256, row.label) for row in loaded.split()}
    known = [row for row, pair in enumerate(zip(hashes, labels, strict=True)) if pair in placed and pair[0] in place]
    if not known:
        raise NothingUsable(f"none of the pictures of the model lies in {layout.data} any more; train again")
    numbers = [place[hashes[row]] for row in known]
    scores, before = (values[numbers].astype(np.float64) for values in (said.scores, said.uncalibrated))
    folds = len({row.part for row in loaded.split()})
    return Chosen(np.array(known, np.int64), f"cross-validation, {folds} folds", notes, said=(scores, before))
