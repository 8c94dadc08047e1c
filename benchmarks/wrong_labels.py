"""Does `retrain check` find labels that are wrong, and is a model better for following it?

    python benchmarks/wrong_labels.py CORPORA FOLDS --cache features.sqlite

For each outer fold of a file of folds, a share of the labels of the other folds is changed to another class at random.
Suggestions are made from those pictures alone, as `retrain check` makes them. Precision: of the pictures suggested, the
share whose label had been changed; recall: of those changed, the share suggested; the new label is right where it is the
one before. Then three heads learn from the same pictures and are judged on the outer fold, whose labels are untouched:
with the changed labels, with all suggestions followed unseen, and with the labels as they were.

For comparison, precision and recall of confident learning (Northcutt, Jiang, Chuang 2021) from the same predictions: what
lies off the diagonal of the confident joint. Untouched: how many each suggests where no label was changed.
Met: following the suggestions gives back at least half of the accuracy that the changed labels cost, on factions-by-unit.
"""

from typing import Any

import accuracy
import measure
import numpy as np

from retrain import head
from retrain.checks import labels
from retrain.dataset import near_duplicates
from retrain.evaluation.splits import divided
from retrain.settings import HeadSettings

SHARE = 0.05
WAYS = ("changed", "followed", "untouched")


def changed(classes: np.ndarray, count: int, seed: int) -> np.ndarray:
    """Return the labels with a share of them changed to another class."""
    rng = np.random.default_rng(seed)
    wrong = classes.copy()
    for row in rng.permutation(len(classes))[: round(SHARE * len(classes))]:
        wrong[row] = (classes[row] + rng.integers(1, count)) % count
    return wrong


def confident_joint(probabilities: np.ndarray, given: np.ndarray) -> np.ndarray:
    """Return the rows that confident learning suggests: sure, by the usual sureness of that class, of another class."""
    usual = np.array([probabilities[given == label, label].mean() for label in range(probabilities.shape[1])])
    confident = np.where(probabilities >= usual, probabilities, -1.0)
    return np.flatnonzero((confident.max(axis=1) >= 0) & (confident.argmax(axis=1) != given))


def where_nothing_was_changed(rows: accuracy.Rows, seed: int) -> dict[str, int]:
    """Return how many labels each way suggests to change of the labels as they are."""
    pairs, count = near_duplicates(rows.features, rows.classes).tolist(), len(rows.labels)
    _, folds = divided(rows.hashes, rows.classes, pairs, [""] * len(rows.hashes))
    logits, _ = head.out_of_fold(rows.features, rows.classes, count, folds, HeadSettings(seed=seed))
    joint = confident_joint(labels.softmax(logits), rows.classes)
    return {"suggested": len(labels.suggestions(logits, rows.classes)), "joint_suggested": len(joint)}


def on_fold(rows: accuracy.Rows, fold: int, seed: int) -> dict[str, Any]:
    """Change labels outside of a fold, look for them, follow, and judge on the fold."""
    learn, judge = np.flatnonzero(rows.folds != fold), rows.folds == fold
    features, truth, count = rows.features[learn], rows.classes[learn], len(rows.labels)
    given, settings = changed(truth, count, seed), HeadSettings(seed=seed)
    pairs = near_duplicates(features, given).tolist()
    _, folds = divided([rows.hashes[row] for row in learn], given, pairs, [""] * len(learn))
    logits, l2 = head.out_of_fold(features, given, count, folds, settings)
    found = labels.suggestions(logits, given)
    followed = given.copy()
    for suggestion in found:
        followed[suggestion.row] = suggestion.label
    wrong = given != truth
    joint = confident_joint(labels.softmax(logits), given)
    hits = [suggestion for suggestion in found if wrong[suggestion.row]]
    facts: dict[str, Any] = {
        "changed_labels": int(wrong.sum()), "suggested": len(found), "found": len(hits),
        "label_right": sum(int(truth[hit.row] == hit.label) for hit in hits),
        "joint_suggested": len(joint), "joint_found": int(wrong[joint].sum()),
    }  # fmt: skip
    for way, taught in zip(WAYS, (given, followed, truth), strict=True):
        fitted = head.fit(features, taught, count, l2, settings)
        facts[way] = float((fitted.logits(rows.features[judge]).argmax(axis=1) == rows.classes[judge]).mean())
    return facts


def summarised(folds: list[dict[str, Any]]) -> dict[str, Any]:
    """Return precision, recall and accuracies over all folds and seeds, and the paired differences."""
    names = ("changed_labels", "suggested", "found", "label_right", "joint_suggested", "joint_found")
    total = {name: sum(fold[name] for fold in folds) for name in names}
    gained = accuracy.difference([fold["followed"] - fold["changed"] for fold in folds])
    lost = accuracy.difference([fold["untouched"] - fold["changed"] for fold in folds])
    for facts in (gained, lost):
        del facts["met"]
    return {
        **total,
        "precision": total["found"] / max(1, total["suggested"]),
        "recall": total["found"] / total["changed_labels"],
        "joint_precision": total["joint_found"] / max(1, total["joint_suggested"]),
        "joint_recall": total["joint_found"] / total["changed_labels"],
        "label_right_of_found": total["label_right"] / max(1, total["found"]),
        "mean_accuracy": {way: float(np.mean([fold[way] for fold in folds])) for way in WAYS},
        "followed_minus_changed": gained,
        "untouched_minus_changed": lost,
        "folds": folds,
    }


def accuracy_of(fold: dict[str, Any]) -> str:
    """Return the accuracies of a fold for reading."""
    return ", ".join(f"{way} {fold[way]:.4f}" for way in WAYS)


def main() -> None:
    """Run the benchmark."""
    parser = measure.parser(__doc__, corpora=True, folds=True)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0], help="seeds of the changes [0]")
    options = parser.parse_args()
    network, results = measure.default_network(), {}
    with measure.temporary_folder() as temporary:
        for name in ("factions-by-unit", "clipart"):
            corpus = options.corpora / accuracy.FILES[name] / "data"
            known = accuracy.features_of(corpus, options.cache or temporary / "cache", network)
            rows = accuracy.read_folds(options.folds / f"{name}.csv", known, False)
            found = []
            for seed in options.seeds:
                for fold in sorted(set(rows.folds.tolist())):
                    found.append({"seed": seed, "fold": fold, **on_fold(rows, fold, seed)})
                    measure.say(f"{name}, seed {seed}, fold {fold}: {accuracy_of(found[-1])}")
            results[name] = {**summarised(found), "untouched": where_nothing_was_changed(rows, options.seeds[0])}
    figures = results["factions-by-unit"]
    met = figures["followed_minus_changed"]["mean"] >= figures["untouched_minus_changed"]["mean"] / 2
    target = "at least half of the accuracy lost on factions-by-unit is won back"
    measure.write(options.out, "wrong_labels", __doc__, results, target=target, met=met, seed=options.seeds)


if __name__ == "__main__":
    main()
