"""`retrain train`."""

import gc
import shlex
import sys
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from retrain.cli.console import Console, is_below, percent, printable, skipped_line
from retrain.cli.options import (
    Folder,
    Share,
    backbone_options,
    from_options,
    on_devices,
    settings_options,
)
from retrain.errors import Exit, UsageError
from retrain.settings import AugmentSettings, FineTuneSettings, HeadSettings, SplitSettings
from retrain.storage import DEFAULT_MODEL, RATE_PAGE, Layout

if TYPE_CHECKING:
    from retrain.pipeline import Result

_SHOWN = 10


@click.command(short_help="Learn from tf_files/data/<class>/... and write tf_files/model/.")
@click.argument("tf_files", type=Folder())
@click.option(
    "--model",
    type=Folder(),
    help="Folder to write the model to.  [default: TF_FILES/model]",
)
@backbone_options(several=True)
@click.option(
    "--crop-borders",
    is_flag=True,
    help="Cut borders of one colour off every picture: bars, frames, margins. The model then does so whatever it labels.",
)
@settings_options(SplitSettings)
@settings_options(HeadSettings)
@settings_options(AugmentSettings)
@settings_options(FineTuneSettings)
@click.option(
    "--search",
    type=click.FloatRange(min=0),
    default=0.0,
    metavar="SECONDS",
    help="Spend so many seconds on a better model: views, class weights, backbones, fine-tuning, the cheapest first.",
)
@click.option("--lr-find", is_flag=True, help="Only find out with which --tuning-rate to fine-tune, and draw the curve.")
@click.option(
    "--devices",
    metavar="NAME,...",
    help="Devices to fine-tune on, such as GPU:0,GPU:1; CPU:0,CPU:1 divides the CPU.  [default: all GPUs]",
)
@click.option("--summaries", type=Folder(), help="Folder for the curves that TensorBoard draws; needs retrain[tensorboard].")
@click.option(
    "--assert-accuracy",
    "least",
    type=Share(0, 1),
    help="End with 1 where the test accuracy, a share such as 0.9, is lower. The model is written all the same.",
)
@click.option(
    "--tta",
    is_flag=True,
    help="Test-time augmentation: find out whether it helps to look at several views of a picture when it is labelled.",
)
def train(
    tf_files: Path,
    model: Path | None,
    backbone: str,
    image_size: tuple[int, ...] | None,
    weights: Path | None,
    crop_borders: bool,
    tta: bool,
    search: float,
    lr_find: bool,
    devices: str | None,
    summaries: Path | None,
    least: float | None,
    **options: Any,
) -> int:
    """Train a classifier on the pictures in TF_FILES/data/<class>/...

    Each folder below data/ is a class; folders within it belong to it. Where there is no data/, the class folders are
    taken from TF_FILES itself. Pictures are only read. Beside them are written: bottlenecks.sqlite (features, computed
    once a picture), model/ and reports/train.json.

    \b
      retrain train tf_files/
      retrain train tf_files/ --groups folder          frames of one film scene stay together
      retrain train tf_files/ --folds 5                every picture is tested once
    """
    from retrain.devices import check_installed

    check_installed()  # before anything else that an environment for labelling lacks, so that this is what is said
    # TensorFlow's objects last; looking for garbage among them again and again takes a tenth of a second.
    gc.set_threshold(100_000)
    # Keras imports scikit-learn, where it is installed, for wrappers that this process does not use: most of a second.
    sys.modules.setdefault("sklearn", None)  # type: ignore[arg-type]
    from retrain.pipeline import find_rate
    from retrain.pipeline import train as run

    _refuse_idle(lr_find)
    split, head = from_options(SplitSettings, options), from_options(HeadSettings, options)
    augment, tuning = from_options(AugmentSettings, options), from_options(FineTuneSettings, options)
    shared: dict[str, Any] = {
        "augment": augment, "image_size": image_size, "weights": weights, "crop_borders": crop_borders,
        "devices": on_devices(devices), "progress": Console(),
    }  # fmt: skip
    if lr_find:
        curve = find_rate(tf_files, split, head, backbone, tuning=tuning, **shared)
        click.echo(f"learning rate: --tuning-rate {curve.proposed:.2g} is proposed: {curve.rule}")
        click.echo(printable(f"curve:         {Layout(tf_files).reports / RATE_PAGE}"))
        return Exit.OK
    result = run(
        tf_files, split, head, backbone, tuning=tuning, tta=tta, search=search, model=model, summaries=summaries, **shared
    )
    for line in summary(result):
        click.echo(printable(line))
    if is_below(least, result.accuracy.value):
        return Exit.CHECK_FAILED
    return Exit.SKIPPED if result.skipped else Exit.OK


