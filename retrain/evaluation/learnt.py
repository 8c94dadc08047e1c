"""Which pictures a model has learnt from, or from one that is nearly the same: they say nothing of how good it is."""

from collections.abc import Sequence

import numpy as np

from retrain import artifact, bottlenecks, views
from retrain.bottlenecks import Space
from retrain.dataset import TEST, near_duplicates
from retrain.dataset.neighbours import Forest
from retrain.progress import Progress
from retrain.storage import Layout


def space_of(member: artifact.Member, view: str | None = None) -> Space:
    """Return what, beside the picture, decides the features that a member works on: their place in the cache.

    `view`: another one than that of the member.
    """
    preprocessing = member.preprocessing if view is None else views.preprocessing_id(view, member.image_size)
    return Space(member.backbone, member.weights, preprocessing, member.network.engine)


def learnt_from(
    loaded: artifact.Loaded,
    hashes: Sequence[str],
    labels: Sequence[str],
    features: np.ndarray,
    layout: Layout,
    progress: Progress,
) -> tuple[set[int], set[int]]:
    """Return the rows that the model has learnt from, and those that are near-duplicates of such a picture.

    `hashes`: sha256 in hex; `labels`: class folders; `features`: float32 (n, feature_size), under the first member.
    Near is what `train` keeps on one side of a split; the pictures of its test part are not, by its own judgement. Pictures
    that were learnt from are compared as far as their features are in the cache, else as far as the model's reference has
    them.
    """
    split = loaded.split()
    classes = {row.sha256: row.label for row in split if row.part != TEST}
    tested = {row.sha256 for row in split if row.part == TEST} - set(classes)
    same = {row for row, sha256 in enumerate(hashes) if sha256 in classes}
    others = np.array([row for row in range(len(hashes)) if row not in same and hashes[row] not in tested], np.int64)
    if not len(others):
        return same, set()
    known, before = _known(loaded, classes, layout, features.shape[1], progress)
    numbers = {label: number for number, label in enumerate(dict.fromkeys([*before, *labels]))}
    both = np.array([numbers[label] for label in [*before, *(labels[row] for row in others)]], np.int64)
    links = near_duplicates(np.concatenate([known, features[others]]), both)
    forest = Forest(len(both))
    forest.connect(links[:, 0], links[:, 1])
    component = forest.components()
    near = np.isin(component[len(known) :], component[: len(known)])
    return same, set(others[near].tolist())


def _known(
    loaded: artifact.Loaded, classes: dict[str, str], layout: Layout, size: int, progress: Progress
) -> tuple[np.ndarray, list[str]]:
    """Return features that were learnt from, float32 (m, size), and the class of each."""
    with bottlenecks.Store(layout.bottlenecks, space_of(loaded.artifact.members[0]), progress) as store:
        found = [entry for entry in store.read(map(bytes.fromhex, classes), size) if entry.vector is not None]
    if len(found) < len(classes):
        reference = loaded.reference()
        return reference.features.astype(np.float32), [loaded.artifact.labels[label] for label in reference.labels]
    features = np.empty((len(found), size), np.float32)
    for row, entry in enumerate(found):
        features[row] = entry.vector
    return features, [classes[entry.sha256.hex()] for entry in found]
