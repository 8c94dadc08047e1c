"""`retrain label`."""

import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from retrain.cli.console import printable, skipped_line
from retrain.cli.options import complete_files, model_option, tta_option, unknown_option
from retrain.errors import BadImage, Exit, NothingUsable
from retrain.settings import SCORE_DECIMALS, UNKNOWN
from retrain.storage import Layout

if TYPE_CHECKING:
    from retrain.label import Labelled
    from retrain.model import Model
    from retrain.whereabouts import Whereabouts


_PIECE = 2**20  # bytes


@click.command(short_help="Say what is on a picture.")
@click.argument("images", nargs=-1, required=True, metavar="IMAGE...", shell_complete=complete_files)
@model_option
@unknown_option
@tta_option
@click.option("--top", type=click.IntRange(min=1), help="Show so many labels; all by default.")
@click.option("--neighbours", type=click.IntRange(min=0), default=0, help="Name so many of the nearest training pictures.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object a picture, a line each.")
def label(
    images: tuple[str, ...], model: Path, unknown: float, tta: str, top: int | None, neighbours: int, as_json: bool
) -> int:
    """Print the labels of each IMAGE, highest score first.

    `-` reads a picture from standard input. A picture that cannot be used is named on stderr, and the others go on. For a
    picture that is unlike all that the model learnt from, the first line says `unknown`; the labels follow all the same.

    \b
      retrain label elsa.jpg
      retrain label elsa.jpg --neighbours 5
      curl -s https://example.org/picture.jpg | retrain label -
      retrain label *.jpg --top 1 --json
    """
    from retrain.model import load
    from retrain.whereabouts import Whereabouts

    loaded, shown, skipped = load(model, unknown=unknown, tta=tta), 0, 0
    files = Whereabouts(Layout(Path(os.path.normpath(model / os.pardir))))
    for image in images:
        try:
            labelled = _label(loaded, image, neighbours)
        except BadImage as problem:
            skipped += 1
            _show_problem(image, problem, as_json)
            continue
        if as_json:
            click.echo(json.dumps(_as_json(image, labelled, top, files)))
        else:
            _show(image, labelled, top, files, heading=len(images) > 1, first=not shown)
        shown += 1
    if skipped == len(images):
        raise NothingUsable(f"none of the pictures could be used ({skipped} of {len(images)} skipped); check the paths")
    return Exit.SKIPPED if skipped else Exit.OK


def _label(model: "Model", image: str, neighbours: int) -> "Labelled":
    from retrain.images import MAX_BYTES, read_bytes

    if image != "-":
        if os.path.isdir(image):  # pathlib raises for a name that is too long, or a folder on the way that is closed
            raise BadImage("not-a-file", "a folder; for whole folders: retrain classify")
        return model.label_bytes(read_bytes(Path(image)), neighbours)
    if sys.stdin is None:
        raise BadImage("unreadable", "standard input is closed")
    data = bytearray()
    while piece := sys.stdin.buffer.read(_PIECE):  # asked for all at once, so much memory would be taken
        data += piece
        if len(data) > MAX_BYTES:
            raise BadImage("too-large")
    return model.label_bytes(bytes(data), neighbours)


def _show(image: str, labelled: "Labelled", top: int | None, files: "Whereabouts", heading: bool, first: bool) -> None:
    if heading:
        click.echo(f"{'' if first else chr(10)}{printable(image)}:")
    if labelled.unknown:
        click.echo(f"{UNKNOWN} (typicality = {labelled.typicality:.{SCORE_DECIMALS}f})")
    for score in labelled.scores[:top]:
        click.echo(printable(str(score)))
    for near in labelled.neighbours:
        where = files.path(near.sha256) or f"sha256 {near.sha256}"
        click.echo(printable(f"near: {near.label} (similarity = {near.similarity:.{SCORE_DECIMALS}f}) {where}"))


def _as_json(image: str, labelled: "Labelled", top: int | None, files: "Whereabouts") -> dict[str, object]:
    scores = [{"label": score.label, "score": score.score} for score in labelled.scores[:top]]
    near = [
        {"label": one.label, "similarity": one.similarity, "sha256": one.sha256, "path": files.path(one.sha256)}
        for one in labelled.neighbours
    ]
    return {
        "image": image,
        "labels": scores,
        "unknown": labelled.unknown,
        "typicality": labelled.typicality,
        **({"neighbours": near} if near else {}),
        "notes": list(labelled.notes),
    }


def _show_problem(image: str, problem: BadImage, as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps({"image": image, "reason": problem.reason, "detail": problem.detail}))
    click.echo(f"retrain: {skipped_line(image, problem.reason, problem.detail)}", err=True)
