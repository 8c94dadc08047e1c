"""`retrain serve` as people meet it: mistakes are one line, and the rest is a server."""

import contextlib
import importlib.util
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

from retrain import serve
from retrain.cli.serve import _Log
from retrain.errors import EnvironmentProblem
from retrain.serve import health
from retrain.serve.server import listen
from tests.conftest import Ran
from tests.test_cli import check_one_line

Command = Callable[..., Ran]

MISTAKES = [
    ("--host 0.0.0.0", 2, "opens the server to other machines; say by which name they reach it: --allow-host NAME"),
    ("--host ::", 2, "--allow-host NAME"),
    ("--host 192.168.1.5", 2, "--allow-host NAME"),
    ("--host 127.0.0.2", 2, "--allow-host NAME"),
    ("--allow-host *", 2, "--allow-host * is no host name"),
    ("--allow-host http://x", 2, "is no host name"),
    ("--allow-host x/", 2, "is no host name"),
    ("--allow-host x:http", 2, "is no host name"),
    ("--allow-host x:123456", 2, "is no host name"),
    ("--allow-host ::1", 2, "is no host name"),
    ("--allow-host .x", 2, "is no host name"),
    ("--allow-host x,y", 2, "is no host name"),
    ("--root-path demo", 2, "--root-path demo is no path such as /demo, without a slash at its end"),
    ("--root-path /demo/", 2, "is no path such as /demo"),
    ("--root-path /", 2, "is no path such as /demo"),
    ("--root-path //x", 2, "is no path such as /demo"),
    ("--root-path /d?x", 2, "is no path such as /demo"),
    ("--name a/b", 2, "--name a/b has other characters than letters, digits, dots, dashes and underscores"),
    ("--name ../x", 2, "--name ../x"),
    ("--name a:b", 2, "--name a:b"),
    (f"--name {'a' * 101}", 2, "--name a"),
    ("--port 65536", 2, "'--port'"),
    ("--port x", 2, "'--port'"),
    ("--workers 0", 2, "'--workers'"),
    ("--queue -1", 2, "'--queue'"),
    ("--max-body 0", 2, "'--max-body'"),
    ("--timeout 0", 2, "'--timeout'"),
    ("--timeout nan", 2, "--timeout nan is no number; give seconds, such as 60"),
    ("--model nowhere", 5, "no model at nowhere; train one first: retrain train TF_FILES --model nowhere"),
    ("--allow-host x.example:80 --host 0.0.0.0 --model nowhere", 5, "no model at nowhere"),
    ("--root-path /a/b-c --name m.1 --model nowhere", 5, "no model at nowhere"),
]


@pytest.mark.parametrize(("typed", "code", "part"), MISTAKES)
def test_a_mistake_is_one_line_that_says_what_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, retrain: Command, typed: str, code: int, part: str
) -> None:
    monkeypatch.chdir(tmp_path)
    ran = retrain("serve", *typed.split())
    check_one_line(ran, code, part)
    assert not ran.out and len(ran.err) == 1


def test_a_port_that_is_taken_is_one_line(trained: Path, retrain: Command) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        ran = retrain("serve", "--model", trained / "model", "--port", port)
    check_one_line(ran, 6, f"cannot listen on 127.0.0.1, port {port}: ")
    assert "choose another --host or --port" in ran.err[-1] and not ran.out


@pytest.mark.parametrize("host", ["256.1.1.1", "no.such.host.invalid", "x" * 300, "a\0b", "\udc80"])
def test_an_address_that_is_none_of_this_machine_is_named(host: str) -> None:
    with pytest.raises(EnvironmentProblem, match=r"cannot listen on .*; choose another --host or --port"):
        listen(host, 0)


def test_packages_that_are_missing_are_named_with_what_installs_them(
    trained: Path, retrain: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    there = importlib.util.find_spec

    def find(name: str, package: str | None = None) -> object:
        return None if name in ("starlette", "prometheus_client") else there(name, package)

    serve.check_installed()
    monkeypatch.setattr(importlib.util, "find_spec", find)
    ran = retrain("serve", "--model", trained / "model")
    check_one_line(ran, 6, "serving needs starlette, prometheus_client; run: pip install 'retrain[serve]'")


# --- health


@contextlib.contextmanager
def answering(answer: bytes) -> Iterator[int]:
    """A server that answers so, whatever it is asked."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.wfile.write(answer)

        def log_message(self, *_arguments: Any) -> None:
            pass

    asked: list[str] = []
    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server.server_port
        server.shutdown()
        thread.join()
    assert asked == ["/healthz"]


def test_a_server_is_well_that_says_so() -> None:
    with answering(b"HTTP/1.0 200 OK\r\n\r\n{}") as port:
        assert health.is_well(port)


@pytest.mark.parametrize("answer", [b"HTTP/1.0 503 No\r\n\r\n", b"HTTP/1.0 404 No\r\n\r\n", b"", b"nonsense\r\n\r\n"])
def test_a_server_that_says_anything_else_is_not(answer: bytes) -> None:
    with answering(answer) as port:
        assert not health.is_well(port)


def test_where_no_server_is_none_is_well() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    assert not health.is_well(port)
    line = [sys.executable, "-m", "retrain.serve.health", str(port)]
    assert subprocess.run(line, check=False, capture_output=True, timeout=60).returncode == 1


# --- the log


class Stderr:
    """A standard error that is this descriptor."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def fileno(self) -> int:
        return self._descriptor


def test_lines_of_the_log_are_written_in_order_and_can_be_shown(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with (tmp_path / "log").open("wb") as file:
        monkeypatch.setattr(sys, "stderr", Stderr(file.fileno()))
        log = _Log()
        for number in range(100):
            log(f"{number}\nnext \x1b[31m caf\udce9")
        log.close()
    lines = (tmp_path / "log").read_text().splitlines()
    assert lines[0::2] == [f"retrain: {number}" for number in range(100)]
    assert all("\x1b" not in line and "\\x1b" in line and "caf" in line for line in lines[1::2])


def test_a_log_that_nobody_reads_or_that_is_closed_holds_nothing_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.modules[_Log.__module__], "_LAST_WORDS", 0.05)
    left, right = socket.socketpair()
    with left, right:
        monkeypatch.setattr(sys, "stderr", Stderr(left.fileno()))
        full = _Log()
        for _ in range(10_500):
            full("x" * 1000)
        full.close()
        assert full._writing.is_alive()  # nobody has read
        assert full._lines.qsize() < 10_100
        right.close()
        full._writing.join(30)
        assert not full._writing.is_alive()
    for stream in (None, Stderr(10_000)):
        monkeypatch.setattr(sys, "stderr", stream)
        closed = _Log()
        closed("x")
        closed.close()
        closed._writing.join(30)
        assert not closed._writing.is_alive()
