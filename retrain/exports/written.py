"""The composed network in the formats of TensorFlow, Keras, LiteRT and ONNX: each function writes into an empty folder."""

import json
import re
import warnings
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from retrain.devices import start
from retrain.errors import EnvironmentProblem, RetrainError, UsageError
from retrain.exports import formats, zipped
from retrain.exports.composed import SCORES
from retrain.quiet import native_chatter_dropped

if TYPE_CHECKING:
    import keras

# The ancestor's names: programs that read its graphs ask for them.
FROZEN_OUTPUT = "final_result"
_NO_DATE = "1980-01-01@00:00:00"
_OPSET = 17  # of ONNX: old enough for what runs in browsers
Calibration = Iterable[Mapping[str, np.ndarray]]


def write(
    one: formats.Format, network: "keras.Model", path: Path, squashed: bool, calibration: Callable[[], Calibration]
) -> None:
    """Write a network in a format.

    `squashed`: pictures are only scaled before the network gets them; `calibration`: gives pixels by input, uint8 (1, size,
    size, 3), of training pictures, for 8-bit numbers. Raises UsageError where this network cannot be written so.
    """
    to_bytes = {formats.LITERT: _litert, formats.ONNX: _onnx, formats.FROZEN: _frozen_graph}
    try:
        with native_chatter_dropped(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of the converters, of what they do themselves
            if one.name == formats.SAVED_MODEL:
                _saved_model(network, path, squashed)
            elif one.name == formats.KERAS:
                _keras(network, path)
            elif one.name == formats.INT8:
                path.write_bytes(_int8(network, calibration()))
            else:
                path.write_bytes(to_bytes[one.name](network))
    except (OSError, RetrainError):
        raise
    except Exception as error:  # noqa: BLE001  converters raise what they like
        said = (str(error).strip() or type(error).__name__).splitlines()[0][:150]
        raise UsageError(f"this network cannot be written as {one.name} ({said}); choose another format") from None


def _specs(network: "keras.Model", batch: int | None = None) -> dict[str, Any]:
    tf = start()
    return {name: tf.TensorSpec((batch, *entry.shape[1:]), tf.float32, name) for name, entry in network.input.items()}


def _frozen(network: "keras.Model", batch: int | None = None) -> Any:
    """Return a function of pixels, one argument an input, whose weights are constants."""
    tf = start()
    from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

    function = tf.function(lambda **pixels: {SCORES: network(pixels, training=False)})
    return convert_variables_to_constants_v2(function.get_concrete_function(**_specs(network, batch)))


def _saved_model(network: "keras.Model", path: Path, squashed: bool) -> None:
    """Write TF Serving's signatures: `serving_default` for the bytes of files where that can be, and `image` for pixels."""
    tf = start()

    class Module(tf.Module):  # type: ignore[name-defined]
        """What is saved: the network and two ways to ask it."""

        def __init__(self) -> None:
            super().__init__()
            self.network = network

        @tf.function
        def image(self, **pixels: Any) -> Any:
            return {SCORES: self.network(pixels, training=False)}

        @tf.function(input_signature=[tf.TensorSpec((None,), tf.string, "image_bytes")])
        def file(self, image_bytes: Any) -> Any:
            sizes = {name: entry.shape[1] for name, entry in self.network.input.items()}
            kinds = {name: tf.TensorSpec((size, size, 3), tf.float32) for name, size in sizes.items()}
            pixels = tf.map_fn(lambda data: _decoded(tf, data, sizes), image_bytes, fn_output_signature=kinds)
            return {SCORES: self.network(pixels, training=False)}

    module = Module()
    image = module.image.get_concrete_function(**_specs(network))
    signatures = {"image": image, "serving_default": module.file.get_concrete_function() if squashed else image}
    tf.saved_model.save(module, str(path), signatures=signatures)


def _decoded(tf: Any, data: Any, sizes: Mapping[str, int]) -> dict[str, Any]:
    """Decode the bytes of a file in TensorFlow: PNG, JPEG, GIF, BMP or WebP. Transparent parts become white, as always."""
    png = tf.equal(tf.strings.substr(data, 0, 4), b"\x89PNG")

    def on_white() -> Any:
        layers = tf.cast(tf.io.decode_png(data, channels=4), tf.float32)
        cover = layers[..., 3:] / 255
        return layers[..., :3] * cover + 255 * (1 - cover)

    def plain() -> Any:
        decoded = tf.io.decode_image(data, channels=3, expand_animations=False)
        return tf.cast(tf.ensure_shape(decoded, (None, None, 3)), tf.float32)

    pixels = tf.ensure_shape(tf.cond(png, on_white, plain), (None, None, 3))
    scaled = {name: tf.image.resize(pixels, (side, side), "bicubic", antialias=True) for name, side in sizes.items()}
    return {name: tf.clip_by_value(tf.round(one), 0, 255) for name, one in scaled.items()}


def _keras(network: "keras.Model", path: Path) -> None:
    for layer in network._flatten_layers():
        if type(layer).__module__.split(".")[0] != "keras":
            raise UsageError(
                f"a network with the layer '{layer.name}', which is not Keras's own, cannot be written for Keras;"
                " choose savedmodel, litert or onnx"
            )
    network.save(path)
    _undated(path)


def _undated(path: Path) -> None:
    """Write a Keras file once more, without the time and without addresses: the same model then gives the same bytes."""
    with zipfile.ZipFile(path) as file:
        members = {name: file.read(name) for name in sorted(file.namelist())}
    about = json.loads(members["metadata.json"]) | {"date_saved": _NO_DATE}
    numbers: dict[str, str] = {}
    config = re.sub(
        r'(?<="shared_object_id": )[0-9]+',
        lambda match: numbers.setdefault(match[0], str(len(numbers))),
        members["config.json"].decode(),
    )
    zipped.write({**members, "metadata.json": json.dumps(about).encode(), "config.json": config.encode()}, path)


def _converter(network: "keras.Model") -> Any:
    # Constants must be frozen first: see backbones.convert.
    return start().lite.TFLiteConverter.from_concrete_functions([_frozen(network, batch=1)])


def _litert(network: "keras.Model") -> bytes:
    found: bytes = _converter(network).convert()
    return found


def _int8(network: "keras.Model", calibration: Calibration) -> bytes:
    tf = start()
    names = list(network.input)

    def samples() -> Iterator[list[np.ndarray]]:
        for one in calibration:
            yield [one[name].astype(np.float32) for name in names]

    converter = _converter(network)
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.representative_dataset = samples
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8, tf.lite.OpsSet.TFLITE_BUILTINS]
    converter.inference_input_type = tf.uint8
    found: bytes = converter.convert()
    return found


