"""`retrain evaluate`."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from retrain.cli.console import Console, is_below, percent, printable, skipped_line
from retrain.cli.options import File, Folder, Share, tta_option, unknown_option
from retrain.errors import Exit

if TYPE_CHECKING:
    from retrain.evaluation.evaluated import Evaluated

_SHOWN = 3
_SKIPPED_SHOWN = 10


@click.command(short_help="Measure a model on pictures that it has not learnt from, and write a report.")
@click.argument("tf_files", type=Folder())
@click.option("--model", type=Folder(), help="Model folder.  [default: TF_FILES/model]")
@click.option(
    "--data",
    type=Folder(),
    help="Folder of class folders to measure on, in place of the test part; what the model has learnt from is left out.",
)
@click.option("--output", type=File(), help="Page to write, JSON beside it.  [default: TF_FILES/reports/evaluate.html]")
@click.option(
    "--assert-accuracy",
    "least",
    type=Share(0, 1),
    help="End with 1 where the accuracy, a share such as 0.9, is lower.",
)
@unknown_option
@tta_option
def evaluate(
    tf_files: Path, model: Path | None, data: Path | None, output: Path | None, least: float | None, unknown: float, tta: str
) -> int:
    """Measure how good the model in TF_FILES/model is.

    It is measured on the pictures of its test part, which it has never learnt from, or on those in another folder of
    class folders. A page with figures, charts and the worst mistakes is written to TF_FILES/reports/evaluate.html.

    \b
      retrain evaluate tf_files/
      retrain evaluate tf_files/ --data holiday/           pictures of the same classes from elsewhere
      retrain evaluate tf_files/ --assert-accuracy 0.9     ends with 1 where it is lower
    """
    from retrain.evaluation.run import REPORT
    from retrain.evaluation.run import evaluate as run
    from retrain.storage import Layout

    found = run(tf_files, model=model, data=data, output=output, unknown=unknown, tta=tta, progress=Console())
    for line in [*summary(found), f"report:            {output or Layout(tf_files).reports / REPORT}"]:
        click.echo(printable(line))
    if is_below(least, found.figures.accuracy.value):
        return Exit.CHECK_FAILED
    return Exit.SKIPPED if found.skipped else Exit.OK


def summary(found: "Evaluated") -> list[str]:
    """Return the lines that end an evaluation: one screen."""
    figures, right = found.figures, found.figures.accuracy
    low, high = right.interval
    before = "" if figures.uncalibrated_error is None else f" (before calibration {figures.uncalibrated_error:.3f})"
    lines = [skipped_line(item.path, item.reason, item.detail) for item in found.skipped[:_SKIPPED_SHOWN]]
    if len(found.skipped) > _SKIPPED_SHOWN:
        lines.append(f"skipped {len(found.skipped) - _SKIPPED_SHOWN} more, all listed in the report")
    return [
        *lines,
        f"pictures:          {right.count} ({found.judged_on})",
        f"accuracy:          {percent(right.value)} (95 % interval {percent(low)} to {percent(high)};"
        f" {right.correct} of {right.count})",
        *(f"among the top {k}:   {percent(share)}" for k, share in figures.top_k[1:2] or figures.top_k),
        f"macro F1:          {figures.macro_f1:.3f}",
        f"log loss:          {figures.log_loss:.3f}",
        f"calibration error: {figures.calibration_error:.3f}{before}",
        *_unknown(found),
        *_by_source(found),
        *_weakest(found),
        *_confused(found),
        *_rests_on(found),
    ]


def _unknown(found: "Evaluated") -> list[str]:
    known = found.unknown
    if known is None:
        return []
    wrong = f", of which {known.refused_wrong} would get a wrong label" if known.refused else ""
    lines = [f"called unknown:    {known.refused} of {known.known}{wrong}"]
    if known.foreign:
        lines.append(f"of other classes:  {known.found} of {known.foreign} called unknown")
    return lines


def _by_source(found: "Evaluated") -> list[str]:
    rows = sorted(found.figures.by_source.items(), key=lambda row: (-row[1].count, row[0]))
    if len(rows) < 2 and all(figure.count == found.figures.accuracy.count for _, figure in rows):
        return []
    lines = [
        f"  {source:<16} {percent(figure.value)} ({figure.correct} of {figure.count})" for source, figure in rows[:_SHOWN]
    ]
    return ["by source:", *lines, *([f"  and {len(rows) - _SHOWN} more"] if len(rows) > _SHOWN else [])]


def _weakest(found: "Evaluated") -> list[str]:
    rows = [row for row in found.figures.classes if row.recall is not None and row.recall < 1]
    rows.sort(key=lambda row: (row.recall, -row.support))
    lines = [f"  {row.label:<16} {percent(row.recall or 0)} found ({row.correct} of {row.support})" for row in rows[:_SHOWN]]
    return ["weakest classes:", *lines] if lines else []


def _confused(found: "Evaluated") -> list[str]:
    lines = [
        f"  {pair.label} taken for {pair.predicted}: {pair.count} ({percent(pair.share)} of them)"
        for pair in found.figures.pairs[:_SHOWN]
    ]
    return ["most confused:", *lines] if lines else []


def _rests_on(found: "Evaluated") -> list[str]:
    parts = [
        f"the {part} of {', '.join(names[:_SHOWN])}{f' and {len(names) - _SHOWN} more' if len(names) > _SHOWN else ''}"
        for part, names in found.maps.flagged.items()
    ]
    return [f"known by:          {'; '.join(parts)} (see the report)"] if parts else []
