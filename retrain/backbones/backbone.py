"""What a backbone is: a row of data that says everything the rest of the program needs to know of it."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from retrain.progress import Progress

if TYPE_CHECKING:
    import keras


def _nothing_to_fetch(progress: Progress) -> None:
    """Weights that came with a package, or lie on this machine."""


@dataclass(frozen=True)
class Backbone:
    """A pretrained network without its classifier.

    `weights()` returns the path of the weights, a file or a folder, and raises EnvironmentProblem where they aren't
    there; `fetch(progress)` gets them first, where they have to be downloaded. `build(path, image_size)` returns a Keras
    model from pixels, float32 (n, image_size, image_size, 3) with values 0 to 255, to one or two outputs: the pooled
    features (n, feature_size) and, where the network has one, the last spatial map (n, rows, columns, feature_size),
    whose mean over rows and columns the features are. Scaling of pixel values is part of the model, so that no caller
    can get it wrong. `feature_size` is 0 where only the network itself knows. `parameters`: in millions, without a
    classifier; 0 unknown. `values`: of pixels, as the network itself asks for them, to which the model scales
    (0 to 255 also where a function of Keras does that).
    """

    name: str
    image_size: int
    feature_size: int
    licence: str
    origin: str
    weights: Callable[[], Path] = field(repr=False)
    build: Callable[[Path, int], "keras.Model"] = field(repr=False)
    fetch: Callable[[Progress], None] = field(default=_nothing_to_fetch, repr=False)
    family: str = ""
    parameters: float = 0.0
    values: tuple[float, float] = (0.0, 255.0)
