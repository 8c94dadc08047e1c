"""How much each place of a picture speaks for a label.

The head is linear and the features are the mean of the last spatial map, so the logit of a label is the mean over places of
what each of them contributes, plus the bias: the map is no estimate. B. Zhou et al., "Learning deep features for
discriminative localization", CVPR 2016. Grad-CAM (R. Selvaraju et al., ICCV 2017) gives the same for such a head, divided by
the number of places, and without what speaks against the label.
"""

from collections.abc import Callable

import numpy as np
from PIL import Image

_CELLS = 8  # a side of the map that is found by covering
_PATCH = 3  # cells a side that are covered at a time: smaller ones hide too little to matter


def activation(spatial: np.ndarray, kernel: np.ndarray) -> np.ndarray:
    """Return what each place adds to the logits of labels, float64 (labels, rows, columns): their mean is logit - bias.

    `spatial`: float32 (rows, columns, features), the last spatial map; `kernel`: float32 (features, labels), of the head.
    """
    contributions: np.ndarray = np.moveaxis(spatial.astype(np.float64) @ kernel.astype(np.float64), -1, 0)
    return contributions


def occlusion(pixels: np.ndarray, logits: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    """Return how much logits fall, on average, where a place is covered: float64 (labels, 8, 8). For any network.

    `pixels`: uint8 (size, size, 3); `logits`: pixels (n, size, size, 3) -> (n, labels). What is covered has the picture's
    mean colour. M. Zeiler and R. Fergus, "Visualizing and understanding convolutional networks", ECCV 2014.
    """
    size = len(pixels)
    edges = np.linspace(0, size, _CELLS + 1).round().astype(int)
    grey = pixels.reshape(-1, 3).mean(axis=0).round().astype(pixels.dtype)
    whole = logits(pixels[np.newaxis])[0].astype(np.float64)
    falls = np.zeros((len(whole), _CELLS, _CELLS))
    times = np.zeros((_CELLS, _CELLS))
    # Also from beyond the edges, so that cells there are covered as often as others.
    for row in range(1 - _PATCH, _CELLS):
        for column in range(1 - _PATCH, _CELLS):
            cells = tuple(slice(max(at, 0), min(at + _PATCH, _CELLS)) for at in (row, column))
            covered = pixels.copy()
            covered[edges[cells[0].start] : edges[cells[0].stop], edges[cells[1].start] : edges[cells[1].stop]] = grey
            fall = whole - logits(covered[np.newaxis])[0]
            falls[:, cells[0], cells[1]] += fall[:, np.newaxis, np.newaxis]
            times[cells] += 1
    average: np.ndarray = falls / times
    return average


def resized(grid: np.ndarray, rows: int, columns: int) -> np.ndarray:
    """Return a map at another size, float32 (rows, columns), between its places bicubic; nothing beyond its extremes."""
    image = Image.fromarray(grid.astype(np.float32)).resize((columns, rows), Image.Resampling.BICUBIC)
    found = np.array(image)
    return np.clip(found, grid.min(), grid.max(), out=found)


def mean(grids: list[np.ndarray]) -> np.ndarray:
    """Return the mean of maps (labels, rows, columns) of different networks, at the finest of their sizes."""
    rows, columns = max(grids, key=lambda grid: grid.shape[1] * grid.shape[2]).shape[1:]
    same = [
        grid if grid.shape[1:] == (rows, columns) else np.stack([resized(one, rows, columns) for one in grid])
        for grid in grids
    ]
    average: np.ndarray = np.mean(same, axis=0)
    return average
