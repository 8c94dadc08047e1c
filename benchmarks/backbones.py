"""Which embedded backbone is how accurate, and how long does a picture take?

    python benchmarks/backbones.py CORPORA FOLDS --cache features.sqlite

Accuracy: the head of `retrain train` with its default settings on the features of each backbone, on the three files of
folds that `accuracy.py` uses, mean over the folds and the seeds, with the paired difference to the default. Milliseconds:
one LiteRT interpreter with one thread on a picture that lies decoded in memory, the backbones taking turns.
"""

import time
from pathlib import Path
from typing import Any

import accuracy
import measure
import numpy as np

from retrain import backbones
from retrain.runner import Runner

NAMES = [name for name, row in backbones.BACKBONES.items() if row.family == "embedded"]
_PICTURES = 40


def milliseconds(networks: dict[str, Any], rounds: int) -> dict[str, dict[str, Any]]:
    """Return, for each backbone, milliseconds a picture: the median of rounds, and the rounds."""
    runners = {name: Runner(network.data) for name, network in networks.items()}

    def timed(name: str) -> float:
        runner = runners[name]
        rng = np.random.default_rng(0)
        pixels = rng.integers(0, 256, (1, runner.image_size, runner.image_size, 3), dtype=np.uint8)
        runner.features(pixels)
        began = time.perf_counter()
        for _ in range(_PICTURES):
            runner.features(pixels)
        return 1000 * (time.perf_counter() - began) / _PICTURES

    taken = measure.in_turns({name: lambda name=name: timed(name) for name in networks}, rounds)
    medians = measure.medians(taken)
    return {name: {"median": medians[name], "rounds": taken[name]} for name in networks}


def accuracies(rows: accuracy.Rows, folds: list[int], seeds: list[int], folder: Path) -> list[float]:
    """Return the accuracy on each fold, the mean over the seeds."""
    return [float(np.mean([accuracy.ours(rows, fold, seed, folder)[0] for seed in seeds])) for fold in folds]


def main() -> None:
    """Run the benchmark."""
    parser = measure.parser(__doc__, corpora=True, folds=True)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0], help="seeds of the head [0]")
    parser.add_argument("--limit", type=int, default=5, help="number of outer folds, to try things out [5]")
    parser.add_argument("--rounds", type=int, default=5, help="repeats of the timing [5]")
    options = parser.parse_args()
    networks = {name: measure.default_network(name) for name in NAMES}
    times = milliseconds(networks, options.rounds)
    results: dict[str, Any] = {}
    with measure.temporary_folder() as temporary:
        for name in NAMES:
            row = backbones.get(name)
            results[name] = {"image_size": row.image_size, "milliseconds": times[name], "accuracy": {}}
            for file, corpus in accuracy.FILES.items():
                cache = options.cache or temporary / "cache"
                known = accuracy.features_of(options.corpora / corpus / "data", cache, networks[name], name)
                rows = accuracy.read_folds(options.folds / f"{file}.csv", known, file == accuracy.BY_UNIT)
                numbers = sorted(set(rows.folds.tolist()))[: options.limit]
                by_fold = accuracies(rows, numbers, options.seeds, temporary)
                facts: dict[str, Any] = {"mean": float(np.mean(by_fold)), "by_fold": by_fold, "pictures": len(rows.folds)}
                if name != backbones.DEFAULT:
                    base = results[backbones.DEFAULT]["accuracy"][file]["by_fold"]
                    facts["minus_default"] = accuracy.difference([a - b for a, b in zip(by_fold, base, strict=True)])
                results[name]["accuracy"][file] = facts
                measure.say(f"{name}, {file}: {facts['mean']:.4f}")
    measure.write(options.out, "backbones", __doc__, results, target="none: a table", met=None, seed=options.seeds)


if __name__ == "__main__":
    main()
