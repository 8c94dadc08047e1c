"""Named, deterministic views of a decoded picture: what the network gets to see.

Training, augmentation and test-time augmentation draw on the same table, so a view that was cached while training is
the same view when labelling. A view is a pure function of the picture and the side length.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from PIL import Image

from retrain import borders, distortions
from retrain.errors import BadImage, UsageError, did_you_mean
from retrain.images import DECODER, OUT_OF_MEMORY, Picture, decode


@dataclass(frozen=True)
class View:
    """A named way to turn a picture into a square of pixels."""

    name: str
    description: str
    make: Callable[[Image.Image, int], Image.Image]


def _squash(image: Image.Image, size: int) -> Image.Image:
    # reducing_gap: sides over 3 times the target are first averaged down by whole numbers; several times faster and
    # not visibly different from resampling in one step.
    return image.resize((size, size), Image.Resampling.BICUBIC, reducing_gap=3.0)


def _mirror(image: Image.Image, size: int) -> Image.Image:
    return _squash(image, size).transpose(Image.Transpose.FLIP_LEFT_RIGHT)


def _crop_borders(image: Image.Image, size: int) -> Image.Image:
    return _squash(_without_borders(image), size)


def _plain(image: Image.Image) -> Image.Image:
    return image


def inside(name: str, image: Image.Image) -> tuple[int, int, int, int]:
    """Return which part of a picture the view `name` shows: left, top, right and bottom, in pixels. It is not distorted."""
    return borders.inside(np.asarray(image)) if name == CROP_BORDERS else (0, 0, *image.size)


def _without_borders(image: Image.Image) -> Image.Image:
    box = inside(CROP_BORDERS, image)
    # Cropped, not resampled from within: that would mix the border's pixels into those along the edge.
    return image if box == (0, 0, *image.size) else image.crop(box)


DEFAULT_VIEW, CROP_BORDERS = "squash", "crop-borders"
PLAIN, SEVERAL = "none", "views"  # ways to look at a picture: as it is, or in several views whose probabilities are averaged
# Test-time augmentation: what is looked at beside the picture itself.
TTA = (
    distortions.Distortion(flip=1.0),
    distortions.Distortion(width=0.875, height=0.875),
    distortions.Distortion(flip=1.0, width=0.875, height=0.875),
)
VIEWS = {
    view.name: view
    for view in (
        View(DEFAULT_VIEW, "the whole picture, both sides to the same length, bicubic with antialiasing", _squash),
        View("mirror", "squash, then left and right exchanged", _mirror),
        View(CROP_BORDERS, "borders of one colour cut off, then squash", _crop_borders),
    )
}
_BEFORE = {DEFAULT_VIEW: _plain, CROP_BORDERS: _without_borders}  # what is done to a picture before it is distorted


def distorted(name: str, distortion: distortions.Distortion | distortions.Drawn) -> str:
    """Return the name of a view of the table, distorted."""
    return name + distortion.name


def get(name: str) -> View:
    """Return the view of that name; raises UsageError, with the nearest name, for an unknown one.

    `squash(...)` and `crop-borders~3(...)` are distorted, by what comes after the name: see `distortions.parse`.
    """
    plain = re.split(r"[~(]", name, maxsplit=1)[0]
    if plain != name and plain in _BEFORE:
        distortion, before = distortions.parse(name.removeprefix(plain)), _BEFORE[plain]
        return View(name, f"{plain}, distorted", lambda image, size: distortion.apply(before(image), size))
    if name not in VIEWS:
        raise UsageError(f"unknown view '{name}'{did_you_mean(name, VIEWS)}")
    return VIEWS[name]


def preprocessing_id(name: str, size: int) -> str:
    """Name everything that decides the pixels: decoder rules, view and size. Part of the cache key and the model."""
    return f"{DECODER}/{name}-1/{size}"


def decode_for(data: bytes, size: int) -> Picture:
    """Decode a picture with enough pixels for views of `size`: the same call in training and labelling."""
    return decode(data, at_least=2 * size)


def render(picture: Picture, name: str, size: int) -> np.ndarray:
    """Return the view `name` of a picture: uint8 array of shape (size, size, 3), RGB, values 0 to 255.

    Raises BadImage where memory is too short for it.
    """
    try:
        return np.asarray(get(name).make(picture.image, size))
    except MemoryError:
        raise BadImage("too-large", OUT_OF_MEMORY) from None
