"""A map as a layer of colour over its picture."""

import numpy as np
from PIL import Image

from retrain.heat.maps import resized

# From little to the most, on light pictures darker and darker, on dark ones clearer: read without colour vision as well.
# ColorBrewer's 'YlOrRd' (C. Brewer, Apache-2.0), without its darkest end.
_STOPS = np.array([[255, 255, 178], [254, 204, 92], [253, 141, 60], [240, 59, 32], [200, 0, 38]], np.float64)
_MOST = 0.75  # opacity of the hottest place: what lies under it must still be seen
_PALE = 0.65  # how much of the picture's own colour is taken away, so that colour means heat


def shades(levels: np.ndarray) -> np.ndarray:
    """Return the colours of levels, 0 to 1 and clipped to it: uint8 (..., 3)."""
    at = np.linspace(0, 1, len(_STOPS))
    channels = [np.interp(levels, at, _STOPS[:, channel]) for channel in range(3)]
    return np.stack(channels, axis=-1).round().astype(np.uint8)


def layer(levels: np.ndarray) -> tuple[Image.Image, Image.Image]:
    """Return the colours of levels, uint8 (rows, columns), 0 for no heat, 255 for the most, and how much they cover."""
    heat = Image.fromarray(levels)
    mask = heat.point([round(_MOST * level) for level in range(256)])
    heat.putpalette(shades(np.arange(256) / 255).tobytes())  # a photo has too many pixels to look up each in floats
    return heat.convert("RGB"), mask


def overlay(image: Image.Image, grid: np.ndarray, box: tuple[int, int, int, int], most: float) -> Image.Image:
    """Return a picture with a map over it, of the same size.

    `grid`: float64 (rows, columns); `box`: the part of the picture that it covers, left, top, right and bottom in pixels;
    `most`: the value that has the hottest colour. What speaks against the label, or for nothing, stays as it is, but paler.
    """
    left, top, right, bottom = box
    levels = np.zeros((image.height, image.width), np.uint8)
    if most > 0:
        within = resized(np.maximum(grid, 0.0) * (255 / most), bottom - top, right - left)
        levels[top:bottom, left:right] = np.clip(within, 0, 255)
    heat, mask = layer(levels)
    pale = Image.blend(image, image.convert("L").convert("RGB"), _PALE)
    pale.paste(heat, mask=mask)
    return pale
