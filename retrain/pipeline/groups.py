"""`--groups auto`: which pictures belong together is decided by what a random split would flatter by."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from retrain import head
from retrain.dataset import Listing, grouped, near_duplicates
from retrain.errors import UsageError
from retrain.evaluate.splits import Gap, divided, gaps, recommended
from retrain.pipeline.examples import Examples
from retrain.pipeline.record import Record
from retrain.progress import Progress
from retrain.settings import AUTO, FOLDER, NAME, HeadSettings, SplitSettings

_LEAST = 10  # pictures, for a gap to mean anything


def groupings(listing: Listing, paths: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """Return the ways to tie pictures together that the paths allow: name -> group of each of `paths`, empty for none."""
    found = {}
    for grouping in (FOLDER, NAME):
        try:
            examples = grouped(listing, grouping).examples
        except UsageError:  # it ties nothing together
            continue
        # A folder that other classes have too is a source (frames, fanart): it says where pictures are from.
        group_of = {
            example.path: "" if example.group == f"{example.label}/{example.source}" else example.group
            for example in examples
        }
        found[grouping] = tuple(group_of[path] for path in paths)
    return found


def choose_groups(
    listing: Listing,
    examples: Examples,
    split: SplitSettings,
    settings: HeadSettings,
    record: Record,
    progress: Progress,
) -> tuple[Examples, SplitSettings]:
    """Return the examples with their groups, and the settings with what `auto` stands for here; else both as they are."""
    if split.groups != AUTO:
        return examples, split
    candidates = groupings(listing, examples.paths)
    rows = np.array([row for row, part in enumerate(examples.fixed_parts) if not part], np.int64)
    found = _measured(examples, rows, candidates, settings) if candidates and len(rows) >= _LEAST else []
    grouping = recommended(found)
    record.grouped(grouping, found)
    progress.note(_told(grouping, found))
    groups = candidates[grouping] if grouping else examples.groups
    return replace(examples, groups=groups), replace(split, groups=grouping)


def _measured(
    examples: Examples, rows: np.ndarray, candidates: dict[str, tuple[str, ...]], settings: HeadSettings
) -> list[Gap]:
    features, numbers = examples.features[rows], np.unique(examples.classes[rows], return_inverse=True)[1]
    hashes = [examples.hashes[row] for row in rows]
    pairs = near_duplicates(features, numbers).tolist()
    _, folds = divided(hashes, numbers, pairs, [""] * len(rows))
    if len(set(folds.tolist())) < 2 or len(set(numbers.tolist())) < 2:
        return []
    _, l2 = head.out_of_fold(features, numbers, int(numbers.max()) + 1, folds, settings)
    names = {name: [groups[row] for row in rows] for name, groups in candidates.items()}
    return gaps(features, numbers, hashes, pairs, names, l2, settings)


def _told(grouping: str | None, found: Sequence[Gap]) -> str:
    gap = next((gap for gap in found if gap.grouping == grouping), None)
    if gap is None:
        return "groups: none that a random split would flatter by"
    return (
        f"groups: {gap.grouping}; a random split would say {100 * gap.by_random.value:.1f} %, with each {gap.grouping} kept"
        f" together {100 * gap.by_groups.value:.1f} % are right"
    )
