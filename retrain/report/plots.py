"""Charts of how good a model is, as inline SVG: whether its scores mean what they say, and how its training went."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from retrain.report.html import Markup, count, name, percent, tag
from retrain.report.svg import corners, words

_WIDTH, _HEIGHT = 360, 238  # units, about pixels on a phone
_LEFT, _RIGHT, _TOP, _BOTTOM = 46, 18, 30, 42
_STRIP = 54  # of the height, for the number of pictures below a reliability diagram
_KINDS = ("line", "line second")  # of lines: the second is dashed, so that colour is not all that tells them apart


class Spot(NamedTuple):
    """Pictures with scores from `first` to `last`: how many, their mean score, the share that is right and its interval."""

    first: float
    last: float
    pictures: int
    score: float
    share: float
    low: float
    high: float


@dataclass(frozen=True)
class Line:
    """One of two lines of a chart: what it shows, and a value at each step."""

    title: str
    values: Sequence[float]


class _Frame(NamedTuple):
    """Where values are drawn: x from 0 to `across`, y from 0 to `up`, above `bottom` units that are left free."""

    across: float
    up: float
    height: float = _HEIGHT
    bottom: float = _BOTTOM

    def x(self, value: float) -> float:
        return _LEFT + value / self.across * (_WIDTH - _LEFT - _RIGHT)

    def y(self, value: float) -> float:
        return _TOP + (1 - value / self.up) * (self.height - _TOP - self.bottom)

    def row(self, value: float, text: str) -> Markup:
        line = tag("path", d=f"M{_LEFT - 6} {self.y(value):.1f}H{_WIDTH - _RIGHT + 6}", class_="grid")
        return tag("g", line, words(_LEFT - 10, self.y(value) + 4, text, "end"))

    def axes(self, across: str, up: str) -> tuple[Markup, Markup]:
        return words((_LEFT + _WIDTH - _RIGHT) / 2, self.height - 6, across, "middle"), words(2, 12, up, "start")


def reliability(spots: Sequence[Spot]) -> Markup:
    """Return a chart of the share that is right by score, with the diagonal where both are equal, above the numbers."""
    frame = _Frame(1, 1, _WIDTH + _STRIP, _BOTTOM + _STRIP)
    quarters = (0.0, 0.25, 0.5, 0.75, 1.0)
    floor, most = frame.height - _BOTTOM, max(spot.pictures for spot in spots)
    tall = (_STRIP - 22) / most
    bars = (_bar(frame.x(spot.first), frame.x(spot.last), floor, spot.pictures * tall) for spot in spots)
    said = ", ".join(f"{percent(one.share)} at {percent(one.score)} ({count(one.pictures, 'picture')})" for one in spots)
    return tag(
        "svg",
        *(frame.row(mark, f"{100 * mark:.0f} %") for mark in quarters),
        *(words(frame.x(mark), floor + 16, f"{100 * mark:.0f} %", "middle") for mark in quarters),
        *frame.axes("score", "share that is right"),
        tag("path", d=f"M{frame.x(0):.1f} {frame.y(0):.1f}L{frame.x(1):.1f} {frame.y(1):.1f}", class_="diagonal"),
        words(_LEFT - 10, floor - tall * most + 8, f"{most:,}", "end"),
        tag("path", d=f"M{_LEFT} {floor}H{_WIDTH - _RIGHT}", class_="grid"),
        *bars,
        *(tag("path", d=f"M{frame.x(one.score):.1f} {frame.y(one.high):.1f}V{frame.y(one.low):.1f}", class_="whisker")
          for one in spots),
        *(tag("circle", cx=f"{frame.x(one.score):.1f}", cy=f"{frame.y(one.share):.1f}", r=4, class_="dot") for one in spots),
        viewBox=f"0 0 {_WIDTH} {frame.height}", class_="chart square", role="img",
        aria_label=f"Share that is right by score: {said}",
    )  # fmt: skip


def _bar(left: float, right: float, floor: float, height: float) -> Markup:
    """A bar that can be seen even where it stands for one picture of thousands."""
    height = max(height, 1)
    return tag(
        "rect", x=f"{left + 1:.1f}", y=f"{floor - height:.1f}", width=f"{right - left - 2:.1f}", height=f"{height:.1f}",
        class_="column",
    )  # fmt: skip


def lines(title: str, up: str, steps: Sequence[int], drawn: Sequence[Line], as_shares: bool = False) -> Markup:
    """Return a chart of values from 0 upwards by training step; those that are not finite are left out."""
    heights = _marks(max((value for line in drawn for value in line.values if math.isfinite(value)), default=0.0))
    frame = _Frame(max(*steps, 1), heights[-1])
    places = [mark for mark in _marks(frame.across) if mark <= frame.across and mark == round(mark)]
    return tag(
        "svg",
        *(frame.row(mark, _written(mark, as_shares)) for mark in heights),
        *(words(frame.x(mark), _HEIGHT - _BOTTOM + 16, f"{mark:,.0f}", "middle") for mark in places),
        *frame.axes("training step", up),
        *(_line(frame, steps, line.values, kind) for line, kind in zip(drawn, _KINDS, strict=True)),
        viewBox=f"0 0 {_WIDTH} {_HEIGHT}", class_="chart", role="img",
        aria_label=f"{title}: {'; '.join(_ends(line, as_shares) for line in drawn)}",
    )  # fmt: skip


def legend(drawn: Sequence[Line]) -> Markup:
    """Return what the lines of charts mean."""
    entries = (
        tag(
            "li",
            tag("svg", tag("path", d="M0 6H36", class_=kind), viewBox="0 0 36 12", aria_hidden="true"),
            name(line.title),
        )
        for line, kind in zip(drawn, _KINDS, strict=True)
    )
    return tag("ul", *entries, class_="legend")


def _line(frame: _Frame, steps: Sequence[int], values: Sequence[float], kind: str) -> Markup:
    places = [(frame.x(step), frame.y(value)) for step, value in zip(steps, values, strict=True) if math.isfinite(value)]
    return tag("polyline", points=corners(places), class_=kind)


def _ends(line: Line, as_shares: bool) -> str:
    ends = [_written(value, as_shares) for value in (line.values[0], line.values[-1])]
    return f"{line.title}, from {ends[0]} to {ends[1]}"


def _written(value: float, as_share: bool) -> str:
    return f"{100 * value:.3g} %" if as_share else f"{value:.3g}"


def _marks(most: float) -> list[float]:
    """Return the marks of a scale from 0 that ends at `most` or beyond: three to six of them, at round numbers."""
    if most < 1e-9:
        return [0.0, 0.5, 1.0]
    power = 10 ** math.floor(math.log10(most))
    step = next(part * power for part in (0.2, 0.25, 0.5, 1, 2) if most <= 5 * part * power * (1 + 1e-9))
    return [step * number for number in range(math.ceil(most / step - 1e-9) + 1)]