def _onnx(network: "keras.Model") -> bytes:
    import tf2onnx

    tf = start()
    specs = _specs(network)
    names = list(specs)
    function = tf.function(
        lambda *pixels: tf.identity(network(dict(zip(names, pixels, strict=True)), training=False), SCORES)
    )
    found, _ = tf2onnx.convert.from_function(function, input_signature=list(specs.values()), opset=_OPSET)
    _renumber(found.graph)
    data: bytes = found.SerializeToString(deterministic=True)
    return data


def _renumber(graph: Any) -> None:
    """Name everything by its place: names count what this process has built before, and how it hashes them decides which of
    several equal constants is kept.
    """
    constants = {one.name: one for one in graph.initializer}
    used = list(dict.fromkeys(name for node in graph.node for name in node.input if name in constants))
    names = {name: f"constant_{number}" for number, name in enumerate(used)}
    for number, node in enumerate(graph.node):
        node.name = f"{node.op_type}_{number}"
        names |= {name: f"{node.name}_{place}" for place, name in enumerate(node.output)}
    (output,) = graph.output
    names[output.name] = output.name = SCORES
    for node in graph.node:
        node.output[:] = [names.get(name, name) for name in node.output]
        node.input[:] = [names.get(name, name) for name in node.input]
    for name in used:
        constants[name].name = names[name]
    del graph.initializer[:]
    graph.initializer.extend(constants[name] for name in used)
    for entry in graph.input:  # the number of pictures has a name that counts
        entry.type.tensor_type.shape.dim[0].dim_param = "n"
    output.type.tensor_type.shape.dim[0].dim_param = "n"
    graph.doc_string = ""


def _frozen_graph(network: "keras.Model") -> bytes:
    tf = start()
    frozen = _frozen(network)
    graph = frozen.graph.as_graph_def()
    node = graph.node.add(name=FROZEN_OUTPUT, op="Identity", input=[frozen.outputs[0].name.removesuffix(":0")])
    node.attr["T"].type = tf.float32.as_datatype_enum
    data: bytes = graph.SerializeToString(deterministic=True)
    return data


def check_needs(one: formats.Format) -> None:
    """Raise EnvironmentProblem where a package is missing that a format needs."""
    import importlib.util

    missing = [name for name in one.needs if importlib.util.find_spec(name) is None]
    if missing:
        how = f"pip install 'retrain[{one.extra}]'" if one.extra else f"pip install {' '.join(missing)}"
        raise EnvironmentProblem(f"{one.name} needs {', '.join(missing)}; run: {how}")
