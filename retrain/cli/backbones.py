"""`retrain backbones`: what networks there are, and fetching one ahead."""

import click

from retrain.cli.console import Console, printable
from retrain.cli.options import Group, complete_backbones, image_size_option
from retrain.errors import EnvironmentProblem, Exit, UsageError


@click.group(cls=Group, invoke_without_command=True, short_help="List the pretrained networks; fetch one ahead.")
@click.pass_context
def backbones(ctx: click.Context) -> int:
    """List the pretrained networks that `retrain train --backbone` knows by name.

    Beside these, --backbone takes the address of any TF Hub image feature vector, the folder of a SavedModel, or a
    .tar.gz of one. Weights that are not on this machine are downloaded when they are first asked for.

    \b
      retrain backbones                          list them
      retrain backbones fetch mobilenet-v2       download one ahead
    """
    if ctx.invoked_subcommand is None:
        for line in listed():
            click.echo(printable(line))
    return int(Exit.OK)


def listed() -> list[str]:
    """Return the table, a line a network under a line of headings."""
    from retrain.backbones import BACKBONES, Backbone

    def where(row: Backbone) -> str:
        try:
            return str(row.weights())
        except UsageError:
            return "give --weights FILE"
        except EnvironmentProblem as error:
            return "not here yet: " + str(error).rpartition("run: ")[2]

    rows = [("name", "parameters", "input", "features", "licence", "family", "weights")]
    for row in BACKBONES.values():
        size = f"{row.parameters:.1f} million" if row.parameters else "-"
        rows.append((row.name, size, str(row.image_size), str(row.feature_size), row.licence, row.family or "-", where(row)))
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]) - 1)]
    return ["  ".join([*(f"{cell:{width}}" for cell, width in zip(row, widths, strict=False)), row[-1]]) for row in rows]


@backbones.command(short_help="Download a network and get it ready, to train offline later.")
@click.argument("name", shell_complete=complete_backbones)
@image_size_option
def fetch(name: str, image_size: int | None) -> int:
    """Download the network NAME, a name of the list or an address, and convert it for this machine.

    Training with it needs no network afterwards.

    \b
      retrain backbones fetch mobilenet-v2
    """
    from retrain.backbones import BACKBONES, get, network

    if name in BACKBONES and BACKBONES[name].family == "keras.applications":
        raise UsageError(f"{name} is not downloaded: get its 'notop' file from Keras and give it to train as --weights FILE")
    console = Console()
    backbone = get(name, image_size, progress=console)
    backbone.fetch(console)
    ready = network(backbone, console)
    click.echo(printable(f"{backbone.name} is ready: {backbone.weights()}, runs in {ready.engine}"))
    return int(Exit.OK)
