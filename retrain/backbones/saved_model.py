"""Networks that come as a TensorFlow SavedModel: TF Hub modules of both formats, and local folders like them.

Hub's contract for image feature vectors: images in as float32 (n, height, width, 3) with values 0 to 1, features out as
float32 (n, feature_size). TF2 modules are called; TF1 modules, and other SavedModels, have a signature.
"""

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from retrain.devices import start
from retrain.errors import UsageError
from retrain.quiet import native_chatter_dropped

if TYPE_CHECKING:
    import keras

FALLBACK_SIZE = 224
VALUES = (0.0, 1.0)  # of images, by the contract
LAYER = "saved_model"  # the name of the one layer that a SavedModel becomes
_SIGNATURES = ("default", "image_feature_vector", "serving_default", "serve")
_LITE_SIZES = {"0": 224, "1": 240, "2": 260, "3": 280, "4": 300}
_B_SIZES = {"0": 224, "1": 240, "2": 260, "3": 300, "4": 380, "5": 456, "6": 528, "7": 600}


def is_saved_model(folder: Path) -> bool:
    """True for a folder with a SavedModel."""
    return (folder / "saved_model.pb").is_file() or (folder / "saved_model.pbtxt").is_file()


def build(folder: Path, image_size: int) -> "keras.Model":
    """Build a Keras model of pixels (values 0 to 255) from a SavedModel that takes images with values from 0 to 1.

    Its variables are tracked by Keras, so they are saved, exported and, where the format allows, trained with it.
    Raises UsageError for a module that does not give one feature vector for each picture.
    """
    tf = start()
    import keras

    loaded = _load(tf, folder)
    call = _find_call(tf, loaded, folder)
    features = _try_out(tf, call, folder, image_size)

    class SavedModel(keras.layers.Layer):
        """A loaded SavedModel; float32 whatever the policy, since its own types are fixed."""

        def __init__(self) -> None:
            super().__init__(dtype="float32", name=LAYER)
            self.loaded = loaded  # variables live as long as what they were loaded with
            variables = getattr(loaded, "variables", [])
            # The TF1 Hub format has no list of those that learn, but each variable knows it of itself. Its signature, which
            # is for use, lets gradients through.
            listed = getattr(loaded, "trainable_variables", [one for one in variables if one.trainable])
            trainable = {id(variable) for variable in listed}
            for number, variable in enumerate(variables):
                name = re.sub(r"[^0-9A-Za-z_]", "_", f"{number}_{variable.name}")
                self._track_variable(
                    keras.Variable(
                        initializer=variable, trainable=id(variable) in trainable, dtype=variable.dtype.name,
                        shape=variable.shape, name=name,
                    )
                )  # fmt: skip

        def build(self, _shape: Any) -> None:
            self.built = True

        def call(self, images: Any, training: bool = False) -> Any:
            return call(images, bool(training and self.trainable))

        def compute_output_shape(self, shape: tuple[int | None, ...]) -> tuple[int | None, int]:
            return (shape[0], features)

    low, high = VALUES
    pixels = keras.Input((image_size, image_size, 3), name="pixels")
    images = keras.layers.Rescaling((high - low) / 255, offset=low, dtype="float32")(pixels)
    return keras.Model(pixels, [SavedModel()(images)])


def _load(tf: Any, folder: Path) -> Any:
    try:
        with native_chatter_dropped():
            # The TF1 Hub format has two graphs, tagged [] and ['train']; the first is for use.
            if (folder / "tfhub_module.pb").exists():
                return tf.saved_model.load(str(folder), tags=[])
            try:
                return tf.saved_model.load(str(folder))
            except ValueError as error:
                if "tags" not in str(error):
                    raise
                return tf.saved_model.load(str(folder), tags=["serve"])  # of several graphs, the one for use
    except (OSError, ValueError, KeyError, RuntimeError, TypeError, AttributeError, tf.errors.OpError) as error:
        raise UsageError(
            f"{folder} cannot be loaded as a SavedModel: {_first_line(error)}; delete that folder and get it again"
        ) from None


def _find_call(tf: Any, loaded: Any, folder: Path) -> Any:
    """Return a function (images, training) -> features."""
    if callable(loaded):

        def call(images: Any, training: bool) -> Any:
            try:
                return loaded(images, training=training)
            except (TypeError, ValueError):
                return loaded(images)

        return call
    signatures = getattr(loaded, "signatures", {})
    name = next((name for name in _SIGNATURES if name in signatures), None)
    if name is None:
        raise UsageError(
            f"{folder} is no image feature vector: it has none of the signatures {', '.join(_SIGNATURES)};"
            " choose a module whose kind is feature-vector"
        )
    signature = signatures[name]
    inputs = list(signature.structured_input_signature[1])
    if len(inputs) != 1:
        raise UsageError(f"{folder} is no image feature vector: signature '{name}' takes {len(inputs)} inputs, not one")

    def call_signature(images: Any, _training: bool) -> Any:
        outputs = signature(**{inputs[0]: images})
        return outputs["default"] if "default" in outputs else next(iter(outputs.values()))

    return call_signature


