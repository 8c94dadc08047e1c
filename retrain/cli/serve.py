"""`retrain serve`."""

import contextlib
import ctypes
import math
import os
import re
import signal
import sys
import threading
from pathlib import Path
from queue import SimpleQueue

import click

from retrain import __version__
from retrain.cli.console import printable
from retrain.cli.options import model_option, tta_option, unknown_option
from retrain.errors import Exit, UsageError

_MIB = 2**20
_MOST_LINES = 10_000  # that wait to be written
_LAST_WORDS = 1.0  # seconds
_M_MMAP_THRESHOLD = -3  # of malloc.h
_DIGITS = 640  # of a number in JSON: the time to read one grows with their square
_LOOPBACK = ("127.0.0.1", "::1", "localhost")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_HOST = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9][A-Za-z0-9._-]*)(:[0-9]{1,5})?")
_PREFIX = re.compile(r"(/[A-Za-z0-9._~-]+)*")


@click.command(short_help="Offer a model as a web page and a REST service.")
@model_option
@click.option("--port", type=click.IntRange(0, 65535), default=8000, show_default=True, help="Port; 0 for any that is free.")
@click.option(
    "--host",
    default="127.0.0.1",
    show_default=True,
    help="Address to listen on; the default is reached from this machine only. Any other needs --allow-host.",
)
@click.option(
    "--allow-host",
    "hosts",
    multiple=True,
    metavar="NAME[:PORT]",
    help="Name by which browsers reach the server, such as demo.example.org; several times for several.",
)
@click.option(
    "--root-path", default="", metavar="/PREFIX", help="What a proxy has in front of the addresses, such as /demo."
)
@click.option("--name", default="retrain", show_default=True, help="Name of the model in addresses: /v1/models/NAME.")
@click.option("--workers", type=click.IntRange(1, 256), help="Pictures worked on at a time.  [default: one a core]")
@click.option(
    "--queue",
    type=click.IntRange(0, 100_000),
    default=64,
    show_default=True,
    help="Requests that may wait; more are told 503.",
)
@click.option("--max-body", type=click.IntRange(1, 1024), default=32, show_default=True, help="Largest request, in MiB.")
@click.option(
    "--timeout",
    type=click.FloatRange(1, 3600),
    default=60.0,
    show_default=True,
    help="Seconds in which a request must have been sent.",
)
@click.option(
    "--training-pictures/--no-training-pictures",
    "pictures",
    default=None,
    help="Show small copies of the nearest training pictures.  [default: only where --host is this machine]",
)
@unknown_option
@tta_option
def serve(
    model: Path, port: int, host: str, hosts: tuple[str, ...], root_path: str, name: str, workers: int | None, queue: int,
    max_body: int, timeout: float, pictures: bool | None, unknown: float, tta: str,
) -> int:  # fmt: skip
    """Offer the model in TF_FILES/model as a web page, to drop pictures on, and as a REST service.

    It goes on until Ctrl-C. When the model folder changes, as retrain train changes it, the new model is served, and no
    request is lost. No picture that is sent is kept. It needs `pip install retrain[serve]`.

    \b
      retrain serve                                         then open http://127.0.0.1:8000/
      curl --data-binary @image.jpg 127.0.0.1:8000/label
      retrain serve --host 0.0.0.0 --allow-host demo.example.org
    """
    _check(host, hosts, root_path, name, timeout)
    from retrain.serve import check_installed

    check_installed()
    from retrain.runner import cores
    from retrain.serve.app import Life, Options, create_app
    from retrain.serve.bodies import Limits
    from retrain.serve.engine import Engine, Source
    from retrain.serve.server import listen, run

    _occupy()
    _give_memory_back()
    sys.set_int_max_str_digits(_DIGITS)
    local, life, log = host.lower() in _LOOPBACK, Life(), _Log()
    source = Source(model, unknown, tta, local if pictures is None else pictures)
    engine = Engine(source, workers or cores(), queue)
    # Every core is to have a few large requests at a time.
    limits = Limits(max_body * _MIB, max(256, 2 * engine.cores * max_body) * _MIB, timeout)
    app = create_app(engine, Options(name, __version__, hosts, root_path, limits), log, life)
    listening = listen(host, port)
    if not local:
        log(f"warning: whoever reaches {host} can use this server; nobody is asked who they are")
    at = f"[{host}]" if ":" in host else host
    click.echo(f"serving {printable(str(model))} on http://{at}:{listening.getsockname()[1]}{root_path}/ (Ctrl-C ends it)")
    ended = run(app, listening, life)
    log(f"ended; requests cut off: {ended.cut}" if ended.cut else "ended; every request that had arrived was answered")
    log.close()
    return Exit.INTERRUPTED if ended.signal == signal.SIGINT else Exit.TERMINATED


def _check(host: str, hosts: tuple[str, ...], root_path: str, name: str, timeout: float) -> None:
    if math.isnan(timeout):  # NaN, from a variable that went wrong
        raise UsageError("--timeout nan is no number; give seconds, such as 60")
    if host.lower() not in _LOOPBACK and not hosts:
        raise UsageError(
            f"--host {host} opens the server to other machines; say by which name they reach it: --allow-host NAME"
        )
    for one in hosts:
        if not _HOST.fullmatch(one):
            raise UsageError(f"--allow-host {one} is no host name, such as demo.example.org or 192.168.1.5:8000")
    if not _PREFIX.fullmatch(root_path):
        raise UsageError(f"--root-path {root_path} is no path such as /demo, without a slash at its end")
    if not _NAME.fullmatch(name):
        raise UsageError(f"--name {name} has other characters than letters, digits, dots, dashes and underscores")


def _occupy() -> None:
    """Have descriptors 0 to 2 lead somewhere, if to nowhere: started with one closed, a connection would get its number."""
    while (descriptor := os.open(os.devnull, os.O_RDWR)) <= 2:
        pass
    os.close(descriptor)


def _give_memory_back() -> None:
    """Have glibc return the memory of a large picture once it is done, which it would else keep for the next."""
    with contextlib.suppress(OSError, AttributeError):  # another C library
        ctypes.CDLL(None).mallopt(_M_MMAP_THRESHOLD, _MIB)


class _Log:
    """Writes lines to standard error in a thread of its own: where nobody reads them, the server goes on all the same."""

    def __init__(self) -> None:
        self._lines: SimpleQueue[str | None] = SimpleQueue()
        self._writing = threading.Thread(target=self._write, daemon=True)
        self._writing.start()

    def __call__(self, lines: str) -> None:
        if self._lines.qsize() < _MOST_LINES:
            for line in lines.splitlines():
                self._lines.put(f"retrain: {printable(line)}\n")

    def _write(self) -> None:
        while (line := self._lines.get()) is not None:
            # Not through the stream, whose lock would be held while nobody reads.
            with contextlib.suppress(OSError, AttributeError, ValueError):
                left = line.encode(errors="backslashreplace")
                while left:
                    left = left[os.write(sys.stderr.fileno(), left) :]

    def close(self) -> None:
        """Wait until all is written, if it can be."""
        self._lines.put(None)
        self._writing.join(_LAST_WORDS)
