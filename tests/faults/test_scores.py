"""How scores are written: number 23 of the list.

23  test_scores_read_the_same_in_every_locale, test_scores_sort_and_parse_back,
    test_a_model_that_gives_no_number_names_no_copy
"""

import dataclasses
import json
import os
import re
import shutil
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from retrain.classify import classify
from retrain.errors import NothingUsable
from retrain.label import Labeller, Score, load
from tests.faults.as_process import ROOT
from tests.faults.promises import in_order


@pytest.fixture(scope="module")
def labeller(trained: Path) -> Labeller:
    return load(trained / "model")


def rows(out: Path) -> list[dict]:
    return [json.loads(line) for line in (out / "manifest.jsonl").read_text().splitlines()]


def tree(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


IN_ITS_LOCALE = (
    "import locale; locale.setlocale(locale.LC_ALL, ''); assert locale.localeconv()['decimal_point'] == {point!r};"
    " from retrain.cli import main; main()"
)
LOCALES = {"de_DE": ",", "tr_TR": ",", "fr_FR": ",", "ps_AF": "٫"}  # what stands before decimals


@pytest.mark.faults
@pytest.mark.parametrize("name", LOCALES)
def test_scores_read_the_same_in_every_locale(trained: Path, tmp_path: Path, name: str) -> None:
    """Also where the program that runs us has told the C library to write numbers as people there do."""
    if not shutil.which("localedef"):
        pytest.skip("no localedef")
    made = subprocess.run(
        ["localedef", "-i", name, "-f", "UTF-8", tmp_path / f"{name}.UTF-8"], capture_output=True, check=False
    )
    if not (tmp_path / f"{name}.UTF-8" / "LC_NUMERIC").exists():
        pytest.skip(f"no source of the locale: {made.stderr.decode()}")
    told = {}
    for language, point in {"C": ".", f"{name}.UTF-8": LOCALES[name]}.items():
        where = {**os.environ, "PYTHONPATH": str(ROOT), "LOCPATH": str(tmp_path), "LC_ALL": language}
        line = [sys.executable, "-c", IN_ITS_LOCALE.format(point=point)]
        rest = ["--model", str(trained / "model")]
        images, out = trained / "data" / "red", tmp_path / f"out {language}"
        for arguments in (["label", str(images / "red000.png")], ["classify", str(images), str(out)]):
            ran = subprocess.run(
                [*line, *arguments, *rest], capture_output=True, text=True, env=where, timeout=60, check=False
            )
            in_order(ran, 0)
            told[language, arguments[0]] = ran.stdout.replace(str(out), "OUT")
        told[language, "files"] = sorted(tree(out).items())
    for what in ("label", "classify", "files"):
        assert told[f"{name}.UTF-8", what] == told["C", what]


def test_scores_sort_and_parse_back(labeller: Labeller, trained: Path, tmp_path: Path) -> None:
    """From as unsure as can be to 1.0, by names alone."""
    out, scores = tmp_path / "out", set()
    for power in range(-6, 7):
        sure = Labeller(dataclasses.replace(labeller.model, temperature={"none": 10.0**power}))
        classify(sure, trained / "data" / "red", out / f"{power}", sort=True)
        for row in rows(out / f"{power}"):
            match = re.fullmatch(r"(\w+)/(\w+)-([01]\.\d{5})(-\d+)?\.png", row["copy"])
            assert match is not None and match[1] == match[2] == row["label"]
            assert float(match[3]) == round(row["score"], 5) and 0 <= row["score"] <= 1
            scores.add((match[3], row["score"]))
    assert {"1.00000", "0.33333"} < {shown for shown, _ in scores}
    exact = [score for _, score in sorted(scores)]
    assert all(first <= second + 5e-6 for first, second in pairwise(exact))
    assert str(Score("x", 0.0)) == "x (score = 0.00000)" and str(Score("x", 1.0)) == "x (score = 1.00000)"


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 3e38])
@pytest.mark.parametrize("where", ["kernel", "bias"])
def test_a_model_that_gives_no_number_names_no_copy(
    labeller: Labeller, trained: Path, tmp_path: Path, where: str, value: float
) -> None:
    """What was left of the pictures is in the manifest, with the reason."""
    member, out = labeller.model.members[0], tmp_path / "out"
    head = dataclasses.replace(member, **{where: np.full_like(getattr(member, where), value)})
    if where == "bias" and value == 3e38:
        head = dataclasses.replace(head, kernel=np.full_like(member.kernel, value))
    broken = Labeller(dataclasses.replace(labeller.model, members=(head,)))
    with pytest.raises(NothingUsable, match="none of the 12 files"):
        classify(broken, trained / "data" / "red", out)
    assert {(row["reason"], row["copy"], row["score"]) for row in rows(out)} == {("bad-features", "", None)}
    assert set(tree(out)) == {"manifest.csv", "manifest.jsonl"}
