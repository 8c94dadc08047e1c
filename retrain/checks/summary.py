"""A report's figures, as the contact sheet shows them and as JSON values."""

import math
from collections import Counter
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import numpy as np

from retrain.checks.findings import KINDS
from retrain.checks.sheet import ClassCurve, ClassRow, Curve, Leak, Point, Shortcut, Source, Summary
from retrain.checks.shortcuts import ShortcutRow
from retrain.evaluation import Accuracy, accuracy
from retrain.report.finite import finite
from retrain.storage import Layout

if TYPE_CHECKING:
    from retrain.checks.run import Report


def of(report: "Report", layout: Layout, when: str) -> Summary:
    """Return what the contact sheet shows beside the findings."""
    seen, judged = report.pictures, report.judged
    right = overall(report)
    return Summary(
        name=str(layout.root), when=when, data=layout.data, pictures=len(seen.paths), classes=len(seen.names),
        skipped=len(seen.skipped), of_classes=_classes(report), shortcuts=_shortcuts(report), sources=_sources(report),
        accuracy=right.value if right else None, kept_together=kept_together(report),
        leaks=tuple(
            Leak(gap.grouping, gap.groups, gap.by_random.value, gap.by_groups.value, gap.gap, gap.low, gap.high)
            for gap in (judged.gaps if judged else ())
        ),
        curve=_curve(report),
    )  # fmt: skip


def overall(report: "Report") -> Accuracy | None:
    """Return the accuracy of models that never saw the picture in question, nor what is kept together with it.

    Over all pictures that could be predicted so; None where none could.
    """
    return _right(report, np.ones(len(report.pictures.paths), bool))


def kept_together(report: "Report") -> str:
    """Say what models learnt from all of or nothing of: `near-duplicates`, `each folder`; empty where there are none."""
    if report.judged is None:
        return ""
    return f"each {report.judged.grouping}" if report.judged.grouping else "near-duplicates"


def _right(report: "Report", rows: np.ndarray) -> Accuracy | None:
    """The accuracy on those of `rows`, bool (n,), that were predicted."""
    if report.judged is None:
        return None
    known = rows & (report.judged.honest >= 0)
    return accuracy(report.judged.honest[known], report.pictures.classes[known]) if known.any() else None


def _classes(report: "Report") -> tuple[ClassRow, ...]:
    seen = report.pictures
    bad = Counter(finding.labels[0] for finding in report.findings if finding.kind == "unreadable" and finding.labels)
    rows = []
    for label, name in enumerate(seen.names):
        mine = seen.classes == label
        right = _right(report, mine)
        sources = len({seen.sources[row] for row in np.flatnonzero(mine)} - {""}) if report.sources else None
        rows.append(ClassRow(name, int(mine.sum()), bad[name], sources, right.value if right else None))
    return tuple(rows)


def _shortcuts(report: "Report") -> tuple[Shortcut, ...]:
    return tuple(_shortcut(row, report.pictures.names) for row in report.shortcuts)


def _shortcut(row: ShortcutRow, names: tuple[str, ...]) -> Shortcut:
    known = [label for label, low in enumerate(row.lows) if math.isfinite(low) and row.aucs[label] > 0.5]
    if not known:
        return Shortcut(row.fact, row.accuracy.value, row.largest)
    best = max(known, key=lambda label: row.lows[label])  # what findings go by
    return Shortcut(row.fact, row.accuracy.value, row.largest, names[best], row.aucs[best], row.lows[best])


def _curve(report: "Report") -> Curve | None:
    curve = report.judged.curve if report.judged else None
    if curve is None:
        return None
    points = tuple(
        Point(round(size), figure.value, *figure.interval)
        for size, figure in zip(curve.sizes, curve.accuracies, strict=True)
    )
    worth_saying = {gain.label for gain in curve.where_more_helps}
    of_classes = []
    for gain in curve.gains:
        recalls = tuple(None if np.isnan(recall) else float(recall) for recall in curve.recalls[:, gain.label])
        expected = None if gain.reason else gain.expected
        name, worth = report.pictures.names[gain.label], gain.label in worth_saying
        of_classes.append(ClassCurve(name, recalls, expected, gain.overall, worth))
    return Curve(points, tuple(of_classes))


