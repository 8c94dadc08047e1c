"""Start TensorFlow, always in the same way, and choose the number format for the device that it finds."""

import gc
import importlib.util
import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from retrain.errors import EnvironmentProblem
from retrain.quiet import native_chatter_dropped


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
    if asked != "auto":
        return asked
    tf = start()
    gpus = tf.config.list_physical_devices("GPU")
    details = [tf.config.experimental.get_device_details(gpu) for gpu in gpus]
    capable = gpus and all(detail.get("compute_capability", (0, 0)) >= (7, 0) for detail in details)
    return "mixed_float16" if capable else "float32"
