"""What drawings are made of: words and corners at their places."""

from collections.abc import Sequence

from retrain.report.html import Markup, tag


def words(x: float, y: float, text: str, anchor: str) -> Markup:
    """Return text in a drawing. `anchor`: which part of it stands at the place, `start`, `middle` or `end`."""
    return tag("text", text, x=f"{x:.1f}", y=f"{y:.1f}", text_anchor=anchor)


def corners(places: Sequence[tuple[float, float]]) -> str:
    """Return what a line or a polygon goes through."""
    return " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
