"""What `exports.py` times: an export in its own runtime, as a process of its own.

    python benchmarks/export_runtime.py FORMAT FILE PIXELS.npy       (PIXELS: uint8, n pictures)

Loads the export, labels one picture that isn't counted, and says "ready". Then, for each line on standard input, it labels
all pictures, one at a time, and prints the median of their seconds. One thread, where the runtime can be told so.
"""

import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

Ask = Callable[[np.ndarray], Any]


def tensorflow() -> Any:
    """Return TensorFlow with one thread."""
    import tensorflow as tf

    tf.config.threading.set_intra_op_parallelism_threads(1)
    tf.config.threading.set_inter_op_parallelism_threads(1)
    return tf


def saved_model(path: str) -> Ask:
    """TensorFlow, signature `image`."""
    tf = tensorflow()
    model = tf.saved_model.load(path)
    ask = model.signatures["image"]
    # The model must stay: its signatures do not keep it.
    return lambda pixels: (model, ask(pixels=tf.constant(pixels, tf.float32))["scores"].numpy())


def keras(path: str) -> Ask:
    """Keras, called as a compiled function, which is what its guides advise for single pictures."""
    tf = tensorflow()
    import keras as library

    model = library.saving.load_model(path, compile=False)
    compiled = tf.function(lambda pixels: model(pixels, training=False), reduce_retracing=True)
    return lambda pixels: compiled({"pixels": tf.constant(pixels, tf.float32)}).numpy()


def litert(path: str) -> Ask:
    """LiteRT, in floats or 8-bit numbers."""
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_path=path, num_threads=1)
    interpreter.allocate_tensors()
    (entry,), (output,) = interpreter.get_input_details(), interpreter.get_output_details()

    def ask(pixels: np.ndarray) -> Any:
        interpreter.set_tensor(entry["index"], pixels.astype(entry["dtype"]))
        interpreter.invoke()
        return interpreter.get_tensor(output["index"])

    return ask


def onnx(path: str) -> Ask:
    """ONNX Runtime."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    return lambda pixels: session.run(["scores"], {"pixels": pixels.astype(np.float32)})


def frozen_graph(path: str) -> Ask:
    """TensorFlow 1's graph and session."""
    import tensorflow as tf

    v1 = tf.compat.v1
    definition = v1.GraphDef()
    with open(path, "rb") as file:
        definition.ParseFromString(file.read())
    graph = v1.Graph()
    with graph.as_default():
        v1.import_graph_def(definition, name="")
    config = v1.ConfigProto(intra_op_parallelism_threads=1, inter_op_parallelism_threads=1)
    session = v1.Session(graph=graph, config=config)
    return lambda pixels: session.run("final_result:0", {"pixels:0": pixels.astype(np.float32)})


def whole(path: str) -> Ask:
    """`retrain` itself, with the zip."""
    from retrain import artifact
    from retrain.label import Labeller
    from retrain.scores import softmax

    labeller = Labeller(artifact.load(Path(path)).artifact)
    return lambda pixels: softmax(labeller.logits(0, pixels))


RUNTIMES: dict[str, Callable[[str], Ask]] = {
    "savedmodel": saved_model,
    "keras": keras,
    "litert": litert,
    "litert-int8": litert,
    "onnx": onnx,
    "frozen-graph": frozen_graph,
    "zip": whole,
}


def main(name: str, path: str, pixels: str) -> None:
    """Answer each line with seconds a picture."""
    pictures = np.load(pixels)
    ask = RUNTIMES[name](path)
    ask(pictures[:1])
    print("ready", flush=True)
    for _ in sys.stdin:
        seconds = []
        for at in range(len(pictures)):
            began = time.perf_counter()
            ask(pictures[at : at + 1])
            seconds.append(time.perf_counter() - began)
        print(statistics.median(seconds), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
