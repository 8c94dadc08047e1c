"""Modules as TF Hub gave them out, written on the fly, and a loopback server that hands them out as its hosts do.

A network is written down once, as a walk over named layers; the same walk makes TF1 graphs and TF2 functions.
"""

import contextlib
import gzip
import hashlib
import io
import tarfile
import threading
import time
import urllib.parse
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np

from retrain.backbones import efficientnet_lite
from retrain.devices import start

Arrays = dict[str, np.ndarray]
EPSILON = 1e-3
MOMENTUM = 0.99


class Layers:
    """The operations of a walk, in TensorFlow alone; `variable(name)` gives what a layer computes with."""

    def __init__(self, variable: Callable[[str], Any], training: bool) -> None:
        self.tf, self.variable, self.training = start(), variable, training
        self.updates: list[Any] = []

    def convolution(self, x: Any, name: str, stride: int = 1) -> Any:
        return self.tf.nn.conv2d(x, self.variable(f"{name}/kernel"), stride, "SAME")

    def depthwise(self, x: Any, name: str, stride: int = 1) -> Any:
        return self.tf.nn.depthwise_conv2d(x, self.variable(f"{name}/kernel"), [1, stride, stride, 1], "SAME")

    def normalised(self, x: Any, name: str) -> Any:
        gamma, beta, mean, variance = (self.variable(f"{name}/{kind}") for kind in ("gamma", "beta", "mean", "variance"))
        if not self.training:
            return self.tf.compat.v1.nn.fused_batch_norm(x, gamma, beta, mean, variance, epsilon=EPSILON, is_training=False)[
                0
            ]
        y, batch_mean, batch_variance = self.tf.compat.v1.nn.fused_batch_norm(x, gamma, beta, epsilon=EPSILON)
        for moving, now in ((mean, batch_mean), (variance, batch_variance)):
            self.updates.append(moving.assign_sub((moving - now) * (1 - MOMENTUM)))
        return y

    def relu6(self, x: Any) -> Any:
        return self.tf.nn.relu6(x)

    def pooled(self, x: Any) -> Any:
        return self.tf.reduce_mean(x, (1, 2))


Walk = Callable[[Layers, Any], Any]  # images with values 0 to 1 -> features


@dataclass(frozen=True)
class Net:
    """A network: how to walk through it, and its numbers by layer."""

    walk: Walk
    arrays: Arrays


# --- two networks


def tiny_net(features: int = 16, seed: int = 5) -> Net:
    """Three convolutions with batch norm, one of them depthwise, for pictures of any size."""
    rng = np.random.default_rng(seed)
    arrays: Arrays = {
        "stem/kernel": rng.normal(0, 0.4, (3, 3, 3, 8)),
        "each/kernel": rng.normal(0, 0.4, (3, 3, 8, 1)),
        "head/kernel": rng.normal(0, 0.4, (1, 1, 8, features)),
    }
    for name, channels in (("stem", 8), ("each", 8), ("head", features)):
        arrays[f"{name}_norm/gamma"] = rng.uniform(0.5, 1.5, channels)
        arrays[f"{name}_norm/beta"] = rng.normal(1, 0.5, channels)
        arrays[f"{name}_norm/mean"] = rng.normal(0, 0.3, channels)
        arrays[f"{name}_norm/variance"] = rng.uniform(0.5, 1.5, channels)
    return Net(_walk_tiny, {name: array.astype(np.float32) for name, array in arrays.items()})


def _walk_tiny(layers: Layers, images: Any) -> Any:
    x = layers.relu6(layers.normalised(layers.convolution(images * 2 - 1, "stem", 2), "stem_norm"))
    x = layers.relu6(layers.normalised(layers.depthwise(x, "each", 2), "each_norm"))
    return layers.pooled(layers.relu6(layers.normalised(layers.convolution(x, "head"), "head_norm")))


