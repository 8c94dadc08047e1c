"""Where the faces of a picture are, and how sure the detector is."""

import importlib.resources
import importlib.util
from typing import Any, NamedTuple, Protocol

import numpy as np
from PIL import Image

from retrain.devices import start
from retrain.errors import BadImage, EnvironmentProblem
from retrain.images import OUT_OF_MEMORY
from retrain.quiet import native_chatter_dropped

# Pixels on the longer side of what the detector gets: a face a fortieth as wide as the photo then still has 40, twice
# what the detector needs, and a photo of 64 megapixels takes no more time or memory than one of two.
LONGEST_SIDE = 1600
# Below this a find is dropped. Chosen on tf_files/data, 175 drawings of animals, fruit and vehicles; on no photo of a face.
LEAST_CONFIDENCE = 0.95
_NEEDED = ("mtcnn", "tensorflow", "keras")


class Box(NamedTuple):
    """A rectangle in pixels of the upright picture: `right` and `bottom` are the first ones outside of it."""

    left: int
    top: int
    right: int
    bottom: int

    @property
    def width(self) -> int:
        """Return the width in pixels."""
        return self.right - self.left

    @property
    def height(self) -> int:
        """Return the height in pixels."""
        return self.bottom - self.top

    def shared(self, other: "Box") -> int:
        """Return how many pixels two boxes have in common."""
        across = min(self.right, other.right) - max(self.left, other.left)
        down = min(self.bottom, other.bottom) - max(self.top, other.top)
        return max(across, 0) * max(down, 0)


class Face(NamedTuple):
    """A face that was found; `confidence`: how sure the detector is, in [0, 1]. It is no calibrated probability."""

    box: Box
    confidence: float


class Detector(Protocol):
    """What finds faces. `Mtcnn` is one; tests pass another."""

    def find(self, pixels: np.ndarray) -> list[Face]:
        """Return the faces of a picture: uint8 of shape (height, width, 3), RGB, upright. Boxes are in its pixels."""


class Mtcnn:
    """Three small networks, one after the other, each rejecting what the one before let through (MTCNN, 2016)."""

    def __init__(self) -> None:
        start()
        with native_chatter_dropped():
            import mtcnn
            from mtcnn.stages import StageONet, StagePNet, StageRNet

            # By their whole path: a bare name is looked for in the current folder first, and loading one runs what is in it.
            weights = importlib.resources.files("mtcnn.assets.weights")
            stages = (StagePNet, "pnet.lz4"), (StageRNet, "rnet.lz4"), (StageONet, "onet.lz4")
            self._network: Any = mtcnn.MTCNN([stage(weights=str(weights / name)) for stage, name in stages])

    def find(self, pixels: np.ndarray) -> list[Face]:
        """Return the faces of a picture, as `Detector.find` says."""
        found = self._network.detect_faces(pixels, box_format="xyxy")
        return [Face(Box(*map(int, one["box"])), float(one["confidence"])) for one in found]


def check_installed() -> None:
    """Raise EnvironmentProblem where the detector, or the TensorFlow that it needs, is not installed."""
    missing = [name for name in _NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        verb = "is" if len(missing) == 1 else "are"
        raise EnvironmentProblem(
            f"{' and '.join(missing)} {verb} not installed, needed to find faces; run: pip install retrain[faces]"
        )


def open_detector() -> Detector:
    """Load the detector, which takes some seconds; raises EnvironmentProblem where it is not installed."""
    check_installed()
    return Mtcnn()


def find_faces(detector: Detector, image: Image.Image) -> list[Face]:
    """Return the faces of an upright RGB picture in its own pixels, however large it is: left to right, then top down.

    Raises BadImage where memory is too short for it.
    """
    try:
        small = _reduced(image)
        found = detector.find(np.asarray(small))
    except MemoryError:
        raise BadImage("too-large", OUT_OF_MEMORY) from None
    across, down = image.width / small.width, image.height / small.height
    faces = [
        Face(_within(box, across, down, image), confidence) for box, confidence in found if confidence >= LEAST_CONFIDENCE
    ]
    return sorted(face for face in faces if face.box.width > 0 and face.box.height > 0)


def _reduced(image: Image.Image) -> Image.Image:
    longest = max(image.size)
    if longest <= LONGEST_SIDE:
        return image
    width, height = (max(1, round(side * LONGEST_SIDE / longest)) for side in image.size)
    return image.resize((width, height), Image.Resampling.BICUBIC, reducing_gap=3.0)


def _within(box: Box, across: float, down: float, image: Image.Image) -> Box:
    """Scale a box, and cut off what lies outside of the picture: a detector may see a face that goes on there."""
    left, right = (min(max(round(side * across), 0), image.width) for side in (box.left, box.right))
    top, bottom = (min(max(round(side * down), 0), image.height) for side in (box.top, box.bottom))
    return Box(left, top, right, bottom)
