"""`retrain explain`."""

import io
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING

import click

from retrain.cli.console import printable
from retrain.cli.options import File, complete_files, model_option, tta_option, unknown_option
from retrain.cli.reading import read
from retrain.errors import BadImage, Exit, NothingUsable, UsageError
from retrain.storage import Layout, check_new, write_new

if TYPE_CHECKING:
    from PIL import Image

    from retrain.artifact import Artifact
    from retrain.explain import Explained

_FORMATS = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG", ".webp": "WEBP"}


@click.command(short_help="Show where in a picture a label comes from, and say what else is known of it.")
@click.argument("image", metavar="IMAGE", shell_complete=complete_files)
@model_option
@click.option("--output", type=File(), help="Picture to draw the maps on, .png, .jpg or .webp; it must not be there yet.")
@click.option(
    "--label",
    "labels",
    multiple=True,
    metavar="LABEL",
    help="Explain this label; several times for several, side by side.  [default: the top one]",
)
@click.option("--guided", is_flag=True, help="Draw fine lines, by guided backprop, in place of a map; needs TensorFlow.")
@click.option("--weights", type=File(), help="With --guided: the file of weights of a network of keras.applications.")
@unknown_option
@tta_option
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object, with the maps as numbers.")
def explain(
    image: str,
    model: Path,
    output: Path | None,
    labels: tuple[str, ...],
    guided: bool,
    weights: Path | None,
    unknown: float,
    tta: str,
    as_json: bool,
) -> int:
    """Say why IMAGE gets its label: what in it speaks for it, the runner-up, the nearest training pictures.

    `-` reads a picture from standard input.

    \b
      retrain explain image.jpg --output map.png
      retrain explain image.jpg --output both.png --label elsa --label anna
      retrain explain image.jpg --output lines.png --guided
    """
    from retrain import artifact, facts
    from retrain.explain import Explainer, words
    from retrain.images import decode
    from retrain.label import of
    from retrain.runner import cores
    from retrain.whereabouts import Whereabouts

    if output is not None:
        if output.suffix.lower() not in _FORMATS:
            raise UsageError(f"--output {output} ends in none of {', '.join(_FORMATS)}; name a picture")
        check_new(output)
    if weights is not None and not guided:
        raise UsageError("--weights does nothing without --guided; add that, or leave --weights out")
    if guided and output is None:
        raise UsageError("--guided draws a picture; say where to with --output")
    loaded = artifact.load(model)
    explainer = Explainer(of(loaded, cores(), unknown, tta))
    try:
        data = read(image, "explain one picture at a time")
        explained = explainer.explain(data, labels)
        whole = decode(data)
    except BadImage as problem:
        raise NothingUsable(f"{image} cannot be used: {problem}; choose another picture") from None
    remarked = words.remarks(explained, facts.of_picture(whole, len(data)))
    files = Whereabouts(Layout(Path(os.path.normpath(model / os.pardir))))
    if output is not None:
        write_new(output, _encoded(_drawn(explainer.model, explained, whole.image, guided, weights), output))
    if as_json:
        near = [
            {"label": one.label, "similarity": one.similarity, "sha256": one.sha256, "path": files.path(one.sha256)}
            for one in explained.labelled.neighbours
        ]
        found = {"image": image, **words.as_json(explained, remarked), "neighbours": near}
        click.echo(json.dumps({**found, "output": None if output is None else str(output)}))
        return Exit.OK
    for line in words.lines(explained, remarked, lambda near: files.path(near.sha256) or f"sha256 {near.sha256}"):
        click.echo(printable(line))
    return Exit.OK


def _encoded(picture: "Image.Image", path: Path) -> bytes:
    data = io.BytesIO()
    try:
        picture.save(data, _FORMATS[path.suffix.lower()], quality=90)
    except (ValueError, OSError) as error:
        raise UsageError(f"{path} cannot be written as {path.suffix} ({error}); name it .png") from None
    return data.getvalue()


def _drawn(
    model: "Artifact", explained: "Explained", image: "Image.Image", guided: bool, weights: Path | None
) -> "Image.Image":
    from retrain.explain import panel

    if not guided:
        return panel.draw(explained, image)
    from retrain.explain.guided import as_picture, gradients

    classes = [model.labels.index(one.label) for one in explained.maps]
    return panel.draw_lines(explained, image, as_picture(gradients(model.members[0], explained.pixels, classes, weights)))
