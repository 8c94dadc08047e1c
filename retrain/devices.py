"""Start TensorFlow, always in the same way, and choose the number format for the device that it finds."""

import gc
import importlib.util
import logging
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from retrain.errors import EnvironmentProblem, UsageError
from retrain.quiet import native_chatter_dropped

_CAPABLE = (7, 0)  # compute capability of GPUs that are quicker in float16: they have tensor cores


def check_installed() -> None:
    """Raise EnvironmentProblem where TensorFlow or Keras is not installed: training needs both, labelling neither."""
    missing = [name for name in ("tensorflow", "keras") if importlib.util.find_spec(name) is None]
    if missing:
        names = " and ".join(missing)
        raise EnvironmentProblem(f"{names} not found, needed for training; run: pip install {' '.join(missing)}")


def start() -> Any:
    """Import TensorFlow and Keras quietly, let GPUs take memory as they need it; return the module.

    Raises EnvironmentProblem where they are not installed.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    os.environ.setdefault("KERAS_BACKEND", "tensorflow")
    with native_chatter_dropped(), _lasting():
        try:
            import keras  # noqa: F401  imports TensorFlow in an order that both like
            import tensorflow as tf
        except ModuleNotFoundError:
            check_installed()
            raise

        for gpu in tf.config.list_physical_devices("GPU"):
            try:
                tf.config.experimental.set_memory_growth(gpu, True)
            except RuntimeError:  # TensorFlow already runs in this process, as it was set up then
                break
    for name in ("tensorflow", "absl"):
        logging.getLogger(name).setLevel(logging.ERROR)
    return tf


@contextmanager
def _lasting() -> Iterator[None]:
    """Do not look for garbage among the hundreds of thousands of lasting objects that an import makes.

    The search is an eighth of the time that importing TensorFlow and Keras takes.
    """
    if "tensorflow" in sys.modules or not gc.isenabled():
        yield
        return
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def precision(asked: str) -> str:
    """Return the Keras dtype policy to train in: the one asked for, or what `auto` stands for on this machine.

    `auto` is mixed_float16 where every GPU has compute capability 7.0 or more (below that, float16 is slower), else
    float32.
    """
    return choose_precision(asked).policy


@dataclass(frozen=True)
class Choice:
    """A Keras dtype policy, and in a few words why it was taken."""

    policy: str
    why: str

    def __str__(self) -> str:
        return f"{self.policy}: {self.why}"


def choose_precision(asked: str, names: Sequence[str] = ()) -> Choice:
    """Return what `precision` returns, with the reason: `mixed_float16: NVIDIA H100 has compute capability 9.0`.

    `names`: of devices, where not all are used.
    """
    if asked != "auto":
        return Choice(asked, "as asked")
    if names and not any("GPU" in name.upper() for name in names):
        return Choice("float32", "no GPU among the devices")
    tf = start()
    gpus = tf.config.list_physical_devices("GPU")
    if not gpus:
        return Choice("float32", "no GPU")
    details = [tf.config.experimental.get_device_details(gpu) for gpu in gpus]
    # One device is as quick as the slowest beside it.
    least = min(details, key=lambda detail: detail.get("compute_capability", (0, 0)))
    name, capability = least.get("device_name", "the GPU"), least.get("compute_capability")
    if capability is None:
        return Choice("float32", f"{name} does not tell its compute capability")
    said = f"{name} has compute capability {capability[0]}.{capability[1]}"
    if capability >= _CAPABLE:
        return Choice("mixed_float16", said)
    return Choice("float32", f"{said}, float16 is slow there")


@contextmanager
def dtype_policy(name: str) -> Iterator[None]:
    """Let layers that are made in a block have a Keras dtype policy; what is made later has the one of before."""
    start()
    import keras

    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(name)
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)


def strategy(names: Sequence[str] = ()) -> Any:
    """Return a tf.distribute.Strategy for devices by name, such as 'GPU:0' or 'CPU:1'; without names, for all GPUs.

    Over several devices each step is divided (MirroredStrategy); otherwise it is TensorFlow's own choice, or the one device.
    Raises UsageError for a device that is not there.
    """
    tf = start()
    there = [device.name.removeprefix("/device:") for device in tf.config.list_logical_devices()]
    chosen = [name.upper().lstrip("/").removeprefix("DEVICE:") for name in names]
    for name, said in zip(chosen, names, strict=True):
        if name not in there:
            raise UsageError(f"there is no device '{said}' here; there are {', '.join(there)}")
    if len(set(chosen)) < len(chosen):
        raise UsageError(f"a device is named twice in {', '.join(names)}; name each once")
    if not chosen:
        gpus = [name for name in there if name.startswith("GPU:")]
        if len(gpus) < 2:
            return tf.distribute.get_strategy()
        chosen = gpus
    if len(chosen) == 1:
        return tf.distribute.OneDeviceStrategy(f"/{chosen[0]}")
    return tf.distribute.MirroredStrategy([f"/{name}" for name in chosen])


def logical_cpus(count: int) -> None:
    """Divide the CPU into devices 'CPU:0', 'CPU:1' ..., to try out what trains over several.

    Raises EnvironmentProblem where TensorFlow already runs in this process, in another division.
    """
    tf = start()
    (cpu, *_) = tf.config.list_physical_devices("CPU")
    if len(tf.config.get_logical_device_configuration(cpu) or ()) == count:
        return
    try:
        tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * count)
    except RuntimeError:
        raise EnvironmentProblem(
            "TensorFlow already runs in this process, so its devices are fixed; divide the CPU before anything else"
        ) from None