def tiny_keras(net: Net, image_size: int) -> Any:
    """The tiny network by layers of Keras, from pixels with values 0 to 255: what a module's features must equal."""
    start()
    import keras

    def filled(layer: Any, x: Any, *names: str) -> Any:
        y = layer(x)
        layer.set_weights([net.arrays[name] for name in names])
        return y

    def normalised(x: Any, name: str) -> Any:
        kinds = ("gamma", "beta", "mean", "variance")
        return filled(keras.layers.BatchNormalization(epsilon=EPSILON), x, *(f"{name}_norm/{kind}" for kind in kinds))

    pixels = keras.Input((image_size, image_size, 3))
    x = keras.layers.Rescaling(2 / 255, offset=-1)(pixels)
    x = filled(keras.layers.Conv2D(8, 3, 2, "same", use_bias=False), x, "stem/kernel")
    x = keras.layers.ReLU(6)(normalised(x, "stem"))
    x = filled(keras.layers.DepthwiseConv2D(3, 2, "same", use_bias=False), x, "each/kernel")
    x = keras.layers.ReLU(6)(normalised(x, "each"))
    x = filled(keras.layers.Conv2D(net.arrays["head/kernel"].shape[-1], 1, use_bias=False), x, "head/kernel")
    x = keras.layers.ReLU(6)(normalised(x, "head"))
    return keras.Model(pixels, keras.layers.GlobalAveragePooling2D()(x))


def lite0_net(tensors: Arrays) -> Net:
    """EfficientNet-Lite0 with the weights that come with retrain, `tensors` in torch's names and layout."""
    arrays: Arrays = {}
    kinds = {"weight": "gamma", "bias": "beta", "running_mean": "mean", "running_var": "variance"}
    for name, array in tensors.items():
        layer, _, kind = name.rpartition(".")
        if array.ndim == 4:
            order = (2, 3, 0, 1) if layer.endswith("_depthwise_conv") else (2, 3, 1, 0)
            arrays[f"{layer}/kernel"] = np.ascontiguousarray(array.transpose(order))
        elif kind in kinds and not layer.startswith("_fc"):
            arrays[f"{layer}/{kinds[kind]}"] = array
    return Net(_walk_lite0, arrays)


def _walk_lite0(layers: Layers, images: Any) -> Any:
    x = (images * 255 - 127) / 128
    x = layers.relu6(layers.normalised(layers.convolution(x, "_conv_stem", 2), "_bn0"))
    number = 0
    for expansion, channels, repeats, first_stride, _ in efficientnet_lite._STAGES:
        for repeat in range(repeats):
            name, stride, y = f"_blocks.{number}", 1 if repeat else first_stride, x
            if expansion > 1:
                y = layers.relu6(layers.normalised(layers.convolution(y, f"{name}._expand_conv"), f"{name}._bn0"))
            y = layers.relu6(layers.normalised(layers.depthwise(y, f"{name}._depthwise_conv", stride), f"{name}._bn1"))
            y = layers.normalised(layers.convolution(y, f"{name}._project_conv"), f"{name}._bn2")
            x = x + y if stride == 1 and x.shape[-1] == channels else y
            number += 1
    return layers.pooled(layers.relu6(layers.normalised(layers.convolution(x, "_conv_head"), "_bn1")))


# --- the two formats


def write_tf2(folder: Path, net: Net, image_size: int | None = None) -> Path:
    """Write a reusable SavedModel: callable with images and `training`, with the lists of its variables."""
    tf = start()

    class Reusable(tf.Module):
        def __init__(self) -> None:
            super().__init__()
            still = ("/mean", "/variance")
            self.held = {
                name: tf.Variable(array, trainable=not name.endswith(still), name=name.lstrip("_").replace(".", "_"))
                for name, array in net.arrays.items()
            }
            self.regularization_losses: list[Any] = []

        @tf.function(autograph=False)
        def __call__(self, images: Any, training: bool = False) -> Any:
            return net.walk(Layers(self.held.__getitem__, training), images)

    module = Reusable()
    images = tf.TensorSpec((None, image_size, image_size, 3), tf.float32)
    for training in (False, True):
        module.__call__.get_concrete_function(images, training=training)
    # What a loaded module offers under these names is what was saved under them: a property would be lost.
    listed = {"variables": list(module.variables), "trainable_variables": list(module.trainable_variables)}
    saved = tf.train.Checkpoint(held=module.held)
    for name, value in listed.items():
        setattr(saved, name, value)
    saved.regularization_losses = []
    saved.__call__ = module.__call__
    tf.saved_model.save(saved, str(folder))
    return folder


