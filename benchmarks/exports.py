"""Is an export the model, and how large and how fast is it?

    python benchmarks/exports.py CORPORA

Trains a model on the clip art with default options and exports it to every format twice, each time in a new process. For
each format: megabytes; how far its scores and the model's agree on the test part, as the export's own proof says; whether
both exports have the same bytes; milliseconds a picture. Each export runs in its own runtime in a process of its own with
one thread, one picture at a time, from pixels to scores. The processes take turns, so that a busy machine is busy for all
of them: read the ratios to LiteRT in float32. Of `zip`, it is `retrain` that is timed, from pixels as well.

Met: all formats agree as much as the command demands by itself, and all but `savedmodel` have the same bytes twice;
of `savedmodel`, nothing but `fingerprint.pb` differs.
"""

import json
import statistics
import subprocess
import sys
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import measure
import numpy as np
from measure import REPOSITORY, RETRAIN, run_child

from retrain import artifact
from retrain.exports import formats
from retrain.exports.pictures import as_seen
from retrain.storage import Layout
from retrain.whereabouts import Whereabouts

TRAIN_ENDS = (0, 3)  # 3: some pictures were skipped
PICTURES, REFERENCE = 20, formats.LITERT
MAY_DIFFER = {formats.SAVED_MODEL: {"fingerprint.pb"}}
_MB = 10**6


def export(folder: Path, output: Path) -> dict[str, dict[str, Any]]:
    """Export to all formats, each below `output`; returns what each proof says."""
    for name in formats.FORMATS:
        measure.say(f"exporting to {name}")
        run_child([*RETRAIN, "export", str(folder), "--format", name, "--output", str(output / name)])
    return {name: json.loads((output / name / "proof.json").read_text()) for name in formats.FORMATS}


def own_files(folder: Path, one: formats.Format) -> dict[str, bytes]:
    """Return what a format is made of, by path."""
    path = folder / one.name / one.file
    files = [path] if path.is_file() else [file for file in path.rglob("*") if file.is_file()]
    return {file.relative_to(folder).name: file.read_bytes() for file in files}


def differing(first: dict[str, bytes], second: dict[str, bytes]) -> list[str]:
    """Return the names of files that are not the same twice."""
    return sorted(name for name in first.keys() | second.keys() if first.get(name) != second.get(name))


def some_pictures(folder: Path) -> np.ndarray:
    """Return the first pictures of the test part as the network sees them."""
    loaded, files = artifact.load(folder / "model"), Whereabouts(Layout(folder))
    wanted = sorted(row.sha256 for row in loaded.split() if row.part == "test")[:PICTURES]
    paths = [files.path(sha256) for sha256 in wanted]
    return np.stack([as_seen(loaded.artifact, Path(path).read_bytes())["pixels"] for path in paths if path])


def timed(output: Path, pixels: Path, rounds: int) -> dict[str, list[float]]:
    """Return seconds a picture, a list a format: one figure a round."""
    with ExitStack() as stack:
        measures: dict[str, Callable[[], float]] = {}
        for one in formats.FORMATS.values():
            path = output / one.name / one.file
            script = REPOSITORY / "benchmarks" / "export_runtime.py"
            command = [sys.executable, str(script), one.name, str(path), str(pixels)]
            child = stack.enter_context(
                subprocess.Popen(
                    command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
                )
            )
            assert child.stdin and child.stdout
            if child.stdout.readline() != "ready\n":
                raise RuntimeError(f"{one.name} does not run")
            measures[one.name] = lambda child=child: asked(child)  # type: ignore[misc]
        return measure.in_turns(measures, rounds)


def asked(child: "subprocess.Popen[str]") -> float:
    """Have all pictures labelled once; returns seconds a picture."""
    assert child.stdin and child.stdout
    child.stdin.write("\n")
    child.stdin.flush()
    return float(child.stdout.readline())


def main() -> None:
    """Run the benchmark."""
    parser = measure.parser(__doc__, corpora=True)
    parser.add_argument("--rounds", type=int, default=15, help="repeats [15]")
    options = parser.parse_args()
    with measure.temporary_folder() as temporary:
        folder = measure.working_folder(options.corpora / "clipart" / "data", temporary, "tf_files")
        measure.say("training")
        run_child([*RETRAIN, "train", str(folder)], allowed=TRAIN_ENDS)
        proofs = export(folder, temporary / "first")
        export(folder, temporary / "second")
        pixels = temporary / "pixels.npy"
        np.save(pixels, some_pictures(folder))
        seconds = timed(temporary / "first", pixels, options.rounds)
        rows = {}
        for name, one in formats.FORMATS.items():
            files = own_files(temporary / "first", one)
            # A ratio for each round: the two sides of it were timed one after the other.
            ratios = [own / other for own, other in zip(seconds[name], seconds[REFERENCE], strict=True)]
            rows[name] = {
                "mb": sum(map(len, files.values())) / _MB,
                "agreement": proofs[name]["same"]["agreement"],
                # Of floats, it is a few millionths, which rounding would make nothing.
                "largest_difference": float_in_words(proofs[name]["same"]["difference"]),
                "demanded": proofs[name]["least"],
                "milliseconds": statistics.median(seconds[name]) * 1000,
                "times_litert": statistics.median(ratios),
                "differs_when_exported_twice": differing(files, own_files(temporary / "second", one)),
            }
        from_files = proofs[formats.SAVED_MODEL]
        rows[formats.SAVED_MODEL]["from_files"] = {
            "agreement": from_files["from_bytes"]["agreement"],
            "largest_difference": float_in_words(from_files["from_bytes"]["difference"]),
            "pictures": from_files["from_bytes"]["pictures"],
            "unread": from_files["unread"],
        }
    results = {
        "pictures": proofs[REFERENCE]["same"]["pictures"],
        "rounds": options.rounds,
        "pictures_a_round": PICTURES,
        "formats": rows,
    }
    met = all(
        row["agreement"] >= row["demanded"] and set(row["differs_when_exported_twice"]) <= MAY_DIFFER.get(name, set())
        for name, row in rows.items()
    )
    target = "all agree as much as the command demands; the same bytes twice, but for the SavedModel's fingerprint.pb"
    measure.write(options.out, "exports", __doc__, results, target=target, met=met, seed=0)


def float_in_words(value: float) -> str:
    """Return a small number with two digits."""
    return f"{value:.1e}" if 0 < value < 0.001 else f"{value:.3f}"


if __name__ == "__main__":
    main()
