"""The page of a search for the learning rate: the loss by rate, with the proposal marked."""

import math

from retrain.finetune.rates import RateCurve
from retrain.report.html import Markup, count, folded, join, page, table, tag
from retrain.report.sections import Section, about, contents
from retrain.report.svg import corners, words

_WIDTH, _HEIGHT = 360, 238  # units, about pixels on a phone
_LEFT, _RIGHT, _TOP, _BOTTOM = 46, 18, 30, 42
_ROWS = 5  # of the scale of losses
_HIGHEST = 1.2  # times the loss at the lowest rates: what lies above says only that it blew up
_LOOKS = """
.single { fill: var(--soft); opacity: .5; }
.proposed { stroke: var(--text); stroke-width: 1.5; stroke-dasharray: 4 3; fill: none; }
"""
_FOOTER = "Written by retrain train --lr-find. The page is a single file; it loads nothing."


def render(curve: RateCurve, backbone: str) -> str:
    """Return the page: the same for the same input. `backbone`: its name."""
    section = Section("rates", "Loss by learning rate", join((about(_about(curve)), chart(curve), _figures(curve))))
    header = join(
        (
            tag("h1", "Learning rate for ", tag("bdi", backbone)),
            tag("dl", tag("div", tag("dt", "proposed"), tag("dd", f"{curve.proposed:.2g}")), class_="tiles"),
            tag("p", "Train with it: ", tag("code", f"--tuning-rate {curve.proposed:.2g}")),
        )
    )
    return page(
        f"Learning rate for {backbone}",
        header,
        contents([("Learning rate", [section])]),
        section.html,
        _FOOTER,
        looks=_LOOKS,
    )


def chart(curve: RateCurve) -> Markup:
    """Return the losses of single steps as dots, their smoothed course as a line, and the proposed rate as another."""
    low = min(*curve.smoothed, *curve.losses)
    high = max(_HIGHEST * max(curve.smoothed[: max(len(curve.smoothed) // 4, 1)]), low + 1e-9)
    first, last = math.log10(curve.rates[0]), math.log10(curve.rates[-1])

    def across(rate: float) -> float:
        share = (math.log10(rate) - first) / max(last - first, 1e-9)
        return _LEFT + min(max(share, 0.0), 1.0) * (_WIDTH - _LEFT - _RIGHT)

    def up(loss: float) -> float:
        return _TOP + (high - min(loss, high)) / (high - low) * (_HEIGHT - _TOP - _BOTTOM)

    marks = [low + (high - low) * number / (_ROWS - 1) for number in range(_ROWS)]
    powers = range(math.ceil(first - 1e-9), math.floor(last + 1e-9) + 1)
    line = [(across(rate), up(loss)) for rate, loss in zip(curve.rates, curve.smoothed, strict=True)]
    at = across(curve.proposed)
    return tag(
        "svg",
        *(_row(up(mark), f"{mark:.3g}") for mark in marks),
        *(words(across(10.0**power), _HEIGHT - _BOTTOM + 16, f"1e{power}", "middle") for power in powers),
        words((_LEFT + _WIDTH - _RIGHT) / 2, _HEIGHT - 6, "learning rate", "middle"),
        words(2, 12, "loss", "start"),
        *(tag("circle", cx=f"{across(rate):.1f}", cy=f"{up(loss):.1f}", r=1.5, class_="single")
          for rate, loss in zip(curve.rates, curve.losses, strict=True) if loss <= high),
        tag("polyline", points=corners(line), class_="line"),
        tag("path", d=f"M{at:.1f} {_TOP}V{_HEIGHT - _BOTTOM}", class_="proposed"),
        words(at, _TOP - 6, f"{curve.proposed:.2g}", "middle"),
        viewBox=f"0 0 {_WIDTH} {_HEIGHT}", class_="chart", role="img",
        aria_label=f"Loss by learning rate: from {curve.smoothed[0]:.3g} at {curve.rates[0]:.2g} to "
                   f"{curve.smoothed[-1]:.3g} at {curve.rates[-1]:.2g}, least {min(curve.smoothed):.3g}; "
                   f"proposed {curve.proposed:.2g}",
    )  # fmt: skip


def _row(y: float, text: str) -> Markup:
    line = tag("path", d=f"M{_LEFT - 6} {y:.1f}H{_WIDTH - _RIGHT + 6}", class_="grid")
    return tag("g", line, words(_LEFT - 10, y + 4, text, "end"))


def _about(curve: RateCurve) -> str:
    return (
        f"{count(len(curve.rates), 'step')} of fine-tuning, each at a higher rate. Dots: the loss of single steps; line: "
        f"smoothed; broken line: the rate proposed, {curve.rule}. Losses far above the first are left out."
    )


def _figures(curve: RateCurve) -> Markup:
    rows = zip(curve.rates, curve.losses, curve.smoothed, strict=True)
    cells = [(f"{rate:.2e}", f"{loss:.4g}", f"{mean:.4g}") for rate, loss, mean in rows]
    return folded("The figures", table("Loss by learning rate", ("rate", "loss", "smoothed"), cells))
