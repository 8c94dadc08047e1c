"""Slow clients, and the end of a server: who sends or reads nothing keeps nobody out, and no request that came is lost.

35  slow clients, in the head and in the body   test_two_hundred_slow_clients_keep_nobody_out_and_are_cut_off
    clients that send nothing, or read nothing  the same; test_a_client_that_does_not_read_stops_nobody
36  SIGTERM, SIGINT                             test_what_has_come_is_answered_..., test_it_ends_when_asked_to
    a model that changes under load             test_a_new_model_is_served_under_load_and_no_request_is_lost
    nobody reads what it says                   test_it_serves_though_nobody_hears_it, tests/test_serve.py
"""

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from retrain import artifact
from tests.drawing import COLOURS, draw
from tests.faults.served import CHUNKED, HOST, Came, Server, at_once, chunk, first, is_closed, post, refused, serving, until

pytestmark = pytest.mark.faults
SOON = 2.0  # seconds in which a request is answered whatever others do


@pytest.fixture(scope="module")
def picture(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return draw(tmp_path_factory.mktemp("sent") / "red.png", COLOURS["red"], 77).read_bytes()


@contextlib.contextmanager
def meanwhile(step: Callable[[], object]) -> "contextlib.AbstractContextManager[list[BaseException]]":  # type: ignore[misc]
    """Do something again and again in a thread until the block ends."""
    done, failed = threading.Event(), []

    def work() -> None:
        try:
            while not done.is_set():
                step()
        except Exception as error:  # noqa: BLE001
            failed.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield failed
    finally:
        done.set()
        thread.join()
    assert not failed, failed


# --- 35


def test_two_hundred_slow_clients_keep_nobody_out_and_are_cut_off(trained: Path, tmp_path: Path, picture: bytes) -> None:
    """Number 35: 50 clients of each kind, a byte now and then."""
    kinds = {
        "head": b"GET /about HTTP/1.1\r\n" + HOST + b"X: ",
        "body": post(b"x", length=100_000),
        "chunks": CHUNKED,
        "silent": b"",
    }
    with serving(trained / "model", tmp_path / "room", "--timeout", 3) as server:
        clients = {kind: [server.connect(40) for _ in range(50)] for kind in kinds}
        for kind, opened in clients.items():
            for client in opened:
                client.sendall(kinds[kind])

        def drip() -> None:
            for kind, byte in (("head", b"y"), ("body", b"y"), ("chunks", chunk(b"y"))):
                for client in clients[kind]:
                    with contextlib.suppress(OSError):
                        client.send(byte)
            time.sleep(0.5)

        longest = 0.0
        with meanwhile(drip):
            began = time.monotonic()
            while time.monotonic() - began < 4:
                asked = time.monotonic()
                assert server.label(picture).status == 200
                longest = max(longest, time.monotonic() - asked)
            for kind in ("body", "chunks", "head"):
                for client in clients[kind]:
                    assert refused(first(client), 408) == "too-slow"
            assert all(is_closed(client) for opened in clients.values() for client in opened)
            # 10 s for a head, and what a busy machine takes more
            assert time.monotonic() - began < 40
        assert longest < SOON
        for opened in clients.values():
            for client in opened:
                client.close()
        until(lambda: server.count("retrain_body_bytes") == 0)
        assert not server.said


def test_a_connection_that_is_kept_and_not_used_is_closed(trained: Path, tmp_path: Path) -> None:
    """Number 35."""
    with serving(trained / "model", tmp_path / "room") as server, server.connect(30) as client:
        for _ in range(2):
            client.sendall(b"GET /about HTTP/1.1\r\n" + HOST + b"\r\n")
            assert first(client).status == 200
        assert is_closed(client)


def test_a_client_that_does_not_read_stops_nobody(trained: Path, tmp_path: Path, picture: bytes) -> None:
    """Number 35: its answers pile up to a bound."""
    with serving(trained / "model", tmp_path / "room") as server:
        before = server.megabytes
        clients = []
        for _ in range(10):
            client = socket.socket()
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            client.settimeout(1)
            client.connect(("127.0.0.1", server.port))
            clients.append(client)
        asked = b"GET /openapi.json HTTP/1.1\r\n" + HOST + b"\r\n"

        def greedy(number: int) -> None:
            with contextlib.suppress(TimeoutError):  # at last the server does not read either
                while True:
                    clients[number].sendall(asked * 1000)

        with meanwhile(lambda: server.label(picture)):
            assert at_once(greedy, 10) == [None] * 10
        asked_at = time.monotonic()
        assert server.label(picture).status == 200
        assert time.monotonic() - asked_at < SOON
        assert server.megabytes < before + 100
        assert server.end() == 143  # they do not keep it from ending
        for client in clients:
            client.close()


# --- 36


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130), (signal.SIGHUP, 143)], ids=["TERM", "INT", "HUP"]
)
def test_it_ends_when_asked_to(trained: Path, tmp_path: Path, number: int, code: int) -> None:
    """Number 36: also with connections that are open, and a request whose body does not come."""
    with serving(trained / "model", tmp_path / "room") as server, server.connect() as idle, server.connect() as kept:
        kept.sendall(b"GET /about HTTP/1.1\r\n" + HOST + b"\r\n")
        assert first(kept).status == 200
        assert server.end(number) == code
        assert server.said == "retrain: ended; every request that had arrived was answered\n"
        assert is_closed(idle) and is_closed(kept)


