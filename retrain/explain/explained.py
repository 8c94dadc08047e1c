"""Why a model labels a picture as it does: maps, nearest training pictures, and what is odd about the picture."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

from retrain import views
from retrain.artifact import Artifact
from retrain.errors import UsageError, did_you_mean
from retrain.heat.maps import activation, mean, occlusion
from retrain.heat.region import WHOLE, Region, region
from retrain.label import Labelled, Labeller, Sight

ACTIVATION, OCCLUSION = "class activation map", "occlusion"
_NEIGHBOURS = 3


@dataclass(frozen=True)
class Map:
    """What speaks for a label, and where.

    `grid`: float64 (rows, columns), of the part of the picture that the model sees: what each place adds to the logit, so
    that their mean is the logit without its bias; or, by occlusion, how much the logit falls where that place is covered.
    Of several networks it is the mean of theirs. `within`: that part: left, top, right and bottom, as shares of the sides.
    """

    label: str
    score: float
    grid: np.ndarray
    within: tuple[float, float, float, float] = WHOLE

    @property
    def region(self) -> Region:
        """Where in the picture the evidence lies."""
        return region(self.grid, self.within)


@dataclass(frozen=True)
class Explained:
    """A picture with what its labels rest on.

    `image`: as it was decoded for the network, upright, RGB; `box`: the part of it that the model sees, in its pixels;
    `maps`: one for each label that was asked for; `way`: ACTIVATION or OCCLUSION, how they were found. `pixels`: uint8
    (size, size, 3), what the first network was given.
    """

    labelled: Labelled
    image: Image.Image
    box: tuple[int, int, int, int]
    maps: tuple[Map, ...]
    way: str
    pixels: np.ndarray

    @property
    def most(self) -> float:
        """The largest value of all maps, which share one scale."""
        return max(float(one.grid.max()) for one in self.maps)


class Explainer:
    """A labeller that says why. Not thread-safe."""

    def __init__(self, labeller: Labeller) -> None:
        self._labeller = labeller
        self.model: Artifact = labeller.model

    def explain(self, data: bytes, labels: Sequence[str] = (), neighbours: int = _NEIGHBOURS) -> Explained:
        """Explain the labels of a picture given as the bytes of its file: the top one, or those that are named.

        The maps are of the picture as it is, also where it is looked at in several views to be labelled. Of several
        networks they are averaged.

        Raises BadImage for a picture that cannot be used, UsageError for a label that the model does not have.
        """
        labels = (labels,) if isinstance(labels, str) else labels
        for name in labels:
            if name not in self.model.labels:
                known = ", ".join(self.model.labels)
                raise UsageError(
                    f"the model has no label '{name}'{did_you_mean(name, self.model.labels) or f'; it has {known}'}"
                )
        labelled, sights = self._labeller.look(data, neighbours, maps=True)
        scores = dict(labelled.scores)
        wanted = list(dict.fromkeys(labels)) or [labelled.scores[0].label]
        places = [self.model.labels.index(name) for name in wanted]
        # Of all networks or of none: the two kinds of maps have different units.
        way = OCCLUSION if any(sight.spatial is None for sight in sights) else ACTIVATION
        grids = mean([self._grids(number, sight, places, way) for number, sight in enumerate(sights)])
        # All members have the same view; their pictures may have been decoded to different sizes.
        image = sights[0].picture.image
        box = views.inside(self.model.members[0].view, image)
        within = (box[0] / image.width, box[1] / image.height, box[2] / image.width, box[3] / image.height)
        maps = tuple(Map(name, scores[name], grid, within) for name, grid in zip(wanted, grids, strict=True))
        return Explained(labelled, image, box, maps, way, sights[0].pixels)

    def _grids(self, number: int, sight: Sight, places: list[int], way: str) -> np.ndarray:
        """Return the maps of labels, by their numbers, of one member: float64 (labels, rows, columns)."""
        if sight.spatial is None or way == OCCLUSION:
            return occlusion(sight.pixels, lambda pixels: self._labeller.logits(number, pixels)[:, places])
        return activation(sight.spatial, self.model.members[number].kernel[:, places])
