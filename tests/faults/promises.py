"""What retrain promises whatever it is given: an end in good order, and a place for every input."""

import csv
import json
import subprocess
from collections.abc import Iterable
from pathlib import Path

ENDS = {0, 1, 2, 3, 4, 5, 6, 130, 143}  # the table of exit codes


def in_order(done: subprocess.CompletedProcess[str], *codes: int) -> None:
    """Hold a finished process to the first promise: an exit code of the table, no traceback, no signal, plain text."""
    told = f"ended with {done.returncode}\n{done.stdout}\n{done.stderr}"
    assert done.returncode in (codes or ENDS), told
    assert "Traceback" not in told and "internal error" not in told, told
    controls = {character for character in done.stdout + done.stderr if ord(character) < 32 or ord(character) == 127}
    assert controls <= {"\n"}, f"{controls} in {told}"


def placed_by_train(tf_files: Path, inputs: Iterable[Path]) -> dict[str, str]:
    """Hold the run record to the second promise; returns path -> reason of each skipped input."""
    record = json.loads((tf_files / "reports/train.json").read_text())
    paths = [item["path"] for item in record["skipped"]]
    assert len(paths) == len(set(paths)), "an input is named twice"
    assert record["counts"]["used"] + len(paths) == len(list(inputs)), record["counts"]
    assert record["counts"]["skipped"] == len(paths)
    return {item["path"]: item["reason"] for item in record["skipped"]}


def placed_by_classify(out: Path, inputs: Iterable[Path]) -> dict[str, str]:
    """Hold the manifest to the second promise; returns source -> copy, or -> reason where there is none."""
    with (out / "manifest.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == len({row["source"] for row in rows}) == len(list(inputs))
    assert all(bool(row["copy"]) != bool(row["reason"]) for row in rows)
    return {row["source"]: row["copy"] or row["reason"] for row in rows}
