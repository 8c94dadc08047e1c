"""TensorFlow Serving's REST interface, for programs that speak it already.

`POST /v1/models/<name>:predict` takes `{"instances": [...]}` (rows) or `{"inputs": ...}` (columns). A picture is the bytes
of its file, `{"b64": "..."}`, or the values of its pixels as nested lists, (height, width, 3), 0 to 255; either may be
wrapped in an object with the input's name. Answers are probabilities in the order of the labels, which `/metadata` has.
The interface: https://www.tensorflow.org/tfx/serving/api_rest.
"""

import base64
import binascii
import json
import time
from collections.abc import Callable
from http import HTTPStatus
from typing import Any

import numpy as np
from PIL import Image

from retrain.errors import BadImage
from retrain.label import Labelled, Labeller
from retrain.serve.engine import Serving
from retrain.serve.refused import Refused, of_picture

SIGNATURES = {"serving_default": "image_bytes", "image": "image"}  # and the inputs' names
OUTPUT = "scores"
_MOST_PICTURES, _MOST_SECONDS = 64, 10.0  # of one request
# Python takes some 100 bytes for a list, and a picture of 224 pixels has 50,000 of them.
_MOST_LISTS, _MOST_VALUES, _MOST_NAMES = 350_000, 1_050_000, 1000
_LONGEST_SIDE = 4096


def predict(
    body: bytes, labeller: Labeller, serving: Serving, counted: Callable[[Labelled], None], dropped: Callable[[], bool]
) -> dict[str, Any]:
    """Answer a request; raises Refused, 400 for one that cannot be understood or has a picture that cannot be used.

    `counted` is given what was found of each picture, of a request that is answered; `dropped` says whether nobody waits
    for the answer any more. Raises Refused, 413, where all pictures together take more than ten seconds.
    """
    begun = time.perf_counter()
    asked = _parsed(body)
    signature = asked.get("signature_name", "serving_default")
    if signature not in (*SIGNATURES, ""):
        raise _wrong(f"there is no such signature; there are {' and '.join(SIGNATURES)}")
    if ("instances" in asked) == ("inputs" in asked):
        raise _wrong('give either "instances" or "inputs"')
    rows = "instances" in asked
    values = asked["instances"] if rows else _columns(asked["inputs"])
    if not isinstance(values, list) or not values:
        raise _wrong("there is no picture in it")
    if len(values) > _MOST_PICTURES:
        raise _wrong(f"a request may have at most {_MOST_PICTURES} pictures")
    labelled = []
    for place, value in enumerate(values):
        if dropped() or time.perf_counter() - begun > _MOST_SECONDS:
            words = f"{place} of {len(values)} pictures took more than {_MOST_SECONDS:g} s; send fewer, or smaller ones"
            raise Refused(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "too-large", words)
        labelled.append(_labelled(value, place, labeller))
    for one in labelled:
        counted(one)
    found = [_scores(one, serving) for one in labelled]
    return {"predictions": found} if rows else {"outputs": found}


def _parsed(body: bytes) -> dict[str, Any]:
    lists, values, names = (sum(map(body.count, signs)) for signs in ((b"[", b"{"), (b",",), (b":",)))
    if lists > _MOST_LISTS or values > _MOST_VALUES or names > _MOST_NAMES:
        raise Refused(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "too-large", 'too many values; send pictures as {"b64": "..."}')
    try:
        asked = json.loads(body)
    except (ValueError, RecursionError):
        raise _wrong("it is no JSON") from None
    if not isinstance(asked, dict):
        raise _wrong("it is no JSON object")
    return asked


def _columns(inputs: Any) -> Any:
    """Return the pictures of a request in columns: one input, named or not; a single file may stand for a list of one."""
    value = _unwrapped(inputs) if isinstance(inputs, dict) and "b64" not in inputs else inputs
    return [value] if isinstance(value, dict) else value


