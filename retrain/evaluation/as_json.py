"""What an evaluation found, as JSON values."""

from dataclasses import asdict
from typing import Any

from retrain.evaluation.evaluated import Evaluated
from retrain.evaluation.figures import Figures
from retrain.evaluation.heat import Carried, Rests
from retrain.evaluation.metrics import Accuracy
from retrain.report.finite import finite


def as_json(found: Evaluated) -> dict[str, Any]:
    """Return everything that the page shows, and what it leaves out; None for what is unknown."""
    known: dict[str, Any] = finite({
        "format": "retrain-evaluation",
        "version": 1,
        "model": str(found.model),
        "folder": str(found.data),
        "when": found.when,
        "backbone": found.backbone,
        "temperature": found.temperature,
        "judged_on": found.judged_on,
        "split": found.split,
        **_figures(found.figures),
        "unknown": asdict(found.unknown) if found.unknown else None,
        "training": asdict(found.curve) if found.curve else None,
        "rests_on": {one.label: _rests(one) for one in found.maps.rests},
        "mistakes": [asdict(mistake) for mistake in found.mistakes],
        "skipped": [asdict(skipped) for skipped in found.skipped],
    })  # fmt: skip
    return known


def _figures(of: Figures) -> dict[str, Any]:
    return {
        "accuracy": _accuracy(of.accuracy),
        "top_k": {str(k): share for k, share in of.top_k},
        "macro_f1": of.macro_f1,
        "log_loss": of.log_loss,
        "calibration": {
            "error": of.calibration_error,
            "error_at_temperature_1": of.uncalibrated_error,
            "bins": [asdict(row) for row in of.bins],
        },
        "classes": {
            row.label: {
                "pictures": row.support, "predicted": row.predicted, "correct": row.correct,
                "precision": row.precision, "recall": row.recall, "f1": row.f1,
            }
            for row in of.classes
        },
        "sources": {source: _accuracy(right) for source, right in of.by_source.items()},
        # By true and then by predicted class; what is not there is 0.
        "confusion": {
            row.label: {other.label: int(n) for other, n in zip(of.classes, counts, strict=True) if n}
            for row, counts in zip(of.classes, of.confusion, strict=True)
        },
        "confused": [asdict(pair) for pair in of.pairs],
    }  # fmt: skip


def _accuracy(of: Accuracy) -> dict[str, Any]:
    return {"value": of.value, "interval": of.interval, "correct": of.correct, "pictures": of.count}


def _rests(of: Rests) -> dict[str, Any]:
    """What a class rests on; `lead`, `fall_...` and `rise_...` are logarithms of odds."""
    known = of.region
    return {
        "pictures": of.pictures,
        "learnt_from": of.learnt,
        "region": None if known is None else asdict(known),
        "heat_in_border": of.in_border,
        "lead": of.lead,
        "border": None if of.border is None else _carried(of.border),
        "background": None if of.background is None else _carried(of.background),
        "carried_by": list(of.flagged),
    }


def _carried(of: Carried) -> dict[str, Any]:
    return {"fall_without": of.fall, "correct_without": of.right, "rise_of_others": of.rise}
