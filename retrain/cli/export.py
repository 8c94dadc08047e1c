"""`retrain export`."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from retrain.cli.console import Console, percent, printable
from retrain.cli.options import Choice, File, Folder, Share
from retrain.errors import Exit
from retrain.storage import DEFAULT_TF_FILES

if TYPE_CHECKING:
    from retrain.exports import Exported
    from retrain.exports.proof import Agreement

# As in export.formats, which this file must not import to be quick; a test compares them.
FORMATS = ("savedmodel", "keras", "litert", "litert-int8", "onnx", "frozen-graph", "zip")


@click.command(short_help="Write the model in another format, and prove that it is the same.")
@click.argument("tf_files", type=Folder(), default=DEFAULT_TF_FILES)
@click.option(
    "--format", "names", type=Choice(FORMATS), multiple=True, required=True, help="Format; several times for several."
)
@click.option("--model", type=Folder(), help="Model folder or zip.  [default: TF_FILES/model]")
@click.option("--output", type=Folder(), help="Folder to write to.  [default: TF_FILES/export/FORMAT]")
@click.option("--data", type=Folder(), help="Folder of pictures to compare on.  [default: the model's test pictures]")
@click.option(
    "--assert-agreement",
    "least",
    type=Share(0, 1),
    help="Share of these pictures that must get the model's label.  [default: 0.99; litert-int8 0.9; zip 1]",
)
@click.option(
    "--weights",
    type=File(),
    help="File of weights of a network of keras.applications, or the SavedModel that the network came as.",
)
def export(
    tf_files: Path, names: tuple[str, ...], model: Path | None, output: Path | None, data: Path | None, least: float | None,
    weights: Path | None,
) -> int:  # fmt: skip
    """Write the model in TF_FILES/model in other formats, to TF_FILES/export/FORMAT.

    Each export is run in the runtime that it is for, and compared with the model on the test pictures. What agrees less
    than --assert-agreement is not kept, and the command ends with 1. Beside each lie labels.txt, metadata.json and
    proof.json.

    \b
      retrain export --format litert                    for a phone
      retrain export --format savedmodel --format onnx
      retrain export --format zip                       the model as one file, for --model on another machine
    """
    from retrain.exports import export as run

    done = run(tf_files, names, model=model, output=output, data=data, least=least, weights=weights, progress=Console())
    for one in done:
        for line in _lines(one):
            click.echo(printable(line), err=bool(one.problem))
    return Exit.CHECK_FAILED if any(one.problem for one in done) else Exit.OK


def _lines(one: "Exported") -> list[str]:
    if one.problem or one.proof is None:
        return [f"retrain: {one.problem}"]
    lines = [f"{one.format.name}: {one.folder}, {one.bytes / 10**6:.1f} MB", f"  {_said(one.proof.same)}"]
    if one.proof.from_bytes:
        lines.append(f"  from files, decoded in TensorFlow: {_said(one.proof.from_bytes)}")
    if one.proof.unread:
        lines.append(f"  files that TensorFlow cannot decode: {one.proof.unread}")
    return lines


def _said(agreement: "Agreement") -> str:
    return (
        f"the model's label on {percent(agreement.agreement)} of {agreement.pictures} pictures,"
        f" scores differ by at most {agreement.difference:.2g}"
    )