def _refuse_idle(lr_find: bool) -> None:
    """Raise UsageError for an option that was given and would do nothing: whoever gave it expects something of it."""
    context = click.get_current_context()
    given = [name for name in context.params if context.get_parameter_source(name) is ParameterSource.COMMANDLINE]
    tunes = lr_find or context.params["fine_tune"] or context.params["search"]
    of_views = {field.name for field in fields(AugmentSettings)} - {"augment"}
    of_tuning = {field.name for field in fields(FineTuneSettings)} - {"fine_tune"} | {"devices"}
    for names, idle, why in (
        (of_tuning, not tunes, "without --fine-tune; add that"),
        (of_views, not tunes and not context.params["augment"], "without --augment N, or --fine-tune; add that"),
        ({"tta", "search", "model", "summaries", "least"}, lr_find, "with --lr-find, which trains no model; leave that out"),
    ):
        for name in given if idle else ():
            if name in names:
                (of_name,) = (one for one in context.command.params if one.name == name)
                option = of_name.secondary_opts[0] if context.params[name] is False else of_name.opts[0]
                raise UsageError(f"{option} does nothing {why}, or leave {option} out")


def summary(result: "Result") -> list[str]:
    """Return the lines that end a training run."""
    low, high = result.accuracy.interval
    lines = [skipped_line(item.path, item.reason, item.detail) for item in result.skipped[:_SHOWN]]
    if len(result.skipped) > _SHOWN:
        lines.append(f"skipped {len(result.skipped) - _SHOWN} more, all listed in reports/train.json")
    names = ", ".join(result.labels[:_SHOWN]) + (", ..." if len(result.labels) > _SHOWN else "")
    where = "" if result.model == DEFAULT_MODEL else f" --model {shlex.quote(str(result.model))}"
    return [
        *lines,
        f"classes:       {len(result.labels)} ({names})",
        f"pictures:      {result.used} used, {len(result.skipped)} skipped",
        f"bottlenecks:   {result.computed} computed, {result.cached} from the cache",
        f"test accuracy: {percent(result.accuracy.value)} (95 % interval {percent(low)} to {percent(high)};"
        f" {result.accuracy.correct} of {result.accuracy.count} pictures, {result.judged_on})",
        *_by_source(result),
        f"model:         {result.model}",
        f"next:          retrain label IMAGE{where}",
        f"               retrain classify FOLDER OUT{where}",
    ]


def _by_source(result: "Result") -> list[str]:
    """Return a line for each source, most test pictures first; one that has all of them would say nothing new."""
    figures = {source: figure for source, figure in result.by_source.items() if figure.count < result.accuracy.count}
    lines = [
        f"  {source:<12} {percent(figure.value)} ({figure.correct} of {figure.count})"
        for source, figure in sorted(figures.items(), key=lambda row: (-row[1].count, row[0]))
    ]
    if len(lines) <= _SHOWN:
        return lines
    return [*lines[: _SHOWN - 1], f"  and {len(lines) - _SHOWN + 1} more, all in reports/train.json"]
