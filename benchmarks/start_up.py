"""How soon does `retrain label` answer, and in how much memory, compared with merely importing TensorFlow?

    python benchmarks/start_up.py

Trains a model on the sample set, then runs whole processes in turns: `retrain label IMAGE`, `python -c "import
tensorflow"`, `retrain --help`, and an empty `python -c pass` for scale. Each process starts afresh, with its files in
the system's cache (one round before the others isn't counted). Met: labelling takes at most a tenth of the time of
the import and less than 150 MB, help takes less than 0.2 s and loads none of the heavy packages.
"""

import statistics
import sys
from pathlib import Path

import measure
from measure import REPOSITORY, RETRAIN, Child, run_child

from retrain import images

HEAVY = ("tensorflow", "keras", "numpy", "PIL")
MOST_RATIO, MOST_MB, MOST_HELP_SECONDS = 0.10, 150, 0.2
TRAIN_ENDS = (0, 3)  # 3: some pictures were skipped


def commands(image: Path, model: Path) -> dict[str, list[str]]:
    """Return what is timed."""
    return {
        "label": [*RETRAIN, "label", str(image), "--model", str(model)],
        "import tensorflow": [sys.executable, "-c", "import tensorflow"],
        "help": [*RETRAIN, "--help"],
        "empty python": [sys.executable, "-c", "pass"],
    }


def time_in_turns(timed: dict[str, list[str]], rounds: int) -> dict[str, list[Child]]:
    """Run each command once a round, after one round that isn't counted."""
    children: dict[str, list[Child]] = {name: [] for name in timed}
    for number in range(rounds + 1):
        for name, command in timed.items():
            child = run_child(command)
            if number:
                children[name].append(child)
        measure.say(f"round {number} of {rounds}")
    return children


def heavy_modules_of_help() -> list[str]:
    """Return which heavy packages `retrain --help` loads."""
    log = run_child([sys.executable, "-X", "importtime", "-m", "retrain", "--help"]).stderr
    loaded = {line.rpartition("|")[2].strip().partition(".")[0] for line in log.splitlines() if "|" in line}
    if "click" not in loaded:
        raise RuntimeError(f"the log of imports cannot be read: {log[:200]}")
    return sorted(loaded.intersection(HEAVY))


def main() -> None:
    """Run the benchmark."""
    parser = measure.parser(__doc__)
    parser.add_argument("--tf-files", type=Path, default=REPOSITORY / "tf_files", help="set to train on [the sample set]")
    parser.add_argument("--rounds", type=int, default=15, help="repeats of each command [15]")
    options = parser.parse_args()
    image = next(path for path, problem in images.find(options.tf_files / "data") if problem is None)
    with measure.temporary_folder() as temporary:
        folder = measure.working_folder(options.tf_files / "data", temporary, "tf_files")
        run_child([*RETRAIN, "train", str(folder)], allowed=TRAIN_ENDS)
        children = time_in_turns(commands(image, folder / "model"), options.rounds)
    seconds = {name: [child.seconds for child in many] for name, many in children.items()}
    medians = measure.medians(seconds)
    peaks = {name: max(child.peak_mb for child in many) for name, many in children.items()}
    ratio, heavy = medians["label"] / medians["import tensorflow"], heavy_modules_of_help()
    results = {
        "median_seconds": medians,
        "label_to_import_ratio": ratio,
        "peak_mb": peaks,
        "heavy_packages_loaded_by_help": heavy,
        "spread_seconds": {name: [min(many), statistics.median(many), max(many)] for name, many in seconds.items()},
        "rounds": options.rounds,
    }
    met = ratio <= MOST_RATIO and peaks["label"] < MOST_MB and medians["help"] < MOST_HELP_SECONDS and not heavy
    target = (
        f"label / import tensorflow at most {MOST_RATIO}; label below {MOST_MB} MB; help below {MOST_HELP_SECONDS} s and"
        f" without {', '.join(HEAVY)}"
    )
    measure.write(options.out, "start_up", __doc__, results, target=target, met=met, seed=0)


if __name__ == "__main__":
    main()
