"""What a picture looks like in a few numbers: what `check` judges single pictures and shortcuts by.

Facts are kept in the same cache as features, as a space of their own: they too are a vector that follows from the bytes.
"""

from collections.abc import Iterator
from dataclasses import replace
from typing import NamedTuple

import numpy as np
from PIL import Image

from retrain import borders
from retrain.images import DECODER, FORMATS, Picture, decode

VERSION = "facts-3"  # raise it with any change that alters numbers
_SIDE = 256  # pixels of the longer side that all but sizes are measured at: about what a network sees
_HASH_SIDE = 8
_LEAST_SIDE = 64  # pixels
_LONGEST = 4  # times as long as wide: squashed, a quarter of the width is left
_DARK, _BRIGHT = 0.12, 0.93
_BLANK = 0.012  # spread of the channels
_BLURRED = 0.06
_WORDS = 2 * _HASH_SIDE**2 // 16  # whole numbers below 2**24 are exact in float32


class Facts(NamedTuple):
    """The numbers of one picture. Levels and shares go from 0 to 1, sizes are pixels of the upright picture."""

    format: float  # index into FORMATS
    width: float
    height: float
    bytes: float
    turned: float  # 1 where EXIF turned it
    brightness: float  # mean luminance
    contrast: float  # standard deviation of luminance
    darkest: float  # 5th percentile of luminance
    brightest: float  # 95th
    colourfulness: float  # mean distance of the channels from their mean
    sharpness: float  # standard deviation of the Laplacian of luminance, by its contrast
    left: float  # border of one colour, as a share of the side
    top: float
    right: float
    bottom: float
    border_red: float
    border_green: float
    border_blue: float
    border_spread: float  # standard deviation of the outermost pixels
    spread: float  # standard deviation of the channel that varies most: what is of one luminance may be of many colours

    @property
    def kind(self) -> str:
        """The real format, a key of FORMATS."""
        return list(FORMATS)[int(self.format)]


SIZE = len(Facts._fields) + _WORDS


def space(crop_borders: bool = False) -> tuple[str, str, str, str]:
    """Name everything that decides the numbers, as a space of the cache."""
    return ("facts", VERSION, f"{DECODER}/crop-borders" if crop_borders else DECODER, "numpy")


def measure(data: bytes, crop_borders: bool = False) -> tuple[np.ndarray, tuple[str, ...]]:
    """Return the facts of a picture file's bytes, and then its hash, as float32 (SIZE,), and the decoder's notes.

    With `crop_borders`, the facts are those of what lies within the borders. Raises BadImage as `images.decode` does.
    """
    picture = decode(data, at_least=_SIDE)
    if crop_borders:
        picture = _without_borders(picture)
    image = _reduced(picture.image)
    facts = _facts(picture, np.asarray(image), len(data))
    return np.array([*facts, *_hash(image)], np.float32), picture.notes


def _without_borders(picture: Picture) -> Picture:
    image = picture.image
    cut = image.crop(borders.inside(np.asarray(image)))
    width, height = (
        round(whole * part / decoded)
        for whole, part, decoded in zip((picture.width, picture.height), cut.size, image.size, strict=True)
    )
    return replace(picture, image=cut, width=width, height=height)


def oddities(facts: Facts) -> Iterator[tuple[str, str, float]]:
    """Yield what is odd about a picture by itself: a kind, in a few words what it is by, and how much, 0 to 1.

    A blank picture is not called dark as well.
    """
    short, long = sorted((facts.width, facts.height))
    size = f"{facts.width:.0f}x{facts.height:.0f} pixels"
    if short < _LEAST_SIDE:
        yield "too-small", size, 1 - short / _LEAST_SIDE
    if long > _LONGEST * short:
        yield "odd-shape", size, 1 - _LONGEST * short / long
    if facts.spread < _BLANK:
        yield "blank", f"its colours spread by {100 * facts.spread:.1f} %", 1.0
        return
    if facts.brightest < _DARK:
        yield "dark", f"95 % of its pixels are at {facts.brightest:.2f} of white or below", 1 - facts.brightest
    if facts.darkest > _BRIGHT:
        yield "bright", f"95 % of its pixels are at {facts.darkest:.2f} of white or above", facts.darkest
    # Sharpness is that of luminance, and says nothing where only colours differ.
    if facts.contrast >= _BLANK and facts.sharpness < _BLURRED:
        yield "blurry", f"sharpness {facts.sharpness:.3f}, usual are 0.1 and more", 1 - facts.sharpness / _BLURRED


