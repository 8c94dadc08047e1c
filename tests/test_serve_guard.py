"""Who is let in, what every answer carries, and what is told of an error. Number 37, 38 and 39 of the list of faults."""

import asyncio
import re
from pathlib import Path
from typing import Any

import pytest
from starlette.types import Message, Receive, Scope, Send

from retrain.label import Labeller
from retrain.serve.app import _PAGE
from retrain.serve.engine import Engine
from retrain.serve.guard import POLICY, Guard
from tests.drawing import COLOURS, draw
from tests.serving import HOST, Answer, Service, typed

Pairs = list[tuple[str, str]]


@pytest.fixture(scope="module")
def service(trained: Path) -> Service:
    return Service(trained / "model", cores=1)


@pytest.fixture(scope="module")
def proxied(trained: Path) -> Service:
    return Service(
        trained / "model", cores=1, hosts=["demo.example.org", "Other.example:8080", "[2001:db8::1]"], root_path="/demo/x"
    )


@pytest.fixture(scope="module")
def picture(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return draw(tmp_path_factory.mktemp("sent") / "red.png", COLOURS["red"], 77).read_bytes()


@pytest.fixture
def idle(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What was worked on, if anything was."""
    worked: list[str] = []
    run = Engine.run

    async def noted(self: Engine, task: Any, gone: Any) -> Any:
        worked.append("a task")
        return await run(self, task, gone)

    monkeypatch.setattr(Engine, "run", noted)
    return worked


def carries_all(answer: Answer) -> None:
    """Hold it to what every answer has, and to what none has."""
    assert answer.header("content-security-policy") == POLICY
    assert "default-src 'none'" in POLICY and "frame-ancestors 'none'" in POLICY and "unsafe" not in POLICY
    assert answer.header("x-content-type-options") == "nosniff" and answer.header("x-frame-options") == "DENY"
    assert answer.header("referrer-policy") == "no-referrer"
    assert answer.header("cross-origin-resource-policy") == answer.header("cross-origin-opener-policy") == "same-origin"
    assert answer.header("cache-control") in ("no-store", "no-cache")
    names = {name.lower() for name, _ in answer.headers}
    assert not any(name.startswith("access-control-") for name in names) and "set-cookie" not in names


# --- hosts

FOREIGN_HOSTS: list[Pairs] = [
    [("host", "evil.example")],
    [("host", "127.0.0.1.evil.example")],
    [("host", "evil.example:8000")],
    [("host", "localhost.evil.example")],
    [("host", "xlocalhost")],
    [("host", "127.0.0.1.")],
    [("host", "127.0.0.2")],
    [("host", "[::2]:8000")],
    [("host", "0.0.0.0:8000")],
]
BAD_HOSTS: list[Pairs] = [
    [],
    [HOST, HOST],
    [HOST, ("host", "evil.example")],
    [("host", "")],
    [("host", "127.0.0.1:8000, evil.example")],
    [("host", "127.0.0.1@evil.example")],
    [("host", "127.0.0.1:8000/")],
    [("host", "127.0.0.1:")],
    [("host", "127.0.0.1:x")],
    [("host", "127.0.0.1:999999")],
    [("host", "::1")],
    [("host", " 127.0.0.1")],
    [("host", "\xff")],
    [("host", "a" * 300)],
]


@pytest.mark.parametrize("path", ["/", "/about", "/label", "/metrics", "/page.js", "/v1/models/retrain", "/nowhere", "/%2e"])
def test_another_host_is_refused_whatever_is_asked_and_nothing_is_done(
    service: Service, idle: list[str], picture: bytes, path: str
) -> None:
    for headers in FOREIGN_HOSTS:
        for method in ("GET", "POST", "OPTIONS", "HEAD"):
            answer = service.ask(method, path, picture, headers)
            answer.refused(403, "wrong-host")
            carries_all(answer)
    for headers in BAD_HOSTS:
        service.ask("POST", path, picture, headers).refused(400, "bad-host")
    assert not idle


@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.1:8000", "localhost:1", "LocalHost", "[::1]", "[::1]:8000"])
def test_this_machine_by_its_own_names_is_served(service: Service, idle: list[str], picture: bytes, host: str) -> None:
    headers = [("host", host), ("content-type", "image/png")]
    answer = service.ask("POST", "/label", picture, headers)
    assert answer.status == 200 and idle == ["a task"]
    carries_all(answer)


def test_hosts_that_are_allowed_are_served_beside_those_of_this_machine(proxied: Service) -> None:
    for host, status in (
        ("demo.example.org", 200), ("demo.example.org:99", 200), ("DEMO.example.org", 200), ("other.example:8080", 200),
        ("other.example", 403), ("other.example:80", 403), ("xdemo.example.org", 403), ("demo.example.org.evil", 403),
        ("127.0.0.1:5", 200), ("[2001:db8::1]:8000", 200), ("[2001:db8::2]:8000", 403),
    ):  # fmt: skip
        assert proxied.ask("GET", "/about", headers=[("host", host)]).status == status, host


# --- origins

FOREIGN: list[Pairs] = [
    *([("origin", value)] for value in (
        "null", "", "https://evil.example", "http://127.0.0.1", "http://127.0.0.1:80001", "http://127.0.0.1:8001",
        "http://127.0.0.1:8000.evil.example", "http://evil.example:8000", "http://x127.0.0.1:8000", "http://localhost:8000",
        "http://127.0.0.1:8000/", "http://127.0.0.1:8000@evil.example", "file://", "127.0.0.1:8000", "ftp://127.0.0.1:8000",
        "chrome-extension://127.0.0.1:8000", "http://127.0.0.1:8000 http://evil.example", "http://[::1]:8000",
    )),
    [("origin", "http://127.0.0.1:8000"), ("origin", "null")],
    *([("sec-fetch-site", value)] for value in ("cross-site", "same-site", "", "Same-Origin", "same-origin, none")),
    [("sec-fetch-site", "same-origin"), ("sec-fetch-site", "cross-site")],
    [("origin", "http://127.0.0.1:8000"), ("sec-fetch-site", "cross-site")],
]  # fmt: skip


@pytest.mark.parametrize("more", FOREIGN, ids=lambda more: " ".join(value for _, value in more) or "empty")
def test_what_a_page_of_another_site_sends_is_refused_and_nothing_is_done(
    service: Service, idle: list[str], picture: bytes, more: Pairs
) -> None:
    for method, path in (("POST", "/label"), ("POST", "/explain"), ("GET", "/about"), ("GET", "/"), ("GET", "/metrics")):
        answer = service.ask(method, path, picture, [HOST, ("content-type", "image/png"), *more])
        answer.refused(403, answer.json()["id"])
        assert answer.json()["id"] in ("foreign-origin", "foreign-site")
        carries_all(answer)
    assert not idle


def test_the_page_itself_and_what_sends_no_origin_is_served(service: Service, picture: bytes) -> None:
    for more in (
        [], [("origin", "http://127.0.0.1:8000")], [("origin", "HTTPS://127.0.0.1:8000")], [("sec-fetch-site", "none")],
        [("origin", "http://127.0.0.1:8000"), ("sec-fetch-site", "same-origin"), ("sec-fetch-mode", "cors")],
    ):  # fmt: skip
        assert service.ask("POST", "/label", picture, [*typed("image/png"), *more]).status == 200
        assert service.ask("GET", "/", headers=[HOST, *more]).status == 200


def test_behind_a_proxy_the_origin_is_a_host_that_is_allowed(proxied: Service, picture: bytes) -> None:
    for origin, status in (
        ("https://demo.example.org", 200), ("http://demo.example.org:1", 200), ("https://other.example:8080", 200),
        ("https://other.example", 403), ("https://evil.example", 403), ("https://demo.example.org.evil.example", 403),
        ("https://xdemo.example.org", 403), ("null", 403), ("http://127.0.0.1:8000", 200), ("http://localhost", 403),
    ):  # fmt: skip
        found = proxied.ask("POST", "/label", picture, [*typed("image/png"), ("origin", origin)])
        assert found.status == status, origin


def test_a_preflight_is_not_answered(service: Service, idle: list[str]) -> None:
    asked = [("access-control-request-method", "POST"), ("access-control-request-private-network", "true")]
    answer = service.ask("OPTIONS", "/label", headers=[HOST, ("origin", "https://evil.example"), *asked])
    answer.refused(403, "foreign-origin")
    carries_all(answer)
    own = service.ask("OPTIONS", "/label", headers=[HOST, *asked])
    own.refused(405, "method-not-allowed")
    carries_all(own)
    assert not idle


def test_a_link_from_another_site_leads_to_the_page_and_to_nothing_else(service: Service) -> None:
    def followed(path: str, mode: str = "navigate", target: str = "document", method: str = "GET") -> int:
        headers = [("sec-fetch-site", "cross-site"), ("sec-fetch-mode", mode), ("sec-fetch-dest", target)]
        return service.ask(method, path, headers=[HOST, *headers]).status

    assert followed("/") == 200 and followed("/", method="HEAD") == 200
    assert {followed("/", target=one) for one in ("iframe", "frame", "embed", "object", "empty", "script", "image")} == {403}
    assert {followed("/", mode=one) for one in ("no-cors", "cors", "nested-navigate")} == {403}
    assert {followed(path) for path in ("/about", "/page.js", "/metrics", "/label", "//", "/?x=/")} == {403, 200}
    assert followed("/?x") == 200 and followed("//") == 403 and followed("/about") == 403
    assert followed("/", method="POST") == 403
    assert service.ask("GET", "/", headers=[HOST, ("sec-fetch-site", "cross-site")]).status == 403


def test_health_is_told_to_whoever_asks_by_any_name_and_nothing_else_is(service: Service) -> None:
    for headers in ([("host", "10.0.0.7:8000")], [], [("host", "evil.example"), ("origin", "null")]):
        answer = service.ask("GET", "/healthz", headers=headers)
        assert (answer.status, answer.json()) == (200, {"status": "ok"})
        carries_all(answer)
    service.ask("POST", "/healthz", headers=[("host", "evil.example")]).refused(403, "wrong-host")
    for path in ("/healthz/", "/healthz/../about", "/about#/healthz", "//healthz", "/healthz%00"):
        service.ask("GET", path, headers=[("host", "evil.example")]).refused(403, "wrong-host")


def test_what_ends_soon_says_so_to_everybody(trained: Path) -> None:
    ending = Service(trained / "model", cores=1)
    ending.life.closing = True
    answer = ending.ask("GET", "/healthz")
    assert (answer.status, answer.json(), answer.header("connection")) == (503, {"status": "closing"}, "close")
    assert ending.ask("GET", "/about").header("connection") == "close"
    ending.life.closing = False
    assert ending.ask("GET", "/about").header("connection") == ""


def test_a_request_that_gives_its_length_in_two_ways_is_refused_and_its_connection_ends(
    service: Service, idle: list[str], picture: bytes
) -> None:
    lengths = [("content-length", "5"), ("transfer-encoding", "chunked")]
    for order in (lengths, lengths[::-1]):
        answer = service.ask("POST", "/label", picture, [*typed("image/png"), *order])
        answer.refused(400, "bad-request")
        assert answer.header("connection") == "close" and not idle


# --- a prefix


def test_behind_a_proxy_the_addresses_are_found_with_the_prefix_and_without(proxied: Service, picture: bytes) -> None:
    for prefix in ("", "/demo/x"):
        assert b"<html" in proxied.ask("GET", f"{prefix}/").body
        for path in ("/about", "/page.js", "/healthz", "/v1/models/retrain", "/openapi.json"):
            assert proxied.ask("GET", prefix + path).status == 200
        assert proxied.ask("POST", f"{prefix}/label", picture, typed("image/png")).status == 200
    for path in ("/demo/about", "/demo/xabout", "/x/about", "/demo/x/demo/x/about", "/DEMO/x/about"):
        proxied.ask("GET", path).refused(404, "not-found")
    headers = [HOST, ("sec-fetch-site", "cross-site"), ("sec-fetch-mode", "navigate"), ("sec-fetch-dest", "document")]
    assert proxied.ask("GET", "/demo/x/", headers=headers).status == 200
    assert proxied.ask("GET", "/demo/x/about", headers=headers).status == 403
    assert proxied.ask("GET", "/openapi.json").json()["servers"] == [{"url": "/demo/x"}]


# --- paths


@pytest.mark.parametrize(
    "path",
    [
        "/..%2f..%2fetc/passwd", "/../../etc/passwd", "/%2e%2e/%2e%2e/etc/passwd", "//etc/passwd", "/etc/passwd",
        "/%2fetc%2fpasswd", "/page.js%00.png", "/%00", "/..\\..\\windows\\win.ini", "/..%5c..%5cwindows", "/C:%5cwindows",
        "/page/index.html",
        "/index.html", "/page.py", "/__init__.py", "/app.py", "/model/manifest.json", "/labels.txt", "/page.js/", "/about/",
        "/label/", "/.git/config", "/%ff%fe", "/%F0%9F%98%80", "/static", "/docs", "/" + "a" * 10_000, "/" + "../" * 3000,
        "/v1/config", "*", "/page.js;x", "/CON", "/favicon.ico",
    ],
)  # fmt: skip
def test_a_path_that_is_not_there_is_refused(service: Service, idle: list[str], path: str) -> None:
    for method in ("GET", "HEAD", "POST", "DELETE"):
        answer = service.ask(method, path)
        answer.refused(404, "not-found")
        carries_all(answer)
    assert not idle and not service.log


def test_every_answer_carries_what_keeps_browsers_from_harm(service: Service, picture: bytes) -> None:
    answers = {
        200: [service.ask("GET", path) for path in (*_PAGE, "/about", "/metrics", "/openapi.json")],
        405: [service.ask(method, "/about") for method in ("POST", "PUT", "TRACE", "X", "OPTIONS")],
        404: [service.ask("GET", "/nope"), service.predict({}, "/v1/models/x:predict")],
        422: [service.label(b"x"), service.explain(b"x")],
        415: [service.label(picture, "text/plain")],
        400: [service.label(picture, query="?top=0"), service.predict({})],
    }  # fmt: skip
    answers[200] += [service.label(picture), service.explain(picture), service.ask("HEAD", "/")]
    for status, found in answers.items():
        for answer in found:
            assert answer.status == status
            carries_all(answer)
    assert service.ask("GET", "/label").header("allow") == "POST"
    service.predict({}, "/v1/models/retrain:classify").refused(405, "method-not-allowed")
    assert service.ask("GET", "/").header("content-type") == "text/html; charset=utf-8"


# --- errors


def test_an_error_of_ours_is_a_number_to_the_client_and_all_of_it_in_the_log(
    trained: Path, picture: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_self: Labeller, _data: bytes, _neighbours: int = 0) -> None:
        raise RuntimeError("/secret/path 0x7f00")

    service = Service(trained / "model", cores=1)
    with monkeypatch.context() as patch:
        patch.setattr(Labeller, "label_bytes", fail)
        answers = [service.label(picture), service.explain(picture, "?map=no"), service.predict({"inputs": {"b64": ""}})]
    numbers = [re.findall(r"\b[0-9a-f]{6}\b", answer.refused(500, "internal"))[0] for answer in answers]
    assert len(set(numbers)) == len(service.log) == 3
    for answer, number, logged in zip(answers, numbers, service.log, strict=True):
        carries_all(answer)
        assert b"secret" not in answer.body and b"Runtime" not in answer.body
        assert logged.startswith(f"internal error {number}\nTraceback") and "/secret/path" in logged
    assert service.label(picture).status == 200 and service.engine.under_way == 0


def test_an_error_after_the_answer_has_begun_ends_in_the_log_only() -> None:
    async def half(_scope: Scope, _receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        raise RuntimeError("in the middle")

    sent: list[Message] = []
    log: list[str] = []
    counted: list[tuple[str, int, float]] = []

    async def send(message: Message) -> None:
        sent.append(message)

    async def receive() -> Message:
        raise AssertionError

    scope = {"type": "http", "method": "GET", "path": "/about", "headers": [(b"host", b"localhost")]}
    guard = Guard(half, [], "", log.append, lambda *found: counted.append(found), lambda: False)
    asyncio.run(guard(scope, receive, send))
    assert len(sent) == len(log) == 1 and "in the middle" in log[0] and counted[0][:2] == ("none", 200)


def test_the_prefix_without_a_slash_leads_to_the_page(proxied: Service, service: Service) -> None:
    """The page would else look for its files one folder higher."""
    answer = proxied.ask("GET", "/demo/x", headers=[("host", "demo.example.org")])
    assert answer.status == 308 and answer.header("location") == "/demo/x/"
    assert service.ask("GET", "/").status == 200


def test_who_is_cut_off_at_the_end_is_told_to_come_again(service: Service) -> None:
    """The server waits for what is under way, but not for ever; then it cancels it."""
    came: list[Any] = []

    async def receive() -> Any:
        raise asyncio.CancelledError

    async def send(message: Any) -> None:
        came.append(message)

    scope = {
        "type": "http", "http_version": "1.1", "method": "POST", "path": "/label", "query_string": b"", "root_path": "",
        "headers": [(b"host", b"127.0.0.1")],
    }  # fmt: skip
    with pytest.raises(asyncio.CancelledError):
        asyncio.run(service.app(scope, receive, send))
    assert came[0]["status"] == 503 and (b"retry-after", b"1") in came[0]["headers"]
    assert b'"id": "busy"' in came[1]["body"]
