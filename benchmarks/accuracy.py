"""Is the head that `retrain train` chooses and fits as accurate as a well-tuned scikit-learn LogisticRegression?

    python benchmarks/accuracy.py CORPORA FOLDS --cache features.sqlite

FOLDS has three files (sha256,class,fold): clipart.csv, factions-random.csv, and factions-by-unit.csv, where the frames
of one unit stay together. For each outer fold both sides learn from the other folds, from the same features of the
frozen default backbone, and are judged on it.

retrain        `pipeline.judged.fit_and_judge` with the default settings, as after `--test-dir` with the outer fold:
               10 % of all pictures (12.5 % of those to learn from) are the validation part, near-duplicates among the
               pictures to learn from stay on one side, and so do named groups (the units, for factions-by-unit).
scikit-learn   LogisticRegression on standardised features, C from 1e-5 to 10 in 13 steps, chosen on 5 stratified inner
               folds, which keep units together where the outer ones do, then fitted again on all. Twice: chosen by
               accuracy, as its tools do unless told otherwise, and by log loss, as retrain does.

Of the differences, fold by fold: mean, standard error and 95 % interval (Student's t; the folds share pictures to learn
from, so it is somewhat too narrow). Met: on each file, and against either choice, the mean is not below -0.005.
"""

import csv
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import measure
import numpy as np

from retrain import backbones, bottlenecks, images, views
from retrain.dataset import Item, divide, near_duplicates
from retrain.pipeline.examples import Examples
from retrain.pipeline.judged import Judged, fit_and_judge
from retrain.pipeline.record import Record
from retrain.progress import SILENT
from retrain.runner import Network, Runner
from retrain.settings import HeadSettings, SplitSettings
from retrain.storage import Layout

FILES = {"clipart": "clipart", "factions-random": "factions", "factions-by-unit": "factions"}  # file -> corpus
BY_UNIT = "factions-by-unit"
LEAST_DIFFERENCE = -0.005
STRENGTHS = np.logspace(-5, 1, 13)
INNER_FOLDS = 5
CHOICES = {"scikit_learn": "accuracy", "scikit_learn_by_log_loss": "log_loss"}  # name -> what C is chosen by
VALIDATION = 12.5  # percent of the pictures to learn from: 10 % of all, with a fifth set apart to judge by


@dataclass(frozen=True)
class Rows:
    """A file of folds with the features: arrays of n rows; `groups` is empty where pictures stand for themselves."""

    features: np.ndarray
    labels: tuple[str, ...]
    classes: np.ndarray
    hashes: tuple[str, ...]
    groups: tuple[str, ...]
    folds: np.ndarray


def features_of(
    corpus: Path, cache: Path, network: Network, name: str = backbones.DEFAULT
) -> dict[str, tuple[np.ndarray, str]]:
    """Return sha256 -> features and the folder (class/unit) of each picture that can be used."""
    row, view = backbones.get(name), views.DEFAULT_VIEW
    preprocessing = views.preprocessing_id(view, row.image_size)
    space = bottlenecks.Space(row.name, backbones.weights_hash(row), preprocessing, Runner.engine)
    paths = [str(path) for path, problem in images.find(corpus) if problem is None]
    with bottlenecks.Store(cache, space) as store:
        found = bottlenecks.extract(paths, store, network, view, row.image_size, row.feature_size)
    folders = [Path(paths[index]).parent.relative_to(corpus).as_posix() for index in found.rows]
    return {sha: (vector, folder) for sha, vector, folder in zip(found.hashes, found.features, folders, strict=True)}


def read_folds(file: Path, known: dict[str, tuple[np.ndarray, str]], by_unit: bool) -> Rows:
    """Join a file of folds with the features."""
    with file.open(newline="") as lines:
        rows = list(csv.DictReader(lines))
    missing = sum(row["sha256"] not in known for row in rows)
    if missing:
        raise SystemExit(f"{file}: {missing} of {len(rows)} pictures aren't in the corpus")
    labels = sorted({row["class"] for row in rows})
    return Rows(
        features=np.stack([known[row["sha256"]][0] for row in rows]),
        labels=tuple(labels),
        classes=np.array([labels.index(row["class"]) for row in rows], np.int64),
        hashes=tuple(row["sha256"] for row in rows),
        groups=tuple(known[row["sha256"]][1] if by_unit else "" for row in rows),
        folds=np.array([int(row["fold"]) for row in rows]),
    )


def ours(rows: Rows, fold: int, seed: int, folder: Path) -> tuple[float, float]:
    """Return the accuracy of retrain's head on a fold, and the strength of the L2 penalty that it chose."""
    _, judged = judged_on(rows, fold, seed, folder)
    return judged.accuracy.value, judged.fitted.sweep.l2


def judged_on(rows: Rows, fold: int, seed: int, folder: Path) -> tuple[Examples, Judged]:
    """Train as `retrain train` does on the other folds, and judge on this one."""
    to_learn = np.flatnonzero(rows.folds != fold)
    parts = tuple("test" if number == fold else "" for number in rows.folds)
    columns = (rows.hashes, rows.classes.tolist(), rows.groups, parts)
    pairs = to_learn[near_duplicates(rows.features[to_learn], rows.classes[to_learn])]
    split = divide([Item(*row) for row in zip(*columns, strict=True)], pairs.tolist(), validation=VALIDATION)
    if len(split.rows("train", "validation")) != len(to_learn):
        raise RuntimeError(f"fold {fold}: {len(split.rows('left-out'))} pictures left out")
    nothing = ("",) * len(parts)
    examples = Examples(rows.labels, rows.features, rows.classes, rows.hashes, nothing, nothing, rows.groups, parts)
    settings = HeadSettings(seed=seed)
    record = Record(Layout(folder), backbones.DEFAULT, SplitSettings(), settings)
    return examples, fit_and_judge(examples, split, settings, record, SILENT)