def _unwrapped(value: dict[str, Any]) -> Any:
    if len(value) != 1 or next(iter(value)) not in SIGNATURES.values():
        raise _wrong(f"an input is named {' or '.join(SIGNATURES.values())}")
    return next(iter(value.values()))


def _labelled(value: Any, place: int, labeller: Labeller) -> Labelled:
    value = _unwrapped(value) if isinstance(value, dict) and "b64" not in value else value
    try:
        if isinstance(value, dict):
            return labeller.label_bytes(_decoded(value, place))
        if isinstance(value, list):
            return labeller.label_image(_image(value, place))
    except BadImage as bad:
        refused = of_picture(bad)
        raise Refused(HTTPStatus.BAD_REQUEST, refused.id, f"picture {place}: {refused.words}") from None
    raise _wrong(f'picture {place} is neither {{"b64": "..."}} nor lists of numbers')


def _decoded(value: dict[str, Any], place: int) -> bytes:
    try:
        return base64.b64decode(value["b64"], validate=True)
    except (binascii.Error, ValueError, TypeError):
        raise _wrong(f"picture {place} is not in base64") from None


def _image(value: list[Any], place: int) -> Image.Image:
    """Return a picture given as values, 0 to 255, of shape (height, width, 3)."""
    try:
        pixels = np.array(value, np.float64)
    except (ValueError, TypeError, OverflowError):
        raise _wrong(f"picture {place} is no array of numbers") from None
    if pixels.ndim != 3 or pixels.shape[2] != 3 or not 0 < min(pixels.shape) <= max(pixels.shape) <= _LONGEST_SIDE:
        raise _wrong(f"picture {place} has the shape {list(pixels.shape)}, not (height, width, 3)")
    # NaN compares as neither.
    if not (pixels.min() >= 0 and pixels.max() <= 255):
        raise _wrong(f"picture {place} has values below 0 or above 255")
    if 0 < pixels.max() <= 1 and (pixels % 1).any():
        # They would count as nearly black, and the answer as good as any.
        raise _wrong(f"picture {place} has values from 0 to 1; multiply them by 255")
    return Image.fromarray(np.rint(pixels).astype(np.uint8))


def _scores(labelled: Labelled, serving: Serving) -> list[float]:
    by_label = dict(labelled.scores)
    return [by_label[name] for name in serving.model.labels]


def status(version: int) -> dict[str, Any]:
    """Say that a version of the model is served."""
    well = {"error_code": "OK", "error_message": ""}
    return {"model_version_status": [{"version": str(version), "state": "AVAILABLE", "status": well}]}


def metadata(name: str, serving: Serving) -> dict[str, Any]:
    """Return the signatures, and, what TensorFlow Serving lacks, the labels and the hash by which to know the model."""
    size = serving.model.members[0].image_size
    pixels = {"image": _tensor("DT_FLOAT", "image", [-1, size, size, 3])}
    file = {"image_bytes": _tensor("DT_STRING", "image_bytes", [-1])}
    outputs = {OUTPUT: _tensor("DT_FLOAT", OUTPUT, [-1, len(serving.model.labels)])}
    method = {"outputs": outputs, "method_name": "tensorflow/serving/predict", "defaults": {}}
    definition = {"serving_default": {"inputs": file, **method}, "image": {"inputs": pixels, **method}}
    return {
        "model_spec": {"name": name, "signature_name": "", "version": str(serving.version)},
        "metadata": {
            "signature_def": {"signature_def": definition},
            "labels": list(serving.model.labels),
            "sha256": serving.sha256,
        },
    }


def _tensor(kind: str, name: str, shape: list[int]) -> dict[str, Any]:
    dimensions = [{"size": str(size), "name": ""} for size in shape]
    return {"dtype": kind, "tensor_shape": {"dim": dimensions, "unknown_rank": False}, "name": f"{name}:0"}


def _wrong(words: str) -> Refused:
    return Refused(HTTPStatus.BAD_REQUEST, "bad-request", words)
