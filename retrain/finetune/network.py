"""The network that is trained: a backbone and the head on top, in the number format asked for; and its weights by name."""

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from retrain.backbones import Backbone, saved_model
from retrain.devices import dtype_policy, start
from retrain.errors import ModelRefused
from retrain.finetune import depth
from retrain.finetune.folded import folded
from retrain.head import Head

if TYPE_CHECKING:
    import keras

# Batch norm always works with the mean and variance of the pictures that the backbone was made with: those of a batch of a
# few dozen are worse, and moving ones would drift away from what the layers after it know. True: its scale and shift, which
# are weights like others, learn; False: they stay as they are, too.
NORMS_LEARN = True


@dataclass(frozen=True)
class Network:
    """A model of pixels to logits, and within it the backbone, the head, and the backbone's trainable variables in groups.

    The model takes {"pixels": float32 (n, size, size, 3)}, and while it is trained with dropout also {"kept": float32
    (n, features)}, what features are multiplied by; it gives logits, float32 (n, classes). `groups`: the last one first.
    """

    model: "keras.Model"
    backbone: "keras.Model"
    dense: "keras.layers.Dense"
    groups: list[list[Any]]

    @property
    def head(self) -> Head:
        """The head as it is now."""
        kernel, bias = (np.asarray(tensor, np.float32) for tensor in self.dense.get_weights())
        return Head(kernel, bias)


def build(
    backbone: Backbone, head: Head, image_size: int, policy: str, blocks: int | None, scope: AbstractContextManager[Any]
) -> Network:
    """Build what is trained, within the scope of a strategy.

    `policy`: a Keras dtype policy for all but the head; `blocks`: see `depth.choose`.

    Raises UsageError where the backbone has nothing to train, or not so many blocks.
    """
    start()
    import keras

    with scope, dtype_policy(policy):
        inner = backbone.build(backbone.weights(), image_size)
        run = folded(inner)
        dense = keras.layers.Dense(head.kernel.shape[1], dtype="float32", name="head")

        class Tuning(keras.Model):
            """Runs the backbone as for use: without batch statistics, and without dropout of its own."""

            def __init__(self) -> None:
                # Pixels are not rounded to float16 before the backbone has scaled them.
                super().__init__(name="tuning", autocast=False)
                self.inner, self.dense = inner, dense

            def call(self, inputs: dict[str, Any]) -> Any:
                outputs = run(inputs["pixels"], training=False)
                features = keras.ops.cast(outputs[0] if isinstance(outputs, list | tuple) else outputs, "float32")
                return self.dense(features * inputs["kept"] if "kept" in inputs else features)

        groups = depth.choose(inner, blocks, NORMS_LEARN, backbone.name)
        model = Tuning()
        dense.build((None, head.kernel.shape[0]))
        dense.set_weights([head.kernel, head.bias])
        model.built = True
    return Network(model, inner, dense, groups)


def is_saved_model(backbone: Backbone) -> bool:
    """True for a backbone that comes as a SavedModel: float32, on one device."""
    path = backbone.weights()
    return path.is_dir() and saved_model.is_saved_model(path)


def tensors(backbone: "keras.Model") -> dict[str, np.ndarray]:
    """Return a backbone's weights by names that do not depend on what else this process has built.

    Numbers with a point are float32, as they always are in Keras, whatever is computed in.
    """
    return {name: _plain(variable.numpy()) for name, variable in _named(backbone)}


def put_back(backbone: "keras.Model", found: Mapping[str, np.ndarray]) -> None:
    """Give a freshly built backbone the weights that `tensors` took from one like it, at any image size.

    Raises ModelRefused where they are not of such a network.
    """
    variables = dict(_named(backbone))
    if variables.keys() != found.keys():
        odd = min(variables.keys() ^ found.keys())
        raise ModelRefused(f"the weights are not those of the backbone: '{odd}' is only in one of them; train again")
    for name, variable in variables.items():
        if tuple(variable.shape) != found[name].shape:
            raise ModelRefused(f"the weights '{name}' have another shape than in the backbone; train again")
        variable.assign(found[name])


def _named(backbone: "keras.Model") -> Iterator[tuple[str, Any]]:
    """Layers that were given no name have one with a number that counts up as long as the process lives: it is left out."""
    number = 0
    for layer in depth.leaves(backbone):
        kind = re.sub("([a-z])([A-Z])", r"\1_\2", re.sub("(.)([A-Z][a-z]+)", r"\1_\2", type(layer).__name__)).lower()
        called = kind if re.fullmatch(rf"{kind}(_\d+)?", layer.name) else layer.name
        for variable in layer.weights:
            yield f"{number:04}/{called}/{variable.name}", variable
            number += 1


def _plain(array: np.ndarray) -> np.ndarray:
    is_float = np.issubdtype(array.dtype, np.floating) or array.dtype.kind == "V"  # V: bfloat16
    return np.asarray(array, np.float32 if is_float else array.dtype, order="C")


def arrays(variables: Sequence[Any]) -> list[np.ndarray]:
    """Return the values of variables as they are."""
    return [np.asarray(variable.numpy()) for variable in variables]


def assign(variables: Sequence[Any], values: Sequence[np.ndarray]) -> None:
    """Give variables values: of another network of the same layers, or kept ones."""
    for variable, value in zip(variables, values, strict=True):
        variable.assign(value)
