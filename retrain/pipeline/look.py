"""Look at the pictures with one backbone or several: their features, and those of further views."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from retrain import distortions, views
from retrain.bottlenecks import Bottlenecks, stacked
from retrain.dataset import Listing, Split
from retrain.distortions import Distortion
from retrain.errors import BadImage
from retrain.pipeline.examples import Examples
from retrain.pipeline.features import Extractor
from retrain.pipeline.record import Record
from retrain.pipeline.seen import Seen
from retrain.progress import Progress
from retrain.runner import Run
from retrain.settings import AugmentSettings
from retrain.storage import Layout


def extract_all(
    listing: Listing, extractors: Sequence[Extractor], layout: Layout, run: Run, progress: Progress
) -> list[Bottlenecks]:
    """Return the features of all pictures under each backbone; a picture that one cannot use is used by none."""
    paths = [example.path for example in listing.examples]
    found = [extractor.extract(paths, layout, run, progress) for extractor in extractors]
    if len(found) == 1:
        return found
    problems = {row: problem for one in found for row, problem in one.problems.items()}
    hashes = [dict(zip(one.rows.tolist(), one.hashes, strict=True)) for one in found]
    changed = [row for row in hashes[0] if len({known.get(row, "") for known in hashes}) > 1 and row not in problems]
    problems |= {row: BadImage("changed") for row in changed}
    return [_without(one, problems) for one in found]


def _without(found: Bottlenecks, problems: dict[int, BadImage]) -> Bottlenecks:
    keep = [place for place, row in enumerate(found.rows.tolist()) if row not in problems]
    hashes = tuple(found.hashes[place] for place in keep)
    return replace(found, rows=found.rows[keep], hashes=hashes, features=found.features[keep], problems=problems)


def look(
    listing: Listing,
    found: Sequence[Bottlenecks],
    extractors: Sequence[Extractor],
    examples: Examples,
    parts: Split,
    augment: AugmentSettings,
    tta: bool,
    layout: Layout,
    run: Run,
    record: Record,
    progress: Progress,
) -> list[Seen]:
    """Return what each backbone sees of the examples; distorted views are computed of those that are learnt from."""
    place = {listing.examples[row].path: at for at, row in enumerate(found[0].rows.tolist())}
    rows = [place[path] for path in examples.paths]
    to_learn = distortions.named(augment.augment, augment)
    seen = []
    for extractor, of_backbone in zip(extractors, found, strict=True):
        features = examples.features if of_backbone is found[0] else of_backbone.features[rows]
        timed = extractor.milliseconds() if tta or len(extractors) > 1 else 0.0
        one = Seen(extractor.backbone.name, features, milliseconds=timed)
        if to_learn or tta:
            looker = _Looker(extractor, examples, features, layout, run, progress, record)
            one = looker.with_views(one, parts, to_learn, views.TTA if tta else ())
        seen.append(one)
    return seen


class _Looker:
    """Computes further views under one backbone."""

    def __init__(
        self, extractor: Extractor, examples: Examples, features: np.ndarray, layout: Layout, run: Run, progress: Progress,
        record: Record,
    ) -> None:  # fmt: skip
        self._extractor, self._examples, self._features = extractor, examples, features
        self._layout, self._run, self._progress, self._record = layout, run, progress, record

    def with_views(self, seen: Seen, parts: Split, to_learn: Sequence[Distortion], to_test: Sequence[Distortion]) -> Seen:
        """Add the views to learn from, of the pictures that are, and the views to test with, of all."""
        learnt = np.array([part not in ("test", "left-out") for part in parts.parts])
        augmented = self._empty(to_learn)
        several = self._empty(to_test)
        for rows, wanted in ((np.flatnonzero(learnt), (*to_learn, *to_test)), (np.flatnonzero(~learnt), tuple(to_test))):
            if not len(rows) or not wanted:
                continue
            of_views = self._extract(rows, wanted)
            if augmented is not None and len(wanted) > len(to_test):
                augmented[rows] = of_views[:, : 1 + len(to_learn)]
            if several is not None:
                several[rows, 0] = of_views[:, 0]
                several[rows, 1:] = of_views[:, len(wanted) - len(to_test) + 1 :]
        return replace(seen, augmented=augmented, views=several)

    def _empty(self, distorted: Sequence[Distortion]) -> np.ndarray | None:
        count, size = self._features.shape
        return np.zeros((count, 1 + len(distorted), size), np.float32) if distorted else None

    def _extract(self, rows: np.ndarray, wanted: Sequence[Distortion]) -> np.ndarray:
        """Return the features of pictures and of views of them, float32 (m, 1 + views, feature_size)."""
        paths = [self._examples.paths[row] for row in rows]
        found = self._extractor.extract_views(paths, wanted, self._layout, self._run, self._progress)
        computed = sum(of_view.computed for of_view in found)
        self._record.viewed(computed, len(rows) * len(wanted) - computed)
        return stacked(self._features[rows], [self._examples.hashes[row] for row in rows], found)
