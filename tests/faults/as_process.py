"""`retrain` as a process of its own, that can also train: the tiny backbone is in its table."""

import os
import subprocess
import sys
from pathlib import Path

from retrain import backbones, cli
from retrain.backbones import Backbone
from tests.conftest import TINY_FEATURES, TINY_SIZE, build_tiny

ROOT = Path(__file__).parents[2]
WEIGHTS = "TINY_WEIGHTS"


def line_and_environment(tiny: Backbone, *arguments: object, **environment: str) -> tuple[list[str], dict[str, str]]:
    """Return what to give to subprocess: `retrain` with these arguments, in our environment with these changes."""
    line = [sys.executable, "-m", __name__, *map(os.fsdecode, map(_plain, arguments))]
    return line, {**os.environ, "PYTHONPATH": str(ROOT), WEIGHTS: str(tiny.weights()), **environment}


def run(tiny: Backbone, *arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a command to its end; it hangs if it takes more than a minute or two."""
    line, env = line_and_environment(tiny, *arguments, **environment)
    return subprocess.run(line, env=env, capture_output=True, text=True, timeout=120, check=False)


def _plain(argument: object) -> str | bytes:
    return argument if isinstance(argument, bytes) else str(argument)


if __name__ == "__main__":
    weights = Path(os.environ[WEIGHTS])
    row = Backbone("tiny", TINY_SIZE, TINY_FEATURES, "Apache-2.0", "drawn by the tests", lambda: weights, build_tiny)
    backbones.BACKBONES[row.name] = row
    cli.program()
