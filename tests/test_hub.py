"""TF Hub modules: however they come, and whatever goes wrong on the way, features are those of the network itself."""

import hashlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tarfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import retrain
from retrain import artifact, graph
from retrain.backbones import BACKBONES, download, get, hub, network, saved_model, weights_hash
from retrain.backbones.torch_file import read_tensors
from retrain.devices import start
from retrain.errors import EnvironmentProblem, ModelRefused, UsageError
from retrain.images import decode, read_bytes
from retrain.progress import SILENT, Silent
from retrain.runner import Network, Runner, open_network
from retrain.storage import user_cache
from retrain.views import render
from tests.drawing import COLOURS, draw, draw_classes
from tests.hub_modules import (
    Layers,
    Net,
    Site,
    archive,
    attachment,
    lite0_net,
    member,
    packed,
    serving,
    tiny_keras,
    tiny_net,
    write_function,
    write_tf1,
    write_tf2,
)

SIZE = 40
FORMATS: dict[str, Callable[..., Path]] = {"TF1": write_tf1, "TF2": write_tf2}


class Heard(Silent):
    """Progress that remembers."""

    def __init__(self) -> None:
        self.notes: list[str] = []
        self.bars: list[tuple[str, int | None]] = []

    def note(self, line: str) -> None:
        self.notes.append(line)

    def bar(self, what: str, total: int | None) -> AbstractContextManager[Callable[[], None]]:
        self.bars.append((what, total))
        return super().bar(what, total)


@pytest.fixture(scope="session")
def net() -> Net:
    return tiny_net()


@pytest.fixture(scope="session")
def modules(tmp_path_factory: pytest.TempPathFactory, net: Net) -> dict[str, Path]:
    """The tiny network in both formats, for pictures of any size; tests only read them."""
    folder = tmp_path_factory.mktemp("modules")
    return {name: write(folder / name, net) for name, write in FORMATS.items()}


