"""Label one picture: image -> scores. No TensorFlow."""

import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from retrain import artifact, distortions, views
from retrain.errors import BadImage, ModelRefused, UsageError
from retrain.images import Picture, read_bytes
from retrain.nearest import Nearest
from retrain.runner import Runner, open_network
from retrain.scores import softmax
from retrain.settings import AUTO, ON, SCORE_DECIMALS, SWITCH, UNKNOWN_RATE


class Score(NamedTuple):
    """A label, exactly as its class folder was named, and its score in [0, 1]."""

    label: str
    score: float

    def __str__(self) -> str:
        return f"{self.label} (score = {self.score:.{SCORE_DECIMALS}f})"


@dataclass(frozen=True)
class Labelled:
    """What a model says of one picture: `scores` of all labels, highest first, and the picture's real extension.

    `typicality`: how usual it is among pictures of these classes, see `retrain.nearest`; None where the model cannot tell.
    `unknown`: it is less than the rate of false alarms that was asked for. `neighbours`: the nearest training pictures.
    """

    scores: tuple[Score, ...]
    extension: str
    notes: tuple[str, ...] = ()
    typicality: float | None = None
    unknown: bool = False
    neighbours: tuple["Neighbour", ...] = ()


class Neighbour(NamedTuple):
    """A training picture, by the sha256 of its file in hex; `similarity`: cosine of the features, at most 1."""

    label: str
    similarity: float
    sha256: str


class Sight(NamedTuple):
    """What one member saw of a picture as it is, undistorted.

    `picture`: as it was decoded for it; `pixels`: uint8 (size, size, 3); `features`: float32 (feature_size,); `logits`:
    float32 (classes,), not divided by the temperature; `spatial`: float32 (rows, columns, feature_size), whose mean over
    places the features are; None where it was not asked for, or the network has none.
    """

    picture: Picture
    pixels: np.ndarray
    features: np.ndarray
    logits: np.ndarray
    spatial: np.ndarray | None


