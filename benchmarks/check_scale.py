"""Does a check stay near-linear in time and memory, and does its search for duplicates find what is there?

    python benchmarks/check_scale.py

Made-up features, float32 (n, 1280), of 10,000, 30,000 and 100,000 pictures: clusters in 64 dimensions within 50 classes,
with noise in all of them; 5 % of the rows are near-duplicates of others, planted at 0.2 to 0.9 of the distance that still
counts as near; a lump of 2,000 nearly equal rows lies across all classes. Difference hashes are random bits; those of
planted rows differ in 0 to 8 of 128 bits. `near_duplicates` (the split of `train`) and `find_alike` (of `check`) run in a
child process each, with one thread, so that a busy machine matters less: seconds are those of the processor, the median
of rounds taken in turns, and peak memory is what the call adds to that of the features. `whole_check` is all that a check
does once features and facts are there, predictions and the search included, but for the page; once. Recall: planted pairs
that end up connected; rows of the lump in its largest component. Components as of all pairs: the share of components, of
at least two rows, that trees find exactly as the comparison of all pairs does, also for 10,000 where trees are not used
otherwise.
Met: the time a row is at most twice that for the fewest rows; memory of each call less than the features'; of the whole
check less than five times the features' where they are most, and what each further row adds less than twice its
features (what TensorFlow takes, whatever the number of rows, is half a gigabyte); recall and share at least 0.999.
"""

import json
import resource
import sys
import time
from pathlib import Path
from typing import Any

import measure
import numpy as np

from retrain.checks.alike import find_alike
from retrain.checks.gathered import Pictures
from retrain.checks.nearness import Alike, Near
from retrain.checks.run import _alike, _findings, _judge
from retrain.dataset import near_duplicates, neighbours
from retrain.facts import Facts
from retrain.progress import SILENT
from retrain.settings import HeadSettings
from retrain.storage import Layout

COUNTS = (10_000, 30_000, 100_000)
SIZE, DIMENSIONS, CLASSES, LUMP = 1280, 64, 50, 2000
PLANTED = 1 / 20
MOST_TIMES, LEAST_RECALL = 2.0, 0.999
CALLS = ("near_duplicates", "find_alike")
WHOLE, MOST_MEMORY, MOST_GROWTH = "whole_check", 5.0, 2.0


class Made:
    """Features with what was planted in them: `pairs` int64 (planted, 2), `lump` int64 (LUMP,)."""

    def __init__(self, count: int, seed: int = 0) -> None:
        rng = np.random.default_rng(seed)
        self.labels = rng.integers(0, CLASSES, count)
        basis = np.linalg.qr(rng.standard_normal((SIZE, DIMENSIONS)))[0].T.astype(np.float32)
        centres = 2 * rng.standard_normal((CLASSES * 20, DIMENSIONS), np.float32)
        within = self.labels * 20 + rng.integers(0, 20, count)
        self.features = np.empty((count, SIZE), np.float32)
        for at in range(0, count, 1000):
            part = slice(at, min(at + 1000, count))
            places = centres[within[part]] + rng.standard_normal((part.stop - at, DIMENSIONS), np.float32)
            self.features[part] = places @ basis + 0.1 * rng.standard_normal((part.stop - at, SIZE), np.float32)
        self.hashes = rng.integers(0, 2**64, (count, 2), np.uint64)
        rows = rng.permutation(count)
        self.lump, rest = rows[:LUMP], rows[LUMP:]
        self.features[self.lump] = self.features[self.lump[0]] + 0.01 * rng.standard_normal((LUMP, SIZE), np.float32)
        planted = int(count * PLANTED)
        self.pairs = np.stack([rest[:planted], rest[planted : 2 * planted]], axis=1)
        self._plant(rng)

    def _plant(self, rng: np.random.Generator) -> None:
        first, second = self.pairs.T
        self.labels[second] = self.labels[first]
        for one, other in zip(first, second, strict=True):
            row = self.features[one]
            step = rng.standard_normal(SIZE).astype(np.float32) + 6 * (self.features[other] - row)
            nearness = rng.uniform(0.2, 0.9) * np.sqrt(0.06) * np.linalg.norm(row) / np.linalg.norm(step)
            self.features[other] = row + nearness * step
            flips = np.zeros(128, bool)
            flips[rng.permutation(128)[: rng.integers(0, 9)]] = True
            self.hashes[other] = self.hashes[one] ^ np.packbits(flips).view(np.uint64)

    def alike(self) -> Alike:
        """Return the rows as `check` has them: paths, parts, facts and all."""
        facts = Facts(*[0.5] * len(Facts._fields))
        count = len(self.labels)
        parts = np.random.default_rng(1).choice(["train", "validation", "test"], count, p=[0.7, 0.1, 0.2]).tolist()
        names = [f"{row:08}.png" for row in range(count)]
        labels = [f"class {label}" for label in self.labels]
        return Alike(names, labels, names, self.features, self.hashes, parts, [facts] * count)


