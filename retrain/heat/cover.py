"""Pictures with another border or background: what these carry shows in what becomes of the label."""

import numpy as np

from retrain.borders import TOLERANCE

BORDER = 0.08  # of a side, along each edge
_LEAST_GROUND = 0.25  # of a picture within its border that is of one colour, for that to be its background

Colour = tuple[int, int, int]


def without_border(pixels: np.ndarray) -> np.ndarray:
    """Return a picture whose pixels along the edges are those that lie just within: uint8 (height, width, 3), as given.

    Nothing new is drawn, as a grey bar would be: a white margin stays white, and a frame is gone.
    """
    rows, columns = _wide(pixels)
    return np.pad(_within(pixels), ((rows, rows), (columns, columns), (0, 0)), mode="edge")


def with_border_of(pixels: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Return a picture inside the border of another one of the same size: uint8 (height, width, 3)."""
    made = other.copy()
    _within(made)[:] = _within(pixels)
    return made


def ground(pixels: np.ndarray) -> Colour | None:
    """Return the colour of the background, RGB, 0 to 255; None where it is not of one colour, or there is next to none.

    It is looked for within the border, which may be a frame.
    """
    inner = _within(pixels)
    around = np.concatenate([inner[0], inner[-1], inner[:, 0], inner[:, -1]])
    red, green, blue = (int(level) for level in np.median(around, axis=0))
    colour = red, green, blue
    return colour if _of_colour(inner, colour).mean() >= _LEAST_GROUND else None


def on_ground(pixels: np.ndarray, before: Colour, after: Colour) -> np.ndarray:
    """Return a picture whose background has another colour than `before`: uint8 (height, width, 3).

    What has that colour elsewhere in the picture changes, too.
    """
    made = pixels.copy()
    made[_of_colour(pixels, before)] = after
    return made


def _of_colour(pixels: np.ndarray, colour: Colour) -> np.ndarray:
    away = np.abs(pixels.astype(np.int16) - np.array(colour, np.int16))
    furthest: np.ndarray = away.max(axis=-1)
    return furthest <= TOLERANCE


def _within(pixels: np.ndarray) -> np.ndarray:
    rows, columns = _wide(pixels)
    return pixels[rows:-rows, columns:-columns]


def _wide(pixels: np.ndarray) -> tuple[int, int]:
    rows, columns = (max(round(BORDER * side), 1) for side in pixels.shape[:2])
    return rows, columns
