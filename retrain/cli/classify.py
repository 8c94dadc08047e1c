"""`retrain classify`."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from retrain.cli.console import Console, printable, skipped_line
from retrain.cli.options import Folder, model_option, tta_option, unknown_option
from retrain.errors import Exit

if TYPE_CHECKING:
    from retrain.classify import Outcome, Row


@click.command(short_help="Copy each picture of a folder to <label>-<score>.<ext>.")
@click.argument("images", type=Folder())
@click.argument("out", type=Folder())
@model_option
@unknown_option
@tta_option
@click.option("--sort", is_flag=True, help="Put the copies into one folder a label.")
@click.option("--dry-run", is_flag=True, help="Only print what would be copied where.")
def classify(images: Path, out: Path, model: Path, unknown: float, tta: str, sort: bool, dry_run: bool) -> int:
    """Copy each picture below IMAGES, bytes unchanged, to OUT/<label>-<score>.<ext>.

    Nothing is overwritten: where names clash, -2, -3 ... is added. OUT/manifest.csv and OUT/manifest.jsonl say for each
    picture where its copy is, with exact label and score, or why it was skipped. Run again, it adds only what is new. A
    picture that is unlike all that the model learnt from is copied to OUT/unknown-<score>.<ext>.

    \b
      retrain classify holiday/ classified/
      retrain classify holiday/ classified/ --sort
    """
    from retrain.classify import classify as run
    from retrain.label import load

    console = Console()
    labeller = load(model, unknown=unknown, tta=tta)
    outcome = run(labeller, images, out, sort=sort, dry_run=dry_run, progress=console, told=lambda row: _tell(row, dry_run))
    for line in summary(outcome, out, dry_run):
        click.echo(printable(line))
    return Exit.SKIPPED if outcome.skipped else Exit.OK


def _tell(row: "Row", dry_run: bool) -> None:
    if row.reason:
        click.echo(skipped_line(row.source, row.reason, row.detail), err=True)
    elif dry_run:
        click.echo(printable(f"{row.source} -> {row.copy}"))


def summary(outcome: "Outcome", out: Path, dry_run: bool) -> list[str]:
    """Return the lines that end a run."""
    labels = ", ".join(f"{label} {count}" for label, count in sorted(outcome.labels.items()))
    verb = "would be copied" if dry_run else "copied"
    there = f", {outcome.present} there already" if outcome.present else ""
    lines = [
        f"pictures: {outcome.copied} {verb}{there}, {outcome.skipped.total()} skipped",
        f"labels:   {labels}",
    ]
    if not dry_run:
        lines.append(f"copies:   {out}, listed in {out / 'manifest.csv'}")
    if outcome.unlisted:
        lines.append(
            f"earlier:  {outcome.unlisted} of these had another name, or other bytes, in an earlier run;"
            " those copies stay, no longer listed"
        )
    if not outcome.copied and not dry_run:
        lines.insert(0, "nothing new: every picture was copied by an earlier run")
    return lines
