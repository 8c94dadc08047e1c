"""`--groups auto`: which pictures belong together is decided by what a random split would flatter by."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from retrain import artifact, head
from retrain.dataset import Listing, grouped, near_duplicates
from retrain.errors import ModelRefused, UsageError
from retrain.evaluation.splits import Gap, divided, gaps, recommended
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
        groups_of: dict[str, set[str]] = defaultdict(set)
        for example in examples:
            groups_of[example.label].add(example.group)
        # Where all pictures of a class are one group (IMG_0001, IMG_0002 ...), that says nothing.
        group_of = {example.path: example.group if len(groups_of[example.label]) > 1 else "" for example in examples}
        found[grouping] = tuple(group_of[path] for path in paths)
    return found


def choose_groups(
    listing: Listing,
    examples: Examples,
    split: SplitSettings,
    settings: HeadSettings,
    target: Path,
    record: Record,
    progress: Progress,
) -> tuple[Examples, SplitSettings]:
    """Return the examples with their groups, and the settings with what `auto` stands for here; else both as they are.

    What the model in `target` was split by is kept, as long as it matters, so that its test pictures stay test pictures.
    """
    if split.groups != AUTO:
        return examples, split
    candidates = groupings(listing, examples.paths)
    rows = np.array([row for row, part in enumerate(examples.fixed_parts) if not part], np.int64)
    found = _measured(examples, rows, candidates, settings) if candidates and len(rows) >= _LEAST else []
    before = _before(target)
    grouping = before if any(gap.grouping == before and gap.matters for gap in found) else recommended(found)
    record.grouped(grouping, found)
    progress.note(_told(grouping, found))
    if before is not None and before != grouping:
        progress.note(f"the model that is replaced was split by {before}: the split is drawn anew")
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


def _before(target: Path) -> str | None:
    """Return the grouping of the model that is about to be replaced, None for no model or none."""
    try:
        groups = artifact.load(target).manifest["split"]["settings"].get("groups")
    except ModelRefused:
        return None
    return groups if groups in (FOLDER, NAME) else None


def _told(grouping: str | None, found: Sequence[Gap]) -> str:
    gap = next((gap for gap in found if gap.grouping == grouping), None)
    if gap is None and len(found) < 2:
        return "groups: none; neither folders nor names tell groups that could be compared"
    if gap is None:
        return "groups: none that a random split would flatter by"
    return (
        f"groups: {gap.grouping}; a random split would say {100 * gap.by_random.value:.1f} %, with each {gap.grouping} kept"
        f" together {100 * gap.by_groups.value:.1f} % are right"
    )
