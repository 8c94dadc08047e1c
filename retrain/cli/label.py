"""`retrain label`."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import click

from retrain.cli.console import skipped_line
from retrain.cli.labels import Found, said_as_json, show
from retrain.cli.options import File, complete_files, model_option, tta_option, unknown_option
from retrain.cli.reading import read
from retrain.errors import BadImage, EnvironmentProblem, Exit, NothingUsable, UsageError
from retrain.storage import Layout, check_new, write_new

if TYPE_CHECKING:
    from retrain.faces import Seen


@click.command(short_help="Say what is on a picture.")
@click.argument("images", nargs=-1, required=True, metavar="IMAGE...", shell_complete=complete_files)
@model_option
@unknown_option
@tta_option
@click.option("--top", type=click.IntRange(min=1), help="Show so many labels; all by default.")
@click.option("--neighbours", type=click.IntRange(min=0), default=0, help="Name so many of the nearest training pictures.")
@click.option("--faces", is_flag=True, help="Label each face; where there is none, the whole picture. Needs retrain[faces].")
@click.option(
    "--output",
    type=File(),
    help="With --faces: write a copy with boxes, labels and scores to this file, .jpg or .png; of several pictures, into"
    " this folder.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object a picture, a line each.")
def label(
    images: tuple[str, ...],
    model: Path,
    unknown: float,
    tta: str,
    top: int | None,
    neighbours: int,
    faces: bool,
    output: Path | None,
    as_json: bool,
) -> int:
    """Print the labels of each IMAGE, highest score first.

    `-` reads a picture from standard input. A picture that cannot be used is named on stderr, and the others go on. For a
    picture that is unlike all that the model learnt from, the first line says `unknown`; the labels follow all the same.

    \b
      retrain label elsa.jpg
      retrain label elsa.jpg --neighbours 5
      retrain label party.jpg --faces --output party-labelled.jpg
      curl -s https://example.org/picture.jpg | retrain label -
      retrain label *.jpg --top 1 --json
    """
    from retrain.whereabouts import Whereabouts

    copies = _copies(images, faces, output)
    answer = _answering(model, unknown, tta, neighbours, faces)
    files, shown, skipped = Whereabouts(Layout(Path(os.path.normpath(model / os.pardir)))), 0, 0
    for image in images:
        try:
            found = answer(read(image, "for whole folders: retrain classify"))
            if image in copies and found.seen is not None:
                _write_copy(copies.pop(image), found.seen)
        except BadImage as problem:
            skipped += 1
            _show_problem(image, problem, as_json)
            continue
        if as_json:
            click.echo(json.dumps(said_as_json(image, found, top, files)))
        else:
            show(image, found, top, files, heading=len(images) > 1, first=not shown)
        shown += 1
    if skipped == len(images):
        raise NothingUsable(f"none of the pictures could be used ({skipped} of {len(images)} skipped); check the paths")
    return Exit.SKIPPED if skipped else Exit.OK


def _copies(images: tuple[str, ...], faces: bool, output: Path | None) -> dict[str, Path]:
    """Return where the copy of each picture goes; what cannot be is refused before anything is computed."""
    if not faces:
        if output is not None:
            raise UsageError("--output draws the faces of a picture; add --faces")
        return {}
    from retrain.faces import FORMATS, check_installed

    check_installed()
    if output is None:
        return {}
    if len(images) == 1 and output.suffix.lower() not in FORMATS:
        raise UsageError(f"--output {output} ends in none of {', '.join(FORMATS)}; name a picture")
    if len(images) > 1 and not output.is_dir():
        raise UsageError(f"--output {output} is no folder, and the copies of several pictures need one; make it")
    copies, taken = {}, set()
    for image in dict.fromkeys(images):
        copy = output if len(images) == 1 else output / f"{'stdin' if image == '-' else Path(image).stem}.jpg"
        check_new(copy)
        if copy in taken:
            raise UsageError(f"{copy} would be the copy of two pictures; draw {image} in a run of its own")
        copies[image] = copy
        taken.add(copy)
    if not os.access(next(iter(taken)).parent, os.W_OK | os.X_OK):
        raise EnvironmentProblem(f"cannot write to --output {output}: permission denied; choose another place")
    return copies


def _answering(model: Path, unknown: float, tta: str, neighbours: int, faces: bool) -> "Callable[[bytes], Found]":
    from retrain.model import load

    loaded = load(model, unknown=unknown, tta=tta)
    if not faces:
        return lambda data: Found(loaded.label_bytes(data, neighbours), None)
    from retrain.faces import look, open_detector

    detector = open_detector()

    def answer(data: bytes) -> Found:
        seen = look(data, detector, lambda picture: loaded.label_bytes(picture, neighbours))
        return Found(seen.whole, seen)

    return answer


def _write_copy(path: Path, seen: "Seen") -> None:
    from retrain.faces import as_file, drawn

    write_new(path, as_file(drawn(seen), path))


def _show_problem(image: str, problem: BadImage, as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps({"image": image, "reason": problem.reason, "detail": problem.detail}))
    click.echo(f"retrain: {skipped_line(image, problem.reason, problem.detail)}", err=True)
