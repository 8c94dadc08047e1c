"""Run a backbone: a LiteRT flatbuffer and arrays of pixels in, features and the last spatial map out. No TensorFlow.

One interpreter with one thread per core, each fed by its own Python thread, is as fast as LiteRT gets on a CPU
(batching is slower); decoding and inference both release the interpreter lock, so they overlap.
"""

import importlib
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from threading import local
from typing import Protocol, TypeVar

import numpy as np

from retrain.errors import ModelRefused
from retrain.quiet import native_chatter_dropped

_LARGEST_SIDE = 2048  # --image-size goes to 1024
Task = TypeVar("Task")
Result = TypeVar("Result")


class Run(Protocol):
    """How work is spread. `run_locally` is one; a cluster's is another, passed in where work is asked for."""

    def __call__(self, make_worker: Callable[[], Callable[[Task], Result]], tasks: Iterable[Task]) -> Iterator[Result]:
        """Yield one result a task, in the order of the tasks; workers are made where they run."""


@dataclass(frozen=True)
class Network:
    """A backbone as it is stored and run. `engine`: a key of ENGINES. `data`: a flatbuffer, or what the engine takes."""

    engine: str
    data: bytes


class Runner:
    """A loaded backbone. Not thread-safe: make one for each thread."""

    engine = "litert-float32"

    def __init__(self, flatbuffer: bytes, threads: int = 1) -> None:
        from ai_edge_litert.interpreter import Interpreter

        try:
            with native_chatter_dropped():
                self._interpreter = Interpreter(model_content=flatbuffer, num_threads=threads)
                (entry,) = self._interpreter.get_input_details()
                if max(entry["shape"]) > _LARGEST_SIDE:  # memory is taken in the next line, as much as that wants
                    raise ValueError(f"it takes pictures of {max(entry['shape'])} pixels a side")
                self._interpreter.allocate_tensors()
        except (ValueError, RuntimeError) as error:
            raise ModelRefused(f"the backbone is no flatbuffer that LiteRT can run: {error}; train again") from None
        self._input = entry["index"]
        self.image_size = int(entry["shape"][1])
        outputs = self._interpreter.get_output_details()
        self._features, self.feature_size = next(
            (output["index"], int(output["shape"][1])) for output in outputs if len(output["shape"]) == 2
        )
        self._map = next((output["index"] for output in outputs if len(output["shape"]) == 4), None)

    def features(self, pixels: np.ndarray) -> np.ndarray:
        """Return the pooled features, float32 of shape (n, feature_size).

        `pixels`: uint8 or float32 of shape (n, image_size, image_size, 3), values 0 to 255.
        """
        found = np.empty((len(pixels), self.feature_size), np.float32)
        for row, picture in enumerate(pixels):
            found[row] = self._invoke(picture, self._features)
        return found

    def features_and_map(self, pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
        """Return features as `features` does, and the last spatial map, float32 (n, rows, columns, feature_size).

        The map is None for a backbone that has none. The features are its mean over rows and columns.
        """
        if self._map is None:
            return self.features(pixels), None
        found, maps = np.empty((len(pixels), self.feature_size), np.float32), []
        for row, picture in enumerate(pixels):
            found[row] = self._invoke(picture, self._features)
            maps.append(self._interpreter.get_tensor(self._map)[0])
        return found, np.array(maps, np.float32)

    def _invoke(self, picture: np.ndarray, output: int) -> np.ndarray:
        self._interpreter.tensor(self._input)()[0] = picture  # written in place: no copy in between
        self._interpreter.invoke()
        return self._interpreter.get_tensor(output)


ENGINES = {
    Runner.engine: f"{__name__}:Runner",
    # By name only: TensorFlow comes in for a network that has no other way to run, and not otherwise.
    "tensorflow-float32": "retrain.graph:GraphRunner",
}


def open_network(network: Network, threads: int = 1) -> Runner:
    """Return what runs a network: a Runner, or what has the same methods.

    Raises ModelRefused for an engine that this version does not know, or data that the engine cannot run.
    """
    if network.engine not in ENGINES:
        raise ModelRefused(f"the backbone wants to run in '{network.engine}', which this version cannot do; update retrain")
    module, _, name = ENGINES[network.engine].partition(":")
    runner: Runner = getattr(importlib.import_module(module), name)(network.data, threads)
    return runner


def cores() -> int:
    """Return how many CPU cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def run_locally(
    make_worker: Callable[[], Callable[[Task], Result]], tasks: Iterable[Task], *, window: int = 32
) -> Iterator[Result]:
    """Spread tasks over one thread per core; yield results in the order of the tasks.

    At most `window` tasks per core are under way, so neither tasks nor results pile up. The first exception that a
    worker raises is raised here, after the tasks under way have ended.
    """
    own = local()

    def work(task: Task) -> Result:
        if not hasattr(own, "worker"):
            own.worker = make_worker()
        return own.worker(task)

    pool = ThreadPoolExecutor(cores(), thread_name_prefix="retrain")
    under_way: deque = deque()
    try:
        for task in tasks:
            under_way.append(pool.submit(work, task))
            if len(under_way) >= window * cores():
                yield under_way.popleft().result()
        while under_way:
            yield under_way.popleft().result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
