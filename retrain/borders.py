"""Borders of one colour: letterbox bars, frames, margins."""

from typing import NamedTuple

import numpy as np

TOLERANCE = 12  # levels of 255 that a pixel may differ from the border's colour: JPEG blurs edges
_NEARLY_ALL = 0.99  # of the pixels of a row that belongs to the border


class Border(NamedTuple):
    """Pixels of one colour along each side; `colour`: RGB, 0 to 255. Of a picture of one colour all sides are 0."""

    left: int
    top: int
    right: int
    bottom: int
    colour: tuple[int, int, int]


def around(pixels: np.ndarray) -> Border:
    """Return the border of a picture: uint8 (height, width, 3).

    Its colour is the median of the outermost pixels; rows and columns belong to it as far as they show hardly anything
    else. Sides without it are 0: bars above and below are a border, too.
    """
    ring = np.concatenate([pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]])
    colour = np.median(ring, axis=0)
    same = (np.abs(pixels.astype(np.int16) - colour.astype(np.int16)) <= TOLERANCE).all(axis=2)
    rows, columns = (np.flatnonzero(same.mean(axis=axis) < _NEARLY_ALL) for axis in (1, 0))
    red, green, blue = (int(value) for value in colour)
    if not len(rows) or not len(columns):
        return Border(0, 0, 0, 0, (red, green, blue))
    height, width = same.shape
    return Border(
        int(columns[0]), int(rows[0]), int(width - 1 - columns[-1]), int(height - 1 - rows[-1]), (red, green, blue)
    )
