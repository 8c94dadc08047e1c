"""What tests share: a tiny backbone, pictures drawn on the fly, a trained model. No real weights, no network."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

from retrain import backbones, cli
from retrain.backbones import Backbone
from retrain.runner import Runner
from tests.drawing import draw_classes

TINY_SIZE, TINY_FEATURES = 32, 24


class Ran(NamedTuple):
    """How a command line ended."""

    code: int
    out: list[str]
    err: list[str]


def build_tiny(weights: Path, image_size: int = TINY_SIZE) -> "object":
    """A network of two layers with fixed random weights: pixels -> features and spatial map, as a real one."""
    import keras

    kernel = np.load(weights)
    pixels = keras.Input((image_size, image_size, 3))
    layer = keras.layers.Conv2D(TINY_FEATURES, 4, 4, activation="relu", use_bias=False)
    spatial = layer(keras.layers.Rescaling(1 / 128, offset=-127 / 128)(pixels))
    layer.set_weights([kernel])
    return keras.Model(pixels, [keras.layers.GlobalAveragePooling2D()(spatial), spatial])


def build_squares(_weights: Path, image_size: int = 33) -> "object":
    """A network that sees the colours of nine squares: no two scenes are near-duplicates, nor are two frames of one."""
    import keras

    pixels = keras.Input((image_size, image_size, 3))
    squares = keras.layers.AveragePooling2D(image_size // 3)(keras.layers.Rescaling(1 / 128, offset=-127 / 128)(pixels))
    return keras.Model(pixels, [keras.layers.Flatten()(squares), squares])


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Keep the user's cache folder out of it."""
    folder = tmp_path_factory.mktemp("cache")
    os.environ["RETRAIN_CACHE_DIR"] = str(folder)
    return folder


@pytest.fixture(scope="session", autouse=True)
def heard() -> None:
    """Have Ctrl-C heard by the processes that tests start: a shell lets what it runs in the background ignore it."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Backbone:
    """A backbone like any other, but of 4 kB."""
    weights = tmp_path_factory.mktemp("weights") / "tiny.npy"
    np.save(weights, np.random.default_rng(3).normal(0, 0.3, (4, 4, 3, TINY_FEATURES)).astype(np.float32))
    return Backbone("tiny", TINY_SIZE, TINY_FEATURES, "Apache-2.0", "drawn by the tests", lambda: weights, build_tiny)


@pytest.fixture(scope="session")
def squares(tmp_path_factory: pytest.TempPathFactory) -> Backbone:
    """A backbone without weights."""
    weights = tmp_path_factory.mktemp("weights") / "none"
    weights.write_bytes(b"none")
    return Backbone("squares", 33, 27, "Apache-2.0", "drawn by the tests", lambda: weights, build_squares)


@pytest.fixture(scope="session")
def tiny_flatbuffer(tiny: Backbone) -> bytes:
    """The tiny backbone as LiteRT runs it."""
    network = backbones.network(tiny)
    assert network.engine == Runner.engine
    return network.data


@pytest.fixture
def tiny_by_name(tiny: Backbone, monkeypatch: pytest.MonkeyPatch) -> str:
    """Put the tiny backbone into the table, so that `--backbone tiny` finds it."""
    monkeypatch.setitem(backbones.BACKBONES, tiny.name, tiny)
    return tiny.name


@pytest.fixture
def tf_files(tmp_path: Path) -> Path:
    """A working folder with three classes of twelve pictures."""
    draw_classes(tmp_path / "tf_files" / "data")
    return tmp_path / "tf_files"


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory, tiny: Backbone) -> Path:
    """A working folder after `train`; tests must not change it (copy it first)."""
    from retrain.pipeline import train

    folder = tmp_path_factory.mktemp("trained") / "tf_files"
    draw_classes(folder / "data")
    train(folder, backbone=tiny)
    return folder


@pytest.fixture
def command() -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run `python -m retrain ...` as a process of its own."""

    def run(*arguments: object, **options: object) -> subprocess.CompletedProcess[str]:
        line = [sys.executable, "-m", "retrain", *map(str, arguments)]
        return subprocess.run(line, capture_output=True, text=True, timeout=120, check=False, **options)

    return run


@pytest.fixture
def retrain(capfd: pytest.CaptureFixture[str]) -> Callable[..., Ran]:
    """Run a command line in this process."""

    def run(*arguments: object) -> Ran:
        before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
        unraisable = sys.unraisablehook
        try:
            with pytest.raises(SystemExit) as ended:
                cli.main([str(argument) for argument in arguments])
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
            sys.unraisablehook = unraisable
        out, err = capfd.readouterr()
        return Ran(int(ended.value.code or 0), out.splitlines(), err.splitlines())

    return run
