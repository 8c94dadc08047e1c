"""The formats: data only."""

from dataclasses import dataclass

from retrain.errors import UsageError, did_you_mean


@dataclass(frozen=True)
class Format:
    """A format to export to.

    `least`: the share of pictures whose top label must be the model's, unless another is asked for; `needs`: packages by
    the name they are imported by; `takes`: what a program gives it.
    """

    name: str
    file: str
    about: str
    takes: str
    least: float
    needs: tuple[str, ...] = ("tensorflow", "keras")
    extra: str = ""


_PIXELS = "float32, values 0 to 255"
# A network that computes the same in float32 may still round otherwise, and a picture in a thousand lie that near a border.
_SAME, _NEARLY = 0.99, 0.9
ZIP, SAVED_MODEL, KERAS, LITERT, INT8, ONNX, FROZEN = (
    "zip", "savedmodel", "keras", "litert", "litert-int8", "onnx", "frozen-graph"
)  # fmt: skip
FORMATS = {
    one.name: one
    for one in (
        Format(SAVED_MODEL, "1", "TensorFlow, TF Serving", f"{_PIXELS}, or the bytes of files", _SAME),
        Format(KERAS, "model.keras", "Keras", _PIXELS, _SAME),
        Format(LITERT, "model.tflite", "phones and small computers, with LiteRT", _PIXELS, _SAME),
        Format(INT8, "model.tflite", "the same in 8-bit numbers: smaller, and not quite the same", "uint8", _NEARLY),
        Format(
            ONNX, "model.onnx", "ONNX Runtime, in browsers too", _PIXELS, _SAME,
            ("tensorflow", "keras", "tf2onnx", "onnx", "onnxruntime"), "export",
        ),
        Format(FROZEN, "retrained_graph.pb", "programs made for TensorFlow 1's retrain.py", _PIXELS, _SAME),
        Format(ZIP, "model.zip", "retrain itself, on another machine", "whatever retrain label takes", 1.0, ()),
    )
}  # fmt: skip


def get(name: str) -> Format:
    """Return the format of that name; raises UsageError, with the nearest name, for an unknown one."""
    if name not in FORMATS:
        raise UsageError(f"unknown format '{name}'{did_you_mean(name, FORMATS) or '; there are ' + ', '.join(FORMATS)}")
    return FORMATS[name]