def test_a_second_signal_ends_it_at_once(trained: Path, tmp_path: Path) -> None:
    """Number 36."""
    with serving(trained / "model", tmp_path / "room") as server, server.connect() as client:
        client.sendall(post(b"x", length=1000))
        until(lambda: server.count("retrain_body_bytes") == 1)
        server.process.send_signal(signal.SIGTERM)
        until(lambda: not listens(server))
        began = time.monotonic()
        assert server.end(signal.SIGINT) in (130, 143)
        assert time.monotonic() - began < 6  # it would wait for 8
        assert server.said == "retrain: ended; requests cut off: 1\n"


def listens(server: Server) -> bool:
    try:
        server.connect().close()
    except OSError:
        return False
    return True


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=["TERM", "INT"])
def test_what_has_come_is_answered_before_it_ends(trained: Path, tmp_path: Path, picture: bytes, number: int) -> None:
    """Number 36: requests that were sent whole, and those that a client is still sending."""
    with serving(trained / "model", tmp_path / "room", "--workers", 1, "--queue", 1000) as server:
        request = post(picture)
        whole, half = [server.connect() for _ in range(60)], [server.connect() for _ in range(10)]
        for client in half:
            client.sendall(request[:-100])
        until(lambda: server.count("retrain_body_bytes") == 10 * (len(picture) - 100))
        for client in whole:
            client.sendall(request)
        server.process.send_signal(number)
        until(lambda: not listens(server))
        for client in half:
            client.sendall(request[-100:])
        for client in [*whole, *half]:
            came = first(client)
            assert came.status == 200, came
            client.close()
        assert server.process.wait(20) == (143 if number == signal.SIGTERM else 130)
        assert "every request that had arrived was answered" in server.said


def test_clients_that_go_on_asking_are_told_that_their_connections_end(
    trained: Path, tmp_path: Path, picture: bytes
) -> None:
    """Number 36: a client that heeds that loses no request."""
    with serving(trained / "model", tmp_path / "room") as server:
        begun, failed, ended = threading.Barrier(9), [], []

        def ask(_number: int) -> int:
            answered, refused_to_connect = 0, False
            begun.wait(30)
            while not refused_to_connect:
                try:
                    client = server.connect()
                except OSError:
                    refused_to_connect = True
                    continue
                with client:
                    going = True
                    while going:
                        client.sendall(post(picture))
                        came = first(client)
                        if came.status != 200:
                            failed.append(came)
                            return answered
                        answered += 1
                        going = came.headers.get("connection") != "close"
                    ended.append(came)
            return answered

        def stop() -> None:
            begun.wait(30)
            time.sleep(0.3)  # somewhere in the middle of it
            server.process.send_signal(signal.SIGTERM)

        found = at_once(lambda number: ask(number) if number else stop(), 9)
        assert not [one for one in found if isinstance(one, Exception)], found
        assert server.process.wait(20) == 143 and ended
        # A connection that was made but not yet taken up when the server closed its door is all that may be without answer.
        assert all(came.status == 0 for came in failed) and len(failed) <= 8


