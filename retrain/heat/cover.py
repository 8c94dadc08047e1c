"""Pictures without their border: what a label loses then, the border carried."""

import numpy as np

BORDER = 0.08  # of a side, along each edge


def without_border(pixels: np.ndarray, share: float = BORDER) -> np.ndarray:
    """Return a picture whose pixels along the edges are those that lie just within: uint8 (height, width, 3), as given.

    Nothing new is drawn, as a grey bar would be: a white margin stays white, and a frame is gone. `share`: how wide the
    border is, of height and width.
    """
    rows, columns = (round(share * side) for side in pixels.shape[:2])
    inner = pixels[rows : len(pixels) - rows, columns : pixels.shape[1] - columns]
    return np.pad(inner, ((rows, rows), (columns, columns), (0, 0)), mode="edge")
