"""Where the heat of a map lies, in words."""

from dataclasses import dataclass

import numpy as np

WHOLE = (0.0, 0.0, 1.0, 1.0)
_THIRDS = np.array(
    [["upper left", "top", "upper right"], ["left", "middle", "right"], ["lower left", "bottom", "lower right"]], object
)
_NAMED = {1: 0.6, 2: 0.75}  # of the heat must lie in one ninth that is named, or in two
_MOST = 0.75  # of the heat must lie in a half that is named
_AROUND = 0.25  # of the heat must lie in the ninth that it is said to lie around
# Thirds of height and width whose middle lies in it count, those in between by half.
_HALVES = {
    "the upper half": ((1, 0.5, 0), (1, 1, 1)), "the lower half": ((0, 0.5, 1), (1, 1, 1)),
    "the left half": ((1, 1, 1), (1, 0.5, 0)), "the right half": ((1, 1, 1), (0, 0.5, 1)),
}  # fmt: skip


@dataclass(frozen=True)
class Region:
    """The smallest part of a picture that holds half of what speaks for a label.

    `share`: of the picture, 0 to 1; `where`: `upper left`, `left and right`, `the lower half`, `around the middle` ..., or
    `all over`; `edges`: those of the picture at which the strongest place lies. `evidence` is False where nothing in the
    picture speaks for the label: then the rest says nothing.
    """

    share: float
    where: str
    edges: tuple[str, ...]
    evidence: bool = True

    def __str__(self) -> str:
        if not self.evidence:
            return "nothing in the picture speaks for it"
        return f"half of the evidence lies on {100 * self.share:.0f} % of the picture: {self.where}"


def region(grid: np.ndarray, within: tuple[float, float, float, float] = WHOLE) -> Region:
    """Describe a map, float64 (rows, columns).

    `within`: the part of the picture that it covers: left, top, right and bottom, as shares of its sides.
    """
    heat = np.maximum(grid, 0.0)
    total = heat.sum()
    if not total > 0:
        return Region(0.0, "", (), evidence=False)
    left, top, right, bottom = within
    order = np.argsort(-heat, axis=None, kind="stable")
    count = int(np.searchsorted(np.cumsum(heat.ravel()[order]), total / 2)) + 1
    chosen = np.where(heat >= heat.ravel()[order[count - 1]], heat, 0.0)  # of equal places all, or the first would be named
    rows, columns = (
        _thirds(side, low, high) for side, low, high in zip(heat.shape, (top, left), (bottom, right), strict=True)
    )
    shares = rows @ chosen @ columns.T / chosen.sum()
    share = count / heat.size * (right - left) * (bottom - top)
    return Region(float(share), _where(shares), _edges(heat, within))


def _thirds(places: int, low: float, high: float) -> np.ndarray:
    """Return how much of each place, in a row from `low` to `high`, lies in each third of 0 to 1: float64 (3, places)."""
    edges = low + (high - low) * np.arange(places + 1) / places
    thirds = np.arange(3)[:, np.newaxis] / 3
    overlap = np.minimum(edges[1:], thirds + 1 / 3) - np.maximum(edges[:-1], thirds)
    shares: np.ndarray = np.maximum(overlap, 0) / (edges[1:] - edges[:-1])
    return shares


def _where(shares: np.ndarray) -> str:
    """Name the place of heat, by its shares in thirds of height and width, float64 (3, 3)."""
    order = np.argsort(-shares, axis=None, kind="stable")
    for count, least in _NAMED.items():
        if shares.ravel()[order[:count]].sum() >= least:
            return " and ".join(_THIRDS.ravel()[np.sort(order[:count])])
    halves = {name: float(np.array(rows) @ shares @ np.array(columns)) for name, (rows, columns) in _HALVES.items()}
    best = max(halves, key=lambda name: halves[name])
    if halves[best] >= _MOST:
        return best
    row, column = (round(float(shares.sum(axis=1 - axis) @ np.arange(3))) for axis in (0, 1))  # the centre of heat
    return f"around the {_THIRDS[row, column]}" if shares[row, column] >= _AROUND else "all over"


def _edges(heat: np.ndarray, within: tuple[float, float, float, float]) -> tuple[str, ...]:
    row, column = np.unravel_index(int(heat.argmax()), heat.shape)
    rows, columns = heat.shape
    left, top, right, bottom = within
    at = {
        "top": row == 0 and top == 0, "bottom": row == rows - 1 and bottom == 1,
        "left": column == 0 and left == 0, "right": column == columns - 1 and right == 1,
    }  # fmt: skip
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
