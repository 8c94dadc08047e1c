"""Bodies within limits of size, time and memory; whatever comes of one, it is not held any longer."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from http import HTTPStatus
from pathlib import Path

import pytest
from starlette.requests import ClientDisconnect, Request
from starlette.types import Message

from retrain.serve.bodies import Bodies, Limits
from retrain.serve.refused import Refused
from tests.drawing import COLOURS, draw
from tests.serving import HOST, Service, typed

LIMIT = 1000


def asked(*pieces: bytes, length: int | str | None = None, then: Message | None = None) -> Request:
    """A request whose body comes in pieces, and then `then`, or nothing more for ever."""
    messages: list[Message] = [{"type": "http.request", "body": piece, "more_body": True} for piece in pieces]
    if then is None:
        messages.append({"type": "http.request", "body": b"", "more_body": False})
    elif then:
        messages.append(then)
    coming = iter(messages)

    async def receive() -> Message:
        for message in coming:
            return message
        return await asyncio.Event().wait()  # type: ignore[return-value]

    headers = [] if length is None else [(b"content-length", str(length).encode())]
    return Request({"type": "http", "method": "POST", "path": "/", "headers": headers}, receive)


GONE: Message = {"type": "http.disconnect"}
SILENCE: Message = {}


def read(bodies: Bodies, request: Request) -> bytes:
    async def whole() -> bytes:
        async with bodies.of(request) as body:
            assert bodies.held == len(body)
            return body

    return asyncio.run(whole())


@pytest.fixture
def bodies() -> Bodies:
    return Bodies(Limits(body=LIMIT, bodies=3 * LIMIT, seconds=30))


@asynccontextmanager
async def holding(bodies: Bodies, count: int) -> AsyncIterator[None]:
    async with bodies.of(asked(b"x" * count)):
        yield


@pytest.mark.parametrize("pieces", [[b"x" * LIMIT], [b"x"] * LIMIT, [b"", b"x" * 999, b"", b"x"], [], [b""]])
@pytest.mark.parametrize("stated", [True, False])
def test_a_body_as_large_as_may_be_is_read_in_whatever_pieces_it_comes(
    bodies: Bodies, pieces: list[bytes], stated: bool
) -> None:
    whole = b"".join(pieces)
    assert read(bodies, asked(*pieces, length=len(whole) if stated else None)) == whole
    assert bodies.held == 0


@pytest.mark.parametrize("pieces", [[b"x" * (LIMIT + 1)], [b"x"] * (LIMIT + 1), [b"x" * LIMIT, b"", b"x"]])
def test_a_larger_one_is_refused_as_soon_as_it_is_too_large(bodies: Bodies, pieces: list[bytes]) -> None:
    with pytest.raises(Refused, match="too-large") as refused:
        read(bodies, asked(*pieces, then=SILENCE))  # what is to come is not waited for
    assert (refused.value.status, refused.value.headers) == (HTTPStatus.REQUEST_ENTITY_TOO_LARGE, {"connection": "close"})
    assert bodies.held == 0


@pytest.mark.parametrize("length", [LIMIT + 1, 10**18, "9" * 5000, "-1", "1e9", "", "0x1", " 5", "٣"])
def test_one_that_says_to_be_larger_or_says_nothing_sensible_is_refused_unread(bodies: Bodies, length: int | str) -> None:
    request = asked(then=SILENCE)
    request.scope["headers"] = [(b"content-length", str(length).encode())]
    with pytest.raises(Refused, match="too-large"):
        read(bodies, request)
    assert bodies.held == 0


def test_promises_alone_keep_nobody_out(bodies: Bodies) -> None:
    async def come() -> None:
        promised = [asyncio.create_task(holding(bodies, 0).__aenter__()) for _ in range(50)]
        silent = [asyncio.create_task(bodies.of(asked(length=LIMIT, then=SILENCE)).__aenter__()) for _ in range(50)]
        await asyncio.gather(*promised)
        async with bodies.of(asked(b"x" * LIMIT)) as body:
            assert len(body) == LIMIT
        for task in silent:
            task.cancel()
        await asyncio.gather(*silent, return_exceptions=True)
        assert bodies.held == 0

    asyncio.run(come())


def test_when_all_together_are_too_large_the_last_is_told_to_come_again(bodies: Bodies) -> None:
    async def come() -> None:
        async with holding(bodies, 1000), holding(bodies, 1000), holding(bodies, 900):
            assert bodies.held == 2900
            async with holding(bodies, 100):
                assert bodies.held == 3000
            with pytest.raises(Refused, match="busy") as refused:
                async with holding(bodies, 101):
                    pass
            assert (refused.value.status, refused.value.headers["retry-after"]) == (503, "1")
            assert bodies.held == 2900
        async with holding(bodies, 101):
            assert bodies.held == 101

    asyncio.run(come())
    assert bodies.held == 0


@pytest.mark.parametrize("pieces", [[], [b"x"], [b"x"] * 10])
def test_one_that_does_not_come_in_time_is_refused(pieces: list[bytes]) -> None:
    bodies = Bodies(Limits(body=LIMIT, bodies=LIMIT, seconds=0.02))
    with pytest.raises(Refused, match=r"too-slow: the request was not sent within 0\.02 s") as refused:
        read(bodies, asked(*pieces, then=SILENCE))
    assert (refused.value.status, refused.value.headers) == (HTTPStatus.REQUEST_TIMEOUT, {"connection": "close"})
    assert bodies.held == 0


def test_the_time_is_for_the_body_and_not_for_the_work_on_it() -> None:
    bodies = Bodies(Limits(body=LIMIT, bodies=LIMIT, seconds=0.01))

    async def come() -> None:
        async with bodies.of(asked(b"x")):
            await asyncio.sleep(0.05)

    asyncio.run(come())


def test_a_client_that_goes_away_leaves_nothing_behind(bodies: Bodies) -> None:
    with pytest.raises(ClientDisconnect):
        read(bodies, asked(b"x" * 500, then=GONE))
    assert bodies.held == 0


def test_an_error_while_it_is_worked_on_leaves_nothing_behind(bodies: Bodies) -> None:
    async def fail() -> None:
        async with holding(bodies, 500):
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        asyncio.run(fail())
    assert bodies.held == 0


# --- the same, as clients see it


def test_clients_are_told_and_the_next_one_is_served(trained: Path, tmp_path: Path) -> None:
    data = draw(tmp_path / "red.png", COLOURS["red"], 3).read_bytes()
    limits = Limits(body=len(data), bodies=2 * len(data), seconds=0.05)
    service = Service(trained / "model", cores=1, limits=limits)
    for path in ("/label", "/explain", "/v1/models/retrain:predict"):
        for length in ([], [("content-length", str(len(data) + 1))]):
            large = service.ask("POST", path, [data, b"x"], [*typed("image/png"), *length])
            large.refused(413, "too-large")
            assert large.header("connection") == "close"
        part: Message = {"type": "http.request", "body": data, "more_body": True}
        slow = asyncio.run(service.sent("POST", path, typed("image/png"), [part]))
        slow.refused(408, "too-slow")
        gone = asyncio.run(service.sent("POST", path, typed("image/png"), [part, GONE]))
        assert gone.status == 0  # nobody is there to be answered
        assert "retrain_body_bytes 0.0" in service.ask("GET", "/metrics").body.decode()
        assert service.label(data).status == 200
    assert not service.log
    assert service.ask("GET", "/about", [b"x" * 10 * LIMIT], [HOST]).status == 200  # a body that nobody asked for
