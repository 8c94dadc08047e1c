"""All that the contact sheet shows is in the JSON, and what is unknown is None in it."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from retrain.checks import summary
from retrain.checks.curve import Curve, Gain
from retrain.checks.findings import Finding
from retrain.checks.gathered import Pictures
from retrain.checks.run import Judged, Report
from retrain.checks.shortcuts import ShortcutRow
from retrain.dataset import Skipped
from retrain.evaluation import Accuracy, accuracy
from retrain.report import overview
from retrain.storage import Layout

NAN = float("nan")
NAMES = ("apples", "pears", "plums")
LABELS = np.repeat([0, 1, 2], [10, 8, 2])  # two plums are too few to be predicted
HONEST = np.where(LABELS == 2, -1, np.where(np.arange(20) % 5 == 0, 1 - LABELS, LABELS))


def of(correct: int, count: int) -> Accuracy:
    return accuracy(np.arange(count) // max(correct, 1), np.zeros(count, np.int64))


@pytest.fixture
def report() -> Report:
    pictures = Pictures(
        names=NAMES, classes=LABELS, paths=tuple(f"{row}.png" for row in range(20)), hashes=tuple(map(str, range(20))),
        sources=tuple(("scans", "frames")[row % 2] for row in range(20)), features=np.zeros((20, 2), np.float32),
        vectors=np.zeros((20, 2), np.float32), groupings={}, skipped=(Skipped("a.png", "truncated"),), computed=0,
    )  # fmt: skip
    gains = (
        Gain(0, 10, 0.8, 0.1, 0.02, 0.06, 0.02, 0.03),
        Gain(1, 8, 0.7, 0.1, 0.02, 0.024, 0.05, 0.0096),
        Gain(2, 2, 0.0, reason="too few to judge: 2 pictures, 2 that differ"),
    )
    recalls = np.array([[0.5, 0.5, NAN], [0.8, 0.7, 0.0]])
    curve = Curve((9.5, 19.0), (of(10, 20), of(15, 20)), recalls, gains, gains[:1], True)
    judged = Judged(
        rows=np.arange(18), logits=np.zeros((18, 3), np.float32), honest=HONEST, units=np.arange(20), gaps=(),
        grouping="folder", curve=curve,
    )  # fmt: skip
    rows = (
        ShortcutRow("brightness", of(9, 20), 0.5, (0.6, 0.91, NAN), (0.55, 0.84, NAN)),
        ShortcutRow("file type", of(8, 20), 0.5, (NAN,) * 3, (NAN,) * 3),
    )
    findings = (
        Finding("unreadable", "truncated", ("data/pears/a.png",), ("pears",)),
        Finding("thin-source", "1 of 'scans', of 2", (), ("plums",), NAN),
    )
    sources = {"frames": {"apples": 5, "pears": 4, "plums": 1}, "scans": {"apples": 5, "pears": 4, "plums": 1}}
    return Report(findings, pictures, judged, rows, sources, Path("check.html"), {"all": 1.0})


def record(report: Report) -> dict:
    return json.loads(json.dumps(summary.as_json(report, Layout(Path("tf"))), allow_nan=False))


def test_the_accuracy_is_that_of_what_was_predicted_with_what_was_kept_together(report: Report) -> None:
    known = LABELS < 2
    right = float((HONEST == LABELS)[known].mean())
    found = record(report)["accuracy"]
    assert found["value"] == right and (found["correct"], found["pictures"]) == (14, 18)
    assert found["kept_together"] == "each folder" and found["interval"][0] < right < found["interval"][1]
    shown = summary.of(report, Layout(Path("tf")), "now")
    assert (shown.accuracy, shown.kept_together) == (right, "each folder")
    assert report.judged is not None
    nearly = replace(report, judged=replace(report.judged, grouping=None))
    assert record(nearly)["accuracy"]["kept_together"] == "near-duplicates"


def test_classes_are_in_the_json_as_on_the_page_and_what_was_not_predicted_has_no_accuracy(report: Report) -> None:
    assert record(report)["classes"] == {
        "apples": {"pictures": 10, "skipped": 0, "sources": 2, "accuracy": 0.8},
        "pears": {"pictures": 8, "skipped": 1, "sources": 2, "accuracy": 0.75},
        "plums": {"pictures": 2, "skipped": 0, "sources": 2, "accuracy": None},
    }


def test_sources_are_in_the_json_as_on_the_page(report: Report) -> None:
    rows = record(report)["sources"]
    assert rows["scans"]["pictures"] == {"apples": 5, "pears": 4, "plums": 1}
    assert rows["scans"]["thin"] == ["plums"] and rows["frames"]["thin"] == []
    assert {name: row["accuracy"] for name, row in rows.items()} == {
        source: float((HONEST == LABELS)[(LABELS < 2) & (np.arange(20) % 2 == odd)].mean())
        for source, odd in (("scans", 0), ("frames", 1))
    }


def test_shortcuts_are_in_the_json_with_every_class_and_on_the_page_with_the_one_told_best(report: Report) -> None:
    bright, kind = record(report)["shortcuts"]
    assert (bright["fact"], bright["accuracy"], bright["chance"]) == ("brightness", 0.45, 0.5)
    assert bright["classes"] == {
        "apples": {"auc": 0.6, "low": 0.55}, "pears": {"auc": 0.91, "low": 0.84}, "plums": {"auc": None, "low": None},
    }  # fmt: skip
    assert kind["classes"] == {name: {"auc": None, "low": None} for name in NAMES}
    best, none = summary.of(report, Layout(Path("tf")), "now").shortcuts
    assert best == overview.Shortcut("brightness", 0.45, 0.5, "pears", 0.91, 0.84)
    assert none == overview.Shortcut("file type", 0.4, 0.5)


def test_the_curve_is_in_the_json_with_intervals_and_every_class(report: Report) -> None:
    found = record(report)["learning_curve"]
    assert found["pictures"] == [9.5, 19.0] and found["accuracy"] == [0.5, 0.75] and found["whole_groups"] is True
    assert all(low < value < high for value, (low, high) in zip(found["accuracy"], found["intervals"], strict=True))
    assert found["recalls"] == {"apples": [0.5, 0.8], "pears": [0.5, 0.7], "plums": [None, 0.0]}
    assert found["gain_by_doubling"] == {
        "apples": {"expected": 0.06, "uncertainty": 0.02, "over_all": 0.03},
        "pears": {"expected": 0.024, "uncertainty": 0.05, "over_all": 0.0096},
        "plums": {"reason": "too few to judge: 2 pictures, 2 that differ"},
    }
    assert found["where_more_helps"] == ["apples"]


def test_the_page_gives_a_gain_only_where_the_summary_does(report: Report) -> None:
    curve = summary.of(report, Layout(Path("tf")), "now").curve
    assert curve is not None
    body = overview.curve(curve).body
    for name, words in (("apples", "+6.0"), ("pears", "about the same"), ("plums", "too few to tell")):
        assert f"doubling: {words}" in body[body.index(f"<li><b><bdi>{name}") :].split("</li>")[0]
    assert "2.4" not in body


def test_what_was_not_judged_is_none(report: Report) -> None:
    bare = record(replace(report, judged=None, shortcuts=()))
    assert bare["accuracy"] is bare["split"] is bare["learning_curve"] is None and bare["shortcuts"] == []
    assert bare["classes"]["apples"] == {"pictures": 10, "skipped": 0, "sources": 2, "accuracy": None}
    assert bare["findings"][1]["score"] is None  # no number that JSON has not
    assert report.judged is not None
    none = record(replace(report, judged=replace(report.judged, honest=np.full(20, -1), curve=None, no_curve="too few")))
    assert none["accuracy"] is None and none["learning_curve"] == {"reason": "too few"}
