"""What a backbone is: a row of data that says everything the rest of the program needs to know of it."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import keras


@dataclass(frozen=True)
class Backbone:
    """A pretrained network without its classifier.

    `weights()` returns the path of the weights file and raises EnvironmentProblem where it isn't there. `build(path)`
    returns a Keras model from pixels, float32 (n, image_size, image_size, 3) with values 0 to 255, to two outputs: the
    pooled features (n, feature_size), and the last spatial map (n, rows, columns, feature_size), whose mean over rows
    and columns they are. Scaling of pixel values is part of the model, so that no caller can get it wrong.
    """

    name: str
    image_size: int
    feature_size: int
    licence: str
    origin: str
    weights: Callable[[], Path] = field(repr=False)
    build: Callable[[Path], "keras.Model"] = field(repr=False)
