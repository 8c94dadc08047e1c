"""Decodes files one by one, for tests that need a process of its own: `python -m tests.faults.decoding FILE...`

Prints a line of JSON for each file: its name, what came of it, the seconds of CPU it took. With `--room MB` the process
can take no more than that in addition to what it holds at the start. A file that takes too long ends the process.
"""

import argparse
import hashlib
import json
import math
import os
import re
import resource
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from retrain import views
from retrain.errors import REASONS, BadImage
from retrain.images import FORMATS, decode, read_bytes
from tests.test_images import encoded

SIDE = 32
LIMIT = 5  # seconds of CPU a file
ROWS = 256
OUT_OF_MEMORY = ["too-large", "out of memory"]
ADDRESS = re.compile(r"\b0x[0-9a-f]+")


def outcome(given: bytes | Path, side: int = SIDE) -> list[Any]:
    """Decode and render as train and label do. What is promised is an array of the right kind or a BadImage.

    A view may find memory too short as well: a command then ends with 6 and one line.
    """
    try:
        picture = views.decode_for(read_bytes(given) if isinstance(given, Path) else given, side)
        pixels = views.render(picture, views.DEFAULT_VIEW, side)
    except BadImage as problem:
        assert problem.reason in REASONS and not ADDRESS.search(problem.detail), problem
        return [problem.reason, problem.detail]
    except MemoryError as error:
        assert any(call.name == views.render.__name__ for call in traceback.extract_tb(error.__traceback__)), error
        return OUT_OF_MEMORY
    assert picture.image.mode == "RGB" and min(picture.image.size) >= 1, picture
    assert pixels.shape == (side, side, 3) and pixels.dtype == np.uint8, (pixels.shape, pixels.dtype)
    try:
        drawn = _fingerprint(picture.image) + hashlib.sha256(pixels.tobytes()).hexdigest()
    except MemoryError:  # the last of it went into the picture
        return OUT_OF_MEMORY
    return [picture.format, [*picture.image.size], [*picture.notes], drawn]


def _fingerprint(image: Image.Image) -> str:
    digest, (width, height) = hashlib.sha256(), image.size
    for top in range(0, height, ROWS):  # the bytes of all at once would need the memory again
        digest.update(image.crop((0, top, width, min(height, top + ROWS))).tobytes())
    return digest.hexdigest()


def within_limit(seconds: int = LIMIT) -> None:
    """Let the process be ended where it takes so many seconds of CPU from now on (rounded up)."""
    used = time.process_time()
    resource.setrlimit(resource.RLIMIT_CPU, (math.ceil(used) + seconds, resource.RLIM_INFINITY))


def in_room_of(megabytes: int) -> None:
    """Let the process have so much memory in addition to what it has, after a first picture of each format."""
    for kind in FORMATS:
        decode(encoded(Image.new("RGB", (600, 600)), kind))
    held = int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    resource.setrlimit(resource.RLIMIT_AS, (held + megabytes * 2**20, resource.RLIM_INFINITY))


def elsewhere(paths: Iterable[Path], room: int | None = None) -> dict[str, list[Any]]:
    """Decode files in one process of its own; return name -> what came of it."""
    line = [sys.executable, "-m", __name__, *(["--room", str(room)] if room is not None else []), *map(str, paths)]
    done = subprocess.run(line, capture_output=True, text=True, timeout=300, check=False)
    rows = [json.loads(row) for row in done.stdout.splitlines()]
    assert done.returncode == 0, f"ended with {done.returncode} after {rows[-1:]}\n{done.stderr}"
    assert not done.stderr, done.stderr
    return {row["name"]: row["outcome"] for row in rows}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--room", type=int)
    parser.add_argument("paths", nargs="+", type=Path)
    given = parser.parse_args()
    signal.signal(signal.SIGXCPU, signal.SIG_DFL)
    if given.room is not None:
        in_room_of(given.room)
    for path in given.paths:
        within_limit()
        print(json.dumps({"name": path.name, "outcome": outcome(path)}), flush=True)


if __name__ == "__main__":
    main()