def whole(count: int) -> dict[str, Any]:
    """Measure a check of what has its features and facts."""
    made = Made(count)
    rows = made.alike()
    words = made.hashes.astype(">u8").view(">u2").reshape(count, -1)
    vectors = np.concatenate([np.random.default_rng(2).random((count, len(Facts._fields))), words], axis=1)
    vectors[:, 0] = 0  # the format is an index
    names = tuple(f"class {label}" for label in range(CLASSES))
    scenes = tuple(f"scene {row // 8}" for row in range(count))
    seen = Pictures(
        names, made.labels, tuple(rows.paths), tuple(f"{row:064x}" for row in range(count)), ("",) * count, made.features,
        vectors.astype(np.float32), {"folder": scenes}, (), 0,
    )  # fmt: skip
    before, began = _peak_mb(), time.process_time()
    alike = _alike(seen, Layout(Path("nowhere")))
    near = Near(alike)
    judged = _judge(seen, near, HeadSettings(), SILENT)
    found, _, _ = _findings(names, Layout(Path("nowhere")), seen, alike, near, judged, HeadSettings())
    return {"seconds": time.process_time() - began, "mb": _peak_mb() - before, "findings": len(found)}


def child(call: str, count: int) -> dict[str, Any]:
    """Measure one call: seconds, peak memory beyond what was there before, recall."""
    if call == WHOLE:
        return whole(count)
    made = Made(count)
    rows = made.alike()
    before, began = _peak_mb(), time.process_time()
    if call == "near_duplicates":
        found = near_duplicates(made.features, made.labels)
        figures = {"seconds": time.process_time() - began, "mb": _peak_mb() - before, "links": len(found)}
        return figures | _recall(made, _components(count, found))
    findings = find_alike(rows)
    figures = {"seconds": time.process_time() - began, "mb": _peak_mb() - before, "findings": len(findings)}
    clusters = [[int(path[:8]) for path in finding.paths] for finding in findings if finding.kind == "near-duplicate"]
    links = [(cluster[0], row) for cluster in clusters for row in cluster[1:]]
    # The lump lies across classes; within each it is a cluster.
    return figures | {"planted_recall": _recall(made, _components(count, np.array(links)))["planted_recall"]}


def _components(count: int, links: np.ndarray) -> np.ndarray:
    forest = neighbours.Forest(count)
    forest.connect(links[:, 0], links[:, 1])
    return forest.components()


def _recall(made: Made, component: np.ndarray) -> dict[str, Any]:
    near = component[made.pairs[:, 0]] == component[made.pairs[:, 1]]
    largest = np.bincount(component[made.lump]).max()
    return {"planted_recall": float(near.mean()), "lump_recall": float(largest / LUMP)}


def agreement(count: int) -> float:
    """The share of all components of at least two rows that trees find exactly as the comparison of all pairs does."""
    made = Made(count)
    found = []
    for exact in (count, 0):
        neighbours.EXACT = exact
        component = _components(count, near_duplicates(made.features, made.labels))
        order = np.argsort(component, kind="stable")
        groups = np.split(order, np.flatnonzero(np.diff(component[order])) + 1)
        found.append({tuple(group.tolist()) for group in groups if len(group) > 1})
    return len(found[0] & found[1]) / len(found[0])


