"""What is known of a picture, in sentences."""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from retrain import facts
from retrain.explain.explained import OCCLUSION, Explained
from retrain.heat.region import WHOLE
from retrain.label import Labelled, Neighbour
from retrain.settings import SCORE_DECIMALS, UNKNOWN

_NEARLY_THE_SAME = 0.97  # similarity, as near-duplicates are found in training
_BORDER = 0.02  # of a side; less may be an antialiased edge
_SAID = {"too-small": "small", "odd-shape": "long and narrow"}  # in place of the kind itself


class Remark(NamedTuple):
    """Something that a person should know before trusting the label: a stable name, and words."""

    kind: str
    words: str

    def __str__(self) -> str:
        return self.words


def remarks(explained: Explained, of: facts.Facts) -> list[Remark]:
    """Return what is odd about a picture. `of`: the facts of the whole of it, not of a smaller copy."""
    found = [*_of_model(explained), *_of_picture(of)]
    # The model does not see borders that it cuts off.
    return [one for one in found if one.kind != "border" or explained.maps[0].within == WHOLE]


def remarks_without_map(labelled: Labelled, of: facts.Facts) -> list[Remark]:
    """Return as many of them as can be told where it is not known what the label rests on."""
    return [*_of_labelled(labelled), *_of_picture(of)]


def _of_labelled(labelled: Labelled) -> Iterator[Remark]:
    if labelled.unknown:
        yield Remark("unknown", "unlike all that the model has learnt from: no label may be right")
    near = labelled.neighbours[0] if labelled.neighbours else None
    if near and near.similarity >= _NEARLY_THE_SAME:
        said = f"{near.similarity:.{SCORE_DECIMALS}f}"
        yield Remark("near-duplicate", f"nearly the same as a training picture in {near.label} (similarity = {said})")


def _of_model(explained: Explained) -> Iterator[Remark]:
    yield from _of_labelled(explained.labelled)
    edges = explained.maps[0].region.edges
    if edges:
        yield Remark("cropped", f"cropped, perhaps: the strongest evidence lies at the edge ({' and '.join(edges)})")


def _of_picture(of: facts.Facts) -> Iterator[Remark]:
    for kind, why, _ in facts.oddities(of):
        yield Remark(kind, f"{_SAID.get(kind, kind)}: {why}")
    sides = {name: getattr(of, name) for name in ("left", "top", "right", "bottom")}
    wide = [f"{100 * share:.0f} % {name}" for name, share in sides.items() if share > _BORDER]
    if wide:
        yield Remark("border", f"a border of one colour: {', '.join(wide)}")


def lines(explained: Explained, remarked: list[Remark], where: Callable[[Neighbour], str]) -> list[str]:
    """Return the sentences. `where`: the path of a training picture, or what else is known of it."""
    labelled, first = explained.labelled, explained.maps[0]
    said = [f"{UNKNOWN} (typicality = {labelled.typicality:.{SCORE_DECIMALS}f})"] if labelled.unknown else []
    if first.label != labelled.scores[0].label:
        said.append(f"label: {labelled.scores[0]}")
    for one in explained.maps:
        by = " (found by covering parts of it)" if explained.way == OCCLUSION else ""
        said += [f"{one.label} (score = {one.score:.{SCORE_DECIMALS}f})", f"evidence: {one.region}{by}"]
    said += [f"runner-up: {score}" for score in labelled.scores[1:2]]
    for near in labelled.neighbours:
        said.append(f"near: {near.label} (similarity = {near.similarity:.{SCORE_DECIMALS}f}) {where(near)}")
    return [*said, *(f"note: {remark}" for remark in remarked)]


def as_json(explained: Explained, remarked: list[Remark]) -> dict[str, Any]:
    """Return what was found as JSON values, without the nearest pictures."""
    maps = [
        {
            "label": one.label, "score": one.score, "evidence": one.region.evidence, "share": one.region.share,
            "where": one.region.where, "edges": list(one.region.edges), "map": one.grid.round(4).tolist(),
        }
        for one in explained.maps
    ]  # fmt: skip
    seen = list(explained.maps[0].within)
    return {**labelled_as_json(explained.labelled, remarked), "way": explained.way, "maps": maps, "seen": seen}


def labelled_as_json(labelled: Labelled, remarked: list[Remark]) -> dict[str, Any]:
    """Return as JSON values what is known of a picture without any map."""
    return {
        "labels": [{"label": score.label, "score": score.score} for score in labelled.scores],
        "runner_up": labelled.scores[1].label if len(labelled.scores) > 1 else None,
        "unknown": labelled.unknown,
        "typicality": labelled.typicality,
        "remarks": [remark._asdict() for remark in remarked],
        "notes": list(labelled.notes),
    }
