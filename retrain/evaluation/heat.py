"""What speaks for labels in pictures of an evaluation, and what each class rests on: as it was found."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from retrain.heat.region import Region, region

FEWEST = 5  # pictures of a class, for anything to be said of what carries it
# Logarithm of odds: twenty times as likely, or a twentieth. Where drawings reach the edges much is lost with the border, but
# it gives little to others; a frame does both: benchmarks/heat_maps.py.
MATTERS = math.log(20)
LEAST_SHARE = 1 / 3  # of the lead that must be lost as well: where leads are long, so is everything


@dataclass(frozen=True)
class Heat:
    """The maps of one picture.

    `grids`: label -> float32 (rows, columns), what each place of the part that the model sees adds to the logit; `box`: that
    part, left, top, right and bottom as shares of width and height. `sha256`: of the file, in hex: another file at the same
    path has other maps.
    """

    sha256: str
    grids: Mapping[str, np.ndarray]
    box: tuple[float, float, float, float]


@dataclass(frozen=True)
class Carried:
    """What a part of the pictures of a class, such as their border, carries: medians over pictures.

    `fall`: how much the logarithm of the odds of the label against the next one loses where that part is taken away;
    `rise`: how much it gains in pictures of other classes that are given the part, None where nobody looked; `right`: how
    many pictures of the class are labelled rightly still.
    """

    fall: float
    right: int
    rise: float | None = None

    @property
    def suspect(self) -> bool:
        """Whether so much is lost that this part may carry the class."""
        return self.fall >= MATTERS

    @property
    def both_ways(self) -> bool:
        """Whether the part takes the label along, from its pictures and to others."""
        return self.suspect and self.rise is not None and self.rise >= MATTERS


@dataclass(frozen=True)
class Rests:
    """What a class rests on, by a sample of its pictures that the model labels rightly: `pictures`, of them `learnt` from.

    `lead`: the logarithm of the odds of the label against the next one, the median; `background`: None where it is not of
    one colour, or of the same as elsewhere; `in_border`: the share of the heat that lies there. `grid`: the mean map,
    float64 (rows, columns), None for a network without a spatial map; `seen`: the mean picture, uint8 (side, side, 3).
    `examples`: paths of some.
    """

    label: str
    pictures: int
    learnt: int = 0
    lead: float = 0.0
    border: Carried | None = None
    background: Carried | None = None
    in_border: float | None = None
    grid: np.ndarray | None = field(default=None, repr=False)
    seen: np.ndarray | None = field(default=None, repr=False)
    examples: tuple[str, ...] = ()

    @property
    def flagged(self) -> tuple[str, ...]:
        """The parts of the pictures that carry the class: `border`, `background`."""
        parts = {"border": self.border, "background": self.background} if self.pictures >= FEWEST else {}
        return tuple(
            part
            for part, carried in parts.items()
            if carried and carried.both_ways and carried.fall >= LEAST_SHARE * self.lead
        )

    @property
    def region(self) -> Region | None:
        """Where the evidence lies; None where it is not known."""
        return None if self.grid is None else region(self.grid)


@dataclass(frozen=True)
class Found:
    """`heat`: path -> maps, of mistakes and of examples; `rests`: of each class that was looked at; `left`: classes that
    were not, as there are too many. `mapped`: whether the network has a spatial map, without which there are no maps."""

    heat: Mapping[str, Heat] = field(default_factory=dict)
    rests: tuple[Rests, ...] = ()
    left: int = 0
    mapped: bool = True

    @property
    def flagged(self) -> dict[str, list[str]]:
        """The classes that are carried by a part of their pictures: part -> labels."""
        found: dict[str, list[str]] = {}
        for one in self.rests:
            for part in one.flagged:
                found.setdefault(part, []).append(one.label)
        return found
