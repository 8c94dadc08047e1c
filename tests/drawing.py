"""Pictures for tests, drawn from a seed."""

from pathlib import Path

import numpy as np
from PIL import Image

COLOURS = {"blue": (40, 60, 200), "green": (50, 170, 60), "red": (200, 50, 40)}


def draw(path: Path, colour: tuple[int, int, int], seed: int, size: tuple[int, int] = (48, 40)) -> Path:
    """Write a noisy picture of one colour; every seed gives other bytes and clearly other pixels."""
    rng = np.random.default_rng(seed)
    width, height = size
    pixels = np.clip(rng.normal(colour, 45, (height, width, 3)), 0, 255).astype(np.uint8)
    corner, side = rng.integers(0, 20, 2), rng.integers(8, 20)
    pixels[corner[0] : corner[0] + side, corner[1] : corner[1] + side] = rng.integers(0, 255, 3)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)
    return path


def draw_classes(data: Path, count: int = 12, first_seed: int = 0) -> Path:
    """Write class folders named by colour, with `count` pictures each."""
    for number, (name, colour) in enumerate(COLOURS.items()):
        for index in range(count):
            draw(data / name / f"{name}{index:03}.png", colour, first_seed + 1000 * number + index)
    return data
