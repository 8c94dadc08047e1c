"""TensorFlow Serving's REST interface: bodies as its clients send them, and answers as they expect them."""

import asyncio
import base64
import json
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from retrain.label import Labelled, Labeller, load
from tests.conftest import TINY_SIZE
from tests.drawing import COLOURS, draw
from tests.faults.pictures import BOMBS, CUT, content
from tests.serving import HOST, Service, png

PATHS = ("/v1/models/retrain:predict", "/v1/models/retrain/versions/1:predict")


@pytest.fixture(scope="module")
def service(trained: Path) -> Service:
    return Service(trained / "model")


@pytest.fixture(scope="module")
def labeller(trained: Path) -> Labeller:
    return load(trained / "model")


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> list[bytes]:
    folder = tmp_path_factory.mktemp("sent")
    return [draw(folder / f"{name}.png", colour, 91).read_bytes() for name, colour in COLOURS.items()]


def b64(data: bytes) -> dict[str, str]:
    return {"b64": base64.b64encode(data).decode()}


def values(data: bytes) -> list[Any]:
    import io

    return list(np.asarray(Image.open(io.BytesIO(data)).convert("RGB")).tolist())


def scores(labeller: Labeller, data: bytes) -> list[float]:
    by_label = dict(labeller.label_bytes(data).scores)
    return [by_label[label] for label in labeller.model.labels]


WAYS: dict[str, Callable[[list[bytes]], Any]] = {
    "rows": lambda sent: {"instances": [b64(data) for data in sent]},
    "rows, named": lambda sent: {"instances": [{"image_bytes": b64(data)} for data in sent]},
    "rows, signature": lambda sent: {"signature_name": "serving_default", "instances": [b64(data) for data in sent]},
    "rows, no signature": lambda sent: {"signature_name": "", "instances": [b64(data) for data in sent]},
    "rows of values": lambda sent: {"instances": [values(data) for data in sent]},
    "rows of values, named": lambda sent: {
        "signature_name": "image",
        "instances": [{"image": values(data)} for data in sent],
    },
    "rows, mixed": lambda sent: {"instances": [b64(sent[0]), *(values(data) for data in sent[1:])]},
    "columns": lambda sent: {"inputs": [b64(data) for data in sent]},
    "columns, named": lambda sent: {"inputs": {"image_bytes": [b64(data) for data in sent]}},
    "columns of values": lambda sent: {"inputs": {"image": [values(data) for data in sent]}},
    "columns of values, unnamed": lambda sent: {"inputs": [values(data) for data in sent]},
    "a stranger's key": lambda sent: {"instances": [b64(data) for data in sent], "more": None},
}


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("way", WAYS)
def test_scores_are_those_of_the_library_in_the_order_of_the_labels(
    service: Service, labeller: Labeller, pictures: list[bytes], way: str, path: str
) -> None:
    answer = service.predict(WAYS[way](pictures), path)
    found = answer.json()
    (kind,) = found
    assert (answer.status, kind) == (200, "predictions" if "rows" in way or "key" in way else "outputs"), answer
    assert found[kind] == [scores(labeller, data) for data in pictures]
    labels = service.ask("GET", "/v1/models/retrain/metadata").json()["metadata"]["labels"]
    assert [labels[int(np.argmax(row))] for row in found[kind]] == list(COLOURS)


def test_a_single_file_may_stand_for_a_column_of_one(service: Service, labeller: Labeller, pictures: list[bytes]) -> None:
    for inputs in (b64(pictures[0]), {"image_bytes": b64(pictures[0])}):
        assert service.predict({"inputs": inputs}).json() == {"outputs": [scores(labeller, pictures[0])]}


def test_a_body_may_be_encoded_as_json_may_be(service: Service, labeller: Labeller, pictures: list[bytes]) -> None:
    text = json.dumps({"instances": [b64(pictures[0])]}, indent=2)
    for encoding in ("utf-8", "utf-8-sig", "utf-16", "utf-32-be"):
        assert service.predict(text.encode(encoding)).json() == {"predictions": [scores(labeller, pictures[0])]}