@pytest.fixture(scope="session")
def tarball(modules: dict[str, Path]) -> bytes:
    return packed(modules["TF2"])


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache for each test, no waiting between tries, and no proxy on the way to the loopback interface."""
    monkeypatch.setenv("RETRAIN_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setattr(download, "_PAUSE_SECONDS", 0)
    for name in [name for name in os.environ if name.lower().endswith("_proxy")]:
        monkeypatch.delenv(name)
    return tmp_path / "cache"


@pytest.fixture
def site() -> Iterator[Site]:
    with serving() as running:
        yield running


def left_in(cache: Path) -> set[str]:
    """What lies in the cache apart from lock files, which are there to stay, and the tag that marks it as a cache."""
    found = {path.relative_to(cache).as_posix() for path in cache.rglob("*") if path.is_file()}
    return {name for name in found if not name.endswith(".lock") and name != "CACHEDIR.TAG"}


def pictures(size: int = SIZE, count: int = 3) -> np.ndarray:
    return np.random.default_rng(1).uniform(0, 255, (count, size, size, 3)).astype(np.float32)


def assert_same_features(found: np.ndarray, expected: np.ndarray) -> None:
    assert found.shape == expected.shape and found.dtype == np.float32
    assert np.abs(found - expected).max() <= 1e-4 * np.abs(expected).max()


# --- features


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("signed", [False, True], ids=["as tfhub.dev did", "as Kaggle does"])
def test_a_module_from_an_address_gives_the_features_of_the_network_itself(
    form: str, signed: bool, modules: dict[str, Path], net: Net
) -> None:
    with serving(signed) as site:
        handle = site.add("google/tiny/1", packed(modules[form]))
        backbone = get(handle, SIZE)
        ready = network(backbone)
        assert [request.path.partition("?")[0] for request in site.requests] == [
            "/google/tiny/1",
            f"/{'signed' if signed else 'storage'}/google/tiny/1.tar.gz",
        ]
    assert ready.engine == Runner.engine and backbone.image_size == SIZE and backbone.name == handle
    assert_same_features(open_network(ready).features(pictures()), tiny_keras(net, SIZE).predict_on_batch(pictures()))


@pytest.mark.parametrize("form", FORMATS)
def test_a_folder_and_an_archive_of_it_give_the_same_features_and_need_no_network(
    form: str, modules: dict[str, Path], net: Net, tmp_path: Path
) -> None:
    file = tmp_path / "module.tar.gz"
    file.write_bytes(packed(modules[form]))
    expected = tiny_keras(net, SIZE).predict_on_batch(pictures())
    backbones = [get(str(modules[form]), SIZE), get(str(file), SIZE)]
    for backbone in backbones:
        assert_same_features(open_network(network(backbone)).features(pictures()), expected)
    assert len({weights_hash(backbone) for backbone in backbones}) == 1
    unpacked = backbones[1].weights()
    changed = (unpacked / "saved_model.pb").stat().st_mtime_ns
    assert get(str(file), SIZE).weights() == unpacked
    assert (unpacked / "saved_model.pb").stat().st_mtime_ns == changed


def test_the_modules_of_these_tests_are_as_those_of_tf_hub_were(modules: dict[str, Path], net: Net) -> None:
    tf = start()
    from tensorflow.core.protobuf import saved_model_pb2

    first = saved_model_pb2.SavedModel.FromString((modules["TF1"] / "saved_model.pb").read_bytes())
    assert [list(one.meta_info_def.tags) for one in first.meta_graphs] == [[], ["train"]]
    second = tf.saved_model.load(str(modules["TF2"]))
    assert len(second.variables) == len(net.arrays) == 15 and len(second.trainable_variables) == 9
    for form, variables in (("TF1", 0), ("TF2", 9)):  # what `build` hands on to Keras
        assert len(saved_model.build(modules[form], SIZE).trainable_variables) == variables
    images = pictures() / 255
    before = second(images).numpy()
    assert not np.allclose(second(images, training=True), before, atol=1e-3)
    assert not np.array_equal(second(images), before)  # the moving mean has moved


def test_a_module_answers_by_the_picture_and_not_by_the_batch_it_comes_in(modules: dict[str, Path]) -> None:
    # A module that was called as in training would answer by the batch, not by the picture.
    model = saved_model.build(modules["TF2"], SIZE)
    alone = model.predict_on_batch(pictures(count=1))
    with_others = model.predict_on_batch(np.concatenate([pictures(count=1), np.full((3, SIZE, SIZE, 3), 255, np.float32)]))
    assert np.allclose(np.asarray(alone)[0], np.asarray(with_others)[0], atol=1e-5)


# --- image sizes


def test_the_image_size_is_what_the_module_has_attached_before_anything_else(net: Net, tmp_path: Path) -> None:
    folder = write_tf1(tmp_path / "mobilenet_v2_100_224", net, attached=(SIZE, SIZE))
    assert saved_model.image_size(folder) == (SIZE, "the module")
    assert get(str(folder)).image_size == SIZE
    assert get(str(folder), 64).image_size == 64  # --image-size wins


@pytest.mark.parametrize("form", FORMATS)
def test_the_image_size_is_that_of_the_signature_where_nothing_is_attached(form: str, net: Net, tmp_path: Path) -> None:
    folder = FORMATS[form](tmp_path / "mobilenet_v2_100_224", net, SIZE)
    assert saved_model.image_size(folder) == (SIZE, "its signature")
    ready = network(get(str(folder)))
    assert_same_features(open_network(ready).features(pictures()), tiny_keras(net, SIZE).predict_on_batch(pictures()))


def test_another_image_size_than_a_module_can_take_is_refused_with_what_to_do(net: Net, tmp_path: Path) -> None:
    folder = write_tf1(tmp_path / "fixed", net, SIZE)
    with pytest.raises(UsageError, match=r"fixed does not take pictures of 64 x 64: .*--image-size"):
        network(get(str(folder), 64))


def test_an_attached_size_that_is_no_square_or_something_else_is_passed_over(net: Net, tmp_path: Path) -> None:
    folder = write_tf1(tmp_path / "inception", net, attached=(SIZE, 2 * SIZE))
    assert saved_model.image_size(folder) == (299, "its name")
    assert saved_model._attached_size(attachment(300, 300)) == 300
    assert saved_model._attached_size(attachment(300, 300, key="text_module_info")) == 0
    assert saved_model._attached_size(b"\xff\xff\xff") == 0


SIZES = {
    "https://tfhub.dev/google/imagenet/mobilenet_v2_100_224/feature_vector/5": 224,
    "https://tfhub.dev/google/imagenet/mobilenet_v1_025_128/feature_vector/5": 128,
    "https://tfhub.dev/google/imagenet/mobilenet_v2_035_96/feature_vector/5": 96,
    "https://tfhub.dev/google/imagenet/nasnet_large/feature_vector/5": 331,
    "https://tfhub.dev/google/imagenet/inception_v3/feature_vector/5": 299,
    "https://tfhub.dev/google/imagenet/inception_resnet_v2/feature_vector/5": 299,
    "https://tfhub.dev/google/imagenet/resnet_v2_50/feature_vector/5": 0,
    "https://tfhub.dev/tensorflow/efficientnet/lite0/feature-vector/2": 224,
    "https://tfhub.dev/tensorflow/efficientnet/lite4/feature-vector/2": 300,
    "https://tfhub.dev/tensorflow/efficientnet/b0/feature-vector/1": 224,
    "https://tfhub.dev/google/efficientnet/b7/feature-vector/1": 600,
    "https://tfhub.dev/google/bit/m-r50x1/1": 0,
    "modules/EfficientNet_Lite3": 280,
    "modules/unknown_2240": 0,
    "https://www.kaggle.com/models/google/mobilenet-v2/tensorFlow2/035-96-feature-vector": 96,
    "satellite_2": 0,
}


@pytest.mark.parametrize("handle", SIZES)
def test_the_image_size_of_well_known_networks_is_known_by_their_names(handle: str) -> None:
    assert saved_model._size_by_name(handle) == SIZES[handle]


def test_where_nothing_says_the_image_size_it_is_224_and_a_note_says_so(modules: dict[str, Path]) -> None:
    heard = Heard()
    assert get(str(modules["TF2"]), progress=heard).image_size == 224
    (note,) = heard.notes
    assert "does not say what image size it expects: taking 224" in note and "--image-size" in note
    assert get(str(modules["TF2"]), SIZE, progress=heard).image_size == SIZE and len(heard.notes) == 1


# --- downloads that go well


def test_a_module_is_downloaded_once_and_is_there_offline_afterwards(site: Site, tarball: bytes, cache: Path) -> None:
    handle, heard = site.add("tiny/1", tarball), Heard()
    first = get(handle, SIZE, progress=heard)
    assert len(site.transfers) == 1 and site.transfers[0].range is None
    (note,) = (note for note in heard.notes if "downloading" in note)
    assert handle in note and f"({len(tarball) / 1e6:.1f} MB)" in note and str(cache) in note
    assert heard.bars == [("download, MB", 1)]
    assert all(name.startswith(f"hub/{first.weights().name}/") for name in left_in(cache))
    site.close()
    again = get(handle, SIZE, progress=heard)
    assert weights_hash(again) == weights_hash(first) and again.weights() == first.weights()
    assert network(again).engine == Runner.engine
    assert len([note for note in heard.notes if "downloading" in note]) == 1


def test_the_hash_of_a_module_is_of_its_names_and_bytes_and_of_nothing_else(
    site: Site, tarball: bytes, modules: dict[str, Path], tmp_path: Path
) -> None:
    here = weights_hash(get(site.add("one/1", tarball), SIZE))
    assert here == weights_hash(get(site.add("two/1", tarball), SIZE)) == weights_hash(get(str(modules["TF2"]), SIZE))
    changed = shutil.copytree(modules["TF2"], tmp_path / "changed")
    (changed / "extra").write_bytes(b"")
    assert weights_hash(get(str(changed), SIZE)) != here


def test_an_archive_that_lists_files_without_their_folders_is_unpacked_all_the_same(
    site: Site, modules: dict[str, Path]
) -> None:
    handle = site.add("tiny/1", packed(modules["TF2"], folders_listed=False))
    assert weights_hash(get(handle, SIZE)) == weights_hash(get(str(modules["TF2"]), SIZE))


def test_a_row_of_the_table_says_how_to_fetch_it_and_is_fetched_when_asked(
    site: Site, tarball: bytes, monkeypatch: pytest.MonkeyPatch, net: Net
) -> None:
    row = hub._row("small-one", site.add("small/1", tarball), SIZE, 16, 0.0)
    monkeypatch.setitem(BACKBONES, row.name, row)
    with pytest.raises(EnvironmentProblem, match="run: retrain backbones fetch small-one"):
        get("small-one").weights()
    assert not site.requests
    for _ in range(2):
        get("small-one").fetch(SILENT)
    assert len(site.transfers) == 1
    features = open_network(network(get("small-one"))).features(pictures())
    assert_same_features(features, tiny_keras(net, SIZE).predict_on_batch(pictures()))


FETCH = "import sys; from retrain.backbones import download; from retrain.progress import SILENT;"


@pytest.mark.weights
def test_two_runs_that_want_the_same_module_download_it_once(site: Site, tarball: bytes) -> None:
    site.pause = 0.05  # a second in all: both are there before it is
    handle = site.add("tiny/1", tarball)
    line = [sys.executable, "-c", f"{FETCH} print(download.fetch(sys.argv[1], SILENT))", handle]
    runs = [subprocess.Popen(line, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    folders = {run.communicate(timeout=100)[0].strip() for run in runs}
    assert [run.returncode for run in runs] == [0, 0]
    assert folders == {str(download.cached(handle))} and len(site.transfers) == 1


# --- downloads that do not


def test_an_address_where_nothing_is_ends_the_run_at_once(site: Site, cache: Path) -> None:
    handle = f"http://127.0.0.1:{site.port}/no/such/1"
    with pytest.raises(EnvironmentProblem) as caught:
        get(handle)
    assert handle in str(caught.value) and "404" in str(caught.value) and "\n" not in str(caught.value)
    assert len(site.requests) == 1 and not left_in(cache)


def test_a_server_that_recovers_is_asked_again_and_a_note_says_why(site: Site, tarball: bytes) -> None:
    site.statuses = [500, 503]
    heard = Heard()
    assert download.fetch(site.add("tiny/1", tarball), heard).is_dir()
    assert len(site.transfers) == 3
    assert [note for note in heard.notes if "500" in note and "again" in note]


def test_a_server_that_does_not_recover_is_left_in_peace_after_a_few_tries(site: Site, tarball: bytes, cache: Path) -> None:
    site.statuses = [500] * 99
    with pytest.raises(EnvironmentProblem, match="the server answers 500"):
        get(site.add("tiny/1", tarball))
    assert len(site.transfers) == download._TRIES and not left_in(cache)


def test_a_download_that_breaks_off_goes_on_where_it_stopped(site: Site, tarball: bytes, modules: dict[str, Path]) -> None:
    site.cuts = [3000, 2000]
    backbone = get(site.add("tiny/1", tarball), SIZE)
    assert [request.range for request in site.transfers] == [None, "bytes=3000-", "bytes=5000-"]
    assert all(request.condition for request in site.transfers[1:])
    assert weights_hash(backbone) == weights_hash(get(str(modules["TF2"]), SIZE))


def test_a_run_that_gave_up_leaves_a_part_that_the_next_run_goes_on_with(
    site: Site, tarball: bytes, modules: dict[str, Path], cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(download, "_TRIES", 1)
    site.cuts = [3000]
    handle = site.add("tiny/1", tarball)
    with pytest.raises(EnvironmentProblem, match=f"cannot download {handle}: 3000 of {len(tarball)} bytes came"):
        get(handle, SIZE)
    assert download.cached(handle) is None
    (part,) = cache.glob("hub/*.part")
    assert part.read_bytes() == tarball[:3000] and not [path for path in cache.glob("hub/*") if path.is_dir()]
    backbone = get(handle, SIZE)
    assert site.transfers[1].range == "bytes=3000-"
    assert weights_hash(backbone) == weights_hash(get(str(modules["TF2"]), SIZE))
    assert not list(cache.glob("hub/*.part")) and not list(cache.glob("hub/*.etag"))


def test_a_part_of_what_has_changed_since_is_not_continued(
    site: Site, tarball: bytes, modules: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(download, "_TRIES", 1)
    site.cuts = [3000]
    handle = site.add("tiny/1", tarball)
    with pytest.raises(EnvironmentProblem):
        get(handle, SIZE)
    site.add("tiny/1", packed(modules["TF1"]))
    assert weights_hash(get(handle, SIZE)) == weights_hash(get(str(modules["TF1"]), SIZE))


def test_a_part_that_is_longer_than_what_is_there_now_is_thrown_away(site: Site, tarball: bytes, cache: Path) -> None:
    handle = site.add("tiny/1", tarball)
    part = (user_cache() / download._name(handle)).with_suffix(".part")
    part.parent.mkdir(parents=True)
    part.write_bytes(tarball)
    part.with_suffix(".etag").write_text(f'"{hashlib.sha256(tarball).hexdigest()[:16]}"')
    assert download.fetch(handle, SILENT).is_dir() and len(site.transfers) == 2
    assert not [name for name in left_in(cache) if name.endswith((".part", ".etag"))]


def bad_archives(tmp_path: Path, tarball: bytes, folder: Path) -> dict[str, bytes]:
    """Archives that must not be unpacked: each a whole module and something besides, or no module at all."""
    files = [(member(f"./{path.relative_to(folder)}"), path.read_bytes()) for path in folder.rglob("*") if path.is_file()]
    top = [(info, data) for info, data in files if info.name.count("/") == 1]
    return {
        "a page": b"<html>" + b"sign in first " * 100,
        "nothing": b"",
        "half": tarball[: len(tarball) // 2],
        "empty": archive([]),
        "no module": archive([(member("readme"), b"words")]),
        "module one folder down": archive([(member(f"inner/{info.name}"), data) for info, data in top]),
        "path that leads out": archive([*top, (member("../../../evil"), b"x")]),
        "path that leads out later": archive([*top, (member("a/../../../../evil"), b"x")]),
        "absolute path": archive([(member(str(tmp_path / "evil")), b"x")]),
        "symbolic link": archive([*top, (member("link", tarfile.SYMTYPE, str(tmp_path)), b""), (member("link/evil"), b"x")]),
        "hard link": archive([*top, (member("link", tarfile.LNKTYPE, "/etc/hostname"), b"")]),
        "device": archive([*top, (member("device", tarfile.CHRTYPE), b"")]),
        "pipe": archive([*top, (member("pipe", tarfile.FIFOTYPE), b"")]),
    }


BAD_ARCHIVES = tuple(bad_archives(Path("x"), b"", Path("no-such-folder")))


@pytest.mark.parametrize("name", BAD_ARCHIVES)
def test_what_is_no_safe_archive_is_refused_and_nothing_of_it_stays(
    name: str, site: Site, tarball: bytes, modules: dict[str, Path], tmp_path: Path, cache: Path
) -> None:
    data = bad_archives(tmp_path, tarball, modules["TF2"])[name]
    handle = site.add("bad/1", data)
    with pytest.raises(UsageError) as caught:
        get(handle)
    assert handle in str(caught.value) and "\n" not in str(caught.value)
    file = tmp_path / "bad.tar.gz"
    file.write_bytes(data)
    with pytest.raises(UsageError, match=r"bad\.tar\.gz"):
        get(str(file))
    assert not left_in(cache) and download.cached(handle) is None
    assert {path.name for path in tmp_path.iterdir()} == {"cache", "bad.tar.gz"}
    assert len(site.transfers) == 1  # it came as it was sent: asking again would not help


def test_no_server_means_a_word_about_the_network_after_a_few_tries(cache: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
    with pytest.raises(EnvironmentProblem, match=r"cannot download .*refused.*; check the network") as caught:
        get(f"http://127.0.0.1:{port}/tiny/1")
    assert "\n" not in str(caught.value) and not left_in(cache)


def test_no_name_service_means_no_network_and_no_further_tries(monkeypatch: pytest.MonkeyPatch, cache: Path) -> None:
    asked: list[object] = []

    def unknown(*arguments: object, **_options: object) -> None:
        asked.append(arguments)
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    with pytest.raises(EnvironmentProblem, match="Name or service not known; check the network, or give a folder"):
        get("http://no-such-host.invalid/tiny/1")
    assert len(asked) == 1 and not left_in(cache)


def test_a_server_that_falls_silent_is_given_up(site: Site, tarball: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(download, "_TIMEOUT_SECONDS", 0.1)
    monkeypatch.setattr(download, "_TRIES", 2)
    site.pause = 0.5
    with pytest.raises(EnvironmentProblem, match="timed out"):
        get(site.add("tiny/1", tarball))


def test_locks_of_runs_that_were_killed_do_not_stand_in_the_way(
    site: Site, tarball: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    handle = site.add("tiny/1", tarball)
    lock = (user_cache() / download._name(handle)).with_suffix(".lock")
    lock.parent.mkdir(parents=True)
    lock.write_text("12345")
    # The lock of tensorflow-hub itself, which a killed run leaves for ten minutes.
    monkeypatch.setenv("TFHUB_CACHE_DIR", str(tmp_path / "tfhub"))
    (tmp_path / "tfhub").mkdir()
    (tmp_path / "tfhub" / f"{hashlib.sha1(handle.encode()).hexdigest()}.lock").write_text("host.12345")
    code = (
        "import sys, time; from pathlib import Path; from retrain.storage import locked\n"
        "with locked(Path(sys.argv[1]), 'a test'):\n    print('held', flush=True); time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", code, str(lock)], stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout and holder.stdout.readline() == "held\n"
        os.kill(holder.pid, signal.SIGKILL)
    assert download.fetch(handle, SILENT).is_dir()


def test_a_module_that_was_left_half_unpacked_is_made_anew(site: Site, tarball: bytes, cache: Path) -> None:
    handle = site.add("tiny/1", tarball)
    folder = user_cache() / download._name(handle)
    for half in (folder, folder.with_suffix(".tmp")):
        half.mkdir(parents=True)
        (half / "left over").write_bytes(b"x")
    assert download.cached(handle) is None
    download.fetch(handle, SILENT)
    assert download.cached(handle) == folder
    assert "left over" not in "".join(left_in(cache)) and not folder.with_suffix(".tmp").exists()


# --- handles that are none


NO_ADDRESSES = ("http://", "http://[oops/1", "http://127.0.0.1:port/1", "http://127.0.0.1:99999/1", "http://127.0.0.1/ü")


@pytest.mark.parametrize("address", NO_ADDRESSES)
def test_an_address_that_is_none_is_one_line_that_names_it(address: str, cache: Path) -> None:
    with pytest.raises((UsageError, EnvironmentProblem)) as caught:
        get(address)
    assert address in str(caught.value) and "\n" not in str(caught.value) and not left_in(cache)


def test_handles_that_cannot_be_read_are_refused_with_what_to_do(tmp_path: Path, tarball: bytes) -> None:
    (tmp_path / "words.txt").write_text("words")
    (tmp_path / "empty").mkdir()
    cases = {
        "gs://bucket/module": "gs:// are not read; download it and give the folder",
        "ftp://host/module": "ftp:// are not read",
        f"{tmp_path}/absent": "absent does not exist",
        f"{tmp_path}/absent.tar.gz": r"absent\.tar\.gz does not exist",
        f"{tmp_path}/words.txt": r"words\.txt is a file; give a SavedModel folder or a \.tar\.gz",
        f"{tmp_path}/empty": "empty is no SavedModel folder",
    }
    for handle, words in cases.items():
        with pytest.raises(UsageError, match=words):
            get(handle)


def test_weights_of_keras_applications_do_not_go_with_a_handle(modules: dict[str, Path]) -> None:
    with pytest.raises(UsageError, match=r"--weights goes with the networks of keras\.applications only"):
        get(str(modules["TF2"]), weights=Path("weights.h5"))


# --- modules that are no image feature vectors


def no_feature_vectors() -> dict[str, Callable[[Path], object]]:
    def words(folder: Path, signature: str | None) -> None:
        tf = start()
        spec = tf.TensorSpec((None,), tf.string)
        write_function(folder, lambda text: tf.strings.to_number(text)[:, None], spec, signature)

    def pair(images: Any) -> dict[str, Any]:
        return {"a": start().reduce_mean(images, (1, 2)), "b": images}

    return {
        "map": lambda folder: write_function(folder, lambda images: images[:, ::2, ::2]),
        "map behind a signature": lambda folder: write_function(folder, lambda images: images + 1, signature="default"),
        "one row for all": lambda folder: write_function(folder, lambda images: start().reduce_mean(images, (0, 1))),
        "whole numbers": lambda folder: write_function(folder, lambda images: start().argmax(images, 1)[:, 0]),
        "several outputs": lambda folder: write_function(folder, pair),
        "words": lambda folder: words(folder, None),
        "words behind a signature": lambda folder: words(folder, "serving_default"),
        "another signature": lambda folder: write_function(folder, lambda images: images[:, 0, 0], signature="detect"),
        "no signature": lambda folder: start().saved_model.save(start().Module(), str(folder)),
    }


@pytest.mark.parametrize("name", no_feature_vectors())
def test_a_module_that_is_no_image_feature_vector_is_refused_in_one_line(name: str, tmp_path: Path) -> None:
    no_feature_vectors()[name](tmp_path / "module")
    with pytest.raises(UsageError, match="a module whose kind is feature-vector") as caught:
        network(get(str(tmp_path / "module"), SIZE))
    assert "\n" not in str(caught.value) and str(tmp_path / "module") in str(caught.value)


def test_a_module_that_is_damaged_is_refused(modules: dict[str, Path], tmp_path: Path) -> None:
    for form, names in {"TF2": ("saved_model.pb", "variables/variables.index"), "TF1": ("saved_model.pb",)}.items():
        for name in names:
            folder = shutil.copytree(modules[form], tmp_path / f"{form}-{Path(name).name}")
            (folder / name).write_bytes(b"\xff" * 100)
            with pytest.raises(UsageError, match="cannot be loaded as a SavedModel"):
                network(get(str(folder), SIZE))


# --- networks that LiteRT cannot run


def without_litert(net: Net, kind: str) -> Callable[[Any], Any]:
    """The tiny network with something on top that LiteRT has no operation for, or gets wrong."""
    tf = start()
    held = {name: tf.constant(array) for name, array in net.arrays.items()}

    def features(images: Any) -> Any:
        found = net.walk(Layers(held.__getitem__, False), images)
        if kind == "lgamma":
            return tf.math.lgamma(1 + found)
        if kind == "loop":
            return tf.while_loop(lambda n, _: n < 3, lambda n, x: (n + 1, tf.math.sinh(x / 8)), (0, found))[1]
        return tf.math.erfinv(tf.tanh(found / 4) * 0.9)

    return features


@pytest.mark.parametrize("kind", ["erfinv", "loop", "lgamma"])
def test_a_network_that_litert_cannot_run_runs_in_tensorflow_and_a_note_says_so(kind: str, net: Net, tmp_path: Path) -> None:
    function = without_litert(net, kind)
    backbone, heard = get(str(write_function(tmp_path / "module", function)), SIZE), Heard()
    ready = network(backbone, heard)
    assert ready.engine == graph.ENGINE and network(backbone) == ready
    (why,) = (note for note in heard.notes if "LiteRT" in note)
    assert "saved-model:module cannot run in LiteRT (" in why and "entry_function" not in why
    later = Heard()
    network(backbone, later)  # also where it was converted by an earlier run
    assert [note for note in heard.notes if "runs in TensorFlow, which is slower" in note] == later.notes != []
    runner = open_network(ready)
    assert (runner.image_size, runner.feature_size) == (SIZE, 16)
    assert_same_features(runner.features(pictures()), function(pictures() / 255).numpy())
    expected = backbone.build(backbone.weights(), SIZE).predict_on_batch(pictures())
    assert_same_features(runner.features(pictures()), np.asarray(expected).reshape(3, 16))


@pytest.fixture(scope="module")
def in_tensorflow(tmp_path_factory: pytest.TempPathFactory, net: Net) -> tuple[Path, Path]:
    """A module that LiteRT cannot run, and a working folder after training with it; tests must not change them."""
    folder = tmp_path_factory.mktemp("in_tensorflow")
    module = write_function(folder / "module", without_litert(net, "erfinv"))
    draw_classes(folder / "tf_files" / "data")
    retrain.train(folder / "tf_files", backbone=str(module), image_size=SIZE)
    return module, folder / "tf_files"


def test_training_labelling_and_copying_work_with_a_network_in_tensorflow(
    in_tensorflow: tuple[Path, Path], tmp_path: Path, net: Net
) -> None:
    module, tf_files = in_tensorflow
    manifest = json.loads((tf_files / "model" / "manifest.json").read_text())
    (row,) = manifest["members"]
    assert row["backbone"]["engine"] == graph.ENGINE and row["backbone"]["name"] == "saved-model:module"
    assert row["backbone"]["weights"] == weights_hash(get(str(module), SIZE)) and row["image_size"] == SIZE
    assert row["backbone"]["file"].endswith(".graph")
    model = retrain.load(tf_files / "model")
    images = [draw(tmp_path / "new" / f"{name}.png", colour, 77) for name, colour in COLOURS.items()]
    labels = [model.label(path)[0].label for path in images]
    assert labels == list(COLOURS)
    outcome = model.classify(tmp_path / "new", tmp_path / "out")
    assert len(list((tmp_path / "out").glob("*.png"))) == 3, outcome
    (stored,) = artifact.load(tf_files / "model").artifact.members
    pixels = np.stack([render(decode(read_bytes(path)), "squash", SIZE) for path in images]).astype(np.float32)
    expected = without_litert(net, "erfinv")(pixels / 255).numpy()
    assert_same_features(open_network(stored.network).features(pixels), expected)


# --- graphs, which are programs


def frozen_with(add: Callable[[Any, str], str | None]) -> tuple[bytes, Any]:
    """A frozen network, and what `add` put into the graph; returns the bytes as a model folder has them."""
    tf = start()
    with tf.Graph().as_default() as made:
        pixels = tf.compat.v1.placeholder(tf.float32, (None, SIZE, SIZE, 3), name="pixels")
        features = tf.reduce_mean(pixels, (1, 2), name="features")
        output = add(features, "added")
        definition = made.as_graph_def()
    if output is not None and output not in {node.name for node in definition.node}:
        raise AssertionError(f"{output} is not in the graph")
    header = {"input": "pixels:0", "outputs": [f"{output or 'features'}:0"], "size": SIZE}
    return json.dumps(header).encode() + b"\n" + definition.SerializeToString(), definition


CANARY = "canary-of-test-hub"  # in the working folder, where a program would write it


def _write(features: Any, name: str) -> str:
    tf = start()
    with tf.control_dependencies([tf.io.write_file(CANARY, "written")]):
        return str(tf.identity(features, name=name).op.name)


def _write_in_a_function(features: Any, name: str) -> str:
    inner = start().function(lambda x: x + 0 * len(_write(x, "inner")), autograph=False)
    return str(start().identity(inner(features), name=name).op.name)


def _read(features: Any, name: str) -> str:
    tf = start()
    length = tf.cast(tf.strings.length(tf.io.read_file("/etc/hostname")), tf.float32)
    return str(tf.add(features, length, name=name).op.name)


def _variable(features: Any, name: str) -> str:
    return str(start().add(features, start().Variable(np.ones(3, np.float32)), name=name).op.name)


def _python(features: Any, name: str) -> str:
    tf = start()
    return str(tf.identity(tf.numpy_function(np.sin, [features], tf.float32, stateful=False), name=name).op.name)


def _raw(op: str, **values: object) -> Callable[[Any, str], str]:
    """An operation that has no state and handles no text but does more than compute, made by its name."""

    def add(features: Any, name: str) -> str:
        return str(
            getattr(start().raw_ops, op)(**values, **({} if "dtype" in values else {"input": features}), name=name).op.name
        )

    return add


def _dump(op: str) -> Callable[[Any, str], str]:
    def add(features: Any, name: str) -> str:
        # An absolute address; the working folder is the test's own only by now.
        return _raw(op, tensor_name="a/b:0", debug_urls=[f"file://{os.getcwd()}/{CANARY}"])(features, name)

    return add


PROGRAMS: dict[str, tuple[str, Callable[[Any, str], str]]] = {
    "writes a file": ("WriteFile", _write),
    "writes a file in a function": ("WriteFile", _write_in_a_function),
    "reads a file": ("ReadFile", _read),
    "has a variable": ("VarHandleOp", _variable),
    "calls Python": ("PyFuncStateless", _python),
    "calls Python and keeps state": (
        "EagerPyFunc|PyFunc",
        lambda features, name: str(start().py_function(np.sin, [features], np.float32, name=name).op.name),
    ),
    "rolls dice": (
        "RandomUniform",
        lambda features, name: str(start().add(features, start().random.uniform((3,)), name=name).op.name),
    ),
    "writes a debugger's dump": (
        "DebugIdentity",
        _dump("DebugIdentity"),
    ),
    "writes a debugger's count": (
        "DebugNanCount",
        _dump("DebugNanCount"),
    ),
    "copies for a debugger": ("Copy", _raw("Copy", tensor_name="a/b:0", debug_ops_spec=[])),
    "maps a file into memory": (
        "ImmutableConst",
        _raw("ImmutableConst", dtype=np.float32, shape=(1, 1), memory_region_name="/etc/hostname"),
    ),
}


@pytest.mark.parametrize("name", PROGRAMS)
def test_a_model_whose_network_does_more_than_compute_is_refused_and_not_run(
    name: str, in_tensorflow: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    culprit, add = PROGRAMS[name]
    data, definition = frozen_with(add)
    with pytest.raises(ModelRefused, match=f"holds '({culprit}|Const)', which may do more than compute"):
        graph.GraphRunner(data).features(pictures())
    assert graph.harmful(definition)
    loaded = artifact.load(in_tensorflow[1] / "model")
    changed = replace(loaded.artifact.members[0], network=Network(graph.ENGINE, data))
    artifact.save(tmp_path / "model", replace(loaded.artifact, members=(changed,)), loaded.reference(), loaded.split(), {})
    image = draw(tmp_path / "image.png", COLOURS["red"], 1)
    with pytest.raises(ModelRefused, match="may do more than compute; train again"):
        retrain.load(tmp_path / "model").label(image)
    assert not (tmp_path / CANARY).exists()


def test_graphs_that_only_compute_are_run_functions_and_loops_included() -> None:
    tf = start()
    inner = tf.function(lambda x: tf.nn.relu(x) * 2, autograph=False)
    data, definition = frozen_with(lambda features, name: tf.identity(inner(features), name=name).op.name)
    assert definition.library.function and not graph.harmful(definition)
    expected = 2 * pictures().mean((1, 2))
    assert np.allclose(graph.GraphRunner(data).features(pictures()), expected, rtol=1e-5)


def test_an_operation_that_nobody_knows_is_refused() -> None:
    _, definition = frozen_with(lambda _features, _name: None)
    assert graph.harmful(definition) == ""
    definition.node.add(name="x", op="NoSuchOperation")
    assert graph.harmful(definition) == "NoSuchOperation"


def test_a_graph_that_is_damaged_is_refused() -> None:
    whole, _ = frozen_with(lambda _features, _name: None)
    header, _, body = whole.partition(b"\n")
    assert graph.GraphRunner(whole).features(pictures()).shape == (3, 3)
    names = json.loads(header)
    damaged = {
        "nothing": b"",
        "no line": b"junk",
        "bytes": b"\xff\xfe\n" + body,
        "no graph": header + b"\n" + b"\xff" * 50,
        "an empty graph": header + b"\n",
        "a list": b"[]\n" + body,
        "half": whole[: len(header) + len(body) // 2],
    }
    for key, value in (
        ("size", None), ("size", "wide"), ("input", "absent:0"), ("outputs", ["absent:0"]), ("outputs", []), ("outputs", 3),
    ):  # fmt: skip
        damaged[f"{key} {value}"] = json.dumps({**names, key: value}).encode() + b"\n" + body
    for name, data in damaged.items():
        with pytest.raises(ModelRefused):
            graph.GraphRunner(data)
            pytest.fail(f"{name} was loaded")


# --- the whole line


@pytest.mark.weights
def test_fetched_ahead_it_trains_labels_and_copies_without_a_network(
    command: Callable[..., subprocess.CompletedProcess[str]], net: Net, tf_files: Path, tmp_path: Path
) -> None:
    module = write_tf1(tmp_path / "module", net, attached=(SIZE, SIZE))
    with serving() as site:
        handle = site.add("google/tiny/1", packed(module))
        fetched = command("backbones", "fetch", handle)
        assert fetched.returncode == 0, fetched.stderr
        assert "is ready" in fetched.stdout and handle in fetched.stderr and "MB" in fetched.stderr
        assert len(site.transfers) == 1
    trained = command("train", tf_files, "--backbone", handle)
    assert trained.returncode == 0, trained.stderr
    manifest = json.loads((tf_files / "model" / "manifest.json").read_text())
    (row,) = manifest["members"]
    assert row["backbone"]["name"] == handle and row["image_size"] == SIZE
    assert row["backbone"]["weights"] == weights_hash(get(str(module))) and row["backbone"]["engine"] == Runner.engine
    image = draw(tmp_path / "new" / "red.png", COLOURS["red"], 77)
    labelled = command("label", image, "--model", tf_files / "model")
    assert labelled.returncode == 0 and labelled.stdout.split()[0].startswith("red"), labelled
    copied = command("classify", tmp_path / "new", tmp_path / "out", "--model", tf_files / "model")
    assert copied.returncode == 0, copied.stderr
    assert [path.name.partition("-")[0] for path in (tmp_path / "out").glob("*.png")] == ["red"]


def test_training_downloads_what_is_not_there_and_a_wrong_address_is_one_line_with_no_model(
    command: Callable[..., subprocess.CompletedProcess[str]], site: Site, tf_files: Path
) -> None:
    handle = f"http://127.0.0.1:{site.port}/no/such/1"
    failed = command("train", tf_files, "--backbone", handle)
    assert failed.returncode not in (0, 1) and "Traceback" not in failed.stderr
    last = failed.stderr.strip().splitlines()[-1]
    assert handle in last and "404" in last
    assert not (tf_files / "model" / "manifest.json").exists()


@pytest.mark.weights
def test_the_embedded_lite0_as_a_module_of_either_format_is_the_embedded_lite0(tmp_path: Path) -> None:
    native = get("efficientnet-lite0")
    net = lite0_net(read_tensors(native.weights()))
    folders = {
        "TF1": write_tf1(tmp_path / "tf1", net, attached=(224, 224)),
        "TF2": write_tf2(tmp_path / "tf2", net),
    }
    images = [draw(tmp_path / "new" / f"{name}.png", colour, 500, (300, 200)) for name, colour in COLOURS.items()]
    pixels = np.stack([render(decode(read_bytes(path)), "squash", 224) for path in images]).astype(np.float32)
    expected = Runner(network(native).data).features(pixels)
    handles: dict[str, str] = {"native": native.name}
    for (form, folder), signed in zip(folders.items(), (False, True), strict=True):
        with serving(signed) as site:
            handles[form] = site.add("tensorflow/efficientnet/lite0/feature-vector/2", packed(folder))
            backbone = get(handles[form])
            assert backbone.image_size == 224
            ready = network(backbone)
            assert ready.engine == Runner.engine
            assert_same_features(open_network(ready).features(pixels), expected)
    results = {}
    for name, handle in handles.items():  # the servers are gone
        tf_files = tmp_path / name / "tf_files"
        draw_classes(tf_files / "data")
        retrain.train(tf_files, backbone=handle)
        model = retrain.load(tf_files / "model")
        results[name] = [{score.label: score.score for score in model.label(path)} for path in images]
        model.classify(tmp_path / "new", tmp_path / name / "out")
        copies = sorted(path.name.partition("-")[0] for path in (tmp_path / name / "out").glob("*.png"))
        assert copies == sorted(max(scores, key=scores.__getitem__) for scores in results[name])
    for form in folders:
        for found, known in zip(results[form], results["native"], strict=True):
            assert max(found, key=found.__getitem__) == max(known, key=known.__getitem__)
            assert all(abs(found[label] - known[label]) < 1e-3 for label in known)
