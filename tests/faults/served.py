"""`retrain serve` as a process of its own, and clients of it that do what no browser does."""

import contextlib
import json
import os
import re
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from http.client import HTTPConnection
from pathlib import Path
from typing import IO, NamedTuple

import psutil

from tests.faults.as_process import ROOT

SECONDS = 60  # after which something hangs
_ADDRESS = re.compile(r" on http://(?:127\.0\.0\.1|localhost|\[::1\]):([0-9]+)")
HOST = b"Host: 127.0.0.1\r\n"


class Came(NamedTuple):
    """An answer. Status 0: the connection was closed without one."""

    status: int
    headers: dict[str, str]
    body: bytes


class Server:
    """A server that listens."""

    def __init__(self, process: subprocess.Popen[str], port: int, stderr: Path) -> None:
        self.process, self.port, self._stderr = process, port, stderr
        self.may_grow = 0.0  # by so many megabytes in a test

    @property
    def said(self) -> str:
        return self._stderr.read_text()

    @property
    def megabytes(self) -> float:
        """How much memory it holds now."""
        return float(psutil.Process(self.process.pid).memory_info().rss / 2**20)

    def connect(self, timeout: float = SECONDS) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), timeout)

    def ask(self, method: str, path: str, body: bytes | None = None, **headers: str) -> Came:
        """Ask as an ordinary client."""
        asking = HTTPConnection("127.0.0.1", self.port, timeout=SECONDS)
        with contextlib.closing(asking):
            asking.request(method, path, body, {name.replace("_", "-"): value for name, value in headers.items()})
            answer = asking.getresponse()
            return Came(answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read())

    def label(self, picture: bytes, kind: str = "image/png") -> Came:
        return self.ask("POST", "/label", picture, content_type=kind)

    def raw(self, *pieces: bytes) -> Came:
        """Send bytes, as far as they are taken, and return the first answer."""
        with self.connect() as client:
            with contextlib.suppress(OSError):
                for piece in pieces:
                    client.sendall(piece)
            return first(client)

    def count(self, name: str) -> float:
        """Return what it counts under a name without labels."""
        (line,) = [row for row in self.ask("GET", "/metrics").body.decode().splitlines() if row.startswith(f"{name} ")]
        return float(line.split()[1])

    def end(self, number: int = signal.SIGTERM) -> int:
        """Ask it to end, and return its exit code."""
        self.process.send_signal(number)
        return self.process.wait(SECONDS)


def first(client: socket.socket) -> Came:
    """Read the first answer on a connection."""
    whole = b""
    with contextlib.suppress(OSError):
        while b"\r\n\r\n" not in whole and (piece := client.recv(65536)):
            whole += piece
        head, _, body = whole.partition(b"\r\n\r\n")
        if not head:
            return Came(0, {}, b"")
        lines = head.decode("latin-1").split("\r\n")
        headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines[1:])}
        while len(body) < int(headers.get("content-length", "0")) and (piece := client.recv(65536)):
            body += piece
        return Came(int(lines[0].split()[1]), headers, body[: int(headers.get("content-length", "0"))])
    return Came(0, {}, b"")


def is_closed(client: socket.socket) -> bool:
    """Whether the other side has closed a connection, which is waited for."""
    try:
        while client.recv(65536):
            pass
    except TimeoutError:
        return False
    except OSError:
        pass
    return True


def post(body: bytes, *headers: bytes, path: bytes = b"/label", length: int | None = None) -> bytes:
    """A request as it is sent."""
    stated = b"Content-Length: %d\r\n" % (len(body) if length is None else length)
    return b"POST " + path + b" HTTP/1.1\r\n" + HOST + stated + b"".join(line + b"\r\n" for line in headers) + b"\r\n" + body


def chunk(data: bytes) -> bytes:
    return b"%x\r\n" % len(data) + data + b"\r\n"


CHUNKED = b"POST /label HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: chunked\r\n\r\n"


@contextlib.contextmanager
def serving(
    model: Path,
    room: Path,
    *options: object,
    before: tuple[str, ...] = (),
    stdout: int | IO[bytes] | None = None,
    stderr: int | IO[bytes] | None = None,
    port: int = 0,
) -> Iterator[Server]:
    """Serve a model until the block ends. `room`: a folder for what it says, and for what it should not leave behind.

    `before`: what the command line begins with; `stdout`, `stderr`: in place of what is read here.
    """
    (room / "tmp").mkdir(parents=True)
    line = [
        *before,
        sys.executable,
        "-m",
        "retrain",
        "serve",
        "--model",
        str(model),
        "--port",
        str(port),
        *map(str, options),
    ]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "TMPDIR": str(room / "tmp")}
    with (room / "stderr").open("wb") as said:
        process = subprocess.Popen(
            line, stdout=stdout if stdout is not None else subprocess.PIPE, stderr=stderr if stderr is not None else said,
            text=True, env=environment, cwd=room,
        )  # fmt: skip
    try:
        if process.stdout is not None:
            assert select.select([process.stdout], [], [], SECONDS)[0], "it says nothing"
            found = _ADDRESS.search(process.stdout.readline())
            assert found, (room / "stderr").read_text()
            port = int(found[1])
        server = Server(process, port, room / "stderr")
        until(lambda: answers(server))
        yield server
    finally:
        process.kill()
        process.wait(SECONDS)
        if process.stdout is not None:
            process.stdout.close()
    assert not any((room / "tmp").iterdir()), "something was left behind"


def answers(server: Server) -> bool:
    with contextlib.suppress(OSError):
        return server.ask("GET", "/healthz").status == 200
    return False


def until(true: Callable[[], object], seconds: float = SECONDS) -> None:
    """Wait until something is so."""
    limit = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < limit, "it did not come to that"
        time.sleep(0.02)


def at_once(task: Callable[[int], object], count: int) -> list[object]:
    """Do a task in so many threads at a time; what one raises is among what is returned."""
    found: list[object] = [None] * count

    def work(number: int) -> None:
        try:
            found[number] = task(number)
        except Exception as error:  # noqa: BLE001  the test looks at it
            found[number] = error

    threads = [threading.Thread(target=work, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(SECONDS)
        assert not thread.is_alive(), "a client hangs"
    return found


def refused(came: Came, *statuses: int) -> str:
    """Hold an answer to a refusal, and return its id."""
    assert came.status in statuses, came
    told = json.loads(came.body)
    assert set(told) == {"error", "id"}, told
    return str(told["id"])
