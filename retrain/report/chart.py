"""Line charts as inline SVG: they take their colours from the page, and say in words what they show."""

import math
from collections.abc import Sequence
from typing import NamedTuple

from retrain.report.html import Markup, percent, tag
from retrain.report.svg import corners, words

_WIDTH, _HEIGHT = 360, 238  # units, about pixels on a phone
_LEFT, _RIGHT, _TOP, _BOTTOM = 46, 18, 30, 42
_SMALL_WIDTH, _SMALL_HEIGHT = 120, 44
_APART = 0.09  # of the width: numbers nearer than that would overlap


class Dot(NamedTuple):
    """A measured share at a number of pictures, with its interval."""

    at: int
    share: float
    low: float
    high: float


def curve(title: str, across: str, up: str, dots: Sequence[Dot]) -> Markup:
    """Return a chart of shares by number, with a band for the interval. Numbers are spaced by their ratio."""
    places = _places([dot.at for dot in dots], _LEFT, _WIDTH - _RIGHT)
    floor, ceiling, step = _scale([value for dot in dots for value in dot[1:]])

    def height(share: float) -> float:
        return _TOP + (ceiling - share) / (ceiling - floor) * (_HEIGHT - _TOP - _BOTTOM)

    marks = [floor + step * number for number in range(round((ceiling - floor) / step) + 1)]
    rows = [_row(height(mark), f"{100 * mark:.0f} %") for mark in marks]
    band = [(x, height(dot.high)) for x, dot in zip(places, dots, strict=True)]
    band += [(x, height(dot.low)) for x, dot in reversed(list(zip(places, dots, strict=True)))]
    line = [(x, height(dot.share)) for x, dot in zip(places, dots, strict=True)]
    return tag(
        "svg",
        *rows,
        *_numbers(places, [dot.at for dot in dots]),
        words((_LEFT + _WIDTH - _RIGHT) / 2, _HEIGHT - 6, across, "middle"),
        words(2, 12, up, "start"),
        tag("polygon", points=corners(band), class_="band"),
        *(tag("path", d=f"M{x:.1f} {height(dot.high):.1f}V{height(dot.low):.1f}", class_="whisker")
          for x, dot in zip(places, dots, strict=True)),
        tag("polyline", points=corners(line), class_="line"),
        *(tag("circle", cx=f"{x:.1f}", cy=f"{y:.1f}", r=3.5, class_="dot") for x, y in line),
        viewBox=f"0 0 {_WIDTH} {_HEIGHT}", class_="chart", role="img",
        aria_label=f"{title}: {in_words(up, [(dot.at, dot.share) for dot in dots])}",
    )  # fmt: skip


def small(title: str, up: str, measured: Sequence[tuple[int, float]], floor: float) -> Markup:
    """Return a chart of a line alone, from `floor` to 1, to be set beside others of the same scale."""
    places = _places([at for at, _ in measured], 4, _SMALL_WIDTH - 4)
    line = [
        (x, 4 + (1 - share) / max(1 - floor, 0.01) * (_SMALL_HEIGHT - 8))
        for x, (_, share) in zip(places, measured, strict=True)
    ]
    ends = f"M0 4H{_SMALL_WIDTH}M0 {_SMALL_HEIGHT - 4}H{_SMALL_WIDTH}"
    return tag(
        "svg",
        tag("path", d=ends, class_="grid"),
        tag("polyline", points=corners(line), class_="line"),
        *(tag("circle", cx=f"{x:.1f}", cy=f"{y:.1f}", r=3, class_="dot") for x, y in line[-1:]),
        viewBox=f"0 0 {_SMALL_WIDTH} {_SMALL_HEIGHT}", class_="small", role="img",
        aria_label=f"{title}: {in_words(up, measured)}",
    )  # fmt: skip


def in_words(up: str, measured: Sequence[tuple[int, float]]) -> str:
    """Say what a line shows: `accuracy 61.0 % at 50, 70.0 % at 100`."""
    return f"{up} " + ", ".join(f"{percent(share)} at {at:,}" for at, share in measured)


def scale_floor(shares: Sequence[float]) -> float:
    """Return where a scale that ends at 1 should begin: at a full tenth, so that differences can be seen."""
    return min(math.floor(10 * min(shares, default=0) + 1e-9) / 10, 0.9)


def _scale(shares: Sequence[float]) -> tuple[float, float, float]:
    """Return the lower and upper end of a scale, and the step of its marks: three to six of them."""
    low = max(math.floor(10 * min(shares) + 1e-9), 0)
    high = min(max(math.ceil(10 * max(shares) - 1e-9), low + 2), 10)
    low = min(low, high - 2)
    step = next(step for step in (0.5, 1, 2) if high - low <= 5 * step or step == 2)
    if step == 2 and (high - low) % 2:
        low, high = (low - 1, high) if low > 0 else (low, high + 1)
    return low / 10, high / 10, step / 10


def _places(numbers: Sequence[int], left: float, right: float) -> list[float]:
    """Return where numbers stand between two ends, by their logarithm; a single one stands in the middle."""
    logs = [math.log(max(number, 1)) for number in numbers]
    first, span = min(logs), max(logs) - min(logs)
    return [left + (log - first) / span * (right - left) if span else (left + right) / 2 for log in logs]


def _numbers(places: Sequence[float], numbers: Sequence[int]) -> list[Markup]:
    """Return the numbers below the chart, from the largest, without those that would overlap the one before."""
    written: list[Markup] = []
    last = math.inf
    for x, number in sorted(zip(places, numbers, strict=True), reverse=True):
        if last - x >= _APART * _WIDTH:
            written.append(words(x, _HEIGHT - _BOTTOM + 16, f"{number:,}", "middle"))
            last = x
    return written[::-1]


def _row(y: float, text: str) -> Markup:
    line = tag("path", d=f"M{_LEFT - 6} {y:.1f}H{_WIDTH - _RIGHT + 6}", class_="grid")
    return tag("g", line, words(_LEFT - 10, y + 4, text, "end"))