def test_values_count_as_they_are_rounded_and_of_any_size(service: Service, labeller: Labeller) -> None:
    pixels = np.random.default_rng(1).integers(0, 256, (50, 71, 3))
    expected = {"predictions": [scores(labeller, png(Image.fromarray(pixels.astype(np.uint8))))]}
    assert service.predict({"instances": [pixels.tolist()]}).json() == expected
    assert service.predict({"instances": [(pixels.clip(1, 254) * 1.0).tolist()]}).status == 200
    assert service.predict({"instances": [np.clip(pixels + 0.3, 0, 255).tolist()]}).json() == expected
    for picture in (np.zeros((2, 2, 3)), np.ones((2, 2, 3), int), np.full((1, 1, 3), 255)):
        assert service.predict({"instances": [picture.tolist()]}).status == 200  # black is a picture


def test_as_many_pictures_as_may_be_are_answered_in_their_order(
    service: Service, labeller: Labeller, pictures: list[bytes]
) -> None:
    found = service.predict({"instances": [b64(pictures[number % 3]) for number in range(64)]}).json()["predictions"]
    assert found == [scores(labeller, pictures[number % 3]) for number in range(64)]


# --- documents


def test_the_model_says_that_it_is_there(service: Service) -> None:
    said = {"version": "1", "state": "AVAILABLE", "status": {"error_code": "OK", "error_message": ""}}
    for path in ("/v1/models/retrain", "/v1/models/retrain/versions/1"):
        assert service.ask("GET", path).json() == {"model_version_status": [said]}


def test_the_model_says_what_it_takes_and_gives(service: Service, trained: Path) -> None:
    for path in ("/v1/models/retrain/metadata", "/v1/models/retrain/versions/1/metadata"):
        found = service.ask("GET", path).json()
        assert found["model_spec"] == {"name": "retrain", "signature_name": "", "version": "1"}
        told = found["metadata"]
        assert told["labels"] == list(COLOURS)
        assert told["sha256"] == json.loads((trained / "model" / "manifest.json").read_text())["sha256"]
        definition = told["signature_def"]["signature_def"]
        assert list(definition) == ["serving_default", "image"]
        for signature, name, kind, shape in (
            ("serving_default", "image_bytes", "DT_STRING", ["-1"]),
            ("image", "image", "DT_FLOAT", ["-1", str(TINY_SIZE), str(TINY_SIZE), "3"]),
        ):
            given = definition[signature]
            assert given["method_name"] == "tensorflow/serving/predict"
            assert (list(given["inputs"]), given["inputs"][name]["dtype"]) == ([name], kind)
            assert [size["size"] for size in given["inputs"][name]["tensor_shape"]["dim"]] == shape
            assert [size["size"] for size in given["outputs"]["scores"]["tensor_shape"]["dim"]] == ["-1", "3"]


@pytest.mark.parametrize(
    "path",
    [
        "/v1/models/other", "/v1/models/retrain/versions/2", "/v1/models/retrain/versions/0", "/v1/models/Retrain",
        "/v1/models/retrain/versions/x", "/v1/models/retrain/versions/01", "/v1/models", "/v1/models/retrain/labels/stable",
        "/v1/models/re%2ftrain", "/v1/models/retrain/", f"/v1/models/retrain/versions/{'9' * 30}",
        f"/v1/models/retrain/versions/{'9' * 5000}", "/v1/models/retrain%00", "/v1/models/..%2fretrain",
    ],
)  # fmt: skip
def test_another_name_or_version_is_not_there(service: Service, pictures: list[bytes], path: str) -> None:
    service.ask("GET", path).refused(404, "not-found")
    service.ask("GET", f"{path}/metadata").refused(404, "not-found")
    service.predict({"instances": [b64(pictures[0])]}, f"{path}:predict").refused(404, "not-found")


