"""Which pictures a model is measured on: never one that it has learnt from."""

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
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
    left_out: Mapping[int, str] = field(default_factory=dict)
    missing: tuple[str, ...] = ()
    everything: bool = False

    def skipped(self, paths: Sequence[str]) -> list[Skipped]:
        """Return the rows that were left out, and test pictures that are gone. `paths`: of all rows."""
        learnt = [Skipped(paths[row], "learnt-from", detail) for row, detail in sorted(self.left_out.items())]
        return learnt + [
            Skipped(f"sha256 {sha256}", "missing", "a picture that the model was judged on") for sha256 in self.missing
        ]


def of_data(loaded: artifact.Loaded, labels: Sequence[str], same: Collection[int], near: Collection[int]) -> Chosen:
    """Choose, of a folder of class folders, all pictures that the model has not learnt from.

    `labels`: the class folder of each row; `same`, `near`: rows that were learnt from, and that are near-duplicates of
    such. Raises NothingUsable where none is left of a class that the model has.
    """
    left_out = dict.fromkeys(same, "") | dict.fromkeys(near, "nearly the same as one that it has learnt from")
    names = set(loaded.artifact.labels)
    fresh = [row for row in range(len(labels)) if row not in left_out]
    known = [row for row in fresh if labels[row] in names]
    others = [row for row in fresh if labels[row] not in names]
    if not known:
        raise NothingUsable(
            f"there is no picture to evaluate on: of {len(labels)} that can be used the model has learnt from"
            f" {len(left_out)}, or from nearly the same, and {len(others)} are of classes that it does not know; give other"
            " pictures with --data"
        )
    notes: list[str] = []
    if left_out:
        notes.append(
            f"{len(left_out):,} of the pictures were left out: the model has learnt from them, or from nearly the same."
        )
    if others:
        foreign = sorted({labels[row] for row in others})
        told = ", ".join(f"'{name}'" for name in foreign[:5]) + (", ..." if len(foreign) > 5 else "")
        notes.append(
            f"{len(others):,} pictures are of classes that the model does not know ({told}); they count only as to whether"
            " it calls them unknown."
        )
    return Chosen(
        np.array(known, np.int64), "a folder of their own", tuple(notes), np.array(others, np.int64),
        left_out=left_out, everything=True,
    )  # fmt: skip


def of_test_part(
    loaded: artifact.Loaded, hashes: Sequence[str], labels: Sequence[str], sources: Sequence[str], layout: Layout
) -> Chosen:
    """Choose the test part of the model's split; of a model that was judged in folds, all pictures, as the folds saw them.

    Arguments as of `of_data`; `sources`: of the same pictures. Raises UsageError where the test pictures lie elsewhere, or
    what the folds said is gone; NothingUsable where none is left.
    """
    split, settings = loaded.split(), loaded.manifest["split"]["settings"]
    in_folds = any(row.part.startswith("fold-") for row in split)
    if settings.get("test_dir") and not in_folds:
        raise UsageError("the model was tested on a folder of its own (--test-dir); give that folder: --data DIR")
    said = _said(loaded, layout) if in_folds else None
    judged = split if in_folds else [row for row in split if row.part == TEST]
    known, gone = _still_there(judged, hashes, labels, sources)
    if not known:
        raise NothingUsable(
            f"none of the {len(judged)} pictures that the model was judged on lies in {layout.data} any more; train again,"
            " or give other pictures with --data"
        )
    notes: tuple[str, ...] = ()
    placed, taken = {row.sha256 for row in split}, Counter((hashes[row], labels[row]) for row in known)
    copies = Counter(pair for pair in zip(hashes, labels, strict=True) if pair in taken) - taken
    if more := sum(sha256 not in placed for sha256 in hashes) + copies.total():
        notes += (f"{more:,} pictures are in no part of the split, left out then or added since, and are not counted.",)
    if gone:
        notes += (f"{len(gone):,} pictures that the model was judged on are gone, or lie in another class now.",)
    rows = np.array(known, np.int64)
    if said is not None:
        what = f"cross-validation, {len({row.part for row in split})} folds"
        place = {sha256: number for number, sha256 in enumerate(said.hashes)}
        numbers = [place[hashes[row]] for row in known]
        scores, before = (values[numbers].astype(np.float64) for values in (said.scores, said.uncalibrated))
        return Chosen(rows, what, notes, said=(scores, before), missing=gone)
    source = settings.get("test_source")
    return Chosen(rows, "test part" if source is None else f"source '{source}'", notes, missing=gone)


def _still_there(
    judged: Sequence[artifact.Placed], hashes: Sequence[str], labels: Sequence[str], sources: Sequence[str]
) -> tuple[list[int], tuple[str, ...]]:
    """Return the rows that were judged, each once, and the sha256 of pictures that are not among the rows.

    Of copies of one picture the split may have some only: those of the source that it has come first.
    """
    left = Counter((row.sha256, row.label) for row in judged)
    at = {(row.sha256, row.label, row.source) for row in judged}
    found = list(zip(hashes, labels, sources, strict=True))
    known = []
    for row in sorted(range(len(found)), key=lambda row: found[row] not in at):
        if left[found[row][:2]] > 0:
            left[found[row][:2]] -= 1
            known.append(row)
    return sorted(known), tuple(sorted(sha256 for sha256, _ in (+left).elements()))


def _said(loaded: artifact.Loaded, layout: Layout) -> predictions.Predictions:
    """Return what the folds said of all pictures of the split."""
    said = predictions.load(layout, loaded.manifest["sha256"], len(loaded.artifact.labels))
    if said is None or not {row.sha256 for row in loaded.split()} <= set(said.hashes):
        raise UsageError(
            f"the model was judged by cross-validation, and what was said then, {layout.reports / predictions.FILE},"
            " is gone or belongs to another model; train again, or give new pictures with --data"
        )
    return said
