"""Listens: deadlines for slow clients, a cap on connections, and an end that loses no request that has arrived."""

import asyncio
import contextlib
import logging
import os
import signal
import socket
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from types import FrameType
from typing import Any, NamedTuple

import h11
import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.h11_impl import H11Protocol

from retrain.errors import EnvironmentProblem
from retrain.serve.app import Life

_BACKLOG = 1024
_OWN_DESCRIPTORS = 64  # pictures, the model, the log
_READ = 16 * 1024  # bytes at a time
_CHAFF = 64 * 1024  # bytes
_ENDINGS = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]
_REFUSED = (
    b"HTTP/1.1 %s\r\ncontent-type: application/json\r\ncontent-length: %d\r\nconnection: close\r\n"
    b"x-content-type-options: nosniff\r\n%s\r\n%s"
)
_TOO_SLOW = b'{"error": "too-slow: the head of the request was not sent in time", "id": "too-slow"}'
_TOO_MANY = b'{"error": "busy: too many connections; try again", "id": "busy"}'
_NO_HTTP = b'{"error": "bad-request: this is no HTTP request, or a very large one", "id": "bad-request"}'

_ALL_CHAFF = b'{"error": "bad-request: the body comes in chunks of a few bytes; send larger ones", "id": "bad-request"}'


@dataclass(frozen=True)
class Deadlines:
    """Seconds, and connections. `head`: until a request's head has come; `idle`: until the next request on a connection;
    `stuck`: until a client has taken more of its answer; `last`: for requests under way when the server ends; `grace`: in
    which, then, a request on a connection that is open already is answered still.
    """

    head: float = 10.0
    idle: float = 5.0
    stuck: float = 30.0
    last: float = 6.0
    grace: float = 0.5
    connections: int = 1000


class Ended(NamedTuple):
    """How a server ended: the signal that asked for it, and how many requests had not been answered by then."""

    signal: int | None
    cut: int


