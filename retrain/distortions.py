"""Small changes of a picture that leave its label as it is: what augmentation shows the network beside the picture.

A distortion is a window of the picture, turned and perhaps mirrored, which is drawn to the full square, and two changes of
its colours. Cached views apply it to one picture here; fine-tuning applies arrays of the same numbers in TensorFlow.
Beyond its edge a picture goes on as it is there.
"""

import hashlib
import math
import re
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
from PIL import Image, ImageEnhance

from retrain.errors import UsageError
from retrain.settings import AugmentSettings

DECIMALS = 3  # of the numbers in a name
_STRENGTHS = ("flip", "crop", "scale", "brightness", "colour", "rotation")
_SEEN_SIDE = 16  # pixels of the picture that decide what is drawn for it
_LARGEST = 4.0
_MOST = 2.0  # times the side that a picture is scaled to before the window is taken


@dataclass(frozen=True)
class Distortion:
    """A window and two changes of colour; as it stands here, it changes nothing.

    `flip`: 1 to exchange left and right, else 0. `width`, `height`: of the window, `x`, `y`: how far its centre is from that
    of the picture, all as shares of the picture's sides. `turn`: of the window about its centre, in degrees. `brightness`,
    `colour`: factors; colour 0 is grey.
    """

    flip: float = 0.0
    width: float = 1.0
    height: float = 1.0
    x: float = 0.0
    y: float = 0.0
    turn: float = 0.0
    brightness: float = 1.0
    colour: float = 1.0

    @property
    def is_sane(self) -> bool:
        """Whether the picture can be recognised, and drawn with little memory: a name may come from anywhere."""
        sides = min(self.width, self.height) > 0 and max(self.width, self.height, self.brightness, self.colour) <= _LARGEST
        return sides and max(abs(self.x), abs(self.y)) <= 1 and abs(self.turn) <= 360 and self.flip in (0, 1)

    @property
    def name(self) -> str:
        """The numbers that are not as in a picture that is not changed: `parse` gives the distortion back."""
        said = (
            f"{item.name}={round(value, DECIMALS):g}"
            for item in fields(self)
            if (value := getattr(self, item.name)) != item.default
        )
        return f"({','.join(said)})"

    def apply(self, image: Image.Image, size: int) -> Image.Image:
        """Return the picture as a square with sides of `size` pixels, distorted."""
        matrix = matrices(np.array([[getattr(self, item.name) for item in fields(self)]], np.float64))[0]
        side = round(size * min(_MOST, max(1.0, 1 / self.width, 1 / self.height)))
        squashed = image.resize((side, side), Image.Resampling.BICUBIC, reducing_gap=3.0)
        corners = matrix @ np.array([[0, 1, 0, 1], [0, 0, 1, 1], [1, 1, 1, 1]], np.float64)
        margin = math.ceil(side * max(0.0, -corners.min(), corners.max() - 1))
        if margin:
            padded = np.pad(np.asarray(squashed), ((margin, margin), (margin, margin), (0, 0)), "edge")
            squashed = Image.fromarray(padded)
        scale = side / size
        affine = [
            *(matrix[0, :2] * scale), matrix[0, 2] * side + margin, *(matrix[1, :2] * scale), matrix[1, 2] * side + margin
        ]  # fmt: skip
        distorted = squashed.transform((size, size), Image.Transform.AFFINE, affine, Image.Resampling.BILINEAR)
        if self.brightness != 1:
            distorted = ImageEnhance.Brightness(distorted).enhance(self.brightness)
        return distorted if self.colour == 1 else ImageEnhance.Color(distorted).enhance(self.colour)


NAMES = tuple(item.name for item in fields(Distortion))


def parse(name: str) -> "Distortion | Drawn":
    """Return the distortion of a name; raises UsageError for what is none."""
    found = dict(re.findall(r"([a-z]+)=(-?[0-9.]+(?:e-?[0-9]+)?)", name))
    number = re.match(r"~([0-9]{1,3})\(", name)
    distortion: Distortion | Drawn | None = None
    try:
        if number is None:
            distortion = Distortion(**{key: float(value) for key, value in found.items()})
        else:
            strengths: dict[str, Any] = {key: int(value) for key, value in found.items()}
            strengths["flip"] = strengths.get("flip") == 1
            distortion = Drawn(int(number[1]), AugmentSettings(**strengths))
    except (TypeError, ValueError, UsageError):
        distortion = None
    whole = distortion is not None and distortion.name == name
    if not whole or (isinstance(distortion, Distortion) and not distortion.is_sane):
        raise UsageError(f"'{name}' is no distortion that this version knows")
    assert distortion is not None
    return distortion


def draw(count: int, settings: AugmentSettings, rng: np.random.Generator) -> np.ndarray:
    """Draw distortions at random: float64 (count, 8), the columns as in NAMES."""

    def around(share: float) -> np.ndarray:
        return rng.uniform(-share, share, count)

    flip = (rng.uniform(size=count) < 0.5) * float(settings.flip)
    side = 1 - rng.uniform(0, settings.crop / 100, count)
    x, y = (around(0.5) * (1 - side) for _ in range(2))
    width, height = (side * np.exp(around(math.log1p(settings.scale / 100))) for _ in range(2))
    turn = around(settings.rotation)
    brightness, colour = 1 + around(settings.brightness / 100), 1 + around(settings.colour / 100)
    return np.stack([flip, width, height, x, y, turn, brightness, colour], axis=1)


@dataclass(frozen=True)
class Drawn:
    """A distortion that is drawn for each picture: number `number` of those that `settings` allow.

    What is drawn follows from the picture, so it is the same whenever the picture is seen, but another for each. (One
    distortion for all pictures teaches less: see docs/design.md.)
    """

    number: int
    settings: AugmentSettings

    @property
    def name(self) -> str:
        """The number and the strengths, as `~3(flip=1,crop=15,...)`: `parse` gives it back."""
        strengths = ",".join(f"{name}={int(getattr(self.settings, name))}" for name in _STRENGTHS)
        return f"~{self.number}({strengths})"

    def apply(self, image: Image.Image, size: int) -> Image.Image:
        """Return the picture as a square with sides of `size` pixels, distorted."""
        small = image.resize((_SEEN_SIDE, _SEEN_SIDE), Image.Resampling.BOX, reducing_gap=1.0).tobytes()
        seed = [self.number, *hashlib.sha256(small).digest()]
        return Distortion(*draw(1, self.settings, np.random.default_rng(seed))[0].tolist()).apply(image, size)


def drawn(count: int, settings: AugmentSettings) -> list[Drawn]:
    """Return so many distortions to be drawn for each picture, none of which depends on how many there are."""
    return [Drawn(number, replace(settings, augment=0)) for number in range(1, count + 1)]


def matrices(drawn: np.ndarray) -> np.ndarray:
    """Return where each point of the distorted square comes from: float64 (n, 2, 3), for `drawn` (n, 8) as `draw` gives.

    A column (x, y, 1), each from 0 to 1 across the square, is mapped to a point of the picture, in shares of its sides.
    """
    flip, width, height, x, y, turn, _, _ = drawn.T
    cos, sin = np.cos(np.radians(turn)), np.sin(np.radians(turn))
    across, down = width * (1 - 2 * flip), height
    linear = np.stack([np.stack([cos * across, -sin * down], -1), np.stack([sin * across, cos * down], -1)], 1)
    centre = 0.5 + np.stack([x, y], -1)
    shift = centre - linear.sum(axis=2) / 2
    return np.concatenate([linear, shift[:, :, None]], axis=2)
