"""Turn a backbone into what runs fast without Keras: once a machine, checked against TensorFlow before it is kept.

That is a flatbuffer for LiteRT, or, where LiteRT cannot run the network as TensorFlow does, a frozen TensorFlow graph.
"""

import hashlib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from retrain import graph
from retrain.backbones.backbone import Backbone
from retrain.devices import start
from retrain.errors import EnvironmentProblem, ModelRefused
from retrain.progress import SILENT, Progress
from retrain.quiet import native_chatter_dropped
from retrain.runner import Network, Runner
from retrain.storage import find_cached, locked, user_cache, write_atomically

if TYPE_CHECKING:
    import keras

_RECIPE = "network-2"  # raise it when the conversion changes: older files are then made anew
_LARGEST_DIFFERENCE = 1e-4  # relative to the largest feature
_WAIT_SECONDS = 600.0  # for another run that converts the same: large networks take minutes
_ENDING_BYTES = 32  # sha256 of what comes before it: a damaged cache file must not pass for a backbone
_ENDINGS = {Runner.engine: "tflite", graph.ENGINE: "graph"}


def weights_hash(backbone: Backbone) -> str:
    """Return the sha256, in hex, of the backbone's weights: of the file, or of all files of the folder by name."""
    path = backbone.weights()
    if path.is_file():
        return _file_hash(path)
    whole = hashlib.sha256()
    for name in sorted(file.relative_to(path).as_posix() for file in path.rglob("*") if file.is_file()):
        whole.update(f"{_file_hash(path / name)} {name}\n".encode("utf-8", "surrogateescape"))
    return whole.hexdigest()


def _file_hash(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise EnvironmentProblem(f"the weights {path} cannot be read: {error.strerror}; fix this and run again") from None


def network(backbone: Backbone, progress: Progress = SILENT) -> Network:
    """Return a backbone ready to run, from the user's cache or by converting it (a few seconds, TensorFlow).

    Raises EnvironmentProblem where weights are missing, the cache cannot be written, or the network gives values that
    are not finite; UsageError where the weights are no such network.
    """
    name = re.sub(r"[^0-9A-Za-z.]+", "-", backbone.name)[-60:].strip("-")
    stem = f"{name}-{backbone.image_size}-{weights_hash(backbone)[:16]}-{_RECIPE}"
    found = next(_cached(stem), None)
    if found is None:
        found = _converted_once(backbone, stem, progress)
    if found.engine != Runner.engine:
        progress.note(f"{backbone.name} runs in TensorFlow, which is slower, and needed to label pictures, too")
    return found


def _converted_once(backbone: Backbone, stem: str, progress: Progress) -> Network:
    with locked(user_cache() / f"{stem}.lock", f"converting {backbone.name}", _WAIT_SECONDS):
        found = next(_cached(stem), None)
        if found is None:
            progress.note(f"converting {backbone.name} for fast inference (once on this machine)")
            found = _convert(backbone, progress)
            path = user_cache() / f"{stem}.{_ENDINGS[found.engine]}"
            write_atomically(path, found.data + hashlib.sha256(found.data).digest())
    return found


def _cached(stem: str) -> Iterator[Network]:
    for engine, ending in _ENDINGS.items():
        path = find_cached(f"{stem}.{ending}")
        try:
            data = path.read_bytes() if path else b""
        except OSError:
            continue
        body, digest = data[:-_ENDING_BYTES], data[-_ENDING_BYTES:]
        if hashlib.sha256(body).digest() == digest:
            yield Network(engine, body)


def _convert(backbone: Backbone, progress: Progress) -> Network:
    return converted(built(backbone), backbone, progress)


def built(backbone: Backbone, image_size: int | None = None) -> "keras.Model":
    """Build a network to be converted, for its own image size or another.

    On the CPU, where it will run: a GPU may compute convolutions with fewer digits than are compared. Keras numbers layers
    without a name as long as the process lives, and the numbers get into what is converted; so counting begins anew.
    """
    tf = start()
    import keras

    keras.utils.clear_session(free_memory=False)
    with tf.device("/CPU:0"):
        return backbone.build(backbone.weights(), image_size or backbone.image_size)


def converted(model: "keras.Model", backbone: Backbone, progress: Progress = SILENT) -> Network:
    """Turn a network into what runs without Keras. `model`: as `built` gives it, with whatever weights.

    Raises EnvironmentProblem where it gives values that are not finite, or other features when it runs on its own.
    """
    pixels = _test_pictures(backbone.image_size)
    with start().device("/CPU:0"):
        expected = _first(model(pixels, training=False))
    if not np.isfinite(expected).all():
        raise EnvironmentProblem(
            f"{backbone.name} gives values that are not finite in TensorFlow itself; its weights are damaged, get them again"
        )
    with native_chatter_dropped():
        # Constants must be frozen first: converting a Keras 3 model's function directly gave a flatbuffer of NaNs, silently.
        frozen_bytes, frozen = graph.freeze(model, backbone.image_size)
    flatbuffer, problem = _flatbuffer(frozen)
    if flatbuffer is not None:
        try:
            problem = _difference(Runner(flatbuffer).features(pixels), expected)
        except (ValueError, RuntimeError):
            problem = "it gives an output of another shape"
        if not problem:
            return Network(Runner.engine, flatbuffer)
    progress.note(f"{backbone.name} cannot run in LiteRT ({problem})")
    try:
        problem = _difference(graph.GraphRunner(frozen_bytes).features(pixels), expected)
    except ModelRefused as error:
        problem = str(error).partition(";")[0]  # its advice is for models
    if problem:
        raise EnvironmentProblem(f"{backbone.name} cannot be frozen to run on its own: {problem}; choose another backbone")
    return Network(graph.ENGINE, frozen_bytes)


def _first(outputs: Any) -> np.ndarray:
    return np.asarray(outputs[0] if isinstance(outputs, list | tuple) else outputs)


def _flatbuffer(frozen: Any) -> tuple[bytes | None, str]:
    """Convert a frozen function; returns the flatbuffer, or None and why there is none."""
    tf = start()
    try:
        with native_chatter_dropped():
            converted = tf.lite.TFLiteConverter.from_concrete_functions([frozen]).convert()
        Runner(converted)
        return converted, ""
    except Exception as error:  # noqa: BLE001  the converter raises what it likes
        missing = sorted(set(re.findall(r"tf\.([A-Z]\w+)", str(error))))
        return None, f"it lacks {', '.join(missing[:3])}" if missing else type(error).__name__


def _difference(features: np.ndarray, expected: np.ndarray) -> str:
    """Say how far features are from what TensorFlow gives; empty where they are near enough."""
    difference = np.abs(features - expected).max() / max(np.abs(expected).max(), 1e-6)
    # NaN must not pass either.
    return "" if difference < _LARGEST_DIFFERENCE else f"features differ from TensorFlow's by {difference:.2g}, relative"


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
