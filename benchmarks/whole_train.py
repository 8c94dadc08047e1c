"""How long does a whole `retrain train` take, cold and warm, and in how much memory?

    python benchmarks/whole_train.py CORPORA

Trains as a child process on the sample set, the clip art and the factions, each in a temporary working folder whose
`data` is a link. Cold: nothing but the pictures, and the converted backbone in the user's cache. Warm: the same
command again. First: cold, and the user's cache empty as well, as on a new machine. Cold and warm take turns; stages
are from the run's own record. Importing TensorFlow and Keras, which no training run can do without, is timed beside
them. Met: a warm run on the clip art takes at most a quarter of a cold one.
"""

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import measure
from measure import REPOSITORY, RETRAIN

TRAIN_ENDS = (0, 3)  # 3: some pictures were skipped
MOST_WARM = 0.25
ONCE = "factions"  # a set that takes long


def train(folder: Path, **environment: str) -> dict[str, Any]:
    """Train in a folder; returns wall seconds, peak memory, seconds a stage and what was computed."""
    child = measure.run_child([*RETRAIN, "train", str(folder)], allowed=TRAIN_ENDS, **environment)
    record = json.loads((folder / "reports/train.json").read_text())
    measure.say(f"{folder.name}: {child.seconds:.1f} s, {child.peak_mb:.0f} MB, {record['counts']}")
    return {
        "seconds": child.seconds,
        "peak_mb": child.peak_mb,
        "stages": record["seconds"],
        "counts": record["counts"],
        "test_accuracy": record["test_accuracy"],
        "test_accuracy_interval": record["test_accuracy_interval"],
        "judged_on": record["judged_on"],
    }


def clear(folder: Path) -> None:
    """Delete everything that a run wrote, so that only the pictures are left."""
    for path in folder.iterdir():
        if path.name == "data":
            continue
        shutil.rmtree(path) if path.is_dir() else path.unlink()


def cold_and_warm(folder: Path, rounds: int) -> dict[str, Any]:
    """Train cold and warm in turns; returns the runs, medians, and their ratio."""
    runs: dict[str, list[dict[str, Any]]] = {"cold": [], "warm": []}
    for _ in range(rounds):
        clear(folder)
        runs["cold"].append(train(folder))
        runs["warm"].append(train(folder))
        _must_be(runs["cold"][-1]["counts"]["cached"] == 0, "a cold run found features in the cache")
        _must_be(runs["warm"][-1]["counts"]["computed"] == 0, "a warm run computed features")
    medians = measure.medians({name: [run["seconds"] for run in many] for name, many in runs.items()})
    stages = {name: _median_stages(many) for name, many in runs.items()}
    peaks = {name: max(run["peak_mb"] for run in many) for name, many in runs.items()}
    return {
        "median_seconds": medians,
        "warm_to_cold_ratio": medians["warm"] / medians["cold"],
        "median_stage_seconds": stages,
        "peak_mb": peaks,
        "rounds": runs,
    }


def first(folder: Path, user_cache: Path, warm: float) -> dict[str, Any]:
    """Train as on a new machine: no features, no converted backbone; returns the run, and warm over its seconds."""
    clear(folder)
    run = train(folder, RETRAIN_CACHE_DIR=str(user_cache))
    return {"first": run, "warm_to_first_ratio": warm / run["seconds"]}


def _median_stages(runs: list[dict[str, Any]]) -> dict[str, float]:
    return measure.medians({stage: [run["stages"][stage] for run in runs] for stage in runs[0]["stages"]})


def _must_be(true: bool, otherwise: str) -> None:
    if not true:
        raise RuntimeError(otherwise)


def main() -> None:
    """Run the benchmark."""
    parser = measure.parser(__doc__, corpora=True)
    sets = {"sample": REPOSITORY / "tf_files/data"} | {name: Path(name, "data") for name in ("clipart", "factions")}
    parser.add_argument("--only", nargs="+", choices=list(sets), default=list(sets), help="sets to train on [all]")
    parser.add_argument("--rounds", type=int, default=3, help=f"repeats, but for {ONCE} [3]")
    options = parser.parse_args()
    results: dict[str, Any] = {}
    measure.default_network()
    with measure.temporary_folder() as temporary:
        for name in options.only:
            folder = measure.working_folder(options.corpora / sets[name], temporary, name)
            results[name] = cold_and_warm(folder, 1 if name == ONCE else options.rounds)
            if name != ONCE:
                results[name] |= first(folder, temporary / f"no cache for {name}", results[name]["median_seconds"]["warm"])
        results["import_tensorflow_and_keras_seconds"] = [
            measure.run_child([sys.executable, "-c", "import keras, tensorflow"]).seconds for _ in range(options.rounds)
        ]
    met = results["clipart"]["warm_to_cold_ratio"] <= MOST_WARM if "clipart" in results else None
    target = f"clip art: warm / cold at most {MOST_WARM}"
    measure.write(options.out, "whole_train", __doc__, results, target=target, met=met, seed=0)


if __name__ == "__main__":
    main()
