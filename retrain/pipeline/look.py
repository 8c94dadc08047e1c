"""Look at the pictures with one backbone or several: their features, and those of further views."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from retrain import distortions, views
from retrain.bottlenecks import Bottlenecks, stacked
from retrain.dataset import Listing, Split
from retrain.distortions import Distortion, Drawn
from retrain.errors import BadImage, EnvironmentProblem
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
    timed_too: bool = False,
) -> list[Seen]:
    """Return what each backbone sees of the examples; distorted views are computed of those that are learnt from.

    `timed_too`: find out how long each takes for a picture, also where nothing is compared here.
    """
    place = {listing.examples[row].path: at for at, row in enumerate(found[0].rows.tolist())}
    rows = [place[path] for path in examples.paths]
    to_learn, to_test = distortions.drawn(augment.augment, augment), views.TTA if tta else ()
    seen = []
    for extractor, of_backbone in zip(extractors, found, strict=True):
        features = examples.features if of_backbone is found[0] else of_backbone.features[rows]
        looker = Looker(extractor, examples, layout, run, progress, record)
        timed = extractor.milliseconds() if timed_too or tta or len(extractors) > 1 else 0.0
        seen.append(replace(looker.look(parts, to_learn, to_test, features), milliseconds=timed))
    return seen


class Looker:
    """Looks at pictures through one backbone."""

    def __init__(
        self, extractor: Extractor, examples: Examples, layout: Layout, run: Run, progress: Progress, record: Record
    ) -> None:
        self._extractor, self._examples = extractor, examples
        self._layout, self._run, self._progress, self._record = layout, run, progress, record

    def look_at(self, rows: np.ndarray, tested: np.ndarray, to_test: Sequence[Distortion | Drawn]) -> Seen:
        """Return the features of some rows, and views to test with of others among them; those of the rest are 0.

        `rows`, `tested`: int64, the numbers of examples.
        """
        plain = self._plain(rows)
        features = np.zeros((len(self._examples.paths), plain.shape[1]), np.float32)
        features[rows] = plain
        several = _empty(features, len(to_test))
        if several is not None:
            several[rows, 0] = plain
            several[tested] = self._views(tested, to_test, features)
        return Seen(self._extractor.backbone.name, features, views=several)

    def look(
        self,
        parts: Split,
        to_learn: Sequence[Distortion | Drawn],
        to_test: Sequence[Distortion | Drawn],
        features: np.ndarray | None = None,
    ) -> Seen:
        """Return the features of all pictures, views to learn from of those that are, and views to test with of all.

        `features`: float32 (n, feature_size), where they are there already.
        """
        name = self._extractor.backbone.name
        if features is None:
            features = self._plain(np.arange(len(parts.parts)))
        learnt = np.array([part not in ("test", "left-out") for part in parts.parts])
        augmented, several = _empty(features, len(to_learn)), _empty(features, len(to_test))
        for rows, wanted in ((np.flatnonzero(learnt), (*to_learn, *to_test)), (parts.rows("test"), tuple(to_test))):
            if not len(rows) or not wanted:
                continue
            of_views = self._views(rows, wanted, features)
            if augmented is not None and len(wanted) > len(to_test):
                augmented[rows] = of_views[:, : 1 + len(to_learn)]
            if several is not None:
                several[rows, 0] = of_views[:, 0]
                several[rows, 1:] = of_views[:, len(wanted) - len(to_test) + 1 :]
        return Seen(name, features, augmented, several)

    def _plain(self, rows: np.ndarray) -> np.ndarray:
        """Return the features of examples; raises EnvironmentProblem where a file has changed since it was listed."""
        paths = [self._examples.paths[row] for row in rows]
        found = self._extractor.extract(paths, self._layout, self._run, self._progress)
        if found.hashes != tuple(self._examples.hashes[row] for row in rows):
            raise EnvironmentProblem("pictures have changed since the run began; run it again, and leave them as they are")
        return found.features

    def _views(self, rows: np.ndarray, wanted: Sequence[Distortion | Drawn], features: np.ndarray) -> np.ndarray:
        """Return the features of pictures and of views of them, float32 (m, 1 + views, feature_size)."""
        paths = [self._examples.paths[row] for row in rows]
        found = self._extractor.extract_views(paths, wanted, self._layout, self._run, self._progress)
        computed = sum(of_view.computed for of_view in found)
        self._record.viewed(computed, len(rows) * len(wanted) - computed)
        return stacked(features[rows], [self._examples.hashes[row] for row in rows], found)


def _empty(features: np.ndarray, count: int) -> np.ndarray | None:
    return np.zeros((len(features), 1 + count, features.shape[1]), np.float32) if count else None
