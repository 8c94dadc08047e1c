"""Where the heat of a map lies, in words."""

from dataclasses import dataclass

import numpy as np

_WIDE = 0.4  # of the picture; half of the evidence on more than this is no region
_NAMES = (("upper left", "top", "upper right"), ("left", "middle", "right"), ("lower left", "bottom", "lower right"))


@dataclass(frozen=True)
class Region:
    """The smallest part of a picture that holds half of what speaks for a label.

    `share`: of the picture, 0 to 1; `where`: `upper left`, `middle` ..., or `all over`; `edges`: at which the strongest
    place lies. `evidence` is False where nothing in the picture speaks for the label: then the rest says nothing.
    """

    share: float
    where: str
    edges: tuple[str, ...]
    evidence: bool = True

    def __str__(self) -> str:
        if not self.evidence:
            return "nothing in the picture speaks for it"
        if self.where == "all over":
            return "evidence is spread all over the picture"
        return f"half of the evidence lies on {100 * self.share:.0f} % of the picture: {self.where}"


def region(grid: np.ndarray) -> Region:
    """Describe a map: float64 (rows, columns)."""
    heat = np.maximum(grid, 0.0)
    total = heat.sum()
    if not total > 0:
        return Region(0.0, "", (), evidence=False)
    order = np.argsort(-heat, axis=None, kind="stable")
    sums = np.cumsum(heat.ravel()[order])
    count = int(np.searchsorted(sums, total / 2)) + 1
    share = count / heat.size
    chosen = np.unravel_index(order[:count], heat.shape)
    weights = heat[chosen]
    centre = [
        float((weights * (places + 0.5)).sum() / weights.sum() / side)
        for places, side in zip(chosen, heat.shape, strict=True)
    ]
    row, column = (min(int(3 * at), 2) for at in centre)
    return Region(share, "all over" if share > _WIDE else _NAMES[row][column], _edges(heat))


def _edges(heat: np.ndarray) -> tuple[str, ...]:
    row, column = np.unravel_index(int(heat.argmax()), heat.shape)
    rows, columns = heat.shape
    at = {"top": row == 0, "bottom": row == rows - 1, "left": column == 0, "right": column == columns - 1}
    return tuple(name for name, there in at.items() if there)


def border_share(grid: np.ndarray, rows: float, columns: float) -> float:
    """Return which share of a map's heat lies along the picture's edges, 0 to 1; 0 where there is none.

    `rows`, `columns`: how wide the border is, as a share of height and width, as far as whole places and parts of them go.
    """
    heat = np.maximum(grid, 0.0)
    if not heat.sum() > 0:
        return 0.0
    inner = [_inner(side, share) for side, share in zip(heat.shape, (rows, columns), strict=True)]
    return float(1 - (heat * np.outer(*inner)).sum() / heat.sum())


def _inner(side: int, share: float) -> np.ndarray:
    """Return how much of each row (or column) lies within the border, 0 to 1: float64 (side,)."""
    edges = np.arange(side + 1) / side
    low, high = np.clip(edges[:-1], share, 1 - share), np.clip(edges[1:], share, 1 - share)
    inner: np.ndarray = (high - low) * side
    return inner
