"""What is said of a picture and of the faces on it: as lines, and as JSON."""

from typing import TYPE_CHECKING, NamedTuple

import click

from retrain.cli.console import printable
from retrain.settings import SCORE_DECIMALS, UNKNOWN

if TYPE_CHECKING:
    from retrain.faces import Seen
    from retrain.label import Labelled
    from retrain.whereabouts import Whereabouts


class Found(NamedTuple):
    """What is printed of a picture. `labelled`: of the whole of it; None where each face has labels of its own."""

    labelled: "Labelled | None"
    seen: "Seen | None"  # with --faces


def show(image: str, found: Found, top: int | None, files: "Whereabouts", heading: bool, first: bool) -> None:
    """Print the labels of a picture, or of each of its faces; `first`: nothing was printed before."""
    if heading:
        click.echo(f"{'' if first else chr(10)}{printable(image)}:")
    faces = found.seen.faces if found.seen else ()
    for number, one in enumerate(faces, start=1):
        left, upper, right, lower = one.face.box
        sure = f"confidence = {one.face.confidence:.{SCORE_DECIMALS}f}"
        click.echo(f"face {number} of {len(faces)}, ({left}, {upper}) to ({right}, {lower}), {sure}:")
        _show_labels(one.labelled, top, files)
    if found.labelled is not None:
        if found.seen:
            click.echo("no face found; the whole picture:")
        _show_labels(found.labelled, top, files)


def _show_labels(labelled: "Labelled", top: int | None, files: "Whereabouts") -> None:
    if labelled.unknown:
        click.echo(f"{UNKNOWN} (typicality = {labelled.typicality:.{SCORE_DECIMALS}f})")
    for score in labelled.scores[:top]:
        click.echo(printable(str(score)))
    for near in labelled.neighbours:
        where = files.path(near.sha256) or f"sha256 {near.sha256}"
        click.echo(printable(f"near: {near.label} (similarity = {near.similarity:.{SCORE_DECIMALS}f}) {where}"))


def said_as_json(image: str, found: Found, top: int | None, files: "Whereabouts") -> dict[str, object]:
    """Return the same as JSON values; with --faces there is a list of them, which may be empty."""
    said: dict[str, object] = {"image": image}
    notes: tuple[str, ...] = ()
    if found.seen is not None:
        notes = found.seen.picture.notes
        said["faces"] = [
            {"box": list(one.face.box), "confidence": one.face.confidence, **_labels_as_json(one.labelled, top, files)}
            for one in found.seen.faces
        ]
    if found.labelled is not None:
        notes = found.labelled.notes
        said |= _labels_as_json(found.labelled, top, files)
    return {**said, "notes": list(notes)}


def _labels_as_json(labelled: "Labelled", top: int | None, files: "Whereabouts") -> dict[str, object]:
    near = [
        {"label": one.label, "similarity": one.similarity, "sha256": one.sha256, "path": files.path(one.sha256)}
        for one in labelled.neighbours
    ]
    return {
        "labels": [{"label": score.label, "score": score.score} for score in labelled.scores[:top]],
        "unknown": labelled.unknown,
        "typicality": labelled.typicality,
        **({"neighbours": near} if near else {}),
    }