def minus_log_loss(fitted: Any, features: np.ndarray, classes: np.ndarray) -> float:
    """Score as scikit-learn's neg_log_loss does, which fails where an inner fold lacks a class: few units, say."""
    column = {number: index for index, number in enumerate(fitted.classes_)}
    rows = zip(fitted.predict_proba(features), classes, strict=True)
    chances = [row[column[number]] if number in column else 0.0 for row, number in rows]
    return float(np.log(np.maximum(chances, 1e-15)).mean())


def theirs(rows: Rows, fold: int, seed: int) -> dict[str, tuple[float, float]]:
    """Return the accuracy of scikit-learn on a fold, and the C that was chosen, for each way to choose it."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import GridSearchCV, StratifiedGroupKFold, StratifiedKFold
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler
    from threadpoolctl import threadpool_limits

    learn, judge = rows.folds != fold, rows.folds == fold
    groups = np.array(rows.groups)[learn] if any(rows.groups) else None
    kind = StratifiedKFold if groups is None else StratifiedGroupKFold
    inner = kind(INNER_FOLDS, shuffle=True, random_state=seed)
    pipeline = make_pipeline(StandardScaler(), LogisticRegression(max_iter=2000))
    found = {}
    with threadpool_limits(1):  # with more, BLAS's threads get in each other's way: a hundred times slower
        grid = {"logisticregression__C": STRENGTHS}
        scoring = {"accuracy": "accuracy", "log_loss": minus_log_loss}
        search = GridSearchCV(pipeline, grid, cv=inner, scoring=scoring, refit=False, error_score="raise")
        search.fit(rows.features[learn], rows.classes[learn], groups=groups)
        for name, criterion in CHOICES.items():
            strength = float(STRENGTHS[search.cv_results_[f"mean_test_{criterion}"].argmax()])
            fitted = pipeline.set_params(logisticregression__C=strength).fit(rows.features[learn], rows.classes[learn])
            found[name] = float(fitted.score(rows.features[judge], rows.classes[judge])), strength
    return found


def compare(rows: Rows, numbers: list[int], seeds: list[int], folder: Path) -> dict[str, Any]:
    """Compare both on the given folds; retrain's accuracy on a fold is the mean over the seeds."""
    folds = []
    for fold in numbers:
        reference = theirs(rows, fold, seeds[0])
        found = [ours(rows, fold, seed, folder) for seed in seeds]
        facts = {"retrain": float(np.mean([accuracy for accuracy, _ in found]))}
        facts |= {name: accuracy for name, (accuracy, _) in reference.items()}
        measure.say(f"fold {fold}: {measure.rounded(facts)}")
        facts |= {"fold": fold, "pictures": int((rows.folds == fold).sum())}
        facts |= {"retrain_by_seed": [accuracy for accuracy, _ in found], "retrain_l2": [l2 for _, l2 in found]}
        facts |= {f"{name}_C": f"{strength:.3g}" for name, (_, strength) in reference.items()}
        folds.append(facts)
    figures = {name: float(np.mean([fold[name] for fold in folds])) for name in ("retrain", *CHOICES)}
    versus = {f"retrain_minus_{name}": difference([fold["retrain"] - fold[name] for fold in folds]) for name in CHOICES}
    return {"pictures": len(rows.folds), "classes": len(rows.labels), "mean_accuracy": figures, **versus, "folds": folds}


def difference(by_fold: list[float]) -> dict[str, Any]:
    """Return the mean of paired differences with its standard error and interval, and whether it is good enough."""
    from scipy.stats import t

    mean = float(np.mean(by_fold))
    facts: dict[str, Any] = {"mean": mean, "met": mean >= LEAST_DIFFERENCE}
    if len(by_fold) > 1:
        error = float(np.std(by_fold, ddof=1) / np.sqrt(len(by_fold)))
        half = float(t.ppf(0.975, len(by_fold) - 1)) * error
        facts |= {"standard_error": error, "interval_95": [mean - half, mean + half]}
    return facts


def main() -> None:
    """Run the benchmark."""
    parser = measure.parser(__doc__, corpora=True, folds=True)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0], help="seeds of retrain's head [0]")
    parser.add_argument("--only", nargs="+", choices=list(FILES), default=list(FILES), help="files [all]")
    parser.add_argument("--limit", type=int, default=5, help="number of outer folds, to try things out [5]")
    options = parser.parse_args()
    network = measure.default_network()
    results = {}
    with measure.temporary_folder() as temporary:
        for name in options.only:
            known = features_of(options.corpora / FILES[name] / "data", options.cache or temporary / "cache", network)
            rows = read_folds(options.folds / f"{name}.csv", known, name == BY_UNIT)
            measure.say(f"{name}: {len(rows.folds)} pictures")
            results[name] = compare(rows, sorted(set(rows.folds.tolist()))[: options.limit], options.seeds, temporary)
    met = all(result[f"retrain_minus_{name}"]["met"] for result in results.values() for name in CHOICES)
    target = f"mean of retrain - scikit-learn at least {LEAST_DIFFERENCE} on each file, however C is chosen"
    measure.write(options.out, "accuracy", __doc__, results, target=target, met=met, seed=options.seeds)


if __name__ == "__main__":
    main()