def _peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024) / 1e6


def in_child(*arguments: object) -> Any:
    """Run this script for one measurement, with one thread."""
    command = [sys.executable, __file__, "--child", *map(str, arguments)]
    return json.loads(measure.run_child(command, OPENBLAS_NUM_THREADS="1", OMP_NUM_THREADS="1").stdout)


def of_call(call: str, runs: dict[int, list[dict[str, Any]]]) -> dict[str, Any]:
    """Sum up the runs of one call: medians a count, and times a row compared with the smallest."""
    seconds = {count: sorted(run["seconds"] for run in many)[len(many) // 2] for count, many in runs.items()}
    a_row = {count: seconds[count] / count for count in seconds}
    return {
        str(count): many[0]
        | {
            "seconds": [run["seconds"] for run in many],
            "microseconds_a_row": 1e6 * a_row[count],
            "times_the_smallest_a_row": a_row[count] / a_row[min(a_row)],
            "memory_to_features": many[0]["mb"] / (count * SIZE * 4 / 1e6),
        }
        for count, many in runs.items()
    }


def added_a_row(runs: dict[int, list[dict[str, Any]]]) -> float:
    """Compare the memory that each further row adds, from the fewest rows to the most, with that of its features."""
    fewest, most = min(runs), max(runs)
    added = runs[most][0]["mb"] - runs[fewest][0]["mb"]
    return float(added / ((most - fewest) * SIZE * 4 / 1e6)) if most > fewest else 0.0


def main() -> None:
    """Run the benchmark."""
    parser = measure.parser(__doc__)
    parser.add_argument("--counts", type=int, nargs="+", default=COUNTS, help="numbers of pictures [10000 30000 100000]")
    parser.add_argument("--rounds", type=int, default=3, help="repeats [3]")
    parser.add_argument("--child", nargs=2, help="used by the script itself: what to measure, number of pictures")
    options = parser.parse_args()
    if options.child:
        what, count = options.child[0], int(options.child[1])
        print(json.dumps(agreement(count) if what == "agreement" else child(what, count)))
        return
    runs: dict[str, dict[int, list[dict[str, Any]]]] = {call: {count: [] for count in options.counts} for call in CALLS}
    for _ in range(options.rounds):
        for call in CALLS:
            for count in options.counts:
                runs[call][count].append(in_child(call, count))
                measure.say(f"{call} {count}: {runs[call][count][-1]}")
    runs[WHOLE] = {count: [in_child(WHOLE, count)] for count in options.counts}
    results: dict[str, Any] = {call: of_call(call, runs[call]) for call in (*CALLS, WHOLE)}
    figures = [figure for call in CALLS for figure in results[call].values()]
    whole_figures = [results[WHOLE][str(count)] for count in sorted(options.counts)]
    results["whole_check_memory_added_a_row_to_features"] = added_a_row(runs[WHOLE])
    results["components_as_of_all_pairs"] = {str(count): in_child("agreement", count) for count in options.counts}
    met = (
        all(figure["times_the_smallest_a_row"] <= MOST_TIMES and figure["memory_to_features"] < 1 for figure in figures)
        and all(figure["planted_recall"] >= LEAST_RECALL for figure in figures)
        and all(figure["times_the_smallest_a_row"] <= MOST_TIMES for figure in whole_figures)
        and whole_figures[-1]["memory_to_features"] < MOST_MEMORY
        and results["whole_check_memory_added_a_row_to_features"] < MOST_GROWTH
        and min(results["components_as_of_all_pairs"].values()) >= LEAST_RECALL
    )
    target = f"time a row at most {MOST_TIMES} times that for the fewest; memory below the features; recall {LEAST_RECALL}"
    measure.write(options.out, "check_scale", __doc__, results, target=target, met=met, seed=0)


if __name__ == "__main__":
    main()
