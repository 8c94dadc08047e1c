"""Do scores mean what they say: of pictures labelled with 0.8, are eight in ten right?

    python benchmarks/calibration.py CORPORA FOLDS --cache features.sqlite

For each outer fold of the three files of folds, a head is trained on the other folds as `retrain train` does, and judged on
the outer fold (see accuracy.py). The temperature is fitted on pictures that were not learnt from, among the other folds.
Expected calibration error (15 bins of equal width, by the highest score) and log loss of all outer folds together, with the
temperature and at a temperature of 1; `chance` is the calibration error that scores which mean exactly what they say would
have with so many pictures, the mean over 200 draws. `fitted_on_itself`: the same with the temperature that is best for the
outer folds themselves, which no honest method can beat by much.
Met: on each file the calibration error is at most 0.05, and the log loss at most 0.01 above that at a temperature of 1.
"""

from pathlib import Path
from typing import Any

import accuracy
import measure
import numpy as np

from retrain.evaluation.calibration import expected_error
from retrain.scores import fit_temperature, log_loss, softmax

MOST_ERROR, MOST_LOSS = 0.05, 0.01
DRAWS = 200


def measured(rows: accuracy.Rows, seed: int, folder: Path) -> dict[str, Any]:
    """Measure one file of folds."""
    scores, before, temperatures = (
        np.zeros((len(rows.folds), len(rows.labels))),
        np.zeros((len(rows.folds), len(rows.labels))),
        [],
    )
    for fold in sorted(set(rows.folds.tolist())):
        _, judged = accuracy.judged_on(rows, fold, seed, folder)
        scores[judged.judged], before[judged.judged] = judged.scores, judged.uncalibrated
        temperatures.append(judged.temperature)
        measure.say(f"fold {fold}: temperature {judged.temperature:.3f}")
    logits = np.log(np.maximum(before, 1e-300))
    best = fit_temperature(logits, rows.classes)
    return {
        "pictures": len(rows.folds),
        "temperatures": temperatures,
        "calibration_error": expected_error(scores, rows.classes),
        "calibration_error_before": expected_error(before, rows.classes),
        "calibration_error_by_chance": by_chance(scores, seed),
        "log_loss": log_loss(scores, rows.classes),
        "log_loss_before": log_loss(before, rows.classes),
        "fitted_on_itself": {
            "temperature": best,
            "calibration_error": expected_error(softmax(logits, best), rows.classes),
            "log_loss": log_loss(softmax(logits, best), rows.classes),
        },
    }


def by_chance(scores: np.ndarray, seed: int) -> float:
    """Return the mean calibration error where labels are drawn from the scores themselves."""
    rng = np.random.default_rng(seed)
    cumulated = scores.cumsum(axis=1)
    drawn = [(rng.random((len(scores), 1)) > cumulated[:, :-1]).sum(axis=1) for _ in range(DRAWS)]
    return float(np.mean([expected_error(scores, labels) for labels in drawn]))


def main() -> None:
    """Run the benchmark."""
    parser = measure.parser(__doc__, corpora=True, folds=True)
    parser.add_argument("--seed", type=int, default=0, help="seed of retrain's head [0]")
    options = parser.parse_args()
    network, results = measure.default_network(), {}
    with measure.temporary_folder() as temporary:
        for name, corpus in accuracy.FILES.items():
            known = accuracy.features_of(options.corpora / corpus / "data", options.cache or temporary / "cache", network)
            rows = accuracy.read_folds(options.folds / f"{name}.csv", known, name == accuracy.BY_UNIT)
            results[name] = measured(rows, options.seed, temporary)
            measure.say(f"{name}: {measure.rounded(results[name])}")
    met = all(
        row["calibration_error"] <= MOST_ERROR and row["log_loss"] <= row["log_loss_before"] + MOST_LOSS
        for row in results.values()
    )
    target = f"calibration error at most {MOST_ERROR}, log loss at most {MOST_LOSS} above that at a temperature of 1"
    measure.write(options.out, "calibration", __doc__, results, target=target, met=met, seed=options.seed)


if __name__ == "__main__":
    main()
