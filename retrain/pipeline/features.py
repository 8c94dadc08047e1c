"""What gives each picture its features: a backbone, as it runs here, with a view."""

import os
import timeit
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from retrain import backbones, bottlenecks, views
from retrain.backbones import Backbone
from retrain.distortions import Distortion, Drawn
from retrain.errors import UsageError
from retrain.progress import Progress
from retrain.runner import Network, Run, open_network
from retrain.storage import Layout

_TIMED = 7  # runs of a network, of which the fastest counts


@dataclass(frozen=True)
class Extractor:
    """A backbone with its weights on this machine. `weights`: their sha256 in hex; `view`: a key of views.VIEWS."""

    backbone: Backbone
    weights: str
    network: Network
    view: str

    @property
    def preprocessing(self) -> str:
        """The name of all that decides the pixels."""
        return views.preprocessing_id(self.view, self.backbone.image_size)

    def extract(self, paths: Sequence[str], layout: Layout, run: Run, progress: Progress) -> bottlenecks.Bottlenecks:
        """Return the features of these files, from the cache of a working folder as far as they are there."""
        size = self.backbone.image_size
        with bottlenecks.Store(layout.bottlenecks, self._space(self.view), progress) as store:
            return bottlenecks.extract(
                paths, store, self.network, self.view, size, self._feature_size(), run=run, progress=progress
            )

    def extract_views(
        self, paths: Sequence[str], found: Sequence[Distortion | Drawn], layout: Layout, run: Run, progress: Progress
    ) -> list[bottlenecks.Bottlenecks]:
        """Return the features of distorted views of these files, which are decoded once for all of them."""
        names = [views.distorted(self.view, distortion) for distortion in found]
        size = self.backbone.image_size
        with ExitStack() as opened:
            stores = [opened.enter_context(bottlenecks.Store(layout.bottlenecks, self._space(n), progress)) for n in names]
            return bottlenecks.extract_views(
                paths, stores, self.network, names, size, self._feature_size(), name="views", run=run, progress=progress
            )

    def forget_others(self, layout: Layout, progress: Progress) -> None:
        """Let the cache of a working folder forget what this backbone gave with other weights."""
        with bottlenecks.Store(layout.bottlenecks, self._space(self.view), progress) as store:
            store.forget_others()

    def forget(self, layout: Layout, progress: Progress) -> None:
        """Let the cache of a working folder forget what this backbone gave with these weights."""
        with bottlenecks.Store(layout.bottlenecks, self._space(self.view), progress) as store:
            store.forget()

    def milliseconds(self) -> float:
        """Return how long the network takes for one picture on one core, about: decoding is not in it."""
        runner = open_network(self.network)
        grey = np.full((1, self.backbone.image_size, self.backbone.image_size, 3), 127, np.uint8)
        return 1000 * min(timeit.repeat(lambda: runner.features(grey), number=1, repeat=_TIMED))

    def _space(self, view: str) -> bottlenecks.Space:
        preprocessing = views.preprocessing_id(view, self.backbone.image_size)
        return bottlenecks.Space(self.backbone.name, self.weights, preprocessing, self.network.engine)

    def _feature_size(self) -> int:
        """Return the number of features; of what comes from elsewhere, the network itself knows best."""
        embedded = self.backbone.name in backbones.EMBEDDED
        return self.backbone.feature_size if embedded else open_network(self.network).feature_size


def named(backbone: str | Backbone | Sequence[str | Backbone]) -> list[str | Backbone]:
    """Return the backbones that are meant: one, several, or names with commas between them.

    Raises UsageError where one is named twice.
    """
    if isinstance(backbone, Backbone):
        return [backbone]
    if not isinstance(backbone, str):
        several = list(backbone)
    else:
        several = [backbone] if os.path.exists(backbone) else [name.strip() for name in backbone.split(",")]
    if not several or "" in several:
        raise UsageError(f"--backbone '{backbone}' names nothing; for the names see: retrain backbones")
    for number, one in enumerate(several):
        if one in several[:number]:
            raise UsageError(f"--backbone names {one} twice; name it once")
    return several


def look_up(backbone: str | Backbone, image_size: int | None, weights: str | os.PathLike[str] | None) -> str | Backbone:
    """Return the row of a name, so that a mistake ends the run before it begins; a handle stays as it is."""
    if isinstance(backbone, Backbone):
        if weights is not None:
            raise UsageError("weights= goes with the name of a network of keras.applications, not with a row of your own")
        return backbone if image_size is None else replace(backbone, image_size=image_size)
    if backbones.is_handle(backbone):
        return backbone
    return backbones.get(backbone, image_size, None if weights is None else Path(weights))


def open_extractor(
    backbone: str | Backbone,
    image_size: int | None,
    weights: str | os.PathLike[str] | None,
    crop_borders: bool,
    progress: Progress,
) -> Extractor:
    """Return what extracts, its weights downloaded and its network converted if need be."""
    if isinstance(backbone, str):
        backbone = backbones.get(backbone, image_size, None if weights is None else Path(weights), progress)
    backbone.fetch(progress)
    view = views.CROP_BORDERS if crop_borders else views.DEFAULT_VIEW
    network = backbones.network(backbone, progress)
    return Extractor(backbone, backbones.weights_hash(backbone), network, view)
