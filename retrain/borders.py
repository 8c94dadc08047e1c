"""Borders of one colour: letterbox bars, frames, margins."""

from typing import NamedTuple

import numpy as np

TOLERANCE = 12  # levels of 255 that a pixel may differ from the border's colour: JPEG blurs edges
_NEARLY_ALL = 0.99  # of the pixels of a row that belongs to the border
_LINES = 32  # looked at at a time
_ROUNDS = 4  # a frame, bars, a margin and a frame again
_KEPT = 0.25  # of each side, at least
_FEWEST = 8  # pixels of a side that are left, at least
_UNLIKE = 0.25  # of what a line shows, where it is no blend of the border and the line behind it


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
    else. Sides without it are 0: bars above and below are a border, too, and so are bars beside a wide picture, which
    are a small part of the outermost pixels.
    """
    columns, rows = pixels[:, [0, -1]].reshape(-1, 3), pixels[[0, -1]].reshape(-1, 3)
    colour = _median(np.concatenate([rows, columns]))
    sides = _of_colour(pixels, colour)
    if sides == (0, 0, 0, 0):
        for opposite, first, second in ((columns, 0, 2), (rows, 1, 3)):
            bars = _of_colour(pixels, _median(opposite))
            if bars and bars[first] and bars[second]:
                return Border(*bars, _median(opposite))
    return Border(*(sides or (0, 0, 0, 0)), colour)


def _median(outermost: np.ndarray) -> tuple[int, int, int]:
    red, green, blue = (int(level) for level in np.median(outermost, axis=0))
    return red, green, blue


def _of_colour(pixels: np.ndarray, colour: tuple[int, int, int]) -> tuple[int, int, int, int] | None:
    """Return how wide the border of this colour is, left, top, right, bottom; None where there is nothing else."""
    left, top, right, bottom = _from_each_side(pixels)
    high = _leading(top, colour)
    if high == len(pixels):  # its columns need no look, which takes long in a large picture
        return None
    wide = _leading(left, colour)
    return None if wide == len(left) else (wide, high, _leading(right, colour), _leading(bottom, colour))


def _from_each_side(pixels: np.ndarray) -> tuple[np.ndarray, ...]:
    """Return views whose lines go inwards from left, top, right and bottom."""
    columns = pixels.swapaxes(0, 1)
    return columns, pixels, columns[::-1], pixels[::-1]


def _leading(lines: np.ndarray, colour: tuple[int, int, int]) -> int:
    """Count the lines, uint8 (lines, pixels, 3), before the first that is not of this colour; no others are looked at."""
    darkest, lightest = (
        np.clip(np.array(colour) + tolerance, 0, 255).astype(np.uint8) for tolerance in (-TOLERANCE, TOLERANCE)
    )
    first, count = 0, 1  # one line tells most pictures from those with a border
    while first < len(lines):
        some = lines[first : first + count]
        within = (some >= darkest) & (some <= lightest)
        same = within[..., 0] & within[..., 1] & within[..., 2]  # several times faster than all(axis=2)
        other = np.flatnonzero(same.mean(axis=1) < _NEARLY_ALL)
        if len(other):
            return first + int(other[0])
        first, count = first + count, _LINES
    return len(lines)


def inside(pixels: np.ndarray) -> tuple[int, int, int, int]:
    """Return what is left of a picture, uint8 (height, width, 3), without its borders: left, top, right, bottom.

    Borders are cut off one after the other, so that a frame around a margin ends as the margin alone does. What would
    leave next to nothing is not cut off, and of a picture of one colour nothing is.
    """
    height, width, _ = pixels.shape
    left, top, right, bottom = 0, 0, width, height
    for _ in range(_ROUNDS):
        rest = pixels[top:bottom, left:right]
        border = around(rest)
        sides = [
            count and count + _blended(lines[count:], np.array(border.colour))
            for count, lines in zip(border[:4], _from_each_side(rest), strict=True)
        ]
        box = left + sides[0], top + sides[1], right - sides[2], bottom - sides[3]
        wide, high = box[2] - box[0], box[3] - box[1]
        if not any(sides) or wide < max(_FEWEST, _KEPT * width) or high < max(_FEWEST, _KEPT * height):
            break
        left, top, right, bottom = box
    return left, top, right, bottom


def _blended(lines: np.ndarray, colour: np.ndarray) -> int:
    """Count the lines, 2 at most, that mix a border's colour with what lies behind them.

    JPEG blurs the edge of a border, and decoding at a fraction of the size averages over it. Such a line is like the one
    behind it, only nearer to the border's colour; left there, it would hide a margin from the next round.
    """
    away = lines[:3].astype(np.float32) - colour
    distance = np.abs(away).mean(axis=(1, 2))
    count = 0
    while count + 1 < len(away) and distance[count] < distance[count + 1] - TOLERANCE:
        share = distance[count] / distance[count + 1]
        if np.abs(away[count] - share * away[count + 1]).mean() > _UNLIKE * distance[count + 1]:
            break
        count += 1
    return count
