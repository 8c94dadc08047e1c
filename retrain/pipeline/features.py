"""What gives each picture its features: a backbone, as it runs here, with a view."""

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from retrain import backbones, bottlenecks, views
from retrain.backbones import Backbone
from retrain.errors import UsageError
from retrain.progress import Progress
from retrain.runner import Network, Run, open_network
from retrain.storage import Layout


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
        space = bottlenecks.Space(self.backbone.name, self.weights, self.preprocessing, self.network.engine)
        size = self.backbone.image_size
        with bottlenecks.Store(layout.bottlenecks, space, progress) as store:
            return bottlenecks.extract(
                paths, store, self.network, self.view, size, self._feature_size(), run=run, progress=progress
            )

    def _feature_size(self) -> int:
        """Return the number of features; of what comes from elsewhere, the network itself knows best."""
        embedded = self.backbone.name in backbones.EMBEDDED
        return self.backbone.feature_size if embedded else open_network(self.network).feature_size


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