def _sources(report: "Report") -> tuple[Source, ...]:
    seen = report.pictures
    thin = [finding for finding in report.findings if finding.kind == "thin-source"]
    rows = []
    for source, counts in report.sources.items():
        right = _right(report, np.array([its == source for its in seen.sources], bool))
        few = tuple(finding.labels[0] for finding in thin if f" of '{source}'," in finding.detail)
        rows.append(Source(source, counts, few, right.value if right else None))
    return tuple(rows)


def as_json(report: "Report", layout: Layout) -> dict[str, Any]:
    """Return everything that was found, and all that the contact sheet shows, as JSON values; None for what is unknown."""
    judged = report.judged
    found: dict[str, Any] = finite({
        "format": "retrain-check",
        "version": 1,
        "folder": str(layout.data),
        "counts": dict(Counter(finding.kind for finding in report.findings)),
        "pictures": {
            "used": len(report.pictures.paths), "skipped": len(report.pictures.skipped),
            "classes": len(report.pictures.names),
        },
        "accuracy": _accuracy_as_json(report),
        "classes": {
            row.label: {"pictures": row.pictures, "skipped": row.skipped, "sources": row.sources, "accuracy": row.accuracy}
            for row in _classes(report)
        },
        "split": {"groups": judged.grouping, "gaps": [gap.as_json() for gap in judged.gaps]} if judged else None,
        "shortcuts": [_shortcut_as_json(row, report.pictures.names) for row in report.shortcuts],
        "learning_curve": _curve_as_json(report),
        "sources": {
            row.name: {"pictures": dict(row.counts), "thin": list(row.thin), "accuracy": row.accuracy}
            for row in _sources(report)
        },
        "seconds": report.seconds,
        "findings": [
            {**asdict(finding), "title": KINDS[finding.kind].title, "advice": KINDS[finding.kind].advice}
            for finding in report.findings
        ],
    })  # fmt: skip
    return found


def _accuracy_as_json(report: "Report") -> dict[str, Any] | None:
    right = overall(report)
    if right is None:
        return None
    return {
        "value": right.value, "interval": right.interval, "correct": right.correct, "pictures": right.count,
        "kept_together": kept_together(report),
    }  # fmt: skip


def _shortcut_as_json(row: ShortcutRow, names: tuple[str, ...]) -> dict[str, Any]:
    return {
        "fact": row.fact, "accuracy": row.accuracy.value, "interval": row.accuracy.interval, "chance": row.largest,
        "classes": {name: {"auc": auc, "low": low} for name, auc, low in zip(names, row.aucs, row.lows, strict=True)},
    }  # fmt: skip


def _curve_as_json(report: "Report") -> dict[str, Any] | None:
    curve = report.judged.curve if report.judged else None
    if curve is None:
        return {"reason": report.judged.no_curve} if report.judged else None
    names = report.pictures.names
    return {
        "pictures": curve.sizes,
        "accuracy": [figure.value for figure in curve.accuracies],
        "intervals": [figure.interval for figure in curve.accuracies],
        "whole_groups": curve.by_units,
        "recalls": {names[gain.label]: curve.recalls[:, gain.label].tolist() for gain in curve.gains},
        "gain_by_doubling": {
            names[gain.label]: {"reason": gain.reason} if gain.reason else
            {"expected": gain.expected, "uncertainty": gain.uncertainty, "over_all": gain.overall}
            for gain in curve.gains
        },
        "where_more_helps": [names[gain.label] for gain in curve.where_more_helps],
    }  # fmt: skip
