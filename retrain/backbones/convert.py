"""Turn a backbone into the flatbuffer that LiteRT runs: once a machine, checked against TensorFlow before it is kept."""

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from retrain.backbones.backbone import Backbone
from retrain.devices import start
from retrain.errors import EnvironmentProblem
from retrain.progress import SILENT, Progress
from retrain.quiet import native_chatter_dropped
from retrain.runner import Runner
from retrain.storage import locked, user_cache, write_atomically

if TYPE_CHECKING:
    import keras

_RECIPE = "flatbuffer-1"  # raise it when the conversion changes: older files are then made anew
_LARGEST_DIFFERENCE = 1e-4  # relative to the largest feature
_ENDING_BYTES = 32  # sha256 of what comes before it: a damaged cache file must not pass for a backbone


def weights_hash(backbone: Backbone) -> str:
    """Return the sha256, in hex, of the backbone's weights file."""
    with backbone.weights().open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def flatbuffer(backbone: Backbone, progress: Progress = SILENT) -> bytes:
    """Return the flatbuffer of a backbone, from the user's cache or by converting it (a few seconds, TensorFlow).

    Raises EnvironmentProblem where weights are missing, the cache cannot be written, or the converted network
    disagrees with TensorFlow.
    """
    path = user_cache() / f"{backbone.name}-{weights_hash(backbone)[:16]}-{_RECIPE}.tflite"
    found = _read_checked(path)
    if found is not None:
        return found
    with locked(path.with_suffix(".lock"), f"converting {backbone.name}"):
        found = _read_checked(path)
        if found is None:
            progress.note(f"converting {backbone.name} for fast inference (once on this machine)")
            found = _convert(backbone)
            write_atomically(path, found + hashlib.sha256(found).digest())
    return found


def _read_checked(path: Path) -> bytes | None:
    try:
        data = path.read_bytes()
    except OSError:
        return None
    body, ending = data[:-_ENDING_BYTES], data[-_ENDING_BYTES:]
    return body if hashlib.sha256(body).digest() == ending else None


def _convert(backbone: Backbone) -> bytes:
    # Constants must be frozen first: converting a Keras 3 model's function directly gave a flatbuffer of NaNs, silently.
    tf = start()
    from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

    model = backbone.build(backbone.weights())
    signature = tf.TensorSpec((None, backbone.image_size, backbone.image_size, 3), tf.float32)
    function = tf.function(lambda pixels: model(pixels, training=False)).get_concrete_function(signature)
    with native_chatter_dropped():
        converted = tf.lite.TFLiteConverter.from_concrete_functions([convert_variables_to_constants_v2(function)]).convert()
    _compare(backbone, model, converted)
    return converted


def _compare(backbone: Backbone, model: "keras.Model", converted: bytes) -> None:
    pixels = _test_pictures(backbone.image_size)
    expected = model.predict_on_batch(pixels)[0]
    difference = np.abs(Runner(converted).features(pixels) - expected).max() / max(np.abs(expected).max(), 1e-6)
    if not difference < _LARGEST_DIFFERENCE:  # NaN must not pass either
        raise EnvironmentProblem(
            f"the converted {backbone.name} differs from TensorFlow by {difference:.2g}, relative;"
            " report this with the versions of tensorflow and ai-edge-litert"
        )


def _test_pictures(size: int) -> np.ndarray:
    """Pictures with the statistics of real ones (smooth, with edges), since noise hardly excites a trained network."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[0:size, 0:size] / size
    pictures = []
    for _ in range(4):
        waves = np.stack([np.sin(rng.uniform(2, 20, 2) @ [x.ravel(), y.ravel()] + rng.uniform(0, 6)) for _ in range(3)], -1)
        picture = 127 + 120 * waves.reshape(size, size, 3)
        centre, radius = rng.uniform(0.3, 0.7, 2), rng.uniform(0.1, 0.3)
        picture[(x - centre[0]) ** 2 + (y - centre[1]) ** 2 < radius**2] = rng.uniform(0, 255, 3)
        pictures.append(picture)
    return np.clip(pictures, 0, 255).astype(np.float32)
