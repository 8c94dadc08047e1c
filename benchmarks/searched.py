"""What does `retrain train --search SECONDS` find, and is it better than the default?

    python benchmarks/searched.py CORPORA FOLDS --search SECONDS

For each outer fold of clip art and of factions by unit, the search chooses on the other folds and is judged on this one,
beside what the default learns from the same. What it needs beyond the plain features is computed within its budget: its
cache is empty.

Of the differences, fold by fold: mean, standard error and 95 % interval (Student's t; the folds share pictures to learn
from, so it is somewhat too narrow).
"""

import time
from typing import Any

import accuracy
import better_models
import measure
import numpy as np

from retrain import backbones
from retrain.pipeline.judged import Judged, fit_and_judge
from retrain.pipeline.look import Looker
from retrain.pipeline.record import Record
from retrain.pipeline.search import Search
from retrain.pipeline.tuned import Tuning
from retrain.progress import SILENT
from retrain.runner import run_locally
from retrain.scores import log_loss
from retrain.settings import AugmentSettings, FineTuneSettings, HeadSettings, SplitSettings
from retrain.storage import Layout, own_folder


def searched(corpus: better_models.Corpus, fold: int, seconds: float, layout: Layout) -> dict[str, Any]:
    """Return what the search tried on one outer fold, and how good its model is there, and the default."""
    examples, parts = better_models.split_of(corpus, fold)
    tuning = Tuning(FineTuneSettings(), AugmentSettings(), HeadSettings())
    record = Record(layout, corpus.extractor.backbone.name, SplitSettings(), tuning.head)
    own_folder(layout.reports)
    looker = Looker(corpus.extractor, examples, layout, run_locally, SILENT, record)
    seen = looker.look(parts, (), (), examples.features)
    default = fit_and_judge(examples, parts, tuning.head, record, SILENT, [seen])
    search = Search(corpus.extractor, seen, examples, parts, default, tuning, layout, run_locally, record, SILENT)
    began = time.perf_counter()
    found = search.spend(seconds)
    rows = parts.rows("test")
    figures = {
        name: of_test(judged, examples.classes[rows]) for name, judged in (("default", default), ("searched", found.judged))
    }
    trials = [str(trial) for trial in found.trials]
    return {"fold": fold, "pictures": len(rows), "seconds": time.perf_counter() - began, "trials": trials, **figures}


def of_test(judged: Judged, classes: np.ndarray) -> dict[str, float]:
    """Return accuracy and log loss of the test pictures."""
    right = float((judged.scores.argmax(axis=1) == classes).mean())
    return {"accuracy": right, "log_loss": log_loss(judged.scores, classes)}


def summed_up(folds: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the means over folds, and the paired differences."""
    facts: dict[str, Any] = {}
    for figure in ("accuracy", "log_loss"):
        of_both = {name: [fold[name][figure] for fold in folds] for name in ("default", "searched")}
        gains = np.subtract(of_both["searched"], of_both["default"]).tolist()
        facts[figure] = {name: float(np.mean(values)) for name, values in of_both.items()}
        facts[figure]["difference"] = {key: value for key, value in accuracy.difference(gains).items() if key != "met"}
    return {**facts, "folds": folds}


def main() -> None:
    """Run the benchmark."""
    parser = measure.parser(__doc__, corpora=True, folds=True)
    parser.add_argument("--search", type=float, default=60.0, help="seconds of each search [60]")
    names = list(better_models.FILES)
    parser.add_argument("--only", nargs="+", choices=names, default=names, help="files [all]")
    options = parser.parse_args()
    results: dict[str, Any] = {"budget_seconds": options.search}
    with measure.temporary_folder() as temporary:
        for name in options.only:
            layout = Layout(temporary / name)
            layout.root.mkdir(parents=True)
            data = options.corpora / better_models.FILES[name] / "data"
            by_unit = name == accuracy.BY_UNIT
            corpus = better_models.corpus_of(data, options.folds / f"{name}.csv", by_unit, backbones.DEFAULT, layout)
            found = []
            for fold in sorted(set(corpus.folds.tolist())):
                work = Layout(temporary / f"{name}-{fold}")
                work.root.mkdir(parents=True)
                found.append(searched(corpus, fold, options.search, work))
                measure.say(f"{name}, fold {fold}: {measure.rounded(found[-1])}")
            results[name] = summed_up(found)
    met = all(results[name]["accuracy"]["difference"]["mean"] > 0 for name in options.only)
    target = "on average more pictures right than by default"
    measure.write(options.out, "searched", __doc__, results, target=target, met=met, seed=HeadSettings().seed)


if __name__ == "__main__":
    main()
