"""Read tensors out of a legacy `torch.save` file, without torch and without running anything that is in it.

Such a file is a row of pickles. This unpickler admits three harmless names and nothing else, so a file that was
tampered with can fail but cannot run code.
"""

import collections
import math
import pickle
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from retrain.errors import EnvironmentProblem

_STORAGES: dict[str, np.dtype] = {"FloatStorage": np.dtype("<f4"), "LongStorage": np.dtype("<i8")}
# What the unpickler and numpy raise when bytes make no sense.
_DAMAGED = (
    pickle.UnpicklingError, EOFError, ValueError, KeyError, TypeError, AttributeError, OSError, ArithmeticError, MemoryError,
)  # fmt: skip


class _Storage(NamedTuple):
    key: str
    dtype: np.dtype
    elements: int


class _Tensor(NamedTuple):
    storage: _Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


def _rebuild_tensor(storage: _Storage, offset: int, shape: tuple, strides: tuple, *_unused: Any) -> _Tensor:
    return _Tensor(storage, offset, tuple(shape), tuple(strides))


class _TensorsOnly(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("collections", "OrderedDict"):
            return collections.OrderedDict
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return _rebuild_tensor
        if module == "torch" and name in _STORAGES:
            return name
        raise pickle.UnpicklingError(f"{module}.{name} is no tensor")

    def persistent_load(self, pid: Any) -> _Storage:
        _, kind, key, _, elements, _ = pid
        return _Storage(str(key), _STORAGES[kind], int(elements))


def read_tensors(path: Path) -> dict[str, np.ndarray]:
    """Return name -> array of every tensor in a legacy torch file.

    Raises EnvironmentProblem, naming the file, where it is damaged or holds anything but tensors.
    """
    try:
        with path.open("rb") as file:
            for _ in ("magic number", "protocol", "system"):
                _TensorsOnly(file).load()
            tensors: dict[str, _Tensor] = _TensorsOnly(file).load()
            storages = {tensor.storage.key: tensor.storage for tensor in tensors.values()}
            data = {}
            for key in _TensorsOnly(file).load():
                elements, storage = int.from_bytes(file.read(8), "little"), storages[key]
                if elements != storage.elements:
                    raise ValueError("sizes disagree")
                data[key] = np.frombuffer(file.read(elements * storage.dtype.itemsize), storage.dtype, elements)
        return {name: _strided(tensor, data[tensor.storage.key]) for name, tensor in tensors.items()}
    except _DAMAGED as error:
        raise EnvironmentProblem(f"the weights file {path} cannot be read ({error}); install its package again") from None


def _strided(tensor: _Tensor, data: np.ndarray) -> np.ndarray:
    """Lay a tensor out as its strides say: these files hold convolutions in other orders than their shape suggests."""
    last = tensor.offset + sum((side - 1) * stride for side, stride in zip(tensor.shape, tensor.strides, strict=True))
    size = math.prod(tensor.shape)
    outside = tensor.offset < 0 or min(tensor.strides, default=0) < 0 or last >= len(data)
    if size > len(data) or (size and outside):
        raise ValueError("a tensor reaches beyond its data")
    steps = [stride * data.itemsize for stride in tensor.strides]
    return np.lib.stride_tricks.as_strided(data[tensor.offset :], tensor.shape, steps, writeable=False).copy()