class Connection(H11Protocol):
    """A connection that is not kept for ever by a client that sends or reads a byte now and then."""

    deadlines = Deadlines()
    _head: asyncio.TimerHandle | None = None
    _stuck: asyncio.TimerHandle | None = None
    _heard = False
    _chaff = _body = 0  # bytes of the request's body as it came: what is around it, and itself

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin, or turn away where there are too many."""
        super().connection_made(transport)
        # asyncio does so only for sockets that say that they are TCP's; an answer, sent in two pieces, else waits 40 ms.
        transport.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        # asyncio's own name. Less is read at a time, so that one connection does not keep the others waiting.
        transport.max_size = _READ  # type: ignore[attr-defined]
        transport.set_write_buffer_limits(0)  # else what is left of an answer could wait for ever for a client to take it
        if len(self.connections) > self.deadlines.connections:
            self._end(b"503 Service Unavailable", _TOO_MANY, b"retry-after: 1\r\n")
            return
        self._await_head()

    def data_received(self, data: bytes) -> None:
        """Take what has come; the time for a head runs from its first byte to its last."""
        if self._head is None and not self._is_answering():
            self._await_head()
        self._heard = True
        cycle, before = self.cycle, len(self.cycle.body) if self._is_answering() else 0
        super().data_received(data)
        if self._is_answering():
            self._heard = False
            _cancel(self._head)
            self._head = None
            self._refuse_chaff(len(data), len(self.cycle.body) - before, new=self.cycle is not cycle)

    def _refuse_chaff(self, came: int, body: int, new: bool) -> None:
        """Hang up on a body in chunks of a few bytes, each of which is work: most of what came is no body."""
        self._chaff = 0 if new else self._chaff + came - body
        self._body = body if new else self._body + body
        if self._chaff > max(_CHAFF, 3 * self._body):
            self._end(b"400 Bad Request", _ALL_CHAFF)

    def connection_lost(self, exc: Exception | None) -> None:
        """End."""
        _cancel(self._head)
        _cancel(self._stuck)
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        """Wait for a client that does not read, but not for ever."""
        super().pause_writing()
        self._stuck = self.loop.call_later(self.deadlines.stuck, self.transport.abort)

    def resume_writing(self) -> None:
        """Go on."""
        _cancel(self._stuck)
        super().resume_writing()

    def send_400_response(self, msg: str) -> None:
        """Refuse what cannot be understood."""
        self._end(b"400 Bad Request", _NO_HTTP)

    def _is_answering(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete

    def _await_head(self) -> None:
        self._head = self.loop.call_later(self.deadlines.head, self._too_slow)

    def _too_slow(self) -> None:
        self._head = None
        # Of a request that was refused at its head, a body may still be on its way.
        if self._heard and self.conn.their_state is h11.IDLE:
            self._end(b"408 Request Timeout", _TOO_SLOW)
        else:
            self.transport.close()

    def _end(self, status: bytes, body: bytes, more: bytes = b"") -> None:
        if not self.transport.is_closing():
            self.transport.write(_REFUSED % (status, len(body), more, body))
            self.transport.close()


def _cancel(timer: asyncio.TimerHandle | None) -> None:
    if timer is not None:
        timer.cancel()


class Server(uvicorn.Server):
    """Ends when asked to: says so to whoever comes, answers what has arrived, then returns."""

    def __init__(self, config: uvicorn.Config, life: Life, deadlines: Deadlines) -> None:
        super().__init__(config)
        self._life, self._deadlines = life, deadlines
        self.asked: int | None = None
        self.cut = 0  # requests that were not answered in the end

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Hear what asks for an end; whoever runs the server decides what that is worth after it."""
        asking = [number for number in _ENDINGS if signal.getsignal(number) is not signal.SIG_IGN]
        before = {number: signal.signal(number, self.handle_exit) for number in asking}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Begin to end; the second time, end at once."""
        self.force_exit = self.asked is not None
        self.asked, self.should_exit = sig, True

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """End. Every answer now says that its connection ends, so that clients send their next request elsewhere."""
        self._life.closing = True
        for server in self.servers:
            server.close()
        for listening in sockets or []:
            listening.close()
        # A request may be on its way on a connection that is open.
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._deadlines.grace):
                while self.server_state.connections and not self.force_exit:
                    await asyncio.sleep(0.02)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._deadlines.last):
                while self.server_state.tasks and not self.force_exit:
                    await asyncio.sleep(0.02)
        self.cut = len(self.server_state.tasks)
        await super().shutdown()


def listen(host: str, port: int) -> socket.socket:
    """Return a listening socket; raises EnvironmentProblem where the address cannot be had."""
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        return socket.create_server(address[:2], family=family, backlog=_BACKLOG)
    except (OSError, UnicodeError, OverflowError) as error:
        number = error.errno if isinstance(error, OSError) else None
        said = os.strerror(number) if number and number > 0 else error
        raise EnvironmentProblem(f"cannot listen on {host}, port {port}: {said}; choose another --host or --port") from None


def _descriptors() -> int:
    """Return how many connections there are descriptors for, after asking for as many as may be had."""
    try:
        import resource
    except ImportError:  # Windows
        return sys.maxsize
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(ValueError, OSError):
        wanted = _BACKLOG + _OWN_DESCRIPTORS
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, wanted if hard < 0 else min(wanted, hard)), hard))
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return sys.maxsize if soft < 0 else max(soft - _OWN_DESCRIPTORS, 1)


def run(app: ASGIApp, listening: socket.socket, life: Life, deadlines: Deadlines = Deadlines()) -> Ended:
    """Serve until a signal asks for an end."""
    for name in ("uvicorn", "python_multipart", "asyncio"):  # they would write a line for every malformed request
        logging.getLogger(name).setLevel(logging.CRITICAL)
    deadlines = replace(deadlines, connections=min(deadlines.connections, _descriptors()))
    kind: Any = type("OwnConnection", (Connection,), {"deadlines": deadlines})
    config = uvicorn.Config(
        app,
        http=kind,
        ws="none",
        loop="asyncio",
        lifespan="on",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_keep_alive=int(deadlines.idle),
        timeout_graceful_shutdown=1,  # `Server.shutdown` has waited by then
        backlog=_BACKLOG,
    )
    server = Server(config, life, deadlines)
    asyncio.run(server.serve(sockets=[listening]))
    return Ended(server.asked, server.cut)