class Labeller:
    """A loaded model that labels pictures. Not thread-safe: make one for each thread with `copy`."""

    def __init__(
        self,
        model: artifact.Artifact,
        threads: int = 1,
        *,
        nearest: Nearest | None = None,
        unknown: float = 0.0,
        tta: str = AUTO,
    ) -> None:
        """Prepare a model; raises ModelRefused where it needs a newer version of this program.

        `tta`: as `way_of` says. `nearest`: its reference, without which nothing is known of how usual a picture is;
        `unknown`: the share of pictures of known classes that may be called unknown by mistake, 0 for no picture being
        called so.
        """
        self.model = model
        self.way = way_of(model, tta)
        self._distortions = [distortions.parse(name) for name in model.views] if self.way == views.SEVERAL else []
        self._threads, self._nearest, self._unknown, self._tta = threads, nearest, unknown, tta
        for member in model.members:
            try:
                for name in ("", *model.views):
                    views.get(member.view + name)
            except UsageError as error:
                raise ModelRefused(f"the model wants a view that this version cannot give: {error}; train again") from None
            if member.preprocessing != views.preprocessing_id(member.view, member.image_size):
                raise ModelRefused(
                    f"the model wants its pictures prepared as '{member.preprocessing}', which this version cannot do;"
                    " train again"
                )

    @cached_property
    def _runners(self) -> list[Runner]:
        runners = [open_network(member.network, self._threads) for member in self.model.members]
        for runner, member in zip(runners, self.model.members, strict=True):
            if runner.image_size != member.image_size:
                raise ModelRefused(f"the backbone takes {runner.image_size} pixels, not {member.image_size}; train again")
        return runners

    def warm_up(self) -> None:
        """Make the networks ready, which the first picture would else wait for; raises ModelRefused."""
        for number, member in enumerate(self.model.members):
            self.logits(number, np.zeros((1, member.image_size, member.image_size, 3), np.uint8))

    def has_maps(self) -> bool:
        """Whether every network gives a spatial map, so that what a label rests on is found without trying parts out."""
        size = max(member.image_size for member in self.model.members)
        noise = np.random.default_rng(0).integers(0, 256, (size, size, 3), np.uint8)  # of one colour, it might by chance
        _, sights = self._look(lambda _size: Picture(Image.fromarray(noise), "PNG", size, size), 0, maps=True)
        return all(sight.spatial is not None for sight in sights)

    @property
    def can_tell_unknown(self) -> bool:
        """Whether it is ever called unknown that is unlike the training pictures."""
        return self._nearest is not None and self._unknown > 0 and self._nearest.can_tell(self._unknown)

    def copy(self) -> "Labeller":
        """Return a labeller of the same model for another thread."""
        return Labeller(self.model, self._threads, nearest=self._nearest, unknown=self._unknown, tta=self._tta)

    def label_bytes(self, data: bytes, neighbours: int = 0) -> Labelled:
        """Label a picture given as the bytes of its file; raises BadImage for one that cannot be used.

        `neighbours`: how many of the nearest training pictures to name.
        """
        return self.look(data, neighbours)[0]

    def label_image(self, image: Image.Image) -> Labelled:
        """Label a picture that is decoded already: upright, 8-bit RGB."""
        return self._look(lambda _size: Picture(image, "PNG", *image.size), 0, maps=False)[0]

    def look(self, data: bytes, neighbours: int = 0, maps: bool = False) -> tuple[Labelled, list[Sight]]:
        """Label a picture, and return what each member saw of it as it is; with `maps`, their spatial maps, too."""
        return self._look(lambda size: views.decode_for(data, size), neighbours, maps)

    def _look(self, decoded: Callable[[int], Picture], neighbours: int, maps: bool) -> tuple[Labelled, list[Sight]]:
        pictures: dict[int, Picture] = {}  # decoded for each size: a smaller one for a smaller network
        total, sights = np.zeros(len(self.model.labels)), []
        for member, runner in zip(self.model.members, self._runners, strict=True):
            size = member.image_size
            picture = pictures[size] = pictures.get(size) or decoded(size)
            names = [member.view, *(views.distorted(member.view, one) for one in self._distortions)]
            pixels = np.stack([views.render(picture, name, member.image_size) for name in names])
            features, spatial = runner.features_and_map(pixels) if maps else (runner.features(pixels), None)
            with np.errstate(over="ignore", invalid="ignore"):  # what comes of it is looked at
                # One by one: a product of several rows may round otherwise, and scores would depend on the views.
                logits = np.stack([row @ member.kernel + member.bias for row in features])
                cooled = logits / self.model.temperature[self.way]
            if not np.isfinite(cooled).all():
                raise BadImage("bad-features")
            total += softmax(cooled).mean(axis=0)
            sights.append(Sight(picture, pixels[0], features[0], logits[0], _pooled(features, spatial)))
        scores = total / len(self.model.members)
        order = np.argsort(-scores, kind="stable")
        ranked = tuple(Score(self.model.labels[index], float(scores[index])) for index in order)
        first = sights[0]
        labelled = Labelled(ranked, first.picture.extension, first.picture.notes)
        return self._compared(labelled, first.features, first.logits, neighbours), sights

    def logits(self, number: int, pixels: np.ndarray) -> np.ndarray:
        """Return the logits of a member, by its number: float32 (n, classes) for pixels uint8 (n, size, size, 3)."""
        member = self.model.members[number]
        found: np.ndarray = self._runners[number].features(pixels) @ member.kernel + member.bias
        return found

    def _compared(self, labelled: Labelled, features: np.ndarray, logits: np.ndarray, count: int) -> Labelled:
        """Add what the reference says; `features`, `logits`: of the first member, (feature_size,) and (classes,)."""
        if self._nearest is None:
            return labelled
        near = self._nearest.neighbours(features, count) if count else ()
        typicality = None
        if self._nearest.can_tell():
            typicality = float(self._nearest.typicality(features[np.newaxis], logits[np.newaxis])[0])
        return replace(
            labelled,
            typicality=typicality,
            unknown=typicality is not None and typicality <= self._unknown,
            neighbours=tuple(Neighbour(self.model.labels[one.label], one.similarity, one.sha256) for one in near),
        )

    def label(self, image: str | os.PathLike[str], neighbours: int = 0) -> Labelled:
        """Label a picture file; raises BadImage for one that cannot be used."""
        return self.label_bytes(read_bytes(Path(image)), neighbours)


def _pooled(features: np.ndarray, spatial: np.ndarray | None) -> np.ndarray | None:
    """Return the first picture's spatial map if its features are the mean of it, by which a map of logits is exact."""
    if spatial is None or spatial.shape[-1] != features.shape[-1]:
        return None
    first: np.ndarray = spatial[0]
    return first if np.allclose(first.mean(axis=(0, 1)), features[0], rtol=1e-3, atol=1e-4) else None


def way_of(model: artifact.Artifact, tta: str) -> str:
    """Return the way to look at pictures: views.PLAIN or views.SEVERAL.

    `tta`: `auto` for the better one by what was measured in training, `on` or `off`. Raises UsageError where it is to be on
    and the model was not trained for it.
    """
    if tta not in SWITCH:
        raise UsageError(f"tta={tta!r} is none of {', '.join(SWITCH)}")
    if tta == AUTO:
        return model.way
    if tta != ON:
        return views.PLAIN
    if not model.views:
        raise UsageError("the model was trained without --tta, so it cannot look at several views; train it with --tta")
    return views.SEVERAL


def of(loaded: artifact.Loaded, threads: int = 1, unknown: float = UNKNOWN_RATE, tta: str = AUTO) -> Labeller:
    """Return what labels with a model folder that was loaded."""
    return Labeller(loaded.artifact, threads, nearest=Nearest(loaded.reference()), unknown=unknown, tta=tta)


def load(model: str | os.PathLike[str], threads: int = 1, unknown: float = UNKNOWN_RATE, tta: str = AUTO) -> Labeller:
    """Load and verify a model folder; raises ModelRefused."""
    return of(artifact.load(Path(model)), threads, unknown, tta)
