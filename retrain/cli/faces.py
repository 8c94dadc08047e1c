"""`retrain faces`."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from retrain.cli.console import Console, printable, skipped_line
from retrain.cli.options import Folder
from retrain.errors import Exit

if TYPE_CHECKING:
    from retrain.faces import Cutting, Outcome


@click.command(short_help="Cut the faces out of a folder of photos.")
@click.argument("photos", type=Folder())
@click.argument("out", type=Folder())
def faces(photos: Path, out: Path) -> int:
    """Cut each face out of each photo below PHOTOS, and write it to OUT/<folders>/<photo's name>/<number>.png.

    Class folders stay what they are, and the faces of one photo share a folder, so `retrain train OUT --groups folder` keeps
    them together. Faces have the margin that retrain label --faces looks at, too. Nothing is overwritten and no photo is
    changed; OUT/faces.jsonl says which face came from which photo. Run again, it cuts only what is new. It needs
    `pip install retrain[faces]`.

    \b
      retrain faces photos/ faces/
      retrain train faces/ --groups folder
      retrain label party.jpg --faces --model faces/model
    """
    from retrain.faces import check_installed, cut_faces, open_detector

    check_installed()
    outcome = cut_faces(photos, out, open_detector, progress=Console(), told=lambda row: _tell(row, photos))
    for line in summary(outcome, out):
        click.echo(printable(line))
    return Exit.SKIPPED if outcome.skipped else Exit.OK


def _tell(row: "Cutting", photos: Path) -> None:
    if row.reason:
        click.echo(skipped_line(str(photos / row.photo), row.reason, row.detail), err=True)
    elif not row.faces:
        click.echo(printable(f"no face in {photos / row.photo}"), err=True)


def summary(outcome: "Outcome", out: Path) -> list[str]:
    """Return the lines that end a run."""
    from retrain.faces import MANIFEST

    there = f", {outcome.present} there already" if outcome.present else ""
    lines = [
        f"photos: {outcome.photos} cut{there}, {outcome.skipped.total()} skipped, {len(outcome.faceless)} without a face",
        f"faces:  {outcome.faces}, in {out}, listed in {out / MANIFEST}",
    ]
    if not outcome.photos:
        lines.insert(0, "nothing new: every photo was cut by an earlier run")
    return lines
