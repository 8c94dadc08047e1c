"""Pretrained feature extractors: a table of rows, which is data, and one builder a family.

`BACKBONES` lists them; `get` finds one by name; `flatbuffer` gives the file that `runner.Runner` runs.
"""

from retrain.backbones import efficientnet_lite
from retrain.backbones.backbone import Backbone
from retrain.backbones.convert import flatbuffer, weights_hash
from retrain.errors import UsageError, did_you_mean

BACKBONES: dict[str, Backbone] = {row.name: row for row in efficientnet_lite.ROWS}
DEFAULT = "efficientnet-lite0"

__all__ = ["BACKBONES", "DEFAULT", "Backbone", "flatbuffer", "get", "weights_hash"]


def get(name: str) -> Backbone:
    """Return the backbone of that name; raises UsageError, with the nearest name, for an unknown one."""
    if name not in BACKBONES:
        hint = did_you_mean(name, BACKBONES) or "; known: " + ", ".join(BACKBONES)
        raise UsageError(f"--backbone '{name}' is not known{hint}")
    return BACKBONES[name]
