"""Pictures as the model sees them: their features, from the cache as far as they are there."""

from contextlib import ExitStack
from dataclasses import dataclass

import numpy as np

from retrain import artifact, bottlenecks, views
from retrain.dataset import Listing, Skipped
from retrain.evaluation.learnt import space_of
from retrain.label import Labeller
from retrain.progress import Progress
from retrain.runner import Run
from retrain.storage import Layout


@dataclass(frozen=True)
class Seen:
    """Pictures as the model sees them: rows of `listing.examples` that can be used, their sha256 in hex, and the features
    under each member, float32 (n, feature_size)."""

    listing: Listing
    rows: np.ndarray
    hashes: tuple[str, ...]
    features: tuple[np.ndarray, ...]
    skipped: tuple[Skipped, ...]


def see(listing: Listing, model: artifact.Artifact, layout: Layout, run: Run, progress: Progress) -> Seen:
    """Return the features of all pictures, from the cache as far as they are there."""
    Labeller(model)  # refuses a model whose pictures this version cannot prepare
    paths = [example.path for example in listing.examples]
    found = []
    for member in model.members:
        with bottlenecks.Store(layout.bottlenecks, space_of(member), progress) as store:
            found.append(
                bottlenecks.extract(
                    paths, store, member.network, member.view, member.image_size, len(member.kernel),
                    run=run, progress=progress,
                )
            )  # fmt: skip
    usable = sorted(set.intersection(*(set(one.rows.tolist()) for one in found)))
    places = [np.searchsorted(one.rows, usable) for one in found]
    hashes = tuple(found[0].hashes[place] for place in places[0])
    features = tuple(one.features[rows] for one, rows in zip(found, places, strict=True))
    problems = {row: problem for one in found for row, problem in one.problems.items()}
    skipped = [Skipped(paths[row], problem.reason, problem.detail) for row, problem in sorted(problems.items())]
    return Seen(listing, np.array(usable, np.int64), hashes, features, (*listing.skipped, *skipped))


def see_views(
    model: artifact.Artifact, seen: Seen, rows: np.ndarray, way: str, layout: Layout, run: Run, progress: Progress
) -> list[np.ndarray]:
    """Return the features of rows under each member, float32 (m, views, feature_size), in all views that are looked at."""
    plain = [features[rows] for features in seen.features]
    if way == views.PLAIN:
        return [features[:, np.newaxis] for features in plain]
    paths, hashes = [seen.listing.examples[seen.rows[row]].path for row in rows], [seen.hashes[row] for row in rows]
    looks = []
    for member, features in zip(model.members, plain, strict=True):
        names = [member.view + name for name in model.views]
        with ExitStack() as opened:
            stores = [
                opened.enter_context(bottlenecks.Store(layout.bottlenecks, space_of(member, name), progress))
                for name in names
            ]
            found = bottlenecks.extract_views(
                paths, stores, member.network, names, member.image_size, len(member.kernel), name="views",
                run=run, progress=progress,
            )  # fmt: skip
        looks.append(bottlenecks.stacked(features, hashes, found))
    return looks
