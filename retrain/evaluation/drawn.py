"""Maps as small pictures on the page: over their picture, and the mean of a class over the mean picture."""

import hashlib
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from PIL import Image

from retrain.errors import BadImage
from retrain.evaluation.heat import Heat
from retrain.heat.colours import overlay
from retrain.heat.region import region
from retrain.images import read_bytes
from retrain.report.cards import Shown
from retrain.report.thumbnails import SIDE, Thumbnail, of_image, small


def of_picture(path: str, heat: Heat, most: float) -> dict[str, Thumbnail]:
    """Return the maps of a picture over its thumbnail, by label. Raises nothing.

    None is drawn over a picture that is gone, or another one now. `most`: the value that has the hottest colour.
    """
    try:
        data = read_bytes(Path(path))
        if hashlib.sha256(data).hexdigest() != heat.sha256:
            return {}
        image = small(data)
    except (BadImage, MemoryError):
        return {}
    box = _pixels(heat.box, image)
    return {label: of_image(overlay(image, grid, box, most)) for label, grid in heat.grids.items()}


def hottest(maps: Iterable[Heat]) -> float:
    """Return the largest value of maps, which then share one scale."""
    return max((float(grid.max()) for one in maps for grid in one.grids.values()), default=0.0)


def map_shown(made: Thumbnail, label: str, heat: Heat) -> Shown:
    """Return a map of a label as a card shows it, with words for those who do not see it."""
    where = str(region(heat.grids[label]))
    return Shown(made, "", label, note=where, of="for", alt=f"map of what speaks for {label}: {where}")


def _pixels(box: tuple[float, float, float, float], image: Image.Image) -> tuple[int, int, int, int]:
    """Return shares of a picture in its pixels, at least one each way."""
    left, top = min(round(box[0] * image.width), image.width - 1), min(round(box[1] * image.height), image.height - 1)
    return left, top, max(round(box[2] * image.width), left + 1), max(round(box[3] * image.height), top + 1)


def of_class(grid: np.ndarray, seen: np.ndarray) -> Thumbnail:
    """Return the mean map of a class, float64 (rows, columns), over its mean picture, uint8 (side, side, 3)."""
    image = Image.fromarray(seen).resize((SIDE, SIDE), Image.Resampling.BICUBIC)
    return of_image(overlay(image, grid, (0, 0, SIDE, SIDE), float(grid.max())))
