"""Run a backbone in TensorFlow, as a frozen graph: for the few networks that LiteRT cannot run.

A graph is a program, so one that comes with a model folder is checked before it runs: only operations from numbers to
numbers, without state, are admitted. None that reads or writes a file is among them.
"""

import json
from functools import lru_cache
from threading import RLock
from typing import Any

import numpy as np

from retrain.devices import start
from retrain.errors import EnvironmentProblem, ModelRefused

ENGINE = "tensorflow-float32"
_CALLS_PYTHON = {"PyFuncStateless"}  # needs a function registered in this process, but stays out all the same
# Attributes with text that is no address, path or program.
_WORDS = {
    "data_format", "padding", "equation", "message", "bad_indices_policy", "kernel_type", "interpolation", "fill_mode",
    "src_format", "dst_format", "frame_name", "config", "config_proto", "executor_type", "precision_config",
}  # fmt: skip
_DUMPS = {"DebugIdentity", "DebugNanCount", "DebugNumericSummary", "Copy", "CopyHost", "Abort"}
_ONE_AT_A_TIME = RLock()
_HARMLESS = {"Placeholder", "Const", "Identity", "IdentityN", "NoOp"}


class GraphRunner:
    """A frozen graph, with the methods of `runner.Runner`. Several share one graph, which may run in many threads."""

    engine = ENGINE

    def __init__(self, data: bytes, threads: int = 0) -> None:
        """Load a graph as `freeze` wrote it; raises ModelRefused for anything else, or a graph that could do harm.

        `threads` is for likeness with `runner.Runner`: TensorFlow chooses for itself.
        """
        try:
            with _ONE_AT_A_TIME:  # or each thread would load a graph of its own
                self._run, self.image_size, self._outputs = _loaded(data)
        except ModuleNotFoundError:
            raise EnvironmentProblem(
                "this model's backbone runs in TensorFlow only, which is not installed; run: pip install tensorflow"
            ) from None
        self.feature_size = self._outputs[0]

    def features(self, pixels: np.ndarray) -> np.ndarray:
        """Return the pooled features, float32 (n, feature_size), of pixels (n, size, size, 3), values 0 to 255."""
        return self.features_and_map(pixels)[0]

    def features_and_map(self, pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
        """Return features and, where the network has one, the last spatial map, as `runner.Runner` does."""
        found, maps = np.empty((len(pixels), self.feature_size), np.float32), []
        for row, picture in enumerate(pixels):  # one by one: a picture's features must not depend on its neighbours
            outputs = self._run(picture[np.newaxis].astype(np.float32))
            found[row] = outputs[0].numpy()[0]
            maps += [output.numpy()[0] for output in outputs[1:]]
        return found, np.array(maps, np.float32) if maps else None


def freeze(model: Any, image_size: int) -> tuple[bytes, Any]:
    """Freeze a Keras model of pixels; returns what `GraphRunner` takes, and the frozen function for a converter."""
    tf = start()
    from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

    signature = tf.TensorSpec((None, image_size, image_size, 3), tf.float32)
    function = tf.function(lambda pixels: model(pixels, training=False)).get_concrete_function(signature)
    frozen = convert_variables_to_constants_v2(function)
    graph = frozen.graph.as_graph_def()
    header = {"input": frozen.inputs[0].name, "outputs": [output.name for output in frozen.outputs], "size": image_size}
    return json.dumps(header).encode() + b"\n" + graph.SerializeToString(deterministic=True), frozen


@lru_cache(maxsize=2)
def _loaded(data: bytes) -> tuple[Any, int, list[int]]:
    tf = start()
    from google.protobuf.message import DecodeError

    try:
        header, _, body = data.partition(b"\n")
        names = json.loads(header)
        graph = tf.compat.v1.GraphDef.FromString(body)
        problem = harmful(graph)
        if problem:
            raise ModelRefused(f"the backbone's graph holds '{problem}', which may do more than compute; train again")

        def load() -> None:
            tf.compat.v1.import_graph_def(graph, name="")

        wrapped = tf.compat.v1.wrap_function(load, [])
        run = wrapped.prune(names["input"], names["outputs"])
        size = int(names["size"])
        # Imported graphs forget shapes behind loops and functions, so look at what comes out.
        outputs = run(tf.zeros((1, size, size, 3)))
        if not outputs or outputs[0].dtype != tf.float32 or len(outputs[0].shape) != 2:
            raise ValueError("it gives no row of numbers a picture")
        return lambda pixels: run(tf.constant(pixels)), size, [int(out.shape[-1]) for out in outputs]
    except (
        IndexError, ValueError, KeyError, TypeError, ArithmeticError, RecursionError, DecodeError, tf.errors.OpError
    ) as error:  # fmt: skip
        raise ModelRefused(f"the backbone is no graph that TensorFlow can run: {error}; train again") from None


def harmful(graph: Any) -> str:
    """Return the name of an operation that does more than turn numbers into numbers; empty where there is none.

    Whatever reads or writes files, calls Python or keeps state is marked as stateful or handles text or resources.
    """
    from tensorflow.core.framework import types_pb2
    from tensorflow.python.framework import op_def_registry

    bad_types = {types_pb2.DT_STRING, types_pb2.DT_RESOURCE, types_pb2.DT_VARIANT}
    own = {function.signature.name for function in graph.library.function}
    for node in [*graph.node, *(node for function in graph.library.function for node in function.node_def)]:
        definition = op_def_registry.get(node.op)
        if definition is None and node.op in own:
            continue
        if (
            definition is None
            or node.op in _CALLS_PYTHON | _DUMPS
            or (definition.is_stateful and node.op not in _HARMLESS and not _only_calls(node, own))
        ):
            return str(node.op)
        if any(
            attribute.type in ("string", "list(string)")
            and attribute.name not in _WORDS
            and not attribute.allowed_values.list.s
            and attribute.name in node.attr  # looking it up would put it there
            and (node.attr[attribute.name].s or node.attr[attribute.name].list.s)
            for attribute in definition.attr
        ):
            return str(node.op)
        fixed = {argument.type for argument in [*definition.input_arg, *definition.output_arg]}
        chosen = {value.type for value in node.attr.values()} | {
            one for value in node.attr.values() for one in value.list.type
        }
        if (fixed | chosen) & bad_types:
            return str(node.op)
    return ""


def _only_calls(node: Any, own: set[str]) -> bool:
    """True for a call of a function that is in the graph itself, and so is checked with it."""
    return node.op in ("StatefulPartitionedCall", "PartitionedCall") and node.attr["f"].func.name in own