def write_tf1(folder: Path, net: Net, image_size: int | None = None, attached: tuple[int, int] | None = None) -> Path:
    """Write the format of the first TF Hub: two graphs over the same variables, [] for use and ['train'] to train.

    `image_size`: of its input, None for any. `attached`: height and width as hub.attach_image_module_info wrote them.
    """
    tf = start()
    v1 = tf.compat.v1
    builder = None
    for tags in ((), ("train",)):
        with tf.Graph().as_default(), v1.Session() as session:
            made: dict[str, Any] = {}

            def variable(name: str, made: dict[str, Any] = made, tags: tuple[str, ...] = tags) -> Any:
                if name not in made:
                    made[name] = v1.get_variable(
                        "module/" + name.lstrip("_").replace("/_", "/"),
                        initializer=v1.constant_initializer(net.arrays[name]),
                        shape=net.arrays[name].shape,
                        trainable=bool(tags) and not name.endswith(("/mean", "/variance")),
                        use_resource=True,
                    )
                return made[name]

            images = v1.placeholder(tf.float32, (None, image_size, image_size, 3), name="images")
            layers = Layers(variable, training=bool(tags))
            features = tf.identity(net.walk(layers, images), name="features")
            for update in layers.updates:
                v1.add_to_collection(v1.GraphKeys.UPDATE_OPS, update)
            if attached:
                v1.add_to_collection("hub_module_attachments", attachment(*attached))
            signature = v1.saved_model.signature_def_utils.predict_signature_def({"images": images}, {"default": features})
            if builder is None:
                session.run(v1.global_variables_initializer())
                builder = v1.saved_model.builder.SavedModelBuilder(str(folder))
                builder.add_meta_graph_and_variables(session, [], signature_def_map={"default": signature})
            else:
                builder.add_meta_graph(list(tags), signature_def_map={"default": signature})
    builder.save()
    (folder / "tfhub_module.pb").write_bytes(b"\x08\x03")
    return folder


def attachment(height: int, width: int, key: str = "image_module_info") -> bytes:
    """Serialise ModuleAttachment{1: key, 2: ImageModuleInfo{1: {1: height, 2: width}}} by hand."""
    size = b"\x08" + _varint(height) + b"\x10" + _varint(width)
    info = b"\x0a" + _varint(len(size)) + size
    name = key.encode()
    return b"\x0a" + _varint(len(name)) + name + b"\x12" + _varint(len(info)) + info


def _varint(number: int) -> bytes:
    out = b""
    while number > 127:
        out += bytes([number & 127 | 128])
        number >>= 7
    return out + bytes([number])


def write_function(folder: Path, function: Callable[[Any], Any], spec: Any = None, signature: str | None = None) -> Path:
    """Write a TF2 SavedModel of any function of images: callable, or behind a signature of that name only."""
    tf = start()
    module = tf.Module()
    compiled = tf.function(function, autograph=False)
    concrete = compiled.get_concrete_function(tf.TensorSpec((None, None, None, 3), tf.float32) if spec is None else spec)
    if signature is None:
        module.__call__ = compiled
        tf.saved_model.save(module, str(folder))
    else:
        tf.saved_model.save(module, str(folder), signatures={signature: concrete} if signature else {})
    return folder


# --- archives


def packed(folder: Path, folders_listed: bool = True) -> bytes:
    """A module as hosts give it out: a .tar.gz with the files at its top. The same folder gives the same bytes."""
    files = {path.relative_to(folder).as_posix(): path for path in sorted(folder.rglob("*"))}
    members: list[tuple[tarfile.TarInfo, bytes]] = []
    for name, path in files.items():
        if path.is_dir():
            member = tarfile.TarInfo(f"./{name}")
            member.type, member.mode = tarfile.DIRTYPE, 0o755
            if folders_listed:
                members.append((member, b""))
        else:
            members.append((tarfile.TarInfo(f"./{name}"), path.read_bytes()))
    return archive(members)


def archive(members: list[tuple[tarfile.TarInfo, bytes]]) -> bytes:
    """Pack members, whatever they are called and whatever they are."""
    plain = io.BytesIO()
    with tarfile.open(fileobj=plain, mode="w") as tar:
        for member, data in members:
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return gzip.compress(plain.getvalue(), mtime=0)