# --- a new model


def put(model: Path, labels: list[str]) -> None:
    loaded = artifact.load(model)
    artifact.save(model, replace(loaded.artifact, labels=tuple(labels)), loaded.reference(), (), {})


def test_a_new_model_is_served_under_load_and_no_request_is_lost(trained: Path, tmp_path: Path, picture: bytes) -> None:
    """Number 36: also while the folder holds one that is damaged."""
    model = Path(shutil.copytree(trained / "model", tmp_path / "model"))
    with serving(model, tmp_path / "room") as server:
        came: list[Came] = []
        with meanwhile(lambda: came.append(server.label(picture))), meanwhile(lambda: came.append(server.label(picture))):
            put(model, ["sky", "grass", "fire"])
            until(lambda: server.count("retrain_model_version") == 2)
            (model / "manifest.json").write_bytes(b"{}")
            until(lambda: server.count("retrain_model_refused") == 1)
            before = len(came)
            until(lambda: len(came) > before + 2)
            shutil.rmtree(model)
            shutil.copytree(trained / "model", model)
            until(lambda: server.count("retrain_model_version") == 3)
            before = len(came)
            until(lambda: len(came) > before + 2)
        assert {one.status for one in came} == {200}
        found = [b'"red"' in one.body for one in came]
        assert found[0] and not all(found) and found[-1]
        lines = server.said.splitlines()
        assert len(lines) == 3 and "version 2" in lines[0] and "cannot be used" in lines[1] and "version 3" in lines[2], (
            lines
        )


# --- nobody hears it


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return int(taken.getsockname()[1])


@pytest.mark.parametrize("closed", [">&-", "2>&-", "<&- >&- 2>&-"])
def test_it_serves_though_nobody_hears_it(trained: Path, tmp_path: Path, picture: bytes, closed: str) -> None:
    shutil.copytree(trained / "model", model := tmp_path / "model")
    shell = ("sh", "-c", f'exec "$@" {closed}', "sh")
    with serving(model, tmp_path / "room", before=shell, stdout=subprocess.DEVNULL, port=free_port()) as server:
        assert server.label(picture).status == 200
        (model / "manifest.json").write_bytes(b"{}")  # it has something to say
        until(lambda: server.count("retrain_model_refused") == 1)
        assert server.label(picture).status == 200
        assert server.end() == 143


def test_it_serves_though_the_pipe_that_it_writes_to_is_full(trained: Path, tmp_path: Path, picture: bytes) -> None:
    shutil.copytree(trained / "model", model := tmp_path / "model")
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    with contextlib.suppress(BlockingIOError):
        while True:
            os.write(writing, b"x" * 4096)
    os.set_blocking(writing, True)
    with (
        os.fdopen(reading, "rb"),
        os.fdopen(writing, "wb") as full,
        serving(model, tmp_path / "room", stderr=full) as server,
    ):
        for number in range(1, 3):
            (model / "manifest.json").write_bytes(b"{}" * number)
            until(lambda: server.count("retrain_model_refused") == 1)
            assert server.label(picture).status == 200
        assert server.end() == 143


def test_two_on_one_port_are_one_too_many(trained: Path, tmp_path: Path) -> None:
    with serving(trained / "model", tmp_path / "room") as server:
        line = [sys.executable, "-m", "retrain", "serve", "--model", str(trained / "model"), "--port", str(server.port)]
        done = subprocess.run(line, capture_output=True, text=True, timeout=60, check=False)
        assert (done.returncode, done.stdout) == (6, "") and f"port {server.port}" in done.stderr
        assert server.ask("GET", "/healthz").status == 200