def _try_out(tf: Any, call: Any, folder: Path, image_size: int) -> int:
    """Return the number of features that a grey picture gives."""
    try:
        # Traced, as it will be used: called directly, a signature takes shapes that it was not made for.
        output = tf.function(lambda images: call(images, False), autograph=False)(
            tf.fill((2, image_size, image_size, 3), 0.5)
        )
    except Exception as error:  # noqa: BLE001  a foreign program may raise anything
        raise UsageError(
            f"{folder} does not take pictures of {image_size} x {image_size}: {_first_line(error)};"
            " try another --image-size or a module whose kind is feature-vector"
        ) from None
    shape, dtype = getattr(output, "shape", None), getattr(output, "dtype", None)
    if shape is None or len(shape) != 2 or shape[0] != 2 or dtype != tf.float32:
        what = f"an output of shape {tuple(shape)}" if shape is not None else f"a {type(output).__name__}"
        raise UsageError(
            f"{folder} is no image feature vector: it gives {what}, not one row of numbers a picture;"
            " choose a module whose kind is feature-vector"
        )
    return int(shape[1])


def image_size(folder: Path, handle: str = "") -> tuple[int, str]:
    """Find the image size that a module expects, and where that is said; (0, "") where nothing says it.

    Asked in turn: what a TF1 module has attached, the shape of its input, the usual sizes of networks by name.
    """
    start()
    from tensorflow.core.protobuf import saved_model_pb2

    try:
        saved = saved_model_pb2.SavedModel.FromString((folder / "saved_model.pb").read_bytes())
    except Exception:  # noqa: BLE001  not our format: loading it says what is wrong
        return 0, ""
    for graph in saved.meta_graphs:
        for data in graph.collection_def["hub_module_attachments"].bytes_list.value:
            if size := _attached_size(data):
                return size, "the module"
    for graph in saved.meta_graphs:
        for signature in graph.signature_def.values():
            if size := _square([[dim.size for dim in info.tensor_shape.dim] for info in signature.inputs.values()]):
                return size, "its signature"
        for function in graph.object_graph_def.concrete_functions.values():
            if size := _square(_shapes_in(function.canonicalized_input_signature)):
                return size, "its signature"
    size = _size_by_name(handle or folder.name)
    return (size, "its name") if size else (0, "")


def _shapes_in(value: Any) -> list[list[int]]:
    """All tensor shapes in a StructuredValue of a SavedModel."""
    kind = value.WhichOneof("kind")
    if kind == "tensor_spec_value":
        return [[dim.size for dim in value.tensor_spec_value.shape.dim]]
    below: Any = ()
    if kind in ("tuple_value", "list_value"):
        below = getattr(value, kind).values
    elif kind == "dict_value":
        below = value.dict_value.fields.values()
    return [shape for one in below for shape in _shapes_in(one)]


def _square(shapes: list[list[int]]) -> int:
    return next((s[1] for s in shapes if len(s) == 4 and s[3] == 3 and s[1] == s[2] and s[1] > 0), 0)


def _size_by_name(handle: str) -> int:
    handle = handle.lower()
    if match := re.search(r"(?<![a-z])lite[-_]?([0-4])(?!\d)", handle):
        return _LITE_SIZES[match[1]]
    if match := re.search(r"[-_](96|128|160|192|224|240|256|260|280|299|300|331|380|384|480|512)(?!\d)", handle):
        return int(match[1])
    if match := re.search(r"efficientnet.*[/_-]b([0-7])(?!\d)", handle):
        return _B_SIZES[match[1]]
    return 331 if "nasnet_large" in handle else 299 if "inception" in handle else 0


def _attached_size(data: bytes) -> int:
    """Read the image size from a Hub attachment: ModuleAttachment{1: key, 2: ImageModuleInfo{1: {1: height, 2: width}}}."""
    from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
    from google.protobuf.message import DecodeError

    file = descriptor_pb2.FileDescriptorProto(name="retrain_hub_attachment.proto", package="retrain_hub", syntax="proto3")
    field = descriptor_pb2.FieldDescriptorProto
    for message, names in (("Size", ("height", "width")), ("Info", ("default_size",)), ("Attachment", ("key", "value"))):
        described = file.message_type.add(name=message)
        for number, name in enumerate(names, start=1):
            kind = {"key": field.TYPE_STRING, "value": field.TYPE_MESSAGE, "default_size": field.TYPE_MESSAGE}.get(
                name, field.TYPE_UINT32
            )
            added = described.field.add(name=name, number=number, type=kind, label=field.LABEL_OPTIONAL)
            if kind == field.TYPE_MESSAGE:
                added.type_name = ".retrain_hub.Info" if name == "value" else ".retrain_hub.Size"
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    read = message_factory.GetMessageClass(pool.FindMessageTypeByName("retrain_hub.Attachment"))
    try:
        attachment = read.FromString(data)
    except DecodeError:
        return 0
    size = attachment.value.default_size
    return size.height if attachment.key == "image_module_info" and size.height == size.width else 0


def _first_line(error: BaseException) -> str:
    text = str(error).strip() or type(error).__name__
    return text.splitlines()[0][:200]
