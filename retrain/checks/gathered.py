"""All that the checks look at, row by row: features, facts and hashes of the pictures that can be used."""

from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from retrain import artifact, bottlenecks, facts, views
from retrain.dataset import Listing, Skipped
from retrain.errors import ModelRefused
from retrain.pipeline.features import Extractor
from retrain.pipeline.groups import groupings
from retrain.progress import Progress
from retrain.runner import Run
from retrain.storage import Layout


@dataclass(frozen=True)
class Pictures:
    """The pictures that can be used, and what cannot.

    `names`: the classes that have pictures; `classes`: int64 (n,), indices into them; `features`: float32 (n, d);
    `vectors`: float32 (n, facts.SIZE); the others one a row, `hashes` in hex. `groupings`: name -> group of each row,
    empty for none. `computed`: how many features were not in the cache.
    """

    names: tuple[str, ...]
    classes: np.ndarray
    paths: tuple[str, ...]
    hashes: tuple[str, ...]
    sources: tuple[str, ...]
    features: np.ndarray
    vectors: np.ndarray
    groupings: dict[str, tuple[str, ...]]
    skipped: tuple[Skipped, ...]
    computed: int

    def labels(self) -> list[str]:
        """Return the label of each row."""
        return [self.names[label] for label in self.classes]


def gather(listing: Listing, layout: Layout, extractor: Extractor, run: Run, progress: Progress) -> Pictures:
    """Compute what the cache lacks of features and facts, and put both together."""
    paths = [example.path for example in listing.examples]
    found = extractor.extract(paths, layout, run, progress)
    crop = extractor.view == views.CROP_BORDERS
    with bottlenecks.Store(layout.bottlenecks, bottlenecks.Space(*facts.space(crop)), progress) as store:
        measure = partial(_facts, crop)
        seen = bottlenecks.measured(paths, store, measure, facts.SIZE, name="facts", run=run, progress=progress)
    place = {int(row): at for at, row in enumerate(seen.rows)}
    # A file may have changed between the two: what is said of it must be of the same bytes.
    both = [at for at, row in enumerate(found.rows) if seen.hashes[place[int(row)]] == found.hashes[at]] if place else []
    rows = [int(found.rows[at]) for at in both]
    kept = [listing.examples[row] for row in rows]
    problems = {**seen.problems, **found.problems}
    lost = set(range(len(paths))) - set(rows) - set(problems)
    skipped = [Skipped(paths[row], problem.reason, problem.detail) for row, problem in sorted(problems.items())]
    skipped += [Skipped(paths[row], "changed") for row in sorted(lost)]
    names = tuple(label for label in listing.labels if label in {example.label for example in kept})
    number = {label: index for index, label in enumerate(names)}
    return Pictures(
        names=names,
        classes=np.array([number[example.label] for example in kept], np.int64),
        paths=tuple(example.path for example in kept),
        hashes=tuple(found.hashes[at] for at in both),
        sources=tuple(example.source for example in kept),
        features=found.features if len(both) == len(found.rows) else found.features[both],  # the first without a copy
        vectors=seen.features[[place[row] for row in rows]],
        groupings=groupings(listing, [example.path for example in kept]),
        skipped=(*listing.skipped, *skipped),
        computed=found.computed,
    )


def _facts(crop: bool) -> bottlenecks.Measure:
    return partial(facts.measure, crop_borders=crop)


def parts_of_model(model: Path, hashes: tuple[str, ...]) -> tuple[str, ...]:
    """Return the part that each picture had when the model was trained, empty for one that it does not know."""
    try:
        known = {row.sha256: row.part for row in artifact.load(model).split()}
    except ModelRefused:
        known = {}
    return tuple(known.get(sha256, "") for sha256 in hashes)
