"""Run an export with nothing but its own runtime, as whoever gets it will: no code of ours takes part in its answer.

    python -m retrain.exports.runtimes FORMAT FILE INPUT.npz OUTPUT.npy

INPUT: pixels by input, uint8 (n, size, size, 3), or, for `savedmodel-bytes`, the bytes of files, uint8, one array each.
OUTPUT: scores, float32 (n, classes).
"""

import sys
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

Arrays = Mapping[str, np.ndarray]
_BATCH = 16


def _batches(pixels: Arrays, ask: Callable[[dict[str, np.ndarray]], Any], size: int = _BATCH) -> np.ndarray:
    count = len(next(iter(pixels.values())))
    found = [np.asarray(ask({name: one[at : at + size] for name, one in pixels.items()})) for at in range(0, count, size)]
    return np.concatenate(found)


def _float(batch: Arrays) -> dict[str, np.ndarray]:
    return {name: one.astype(np.float32) for name, one in batch.items()}


def saved_model(path: str, pixels: Arrays) -> np.ndarray:
    """TensorFlow, signature `image`."""
    import tensorflow as tf

    loaded = tf.saved_model.load(path)
    ask = loaded.signatures["image"]
    tensors = lambda batch: {name: tf.constant(one) for name, one in _float(batch).items()}  # noqa: E731
    return _batches(pixels, lambda batch: ask(**tensors(batch))["scores"])


def saved_model_bytes(path: str, files: Arrays) -> np.ndarray:
    """TensorFlow, signature `serving_default`, the bytes of files; a row of NaN for one that it cannot read."""
    import tensorflow as tf

    loaded = tf.saved_model.load(path)
    ask, found = loaded.signatures["serving_default"], []
    classes = loaded.signatures["image"].structured_outputs["scores"].shape[-1]
    for data in files.values():
        try:
            found.append(ask(image_bytes=tf.constant([data.tobytes()]))["scores"].numpy()[0])
        except tf.errors.InvalidArgumentError:
            found.append(np.full(classes, np.nan, np.float32))
    return np.stack(found)


def keras(path: str, pixels: Arrays) -> np.ndarray:
    """Keras, which refuses code in a file."""
    import keras as library

    model = library.saving.load_model(path, compile=False, safe_mode=True)
    return _batches(pixels, lambda batch: model.predict_on_batch(_float(batch)))


def litert(path: str, pixels: Arrays) -> np.ndarray:
    """LiteRT: floats, or 8-bit numbers where the network takes those."""
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_path=path, num_threads=1)
    interpreter.allocate_tensors()
    entries = {
        entry["name"].split(":")[0].removeprefix("serving_default_"): entry for entry in interpreter.get_input_details()
    }
    (output,) = interpreter.get_output_details()

    def ask(batch: dict[str, np.ndarray]) -> np.ndarray:
        for name, one in batch.items():
            interpreter.set_tensor(entries[name]["index"], one.astype(entries[name]["dtype"]))
        interpreter.invoke()
        found: np.ndarray = interpreter.get_tensor(output["index"])
        return found

    return _batches(pixels, ask, 1)


def onnx(path: str, pixels: Arrays) -> np.ndarray:
    """ONNX Runtime, on the CPU."""
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return _batches(pixels, lambda batch: session.run(["scores"], _float(batch))[0])


def frozen_graph(path: str, pixels: Arrays) -> np.ndarray:
    """TensorFlow 1's way: a graph and a session."""
    import tensorflow as tf

    v1 = tf.compat.v1
    definition = v1.GraphDef()
    with open(path, "rb") as file:
        definition.ParseFromString(file.read())
    with v1.Graph().as_default() as graph, v1.Session(graph=graph) as session:
        v1.import_graph_def(definition, name="")
        fed = lambda batch: {f"{name}:0": one for name, one in _float(batch).items()}  # noqa: E731
        return _batches(pixels, lambda batch: session.run("final_result:0", fed(batch)))


RUNTIMES: dict[str, Callable[[str, Arrays], np.ndarray]] = {
    "savedmodel": saved_model,
    "savedmodel-bytes": saved_model_bytes,
    "keras": keras,
    "litert": litert,
    "litert-int8": litert,
    "onnx": onnx,
    "frozen-graph": frozen_graph,
}


def main(name: str, path: str, entry: str, output: str) -> None:
    """Run one."""
    with np.load(entry) as arrays:
        found = RUNTIMES[name](path, dict(arrays))
    np.save(output, found.astype(np.float32))


if __name__ == "__main__":
    main(*sys.argv[1:])
