"""A picture with its heat maps, side by side, and a legend."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from retrain.explain.explained import Explained
from retrain.heat.colours import layer, overlay
from retrain.lettering import fitting
from retrain.settings import SCORE_DECIMALS

_PAPER, _INK, _LINE = (255, 255, 255), (20, 20, 20), (150, 150, 150)
_GREY = (128, 128, 128)
_LEAST_WIDTH = 180  # pixels of a panel, so that its heading can be read
_SMALLEST, _LARGEST = 12, 64  # pixels of letters
_LONGEST = 8000  # pixels of all panels together


@dataclass(frozen=True)
class _Sizes:
    """How large things are beside a picture: letters, gaps, and the width of a panel, in pixels."""

    letters: int
    gap: int
    panel: int


def draw(explained: Explained, image: Image.Image) -> Image.Image:
    """Return the maps over a picture, side by side, with label and score above and the scale of colours below.

    `image`: the whole picture, RGB, of any size. Each map has that size; where not all maps fit on 8,000 by 8,000 pixels
    they are smaller. All maps have one scale, from no evidence to the most in any of them.
    """
    image = _fit_to_draw(image, len(explained.maps))
    box = _scaled(explained, image)
    pictures = (overlay(image, one.grid, box, explained.most) for one in explained.maps)
    return _side_by_side(explained, pictures, image.size, explained.most)


def draw_lines(explained: Explained, image: Image.Image, gradients: np.ndarray) -> Image.Image:
    """Return the guided gradients of the labels, uint8 (labels, size, size, 3), as pictures as large as those of `draw`."""
    image = _fit_to_draw(image, len(explained.maps))
    left, top, right, bottom = _scaled(explained, image)

    def drawn(pixels: np.ndarray) -> Image.Image:
        picture = Image.new("RGB", image.size, _GREY)
        picture.paste(Image.fromarray(pixels).resize((right - left, bottom - top), Image.Resampling.BICUBIC), (left, top))
        return picture

    return _side_by_side(explained, map(drawn, gradients), image.size, None)


def _fit_to_draw(image: Image.Image, count: int) -> Image.Image:
    width, height = image.size
    smaller = min(1.0, _LONGEST / (count * width), _LONGEST / height)
    if smaller == 1.0:
        return image
    return image.resize((max(round(smaller * width), 1), max(round(smaller * height), 1)), Image.Resampling.BOX)


def _side_by_side(
    explained: Explained, pictures: Iterable[Image.Image], size: tuple[int, int], most: float | None
) -> Image.Image:
    """Put a heading above each picture of a label, and the scale of colours below, unless `most` is None."""
    (width, height), count = size, len(explained.maps)
    letters = int(np.clip(width / 20, _SMALLEST, _LARGEST))
    sizes = _Sizes(letters, max(letters // 2, 6), max(width, _LEAST_WIDTH))
    head, foot = sizes.letters + 2 * sizes.gap, sizes.gap if most is None else 3 * sizes.letters + 2 * sizes.gap
    canvas = Image.new("RGB", (count * sizes.panel + (count + 1) * sizes.gap, head + height + foot), _PAPER)
    pen = ImageDraw.Draw(canvas)
    for number, (one, picture) in enumerate(zip(explained.maps, pictures, strict=True)):
        left = sizes.gap + number * (sizes.panel + sizes.gap)
        heading, font = fitting(one.label, f"{one.score:.{SCORE_DECIMALS}f}", letters, sizes.panel)
        pen.text((left, sizes.gap), heading, _INK, font)
        canvas.paste(picture, (left + (sizes.panel - width) // 2, head))
    if most is not None:
        _legend(canvas, pen, sizes, head + height + sizes.gap, most)
    return canvas


def _scaled(explained: Explained, image: Image.Image) -> tuple[int, int, int, int]:
    """Return the part that the model saw, in pixels of the whole picture: it may have been decoded smaller for the model."""
    scales = [whole / seen for whole, seen in zip(image.size, explained.image.size, strict=True)]
    left, top, right, bottom = (round(at * scales[number % 2]) for number, at in enumerate(explained.box))
    return left, top, max(right, left + 1), max(bottom, top + 1)


def _legend(canvas: Image.Image, pen: ImageDraw.ImageDraw, sizes: _Sizes, top: int, most: float) -> None:
    font = ImageFont.load_default(sizes.letters)
    width, height = min(canvas.width - 2 * sizes.gap, 3 * _LEAST_WIDTH * sizes.letters // _SMALLEST), sizes.letters
    levels = np.tile(np.linspace(0, 255, width).astype(np.uint8), (height, 1))
    heat, mask = layer(levels)  # on white, as over a picture
    canvas.paste(heat, (sizes.gap, top), mask)
    pen.rectangle((sizes.gap, top, sizes.gap + width - 1, top + height - 1), outline=_LINE)
    below = top + height + max(sizes.gap // 2, 2)
    pen.text((sizes.gap, below), "no evidence", _INK, font)
    if most > 0:
        end = "most"
        pen.text((sizes.gap + width - pen.textlength(end, font), below), end, _INK, font)
