"""The description of the service holds for what it does, and what it counts can be read."""

import base64
import json
import re
from pathlib import Path
from typing import Any

import pytest
from openapi_schema_validator import OAS31Validator
from openapi_spec_validator import OpenAPIV31SpecValidator
from prometheus_client.parser import text_string_to_metric_families

from retrain.serve.app import _PAGE
from tests.drawing import COLOURS, draw
from tests.faults.pictures import content
from tests.serving import HOST, Answer, Service, form, typed


@pytest.fixture(scope="module")
def service(trained: Path) -> Service:
    return Service(trained / "model", cores=1)


@pytest.fixture(scope="module")
def document(service: Service) -> dict[str, Any]:
    found: dict[str, Any] = service.ask("GET", "/openapi.json").json()
    return found


@pytest.fixture(scope="module")
def picture(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return draw(tmp_path_factory.mktemp("sent") / "red.png", COLOURS["red"], 77).read_bytes()


def test_the_description_is_one(document: dict[str, Any]) -> None:
    OpenAPIV31SpecValidator(document).validate()
    assert document["info"]["version"] == "1.2.3" and document["servers"] == [{"url": "/"}]
    with pytest.raises(Exception, match="is not"):  # it is looked at
        OpenAPIV31SpecValidator({**document, "paths": {"/label": {"post": {"responses": 7}}}}).validate()


def test_every_route_is_described_and_nothing_else_is(service: Service, document: dict[str, Any]) -> None:
    routes = {
        (re.sub(r":(str|int)\}", "}", route.path), method)
        for route in service.app._app.routes  # type: ignore[attr-defined]
        for method in route.methods - {"HEAD"}
        if route.path not in _PAGE
    }
    described = {
        (path, method.upper()) for path, item in document["paths"].items() for method in item if method in ("get", "post")
    }
    assert routes == described and len(routes) == 12


def holds(document: dict[str, Any], path: str, method: str, answer: Answer) -> None:
    """Hold an answer to what is said of it: its status, its type, its shape."""
    said = document["paths"][path][method]["responses"]
    assert str(answer.status) in said, (path, answer)
    content = said[str(answer.status)]["content"]
    kind = answer.header("content-type").partition(";")[0]
    assert kind in content, (path, answer)
    value = answer.json() if kind == "application/json" else answer.body.decode()
    schema = {**content[kind]["schema"], "components": document["components"]}
    OAS31Validator(schema).validate(value)


def test_answers_are_as_described(service: Service, document: dict[str, Any], picture: bytes) -> None:
    for path in document["paths"]:
        if "get" in document["paths"][path]:
            there = path.replace("{name}", "retrain").replace("{version}", "1")
            assert service.ask("GET", there).status == 200
            holds(document, path, "get", service.ask("GET", there))
            foreign = service.ask("GET", there, headers=[HOST, ("origin", "null")])
            if path != "/healthz":
                assert foreign.status == 403
            holds(document, path, "get", foreign)
        if "{name}" in path and "get" in document["paths"][path]:
            holds(document, path, "get", service.ask("GET", path.replace("{name}", "x").replace("{version}", "1")))
    for path in ("/label", "/explain"):
        statuses, (sent, kind) = set(), form(("image", "x.png", picture))
        for answer in (
            service.ask("POST", path, picture, typed("image/png")),
            service.ask("POST", path, sent, typed(kind)),
            service.ask("POST", path, content("10-of-many-colours.jpg"), typed("image/jpeg")),
            service.ask("POST", path + "?map=no&top=1", picture, typed(None)),
            service.ask("POST", path + "?map=x&top=x", picture, typed(None)),
            service.ask("POST", path, b"x", typed("image/png")),
            service.ask("POST", path, content("7-scans.jpg"), typed("image/png")),
            service.ask("POST", path, picture, typed("text/plain")),
            service.ask("POST", path, picture, [("host", "evil.example")]),
        ):
            holds(document, path, "post", answer)
            statuses.add(answer.status)
        assert statuses == {200, 400, 403, 413, 415, 422}
    for path in (path for path in document["paths"] if path.endswith(":predict")):
        there = path.replace("{name}", "retrain").replace("{version}", "1")
        asked: dict[str, Any] = {"instances": [[[[1, 2, 3]]]]}
        OAS31Validator(document["components"]["schemas"]["Predict"]).validate(asked)
        holds(document, path, "post", service.predict(asked, there))
        holds(document, path, "post", service.predict({"inputs": {"image": [[[[1, 2, 3]]]]}}, there))
        holds(document, path, "post", service.predict({}, there))
        holds(document, path, "post", service.predict({}, there.replace("retrain", "x")))
        holds(document, path, "post", service.predict(b"[" * 1_000_001, there))


def test_an_answer_that_is_not_as_described_is_found(document: dict[str, Any]) -> None:
    for body in (b"[]", b'{"error": 1, "id": "x"}', b'{"id": "x"}'):
        with pytest.raises(Exception, match=r"is not|required"):
            holds(document, "/label", "post", Answer(422, [("content-type", "application/json")], body))


def test_pictures_requests_and_times_are_counted(trained: Path, picture: bytes) -> None:
    service = Service(trained / "model", cores=1)
    unusual = content("10-of-many-colours.jpg")

    def counted(name: str, **labels: str) -> float:
        families = text_string_to_metric_families(service.ask("GET", "/metrics").body.decode())
        values = [one.value for family in families for one in family.samples if (one.name, one.labels) == (name, labels)]
        assert len(values) < 2
        return values[0] if values else 0.0

    for _ in range(3):
        service.label(picture)
    service.explain(picture)
    service.explain(unusual, "?map=no")
    service.label(b"x")
    service.predict({"instances": [{"b64": base64.b64encode(one).decode()} for one in (picture, unusual)]})
    service.ask("GET", "/nowhere")
    service.ask("GET", "/", headers=[("host", "evil.example")])
    service.ask("GET", "/")
    service.ask("GET", "/page.js")
    for route, status, count in (
        ("label", "200", 3), ("label", "422", 1), ("explain", "200", 2), ("predict", "200", 1), ("page", "200", 2),
        ("none", "404", 1), ("none", "403", 1),
    ):  # fmt: skip
        assert counted("retrain_requests_total", route=route, status=status) == count, (route, status)
    assert counted("retrain_request_seconds_count", route="label") == 4
    assert sum(counted("retrain_labels_total", label=label) for label in COLOURS) == 7
    assert counted("retrain_labels_total", label="red") >= 5 and counted("retrain_unknown_total") == 2
    assert counted("retrain_model_version") == 1 and counted("retrain_model_refused") == 0
    assert counted("retrain_under_way") == 0 and counted("retrain_body_bytes") == 0


def test_who_asks_for_much_that_is_not_there_does_not_make_the_counts_grow(service: Service) -> None:
    def lines() -> int:
        return len(service.ask("GET", "/metrics").body.splitlines())

    for path in ("/a", "/v1/models/a", "/label"):
        service.ask("GET", path)
    before = lines()
    for number in range(30):
        service.ask("GET", f"/{number}")
        service.ask("GET", f"/v1/models/{number}")
        service.ask(f"M{number}", "/label")
    assert lines() == before


def test_the_description_says_where_a_proxy_has_it(trained: Path) -> None:
    found = Service(trained / "model", cores=1, root_path="/demo").ask("GET", "/openapi.json")
    assert json.loads(found.body)["servers"] == [{"url": "/demo"}]
