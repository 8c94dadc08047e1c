"""Pictures without their border, or with that of another one: what the border carries."""

import numpy as np

BORDER = 0.08  # of a side, along each edge


def without_border(pixels: np.ndarray) -> np.ndarray:
    """Return a picture whose pixels along the edges are those that lie just within: uint8 (height, width, 3), as given.

    Nothing new is drawn, as a grey bar would be: a white margin stays white, and a frame is gone.
    """
    rows, columns = _wide(pixels)
    return np.pad(pixels[rows:-rows, columns:-columns], ((rows, rows), (columns, columns), (0, 0)), mode="edge")


def with_border_of(pixels: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Return a picture inside the border of another one of the same size: uint8 (height, width, 3)."""
    rows, columns = _wide(pixels)
    made = other.copy()
    made[rows:-rows, columns:-columns] = pixels[rows:-rows, columns:-columns]
    return made


def _wide(pixels: np.ndarray) -> tuple[int, int]:
    rows, columns = (max(round(BORDER * side), 1) for side in pixels.shape[:2])
    return rows, columns
