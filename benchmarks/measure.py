"""What the benchmarks share: child processes and what they cost, interleaved repeats, the facts that go with a figure.

A figure means nothing without the machine, the command and what it is compared with. So each script writes one JSON
file with all of them, and compares only things that it timed itself, in turns (A, B, A, B ...), by their medians: the
machine may be busy, but then it is busy for both.
"""

import argparse
import importlib.metadata
import json
import os
import platform
import shlex
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from retrain.runner import Network

REPOSITORY = Path(__file__).resolve().parents[1]
RESULTS = Path(__file__).resolve().parent / "results"
RETRAIN = (sys.executable, "-m", "retrain")
_PACKAGES = "retrain tensorflow keras ai-edge-litert pillow numpy scikit-learn scikit-image"
_MB = 10**6
_LOAD = os.getloadavg()[0]  # before the benchmark itself adds to it

# The peak memory that the system reports for a child counts the memory of the process that started it, up to the
# moment when the child's program takes over. So a small process in between starts it, not this one with all it holds.
_STARTER = """
import json, os, sys, time
report, *command = sys.argv[1:]
began = time.perf_counter()
child = os.posix_spawn(command[0], command, os.environ)
_, status, usage = os.wait4(child, 0)
seconds = time.perf_counter() - began
peak = usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024)
with open(report, "w") as file:
    json.dump([seconds, peak, os.waitstatus_to_exitcode(status)], file)
"""


class Child(NamedTuple):
    """A child process that ended: wall seconds, peak memory in MB (a million bytes), exit code and what it wrote."""

    seconds: float
    peak_mb: float
    exit_code: int
    stdout: str
    stderr: str


def run_child(command: Sequence[str], *, allowed: Sequence[int] = (0,), **environment: str) -> Child:
    """Run a command (first item: the path of a program) to its end, with additions to the environment.

    Raises RuntimeError, with the end of its stderr, for an exit code that isn't allowed.
    """
    with tempfile.NamedTemporaryFile("r", suffix=".json") as report:
        starter = [sys.executable, "-I", "-S", "-c", _STARTER, report.name, *command]
        done = subprocess.run(starter, capture_output=True, text=True, check=True, env={**os.environ, **environment})
        seconds, peak, code = json.load(report)
    if code not in allowed:
        raise RuntimeError(f"{shlex.join(command)} ended with {code}:\n{done.stderr[-2000:]}")
    return Child(seconds, peak / _MB, code, done.stdout, done.stderr)


def in_turns(measures: Mapping[str, Callable[[], float]], rounds: int) -> dict[str, list[float]]:
    """Call each measure once a round, in turns; returns what each gave, a list a name."""
    figures: dict[str, list[float]] = {name: [] for name in measures}
    for number in range(rounds):
        for name, measure in measures.items():
            figures[name].append(measure())
            say(f"round {number + 1} of {rounds}: {name} {figures[name][-1]:.3f}")
    return figures


def medians(figures: Mapping[str, Sequence[float]]) -> dict[str, float]:
    """Return the median of each list."""
    return {name: statistics.median(values) for name, values in figures.items()}


def rounded(value: Any, digits: int = 4) -> Any:
    """Round every float in nested dictionaries and lists, for reading."""
    if isinstance(value, float):
        return round(value, digits)
    if isinstance(value, dict):
        return {key: rounded(item, digits) for key, item in value.items()}
    return [rounded(item, digits) for item in value] if isinstance(value, list | tuple) else value


def say(line: str) -> None:
    """Tell on stderr how far it is."""
    print(line, file=sys.stderr, flush=True)


def machine() -> dict[str, Any]:
    """Return the facts of this machine that decide how fast things are."""
    import psutil

    cpus = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else range(os.cpu_count() or 1)
    return {
        "cores": len(cpus),
        "cpu": _cpu_model(),
        "memory_gb": round(psutil.virtual_memory().total / 10**9, 1),
        "load_average_before": round(_LOAD, 2),
        "python": platform.python_version(),
        "packages": {name: _version(name) for name in _PACKAGES.split()},
        "system": platform.platform(),
    }


def _cpu_model() -> str:
    facts = Path("/proc/cpuinfo")
    lines = facts.read_text().splitlines() if facts.exists() else []
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.processor())


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def parser(doc: str, *, corpora: bool = False, folds: bool = False) -> argparse.ArgumentParser:
    """Return a parser with the options that all scripts have; `doc` is the script's docstring."""
    made = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    if corpora:
        made.add_argument("corpora", type=Path, metavar="CORPORA", help="folder with clipart/data/ and factions/data/")
    if folds:
        made.add_argument("folds", type=Path, metavar="FOLDS", help="folder with the files of folds")
        made.add_argument("--cache", type=Path, help="file that keeps the features between runs [a temporary one]")
    made.add_argument("--out", type=Path, default=RESULTS, help="folder for the JSON file [benchmarks/results]")
    return made


def write(
    out: Path, name: str, doc: str, results: dict[str, Any], *, target: str, met: bool | None, seed: Any = None
) -> None:
    """Write `out/<name>.json` and print it; `doc`: the script's docstring, whose first line is the question.

    `seed`: None where nothing is drawn at random. `met`: None where what was demanded wasn't measured.
    """
    facts = {
        "question": doc.strip().splitlines()[0],
        "command": shlex.join(sys.argv),
        "seed": seed,
        "machine": machine(),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "results": rounded(results),
        "target": target,
        "met": met,
    }
    out.mkdir(parents=True, exist_ok=True)
    text = json.dumps(facts, indent=1) + "\n"
    (out / f"{name}.json").write_text(text)
    print(text, end="")


@contextmanager
def temporary_folder() -> Iterator[Path]:
    """Give a folder that is gone afterwards."""
    with tempfile.TemporaryDirectory(prefix="retrain-benchmark-") as name:
        yield Path(name)


def working_folder(data: Path, parent: Path, name: str) -> Path:
    """Make a folder to train in, whose `data` is a link to a folder of class folders, so that nothing is written there."""
    folder = parent / name
    folder.mkdir(parents=True)
    (folder / "data").symlink_to(data.resolve(), target_is_directory=True)
    return folder


def default_network(name: str = "") -> "Network":
    """Return a backbone, by default the default one, as LiteRT runs it; another process makes it where it must be made."""
    from retrain import backbones

    row = backbones.get(name or backbones.DEFAULT)
    run_child([sys.executable, "-c", f"from retrain import backbones as b; b.network(b.get({row.name!r}))"])
    return backbones.network(row)
