"""Names of classes that would do harm if anything took them for more than names. Number 38 of the list of faults."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from retrain import artifact
from tests.drawing import COLOURS, draw
from tests.serving import HOST, Headers, Service
from tests.test_serve_guard import carries_all


@pytest.fixture(scope="module")
def picture(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return draw(tmp_path_factory.mktemp("sent") / "red.png", COLOURS["red"], 77).read_bytes()


NAMES = [
    "<img src=x onerror=alert(1)>",
    '"><script>alert(1)</script>',
    "caf\udce9",
    "two\nlines\r\nX: y",
    "=HYPERLINK(1)",
    "\u202eelsa",
]


@pytest.fixture(scope="module")
def hostile(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Service:
    model = Path(shutil.copytree(trained / "model", tmp_path_factory.mktemp("hostile") / "model"))
    loaded = artifact.load(model)
    wide = [
        replace(member, kernel=member.kernel.repeat(2, 1), bias=member.bias.repeat(2)) for member in loaded.artifact.members
    ]
    artifact.save(model, replace(loaded.artifact, labels=tuple(NAMES), members=tuple(wide)), loaded.reference(), (), {})
    return Service(model, cores=1)


def test_labels_of_any_name_come_as_they_are_and_as_json_only(hostile: Service, picture: bytes) -> None:
    label, explain = hostile.label(picture), hostile.explain(picture)
    about, metadata = hostile.ask("GET", "/about"), hostile.ask("GET", "/v1/models/retrain/metadata")
    for answer in (label, explain, about, metadata):
        assert (answer.status, answer.header("content-type")) == (200, "application/json")
        carries_all(answer)
        json.dumps(answer.json()).encode("ascii")
    assert {row["label"] for row in label.json()} == {row["label"] for row in explain.json()["labels"]} == set(NAMES)
    assert about.json()["labels"] == metadata.json()["metadata"]["labels"] == NAMES
    asked = hostile.explain(picture, "?label=two%0Alines%0D%0AX:%20y&label=%22%3E%3Cscript%3Ealert(1)%3C/script%3E").json()
    assert [row["label"] for row in asked["maps"]] == [NAMES[3], NAMES[1]]
    hostile.explain(picture, "?label=nope").refused(400, "bad-request")
    assert len(hostile.predict({"instances": [[[[1, 2, 3]]]]}).json()["predictions"][0]) == len(NAMES)


def test_labels_of_any_name_are_counted(hostile: Service) -> None:
    for name in NAMES:
        hostile.app._counted.__self__.labelled(name, False)  # type: ignore[attr-defined]
    answer = hostile.ask("GET", "/metrics")
    carries_all(answer)
    assert answer.header("content-type").startswith("text/plain")
    found = {
        sample.labels["label"]
        for family in text_string_to_metric_families(answer.body.decode())
        for sample in family.samples
        if sample.name == "retrain_labels_total"
    }
    assert found >= {name.encode(errors="backslashreplace").decode() for name in NAMES}


def test_what_a_client_writes_gets_into_no_header_and_no_log(hostile: Service, picture: bytes) -> None:
    headers: Headers = [HOST, ("content-type", "image/png"), ("x-forwarded-host", "evil.example"), ("cookie", "a\tb")]
    answer = hostile.ask("POST", "/label?top=1&%0d%0aX:%20y=1", picture, headers)
    assert answer.status == 200 and not hostile.log
    assert all("evil" not in value and "\r" not in value for _, value in answer.headers)
