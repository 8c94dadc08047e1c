"""Learn from some of the pictures: heads, and every choice that goes with them, made by pictures that a head has not seen.

Chosen are, in turn: the strength of each head's penalty, the backbone, or several whose probabilities are averaged, and
whether several views of a picture are looked at when it is labelled. Less is better: more members, or more views, are kept
only where they are better by more than noise.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from retrain import head
from retrain.evaluation.paired import Paired, paired
from retrain.head import Fitted
from retrain.pipeline.seen import Seen, ways
from retrain.scores import fit_temperature, softmax
from retrain.settings import HeadSettings
from retrain.views import PLAIN, SEVERAL


@dataclass(frozen=True)
class Compared:
    """A model that was tried, by the pictures that its heads did not learn from: mean cross-entropy in nats, share right.

    `gain`: by how much its cross-entropy is below that of what it would replace. `kept`: whether it did.
    """

    name: str
    log_loss: float
    accuracy: float
    milliseconds: float
    gain: Paired | None
    kept: bool

    def as_json(self) -> dict[str, Any]:
        """Return it as JSON values, without what differs between equal runs."""
        facts = {"name": self.name, "log_loss": self.log_loss, "accuracy": self.accuracy}
        return {**facts, "gain": self.gain.as_json() if self.gain else None, "kept": self.kept}

    def __str__(self) -> str:
        gain = "" if self.gain is None else f", gain {self.gain} nats"
        return (
            f"{self.name}: {100 * self.accuracy:.1f} % right, cross-entropy {self.log_loss:.3f}{gain},"
            f" {self.milliseconds:.1f} ms a picture"
        )


@dataclass(frozen=True)
class Learnt:
    """What was learnt from some rows.

    `members`: numbers of the backbones that are kept; `fitted`: their heads; `temperature`: of each way to look at a
    picture; `way`: the one that is used. `backbones`, `views`: what was compared, empty where there was no choice.
    """

    members: tuple[int, ...]
    fitted: tuple[Fitted, ...]
    temperature: Mapping[str, float]
    way: str = PLAIN
    backbones: tuple[Compared, ...] = ()
    views: tuple[Compared, ...] = ()

    def scores(self, seen: Sequence[Seen], rows: np.ndarray, way: str | None = None, calibrated: bool = True) -> np.ndarray:
        """Return the scores of rows that were not learnt from: float64 (m, classes)."""
        way = way or self.way
        temperature = self.temperature[way] if calibrated else 1.0
        logits = [fitted.head.logits(seen[number].looks(rows, way)) for number, fitted in self.kept()]
        return softmax(np.concatenate(logits, axis=1), temperature).mean(axis=1)

    def held_out_scores(self, seen: Sequence[Seen], rows: np.ndarray) -> np.ndarray:
        """Return the scores of the rows that were learnt from by heads that did not: float64 (m, classes), else NaN."""
        said = []
        for number, fitted in self.kept():
            looks = seen[number].looks(rows, self.way)
            said += [fitted.said(looks[:, view]) for view in range(looks.shape[1])]
        return softmax(np.stack(said, axis=1), self.temperature[self.way]).mean(axis=1)

    def kept(self) -> list[tuple[int, Fitted]]:
        """Return the number and the head of each member."""
        return list(zip(self.members, self.fitted, strict=True))


def learn(
    seen: Sequence[Seen],
    rows: np.ndarray,
    classes: np.ndarray,
    labels: int,
    validation: np.ndarray,
    units: np.ndarray,
    settings: HeadSettings,
) -> Learnt:
    """Learn from rows: int64 (m,), of what was seen. `classes`: int64 (m,); `labels`: how many there are of them; otherwise
    as `head.fit_best`."""
    fitted = [head.fit_best(one.to_learn(rows), classes, labels, validation, units, settings) for one in seen]
    return choose(seen, fitted, rows, classes, units)


def choose(
    seen: Sequence[Seen], fitted: Sequence[Fitted], rows: np.ndarray, classes: np.ndarray, units: np.ndarray
) -> Learnt:
    """Choose among heads, one a backbone, and among ways to look at a picture; fit the temperatures.

    `rows`: int64 (m,), what was learnt from; `classes`, `units`: int64 (m,).
    """
    held_out = fitted[0].held_out
    if held_out is None:
        return Learnt((0,), (fitted[0],), dict.fromkeys(ways(seen[:1]), 1.0))
    judge = _Judge(seen, fitted, rows, np.flatnonzero(held_out), classes, units)
    members, backbones = _choose_members(judge, seen)
    way, compared = PLAIN, tuple[Compared, ...]()
    temperature = {PLAIN: judge.temperature(members, PLAIN)}
    if SEVERAL in ways([seen[number] for number in members]):
        temperature[SEVERAL] = judge.temperature(members, SEVERAL)
        way, compared = _choose_way(judge, members)
    return Learnt(members, tuple(fitted[number] for number in members), temperature, way, backbones, compared)


def _choose_members(judge: "_Judge", seen: Sequence[Seen]) -> tuple[tuple[int, ...], tuple[Compared, ...]]:
    """The best backbone; then the others, best first, as far as each makes the average better by more than noise."""
    if len(seen) == 1:
        return (0,), ()
    order = sorted(range(len(seen)), key=lambda number: judge.losses((number,), PLAIN).mean())
    members: tuple[int, ...] = (order[0],)
    compared = [judge.compared((number,), PLAIN, kept=number == order[0]) for number in order]
    for number in order[1:]:
        more = (*members, number)
        better = judge.better((members, PLAIN), (more, PLAIN))
        compared.append(judge.compared(more, PLAIN, kept=better, versus=(members, PLAIN)))
        members = more if better else members
    return members, tuple(compared)


def _choose_way(judge: "_Judge", members: tuple[int, ...]) -> tuple[str, tuple[Compared, ...]]:
    better = judge.better((members, PLAIN), (members, SEVERAL))
    compared = judge.compared(members, SEVERAL, kept=better, versus=(members, PLAIN))
    return SEVERAL if better else PLAIN, (judge.compared(members, PLAIN, kept=not better), compared)


class _Judge:
    """Measures members, on pictures that their heads did not learn from."""

    def __init__(
        self, seen: Sequence[Seen], fitted: Sequence[Fitted], rows: np.ndarray, judged: np.ndarray, classes: np.ndarray,
        units: np.ndarray,
    ) -> None:  # fmt: skip
        """`judged`: numbers of the rows that are judged on, among those that were learnt from."""
        self._seen, self._fitted, self._rows, self._judged = seen, fitted, rows, judged
        self._classes, self._units = classes[judged], units[judged]
        self._logits: dict[tuple[int, str], np.ndarray] = {}

    def temperature(self, members: Sequence[int], way: str) -> float:
        """Return what the logits of members must be divided by."""
        return fit_temperature(self._of(members, way), self._classes)

    def losses(self, members: Sequence[int], way: str) -> np.ndarray:
        """Return the cross-entropy of each picture, float64 (m,)."""
        own = self._scores(members, way)[np.arange(len(self._classes)), self._classes]
        losses: np.ndarray = -np.log(np.maximum(own, np.finfo(np.float64).tiny))
        return losses

    def better(self, before: tuple[Sequence[int], str], after: tuple[Sequence[int], str]) -> bool:
        """Whether one is better than another by more than noise, and no fewer pictures are right."""
        return self._gain(before, after).beyond_noise and self._right(*after) >= self._right(*before)

    def compared(
        self, members: Sequence[int], way: str, *, kept: bool, versus: tuple[Sequence[int], str] | None = None
    ) -> Compared:
        """Return what was measured of members."""
        name = " + ".join(self._seen[number].backbone for number in members)
        views = self._of(members, way).shape[1] // len(members)
        cost = views * sum(self._seen[number].milliseconds for number in members)
        gain = None if versus is None else self._gain(versus, (members, way))
        loss = float(self.losses(members, way).mean())
        return Compared(name if way == PLAIN else f"{views} views", loss, self._right(members, way), cost, gain, kept)

    def _gain(self, before: tuple[Sequence[int], str], after: tuple[Sequence[int], str]) -> Paired:
        return paired(self.losses(*before) - self.losses(*after), self._units)

    def _right(self, members: Sequence[int], way: str) -> float:
        return float((self._scores(members, way).argmax(axis=1) == self._classes).mean())

    def _scores(self, members: Sequence[int], way: str) -> np.ndarray:
        return softmax(self._of(members, way), self.temperature(members, way)).mean(axis=1)

    def _of(self, members: Sequence[int], way: str) -> np.ndarray:
        """Logits of each picture in each view by each member, float32 (m, views, classes)."""
        return np.concatenate([self._one(number, way) for number in members], axis=1)

    def _one(self, number: int, way: str) -> np.ndarray:
        if (number, way) not in self._logits:
            looks = self._seen[number].looks(self._rows, way)
            said = [self._fitted[number].said(looks[:, view])[self._judged] for view in range(looks.shape[1])]
            self._logits[number, way] = np.stack(said, axis=1)
        return self._logits[number, way]