def member(name: str, kind: bytes = tarfile.REGTYPE, target: str = "") -> tarfile.TarInfo:
    """A member of an archive; `target` for links."""
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info


# --- the server


@dataclass(frozen=True)
class Request:
    """What a client asked for."""

    path: str
    range: str | None
    condition: str | None


@dataclass
class Site:
    """A host of modules, as tfhub.dev was (it led to a storage address) and as Kaggle is (to a signed one).

    `modules`: archive by path of the handle. `statuses` and `cuts` are used up, one a request for an archive: an error
    to answer with, or 0; a number of bytes after which the connection ends, or None. `pause`: seconds before each of
    twenty pieces, so that a download lasts.
    """

    port: int = 0
    signed: bool = False
    modules: dict[str, bytes] = field(default_factory=dict)
    statuses: list[int] = field(default_factory=list)
    cuts: list[int | None] = field(default_factory=list)
    pause: float = 0.0
    requests: list[Request] = field(default_factory=list)
    close: Callable[[], None] = lambda: None

    def add(self, path: str, data: bytes) -> str:
        """Offer an archive and return its handle."""
        self.modules[path] = data
        return f"http://127.0.0.1:{self.port}/{path}"

    @property
    def transfers(self) -> list[Request]:
        """The requests for archives themselves, past the redirect."""
        return [request for request in self.requests if request.path.startswith(("/storage/", "/signed/"))]


@contextlib.contextmanager
def serving(signed: bool = False) -> Iterator[Site]:
    """Run a site on the loopback interface while a block runs, or until its `close`."""
    site = Site(signed=signed)

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_words: object) -> None:
            pass

        def do_GET(self) -> None:
            site.requests.append(Request(self.path, self.headers["Range"], self.headers["If-Range"]))
            address = urllib.parse.urlsplit(self.path)
            first, _, rest = address.path[1:].partition("/")
            with contextlib.suppress(ConnectionError):  # the client may have gone
                if first in ("storage", "signed"):
                    self._archive(site.modules[rest.removesuffix(".tar.gz")])
                elif address.path[1:] not in site.modules:
                    self._short(404)
                elif urllib.parse.parse_qs(address.query).get("tf-hub-format") != ["compressed"]:
                    self._short(200, b"<html>a page about the module</html>")
                else:
                    ending = "?X-Goog-Signature=abc%2Fdef&X-Goog-Expires=3600" if site.signed else ""
                    place = f"/{'signed' if site.signed else 'storage'}{address.path}.tar.gz{ending}"
                    self._short(302, headers={"Location": place})

        def _short(self, status: int, body: bytes = b"", headers: dict[str, str] | None = None) -> None:
            self.send_response(status)
            for name, value in {"Content-Length": str(len(body)), **(headers or {})}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        def _archive(self, data: bytes) -> None:
            status = site.statuses.pop(0) if site.statuses else 0
            cut = site.cuts.pop(0) if site.cuts else None
            if status:
                self._short(status)
                return
            tag = f'"{hashlib.sha256(data).hexdigest()[:16]}"'
            begin = 0
            if self.headers["Range"] and self.headers["If-Range"] in (None, tag):
                begin = int(self.headers["Range"].removeprefix("bytes=").rstrip("-"))
            if begin and begin >= len(data):
                self._short(416, headers={"Content-Range": f"bytes */{len(data)}"})
                return
            self.send_response(206 if begin else 200)
            if begin:
                self.send_header("Content-Range", f"bytes {begin}-{len(data) - 1}/{len(data)}")
            self.send_header("Content-Length", str(len(data) - begin))
            self.send_header("ETag", tag)
            self.end_headers()
            end = len(data) if cut is None else begin + cut
            step = -(-len(data) // 20) if site.pause else len(data)
            for offset in range(begin, end, step):
                time.sleep(site.pause)
                self.wfile.write(data[offset : min(offset + step, end)])
                self.wfile.flush()

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    site.port = server.server_address[1]
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    closed = threading.Event()

    def close() -> None:
        if not closed.is_set():
            closed.set()
            server.shutdown()
            thread.join()
            server.server_close()

    site.close = close
    try:
        yield site
    finally:
        close()
