"""Which layers of a network belong together, in the order in which a picture passes through them.

A *block* is what its makers called one: blocks of EfficientNet and of the networks of keras.applications have numbered
names. What comes before the first is a block of its own, the stem, as is what comes after the last. In a network without
such names a block ends where paths meet (a sum, or things put side by side), and where nothing meets, every layer with
a matrix or a convolution begins one. *Groups* are neighbouring blocks, about equally many, that share a learning rate.
"""

import math
import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from retrain.backbones import saved_model
from retrain.errors import UsageError

if TYPE_CHECKING:
    import keras

GROUPS = 5
_NAMED = (
    r"(blocks_\d+)_",  # EfficientNet-Lite
    r"(conv\d+_block\d+)_",  # ResNet, DenseNet
    r"(?:.*_)?(stage_\d+_block_\d+)_",  # ConvNeXt
    r"(block(?:35|17|8)_\d+)_",  # InceptionResNetV2
    r"(block_?\d+[a-z]?)_",  # EfficientNet, MobileNetV2, Xception, VGG
    r"(expanded_conv(?:_\d+)?)_",  # MobileNetV2, V3
    r"conv_(?:dw|pw)_(\d+)",  # MobileNet
)
_LEAST = 3  # blocks that names, or places where paths meet, must give; with fewer they say nothing of depth


def leaves(model: "keras.Model") -> Iterator["keras.Layer"]:
    """Yield the layers of a model and of the models within it, in the order in which a picture passes through them."""
    import keras

    for layer in model.layers:
        if isinstance(layer, keras.Model):
            yield from leaves(layer)
        else:
            yield layer


def is_saved_model(model: "keras.Model") -> bool:
    """True for a network that is one layer, whose insides cannot be seen."""
    return any(layer.name == saved_model.LAYER for layer in model.layers)


def blocks(model: "keras.Model") -> list[list["keras.Layer"]]:
    """Return the layers with weights in blocks, the first that a picture meets first; none is empty."""
    every = list(leaves(model))
    for found in (_by_name(every), _by_meeting(every)):
        if len(found) >= _LEAST:
            return found
    return _by_weights(every)


def groups(of: list[list["keras.Layer"]]) -> list[list["keras.Layer"]]:
    """Return blocks as at most GROUPS groups of layers, the last one first: its place is its distance from the top."""
    shares = np.array_split(np.arange(len(of)), min(GROUPS, max(len(of), 1)))
    return [[layer for block in share for layer in of[block]] for share in reversed(shares)]


def choose(model: "keras.Model", last: int | None, norms: bool, name: str) -> list[list[Any]]:
    """Make the last so many blocks trainable and the rest not; returns the trainable variables in groups.

    The groups are those of the whole network, the last first, so that a layer's rate does not depend on `last`; the list of
    a group that is not trained is empty. `last`: 0 for all; None for the later half, or all where blocks cannot be seen.
    `norms`: batch norm's scale and shift learn, too. `name`: of the backbone.

    Raises UsageError where a network shows no blocks, or has nothing that can be trained.
    """
    import keras

    if is_saved_model(model):
        if last:
            raise UsageError(
                f"{name} is a SavedModel, whose blocks cannot be seen; drop --blocks, or choose another backbone"
            )
        # Nothing says how deep a variable lies: all learn at the rate of the middle group.
        found: list[list[Any]] = [[] for _ in range(GROUPS)]
        found[GROUPS // 2] = list(model.trainable_variables)
    else:
        parts = blocks(model)
        if last is None:
            last = math.ceil(len(parts) / 2)
        if last > len(parts):
            raise UsageError(f"--blocks {last} is more than {name} has; it has {len(parts)}, and 0 stands for all")
        first = len(parts) - last if last else 0
        for number, block in enumerate(parts):
            for layer in block:
                is_norm = isinstance(layer, keras.layers.BatchNormalization)
                layer.trainable = number >= first and (norms or not is_norm)
        found = [[one for layer in group for one in layer.trainable_variables] for group in groups(parts)]
    if not any(found):
        raise UsageError(f"{name} has no weights that can be trained; drop --fine-tune, or choose another backbone")
    return found


def _by_name(layers: list["keras.Layer"]) -> list[list["keras.Layer"]]:
    named = {id(layer): key for layer in layers if (key := _block_name(layer.name))}
    order = list(dict.fromkeys(named.values()))
    if not order:
        return []
    found: dict[str, list[keras.Layer]] = {key: [] for key in ("", *order, "top")}
    inside, left = "", dict.fromkeys(order, 0)
    for key in named.values():
        left[key] += 1
    for layer in layers:
        key = named.get(id(layer))
        if key:
            inside = key
            left[key] -= 1
        elif inside and not any(left.values()):
            inside = "top"
        if layer.weights:
            found[inside].append(layer)
    return [block for block in found.values() if block]


def _block_name(layer: str) -> str | None:
    match = next((match for pattern in _NAMED if (match := re.match(pattern, layer))), None)
    return match[1] if match else None


def _by_meeting(layers: list["keras.Layer"]) -> list[list["keras.Layer"]]:
    import keras

    found: list[list[keras.Layer]] = [[]]
    for layer in layers:
        if layer.weights:
            found[-1].append(layer)
        if isinstance(layer, keras.layers.Add | keras.layers.Concatenate):
            found.append([])
    return [block for block in found if block]


def _by_weights(layers: list["keras.Layer"]) -> list[list["keras.Layer"]]:
    found: list[list[keras.Layer]] = []
    for layer in layers:
        if not layer.weights:
            continue
        if not found or any(len(weight.shape) > 1 for weight in layer.weights):
            found.append([])
        found[-1].append(layer)
    return found