def of_picture(picture: Picture, size: int) -> Facts:
    """Return the facts of a decoded picture; `size`: of its file, in bytes."""
    return _facts(picture, np.asarray(_reduced(picture.image)), size)


def _reduced(image: Image.Image) -> Image.Image:
    scale = _SIDE / max(image.size)
    if scale >= 1:
        return image
    size = tuple(max(1, round(side * scale)) for side in image.size)
    return image.resize((size[0], size[1]), Image.Resampling.BOX)


def _facts(picture: Picture, pixels: np.ndarray, size: int) -> Facts:
    levels = pixels.astype(np.float32) / 255
    light = levels @ np.array([0.299, 0.587, 0.114], np.float32)
    low, high = np.percentile(light, [5, 95])
    height, width = light.shape
    border = borders.around(pixels)
    ring = np.concatenate([levels[0], levels[-1], levels[:, 0], levels[:, -1]])
    return Facts(
        format=list(FORMATS).index(picture.format),
        width=picture.width, height=picture.height, bytes=size,
        turned="turned" in picture.notes,
        brightness=light.mean(), contrast=light.std(), darkest=low, brightest=high,
        colourfulness=np.abs(levels - levels.mean(axis=2, keepdims=True)).mean(),
        sharpness=_sharpness(light),
        left=border.left / width, top=border.top / height, right=border.right / width, bottom=border.bottom / height,
        border_red=border.colour[0] / 255, border_green=border.colour[1] / 255, border_blue=border.colour[2] / 255,
        border_spread=ring.std(axis=0).mean(), spread=levels.std(axis=(0, 1)).max(),
    )  # fmt: skip


def _sharpness(light: np.ndarray) -> float:
    """How much neighbouring pixels differ, compared with how much any pixels do; 0 for a picture of one colour."""
    if min(light.shape) < 3 or light.std() < 1 / 255:
        return 0.0
    laplacian = 4 * light[1:-1, 1:-1] - light[:-2, 1:-1] - light[2:, 1:-1] - light[1:-1, :-2] - light[1:-1, 2:]
    return float(laplacian.std() / light.std())


def _hash(image: Image.Image) -> np.ndarray:
    """The difference hash: whether each of 8 x 8 cells is lighter than the next, along rows and along columns.

    Neal Krawetz, "Kind of Like That" (2013), with a second direction. 128 bits as whole numbers below 2**16.
    """
    grey = image.convert("L")
    side = _HASH_SIDE
    across = np.asarray(grey.resize((side + 1, side), Image.Resampling.BOX), np.int16)
    down = np.asarray(grey.resize((side, side + 1), Image.Resampling.BOX), np.int16)
    bits = np.concatenate([(across[:, 1:] > across[:, :-1]).ravel(), (down[1:] > down[:-1]).ravel()])
    return np.packbits(bits).view(">u2").astype(np.float32)


def of_rows(vectors: np.ndarray) -> list[Facts]:
    """Return the facts of cached rows: float32 (n, SIZE)."""
    return [Facts(*row) for row in vectors[:, : len(Facts._fields)].tolist()]


def hashes_of_rows(vectors: np.ndarray) -> np.ndarray:
    """Return the difference hashes of cached rows, float32 (n, SIZE), as uint64 (n, 2)."""
    words = vectors[:, len(Facts._fields) :].astype(">u2")
    return np.ascontiguousarray(words).view(">u8").astype(np.uint64)