def test_a_model_may_have_another_name(trained: Path, pictures: list[bytes]) -> None:
    named = Service(trained / "model", cores=1, name="my.model-1_x")
    assert named.predict({"instances": [b64(pictures[0])]}, "/v1/models/my.model-1_x:predict").status == 200
    assert named.ask("GET", "/v1/models/my.model-1_x/metadata").json()["model_spec"]["name"] == "my.model-1_x"
    named.ask("GET", "/v1/models/retrain").refused(404, "not-found")


# --- what is refused

PICTURE = [[[1, 2, 3], [4, 5, 6]]]
WRONG: dict[str, tuple[Any, str]] = {  # what is sent, and a part of what is said of it
    "nothing": (b"", "no JSON"),
    "no JSON": (b"{'instances': []}", "no JSON"),
    "not encoded": (b'{"instances": ["\xff"]}', "no JSON"),
    "a list": ([], "no JSON object"),
    "a number": (1, "no JSON object"),
    "deep lists": (b"[" * 100_000, "no JSON"),
    "deep objects": (b'{"instances":' * 1000, "no JSON"),
    "deep rows": ({"instances": [json.loads("[" * 80 + "]" * 80)]}, "picture 0"),
    "a long number": (b'{"instances": [' + b"9" * 100_000 + b"]}", "no JSON"),
    "neither": ({}, "either"),
    "other words": ({"instance": [PICTURE]}, "either"),
    "both": ({"instances": [PICTURE], "inputs": [PICTURE]}, "either"),
    "no rows": ({"instances": []}, "no picture"),
    "no column": ({"inputs": []}, "no picture"),
    "null": ({"instances": None}, "no picture"),
    "rows that are none": ({"instances": {"b64": "AAAA"}}, "no picture"),
    "65 pictures": ({"instances": [PICTURE] * 65}, "64"),
    "another signature": ({"signature_name": "classify", "instances": [PICTURE]}, "signature"),
    "a signature that is none": ({"signature_name": ["image"], "instances": [PICTURE]}, "signature"),
    "a signature in pieces": ({"signature_name": {"a": 1}, "instances": [PICTURE]}, "signature"),
    "another input": ({"instances": [{"pixels": PICTURE}]}, "image_bytes or image"),
    "two inputs": ({"instances": [{"image": PICTURE, "image_bytes": b64(b"")}]}, "image_bytes or image"),
    "another column": ({"inputs": {"pixels": [PICTURE]}}, "image_bytes or image"),
    "no base64": ({"instances": [{"b64": "?!"}]}, "picture 0 is not in base64"),
    "base64 of the web": ({"instances": [{"b64": "__--"}]}, "picture 0 is not in base64"),
    "base64, cut": ({"instances": [{"b64": "AAA"}]}, "picture 0 is not in base64"),
    "base64 that is no text": ({"instances": [{"b64": 7}]}, "picture 0 is not in base64"),
    "base64 beyond ASCII": ({"instances": [{"b64": "ÄÄÄÄ"}]}, "picture 0 is not in base64"),
    "no bytes": ({"instances": [b64(b"")]}, "picture 0"),
    "no picture": ({"instances": [PICTURE, b64(b"text")]}, "picture 1"),
    "a name": ({"instances": ["/etc/passwd"]}, "picture 0"),
    "an address": ({"instances": [{"image_bytes": "http://127.0.0.1/x.png"}]}, "picture 0"),
    "ragged": ({"instances": [[[[1, 2, 3]], [[1, 2]]]]}, "picture 0 is no array"),
    "words": ({"instances": [[[["a", "b", "c"]]]]}, "picture 0 is no array"),
    "objects": ({"instances": [[[[{}, {}, {}]]]]}, "picture 0 is no array"),
    "a number beyond": ({"instances": [[[[10**400, 0, 0]]]]}, "picture 0 is no array"),
    "flat": ({"instances": [[1, 2, 3]]}, "shape [3]"),
    "grey": ({"instances": [[[[1], [2]]]]}, "shape [1, 2, 1]"),
    "four colours": ({"instances": [[[[1, 2, 3, 4]]]]}, "shape [1, 1, 4]"),
    "no rows in it": ({"instances": [[]]}, "shape [0]"),
    "empty rows": ({"instances": [[[], []]]}, "shape [2, 0]"),
    "a long row": ({"instances": [[[[1, 2, 3]] * 5000]]}, "shape [1, 5000, 3]"),
    "below": ({"instances": [[[[-1, 0, 0]]]]}, "below 0 or above 255"),
    "above": ({"instances": [[[[256, 0, 0]]]]}, "below 0 or above 255"),
    "not a number": ({"instances": [[[[float("nan"), 0, 0]]]]}, "below 0 or above 255"),
    "endless": ({"instances": [[[[float("inf"), 0, 0]]]]}, "below 0 or above 255"),
    "null in it": ({"instances": [[[[None, 0, 0]]]]}, "picture 0"),
    "scaled already": ({"instances": [[[[0.2, 0.5, 1.0]]]]}, "multiply them by 255"),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_cannot_be_understood_is_refused_in_a_sentence(service: Service, case: str) -> None:
    body, said = WRONG[case]
    answer = service.predict(body)
    assert answer.status == 400 and isinstance(answer.json()["error"], str)
    assert said in answer.refused(400, answer.json()["id"]), answer


@pytest.mark.parametrize("name", [*(f"2-{name}" for name in CUT), *(f"7-{name}" for name in list(BOMBS)[:4])])
def test_a_picture_that_cannot_be_used_is_named_with_its_reason(service: Service, name: str) -> None:
    answer = service.predict({"instances": [PICTURE, b64(content(name))]})
    assert answer.refused(400, answer.json()["id"]).startswith(f"{answer.json()['id']}: picture 1: ")


@pytest.mark.parametrize(
    "body",
    [
        b'{"instances": [' + b"[]," * 1_000_001 + b"[]]}",
        b'{"instances": [[' + b"1," * 4_000_001 + b"1]]}",
        b'{"instances": [' + b"{}," * 1_000_001 + b"{}]}",
        b"{" + b",".join(b'"%d":0' % number for number in range(300_000)) + b"}",
        b'{"instances": [' + b'{"b64":{"b64":0}},' * 1000 + b"{}]}",
    ],
    ids=["lists", "values", "objects", "names", "names in objects"],
)
def test_what_would_take_much_memory_to_read_is_refused_unread(service: Service, body: bytes) -> None:
    service.predict(body).refused(413, "too-large")


def test_pictures_that_take_too_long_together_are_too_many(
    service: Service, pictures: list[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file of two kilobytes may have 64 megapixels, and a request 64 of those."""
    one = b64(pictures[0])
    monkeypatch.setattr("retrain.serve.predict._MOST_SECONDS", 0.0)
    said = service.predict({"instances": [one] * 3}).refused(413, "too-large")
    assert "of 3 pictures" in said and "send fewer" in said


def test_when_the_client_has_gone_the_pictures_that_are_left_are_not_looked_at(trained: Path, pictures: list[bytes]) -> None:
    service, seen = Service(trained / "model", cores=1), []
    label_bytes = Labeller.label_bytes

    def counted(self: Labeller, data: bytes, neighbours: int = 0) -> Labelled:
        seen.append(1)
        left.set()
        assert answered.wait(30)
        return label_bytes(self, data, neighbours)

    left, answered = threading.Event(), threading.Event()
    body = json.dumps({"instances": [{"b64": base64.b64encode(pictures[0]).decode()}] * 5}).encode()

    async def come() -> None:
        async def leave() -> dict[str, str]:
            await asyncio.to_thread(left.wait)
            return {"type": "http.disconnect"}

        messages = [{"type": "http.request", "body": body, "more_body": False}, leave]
        answer = await service.sent("POST", "/v1/models/retrain:predict", [HOST], messages)
        assert answer.status == 0  # there is nobody to answer
        answered.set()
        async with asyncio.timeout(30):
            while service.engine.under_way:
                await asyncio.sleep(0.005)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Labeller, "label_bytes", counted)
        asyncio.run(come())
    assert len(seen) == 1
