"""The whole line as a process to disturb, without TensorFlow: pictures into the cache, a model saved, a folder classified.

    python -m tests.faults.whole_line ROOM     one run in the folder ROOM
    python -m tests.faults.whole_line          a run for each ROOM on standard input: forked, so each begins at once

Errors end as those of the command line do, because it is what runs here, with one command more. What a room holds:
pictures/, tiny.tflite; and after a run: bottlenecks.sqlite, model/, out/, said and errors (what was printed).
"""

import importlib
import os
import signal
import sys
from pathlib import Path

import click
import numpy as np
from PIL import Image

from retrain import artifact, cli, views
from retrain.bottlenecks import Space, Store, extract
from retrain.cli.classify import classify
from retrain.cli.console import Console
from retrain.errors import Exit
from retrain.runner import Network, Runner

SIZE, FEATURES = 32, 24
SPACE = Space("tiny", "weights", "preprocessing", "engine")
OLD, NEW = "once like", "like"  # first words of the labels of two models, which differ in the head, too


def save(room: Path, words: str) -> None:
    """Fill the cache and save a model whose head is made of features: with a wrong vector it has other bytes."""
    network = Network(Runner.engine, (room / "tiny.tflite").read_bytes())
    paths = sorted(str(path) for path in (room / "pictures").iterdir())
    with Store(room / "bottlenecks.sqlite", SPACE, Console()) as store:
        found = extract(paths, store, network, "squash", SIZE, FEATURES, progress=Console())
    if found.problems:
        raise click.ClickException(f"{len(found.problems)} pictures could not be read")
    kernel = np.ascontiguousarray(found.features.T) * np.float32(len(words))
    labels = tuple(f"{words} {Path(path).stem}" for path in paths)
    preprocessing = views.preprocessing_id("squash", SIZE)
    member = artifact.Member(
        "tiny", "weights", "squash", preprocessing, SIZE, network, kernel, np.zeros(len(labels), np.float32)
    )
    rows = np.roll(np.arange(len(labels), dtype=np.int32), int(words == NEW))
    reference = artifact.Reference(found.features.astype(np.float16), np.zeros((len(labels), 32), np.uint8), rows)
    placed = [
        artifact.Placed(sha256, label, sha256, "", "train") for sha256, label in zip(found.hashes, labels, strict=True)
    ]
    model = artifact.Artifact(labels, (member,), {"none": 1.0}, {}, {}, {})
    artifact.save(room / "model", model, reference, placed, {})


@click.command()
@click.argument("room", type=click.Path(path_type=Path))
def line(room: Path) -> int:
    """Go the whole line."""
    save(room, NEW)
    assert classify.callback is not None
    code: int = classify.callback(
        room / "pictures", room / "out", room / "model", unknown=0.0, tta="auto", sort=False, dry_run=False
    )
    if "tensorflow" in sys.modules or "keras" in sys.modules:
        raise click.ClickException("TensorFlow came in, so nothing is shown about how labelling ends")
    return code


def serve() -> None:
    """Answer each ROOM with the number of a process that waits for a further line, and then with how it ended."""
    for name in ("ai_edge_litert.interpreter", "filelock", "safetensors.numpy", "retrain.classify"):
        importlib.import_module(name)  # once for all runs
    Image.init()
    for request in sys.stdin:
        heard, go = os.pipe()
        process = os.fork()
        if not process:
            _waiting_run(Path(request.strip()), heard)
        print(process, flush=True)
        sys.stdin.readline()
        os.write(go, b"!")
        os.close(go), os.close(heard)
        print(os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]), flush=True)


def _waiting_run(room: Path, heard: int) -> None:
    for number, name in ((1, "said"), (2, "errors")):
        os.dup2(os.open(room / name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.read(heard, 1)
    run(room)


def run(room: Path) -> None:
    """Go the line in this process and end it; a defect of the line must not come back to the loop of `serve`."""
    code: object = Exit.CHECK_FAILED
    try:
        cli.main(["line", str(room)])
    except SystemExit as end:
        code = end.code
    finally:
        sys.stdout.flush(), sys.stderr.flush()
        os._exit(code if isinstance(code, int) else 99)


if __name__ == "__main__":
    cli.cli.add_command(line)  # here only: tests that import this module must not get a command more
    if len(sys.argv) > 1:
        run(Path(sys.argv[1]))
    serve()
