"""Networks of `keras.applications`, with weights from a file on this machine: Keras would download them.

Their names begin with `keras/`. What they expect of pixel values is part of the model, by Keras's own function.
"""

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from retrain.backbones.backbone import Backbone
from retrain.errors import UsageError

if TYPE_CHECKING:
    import keras

PREFIX = "keras/"
_DEVIATIONS = np.array([0.229, 0.224, 0.225], np.float32)  # of ImageNet's channels, as Keras has them
# class in keras.applications, its module there, usual image size, features, millions of parameters
_NETWORKS = (
    ("ConvNeXtTiny", "convnext", 224, 768, 27.82),
    ("ConvNeXtBase", "convnext", 224, 1024, 87.57),
    ("DenseNet121", "densenet", 224, 1024, 7.04),
    ("DenseNet201", "densenet", 224, 1920, 18.32),
    ("EfficientNetB0", "efficientnet", 224, 1280, 4.05),
    ("EfficientNetB3", "efficientnet", 300, 1536, 10.78),
    ("EfficientNetV2B0", "efficientnet_v2", 224, 1280, 5.92),
    ("EfficientNetV2S", "efficientnet_v2", 384, 1280, 20.33),
    ("InceptionResNetV2", "inception_resnet_v2", 299, 1536, 54.34),
    ("InceptionV3", "inception_v3", 299, 2048, 21.8),
    ("MobileNet", "mobilenet", 224, 1024, 3.23),
    ("MobileNetV2", "mobilenet_v2", 224, 1280, 2.26),
    ("MobileNetV3Large", "mobilenet_v3", 224, 960, 3.0),
    ("MobileNetV3Small", "mobilenet_v3", 224, 576, 0.94),
    ("NASNetMobile", "nasnet", 224, 1056, 4.27),
    ("ResNet50", "resnet", 224, 2048, 23.59),
    ("ResNet50V2", "resnet_v2", 224, 2048, 23.56),
    ("ResNet101V2", "resnet_v2", 224, 2048, 42.63),
    ("VGG16", "vgg16", 224, 512, 14.71),
    ("Xception", "xception", 299, 2048, 20.86),
)


def _build(path: Path, image_size: int, name: str, module: str) -> "keras.Model":
    import importlib

    import keras

    home = importlib.import_module(f"keras.applications.{module}")
    shape = (image_size, image_size, 3)
    try:
        network = getattr(keras.applications, name)(include_top=False, weights=None, input_shape=shape)
    except ValueError as error:
        raise UsageError(
            f"{name} cannot be built for --image-size {image_size}: {_first_line(error)}; try another"
        ) from None
    try:
        network.load_weights(path)
    except (ValueError, OSError, KeyError, TypeError) as error:
        raise UsageError(
            f"{path} holds no weights for {name} without its top ({_first_line(error)}); give its 'notop' file"
        ) from None
    if module == "efficientnet":
        # Keras's own weights were made with channels divided by the root of their deviation, a layer that Keras adds only
        # where it downloads them itself. The first convolution is linear and padded with zeros, so it can take that on.
        stem = network.get_layer("stem_conv")
        stem.set_weights([stem.get_weights()[0] / np.sqrt(_DEVIATIONS)[:, np.newaxis]])
    pixels = keras.Input(shape, name="pixels")
    spatial = network(home.preprocess_input(pixels))
    return keras.Model(pixels, [keras.layers.GlobalAveragePooling2D(name="features")(spatial), spatial])


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0][:150]


def _no_file(name: str) -> Path:
    raise UsageError(f"{name} needs a file of weights: give --weights FILE, its 'notop' file as Keras offers it")


def _row(name: str, module: str, image_size: int, feature_size: int, parameters: float) -> Backbone:
    full = PREFIX + name
    return Backbone(
        name=full,
        image_size=image_size,
        feature_size=feature_size,
        licence="as the file says",
        origin="keras.applications",
        weights=partial(_no_file, full),
        build=partial(_build, name=name, module=module),
        family="keras.applications",
        parameters=parameters,
    )


ROWS = tuple(_row(*network) for network in _NETWORKS)
