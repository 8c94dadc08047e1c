"""`retrain check`."""

import gc
import shlex
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from retrain.cli.console import Console, percent, printable
from retrain.cli.options import File, Folder, backbone_options
from retrain.errors import Exit, UsageError
from retrain.storage import Layout

if TYPE_CHECKING:
    from retrain.checks.run import Report

_SHOWN = 3
_LEFT_SHOWN = 10


@click.command(short_help="Find what is wrong with the pictures: duplicates, wrong labels, leaks, shortcuts.")
@click.argument("tf_files", type=Folder())
@click.option(
    "--plan",
    type=File(),
    help="File to write a plan to: a row of CSV for each picture that something was found about, to be edited.",
)
@click.option(
    "--apply",
    "applied",
    type=File(),
    help="Do what a plan says: relabel moves a picture to another class folder, move sets it aside in TF_FILES/set_aside/.",
)
@click.option("--undo", is_flag=True, help="Take back the plan that was applied last.")
@backbone_options()
@click.option(
    "--crop-borders",
    is_flag=True,
    help="Look at what lies within the borders of each picture, as a model trained with --crop-borders does.",
)
@click.option("--seed", type=click.IntRange(0, 2**31 - 1), default=0, show_default=True, help="Seed of the folds.")
def check(tf_files: Path, plan: Path | None, applied: Path | None, undo: bool, **options: Any) -> int:
    """Look for what may be wrong with the pictures in TF_FILES/data/<class>/... and change nothing.

    Named are files that cannot be used, duplicates, pictures that are probably in the wrong class, pictures that stand
    out, classes that are too small, what would leak from training to test, and what tells a class without looking at what
    is shown. TF_FILES/reports/check.html shows the pictures, check.json has everything. Ends with 3 where something was
    found.

    \b
      retrain check tf_files/
      retrain check tf_files/ --plan plan.csv       then edit plan.csv
      retrain check tf_files/ --apply plan.csv
      retrain check tf_files/ --undo
    """
    if sum((plan is not None, applied is not None, undo)) > 1:
        raise UsageError("--plan, --apply and --undo are three steps; give one of them")
    if undo:
        return _undo(tf_files)
    if applied is not None:
        return _apply(tf_files, applied)
    from retrain.devices import check_installed

    check_installed()
    gc.set_threshold(100_000)  # as in train
    sys.modules.setdefault("sklearn", None)  # type: ignore[arg-type]
    from retrain.checks.plan import by_picture, refuse_foreign, write
    from retrain.checks.run import check as run

    if plan is not None:
        refuse_foreign(plan)
    report = run(tf_files, progress=Console(), **options)
    lines = summary(report)
    if plan is not None:
        rows = write(plan, Layout(tf_files), report.findings, report.hashes)
        said = f"{_count(rows, 'picture', 'pictures')}; edit it" if rows else "without rows: there is nothing to apply"
        lines.append(f"plan:          {plan} ({said})")
        if rows:
            then = f"retrain check {shlex.quote(str(tf_files))} --apply {shlex.quote(str(plan))}"
            lines.append(f"next:          {then}")
    elif by_picture(Layout(tf_files), report.findings):
        lines.append(f"next:          retrain check {shlex.quote(str(tf_files))} --plan plan.csv")
    for line in lines:
        click.echo(printable(line))
    return report.exit_code


def summary(report: "Report") -> list[str]:
    """Return the lines that end a check."""
    from retrain.checks.curve import in_words
    from retrain.checks.findings import KINDS

    seen, judged = report.pictures, report.judged
    counts = Counter(finding.kind for finding in report.findings)
    classes = _count(len(seen.names), "class", "classes")
    lines = [f"pictures:      {len(seen.paths)} in {classes}, {len(seen.skipped)} cannot be used"]
    for kind, row in KINDS.items():
        if counts[kind]:
            lines.append(f"  {counts[kind]:>6}  {row.title.lower()} ({kind}): {row.advice}")
    if not counts:
        lines.append("               nothing was found")
    shown = [finding for finding in report.findings if finding.kind in ("shortcut", "border", "leak", "colliding-names")]
    lines += [f"{finding.kind + ':':<14} {finding.detail}" for finding in shown]
    if judged and report.accuracy is not None:
        how = f"with each {judged.grouping} kept together" if judged.grouping else "with near-duplicates kept together"
        lines.append(f"accuracy:      {percent(report.accuracy)} of pictures that were not learnt from, {how}")
        if judged.curve:
            lines += [f"more:          {text}" for text in in_words(judged.curve, seen.names, _SHOWN)]
    return [*lines, f"report:        {report.sheet}"]


def _count(number: int, one: str, many: str) -> str:
    return f"{number} {one if number == 1 else many}"


def _say_left(skipped: Sequence[tuple[str, str]]) -> None:
    from retrain.checks.apply import REASONS

    for path, reason in skipped[:_LEFT_SHOWN]:
        click.echo(printable(f"left {path}: {reason} ({REASONS[reason]})"))
    if len(skipped) > _LEFT_SHOWN:
        click.echo(f"and {len(skipped) - _LEFT_SHOWN} more")


def _apply(tf_files: Path, plan: Path) -> int:
    from retrain.checks.apply import apply
    from retrain.checks.plan import read

    done = apply(Layout(tf_files), read(plan), Console())
    _say_left(done.skipped)
    click.echo(printable(f"applied:       {done.relabelled} relabelled, {done.moved} set aside, {done.kept} kept,"
                         f" {len(done.skipped)} left"))  # fmt: skip
    if done.journal is not None:
        click.echo(printable(f"next:          retrain train {shlex.quote(str(tf_files))}"))
        click.echo(printable(f"               retrain check {shlex.quote(str(tf_files))} --undo"))
    return Exit.SKIPPED if done.skipped else Exit.OK


def _undo(tf_files: Path) -> int:
    from retrain.checks.apply import undo

    done = undo(Layout(tf_files), Console())
    _say_left(done.skipped)
    back = _count(done.restored, "picture is", "pictures are")
    click.echo(f"undone:        {back} back, {len(done.skipped)} left")
    if not done.complete:
        click.echo("next:          free the names that are taken, then run")
        click.echo(printable(f"               retrain check {shlex.quote(str(tf_files))} --undo"))
    return Exit.SKIPPED if done.skipped or not done.complete else Exit.OK
