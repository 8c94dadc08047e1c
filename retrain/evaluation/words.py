"""What a report says of how a model came about: its split, its training curve."""

import json
from collections import Counter

from retrain import artifact
from retrain.dataset import TEST, TRAIN, VALIDATION
from retrain.head import History
from retrain.settings import FOLDER, NAME
from retrain.storage import Layout

_RECORD = "train.json"
_COLUMNS = ("steps", "learnt_loss", "held_out_loss", "learnt_error", "held_out_error")
_LARGEST = 2**28  # bytes


def of_split(loaded: artifact.Loaded) -> tuple[str, ...]:
    """Return sentences on how the pictures of a model were divided."""
    split, settings = loaded.split(), loaded.manifest["split"]["settings"]
    counts = Counter(row.part for row in split)
    units = len({row.group for row in split})
    if any(part.startswith("fold-") for part in counts):
        first = (
            f"All {len(split):,} pictures were judged once, each by a head that had learnt from the other folds only"
            f" ({len(counts)} folds); the model itself has learnt from all of them."
        )
    else:
        first = (
            f"Of {len(split):,} pictures {counts[TRAIN]:,} were learnt from, {counts[VALIDATION]:,} were there to choose"
            f" settings by and learnt from in the end, and {counts[TEST]:,} were kept for the test."
        )
    return first, _together(settings.get("groups"), units, len(split))


def _together(groups: str | None, units: int, pictures: int) -> str:
    alike = "Pictures with the same bytes and near-duplicates"
    named = {None: "", FOLDER: ", and pictures of one folder,", NAME: ", and pictures whose names differ only in numbers,"}
    more = named.get(groups, f", and pictures that '{groups}' finds to belong together,")
    return f"{alike}{more} were kept on one side: {pictures:,} pictures in {units:,} units."


def curve_of(loaded: artifact.Loaded, layout: Layout) -> History | None:
    """Return the curve in the record of the run that a model came from; None where that is another run's, or gone."""
    path = layout.reports / _RECORD
    try:
        if not path.is_file() or path.stat().st_size > _LARGEST:
            return None
        record = json.loads(path.read_bytes())
        history = record["history"]
        if record["model"]["sha256"] != loaded.manifest["sha256"] or history is None:
            return None
        steps, learnt_loss, loss, learnt_error, error = (tuple(map(float, history[name])) for name in _COLUMNS)
        if not steps or any(len(row) != len(steps) for row in (learnt_loss, loss, learnt_error, error)):
            return None
        return History(tuple(map(int, steps)), learnt_loss, loss, learnt_error, error, str(history["held_out_are"]))
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None
