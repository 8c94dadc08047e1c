"""Pretrained feature extractors: a table of rows, which is data, and one builder a family.

`BACKBONES` lists them; `get` finds one by name, address or path; `network` gives what `runner.open_network` runs.
"""

from dataclasses import replace
from functools import partial
from pathlib import Path

from retrain.backbones import applications, efficientnet_lite, hub
from retrain.backbones.backbone import Backbone
from retrain.backbones.convert import built, converted, network, weights_hash
from retrain.errors import UsageError, did_you_mean
from retrain.progress import SILENT, Progress

BACKBONES: dict[str, Backbone] = {row.name: row for row in (*efficientnet_lite.ROWS, *hub.ROWS, *applications.ROWS)}
TUNED = "+fine-tuned"  # what the name of a backbone ends in that was trained, too
EMBEDDED = {row.name for row in efficientnet_lite.ROWS}  # their weights come with the package
DEFAULT = "efficientnet-lite0"
SMALLEST, LARGEST = 32, 1024  # pixels

LOCAL, OF_KERAS = hub.LOCAL, applications.PREFIX  # what names begin with whose weights lie in a file of the user

__all__ = [
    "BACKBONES",
    "DEFAULT",
    "EMBEDDED",
    "LARGEST",
    "LOCAL",
    "OF_KERAS",
    "SMALLEST",
    "TUNED",
    "Backbone",
    "built",
    "converted",
    "get",
    "is_handle",
    "network",
    "weights_hash",
]


def get(name: str, image_size: int | None = None, weights: Path | None = None, progress: Progress = SILENT) -> Backbone:
    """Return a backbone: a row of the table by its name, or what a handle points to.

    A handle is an http(s) address of a TF Hub module, which is downloaded, a SavedModel folder, or a .tar.gz of one.
    `image_size`: in pixels, in place of the usual one. `weights`: the file for a network of keras.applications.

    Raises UsageError, with the nearest name, for an unknown one; EnvironmentProblem where a download fails.
    """
    if image_size is not None and not SMALLEST <= image_size <= LARGEST:
        raise UsageError(f"--image-size {image_size} is out of range; give {SMALLEST} to {LARGEST} pixels")
    by_address = {row.origin: row.name for row in hub.ROWS}
    name = by_address.get(name.rstrip("/"), name)
    if name in BACKBONES:
        row = BACKBONES[name]
        if weights is not None:
            row = _with_weights(row, weights)
        if image_size is not None:
            row = replace(row, image_size=image_size)
        return row
    if weights is not None:
        raise UsageError(f"--weights goes with the networks of keras.applications only, not with {name}; drop it")
    if is_handle(name):
        return hub.from_handle(name, image_size, progress)
    hint = did_you_mean(name, BACKBONES) or "; for the names see: retrain backbones"
    raise UsageError(f"--backbone '{name}' is not known{hint}")


def is_handle(name: str) -> bool:
    """True for an address or a path, as opposed to a name."""
    known = name in BACKBONES or name.rstrip("/") in {row.origin for row in hub.ROWS}
    return not known and not name.startswith(applications.PREFIX) and hub.is_handle(name)


def _with_weights(row: Backbone, weights: Path) -> Backbone:
    if row not in applications.ROWS:
        raise UsageError(f"--weights goes with the networks of keras.applications only, not with {row.name}; drop it")
    if not weights.is_file():
        raise UsageError(f"--weights {weights} is not a file; give the file with the weights of {row.name}")
    return replace(row, weights=partial(Path, weights), origin="a file of the user")
