"""How long does a heat map take, compared with a plain label?

    python benchmarks/explain_speed.py

Trains a model on the sample set. In one process, in turns, each picture of the set is labelled, and labelled with the map of
its top label; then whole processes in turns: `retrain label IMAGE` and `retrain explain IMAGE --output FILE`, which draws
the map over the picture as well. Met: both take at most 1.5 times as long with the map.
"""

import time
from collections.abc import Callable
from pathlib import Path

import measure
from measure import REPOSITORY, RETRAIN, run_child

from retrain import images, label
from retrain.explain import Explainer

MOST_RATIO = 1.5
TRAIN_ENDS = (0, 3)  # 3: some pictures were skipped


def in_one_process(model: Path, pictures: list[Path], rounds: int) -> dict[str, list[float]]:
    """Return the seconds of each picture, in turns, after one round that isn't counted."""
    labeller = label.load(model)
    explainer = Explainer(labeller)
    timed: dict[str, Callable[[bytes], object]] = {"label": labeller.label_bytes, "map": explainer.explain}
    found: dict[str, list[float]] = {name: [] for name in timed}
    for number in range(rounds + 1):
        for path in pictures:
            data = path.read_bytes()
            for name, of in timed.items():
                began = time.perf_counter()
                of(data)
                if number:
                    found[name].append(time.perf_counter() - began)
    return found


def as_commands(model: Path, image: Path, folder: Path, rounds: int) -> dict[str, list[float]]:
    """Return the seconds of whole processes, in turns, after one round that isn't counted."""
    found: dict[str, list[float]] = {"label": [], "explain": []}
    for number in range(rounds + 1):
        commands = {
            "label": [*RETRAIN, "label", str(image), "--model", str(model)],
            "explain": [*RETRAIN, "explain", str(image), "--model", str(model), "--output", str(folder / f"{number}.png")],
        }
        for name, command in commands.items():
            child = run_child(command)
            if number:
                found[name].append(child.seconds)
    return found


def main() -> None:
    """Run the benchmark."""
    parser = measure.parser(__doc__)
    parser.add_argument("--rounds", type=int, default=10, help="repeats [10]")
    options = parser.parse_args()
    with measure.temporary_folder() as temporary:
        folder = measure.working_folder(REPOSITORY / "tf_files" / "data", temporary, "tf_files")
        run_child([*RETRAIN, "train", str(folder)], allowed=TRAIN_ENDS)
        pictures = [path for path, problem in images.find(folder / "data") if problem is None]
        single = measure.medians(in_one_process(folder / "model", pictures, options.rounds))
        whole = measure.medians(as_commands(folder / "model", pictures[0], temporary, options.rounds))
    ratios = {"in one process": single["map"] / single["label"], "as commands": whole["explain"] / whole["label"]}
    results = {
        "median_seconds": {"in one process": single, "as commands": whole},
        "ratios": ratios,
        "rounds": options.rounds,
    }
    target = f"at most {MOST_RATIO} times as long as a label"
    met = max(ratios.values()) <= MOST_RATIO
    measure.write(options.out, "explain_speed", __doc__, results, target=target, met=met, seed=0)


if __name__ == "__main__":
    main()
