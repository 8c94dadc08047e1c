"""A report's figures, as the contact sheet shows them and as JSON values."""

from collections import Counter
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import numpy as np

from retrain.checks.findings import KINDS
from retrain.checks.sheet import ClassCurve, ClassRow, Curve, Leak, Point, Shortcut, Source, Summary
from retrain.storage import Layout

if TYPE_CHECKING:
    from retrain.checks.run import Report

_SHOWN = 12  # shortcuts


def of(report: "Report", layout: Layout, when: str) -> Summary:
    """Return what the contact sheet shows beside the findings."""
    seen, judged = report.pictures, report.judged
    return Summary(
        name=str(layout.root), when=when, data=layout.data, pictures=len(seen.paths), classes=len(seen.names),
        skipped=len(seen.skipped), of_classes=_classes(report), shortcuts=_shortcuts(report), sources=_sources(report),
        leaks=tuple(
            Leak(gap.grouping, gap.groups, gap.by_random.value, gap.by_groups.value, gap.gap, gap.low, gap.high)
            for gap in (judged.gaps if judged else ())
        ),
        curve=_curve(report),
    )  # fmt: skip


def _classes(report: "Report") -> tuple[ClassRow, ...]:
    seen, judged = report.pictures, report.judged
    bad = Counter(finding.labels[0] for finding in report.findings if finding.kind == "unreadable")
    rows = []
    for label, name in enumerate(seen.names):
        mine = seen.classes == label
        right = float((judged.honest[mine] == label).mean()) if judged else None
        sources = len({seen.sources[row] for row in np.flatnonzero(mine)} - {""}) if report.sources else None
        rows.append(ClassRow(name, int(mine.sum()), bad[name], sources, right))
    return tuple(rows)


def _shortcuts(report: "Report") -> tuple[Shortcut, ...]:
    return tuple(Shortcut(row.fact, row.accuracy.value, chance=row.largest) for row in report.shortcuts[:_SHOWN])


def _curve(report: "Report") -> Curve | None:
    curve = report.judged.curve if report.judged else None
    if curve is None:
        return None
    points = tuple(
        Point(round(size), figure.value, *figure.interval)
        for size, figure in zip(curve.sizes, curve.accuracies, strict=True)
    )
    gains = {gain.label: gain for gain in curve.gains}
    of_classes = tuple(
        ClassCurve(
            name,
            tuple(None if np.isnan(recall) else float(recall) for recall in curve.recalls[:, label]),
            None if gains[label].reason else gains[label].expected,
        )
        for label, name in enumerate(report.pictures.names)
    )
    return Curve(points, of_classes)


def _sources(report: "Report") -> tuple[Source, ...]:
    seen, judged = report.pictures, report.judged
    thin = [finding for finding in report.findings if finding.kind == "thin-source"]
    rows = []
    for source, counts in report.sources.items():
        mine = np.array([its == source for its in seen.sources])
        right = float((judged.honest == seen.classes)[mine].mean()) if judged and mine.any() else None
        few = tuple(finding.labels[0] for finding in thin if f" of '{source}'," in finding.detail)
        rows.append(Source(source, counts, few, right))
    return tuple(rows)


def as_json(report: "Report", layout: Layout) -> dict[str, Any]:
    """Return everything that was found as JSON values."""
    judged = report.judged
    return {
        "format": "retrain-check",
        "version": 1,
        "folder": str(layout.data),
        "counts": dict(Counter(finding.kind for finding in report.findings)),
        "pictures": {
            "used": len(report.pictures.paths), "skipped": len(report.pictures.skipped),
            "classes": len(report.pictures.names),
        },
        "split": {"groups": judged.grouping, "gaps": [gap.as_json() for gap in judged.gaps]} if judged else None,
        "learning_curve": _curve_as_json(report),
        "sources": report.sources,
        "seconds": report.seconds,
        "findings": [
            {**asdict(finding), "title": KINDS[finding.kind].title, "advice": KINDS[finding.kind].advice}
            for finding in report.findings
        ],
    }  # fmt: skip


def _curve_as_json(report: "Report") -> dict[str, Any] | None:
    curve = report.judged.curve if report.judged else None
    if curve is None:
        return {"reason": report.judged.no_curve} if report.judged else None
    names = report.pictures.names
    return {
        "pictures": list(curve.sizes),
        "accuracy": [figure.value for figure in curve.accuracies],
        "gain_by_doubling": {names[gain.label]: gain.expected for gain in curve.gains if not gain.reason},
        "where_more_helps": [names[gain.label] for gain in curve.where_more_helps],
    }
