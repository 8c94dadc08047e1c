"""Mutants of all bad and odd pictures against the decoder: an array of the right kind or a reason, and the same again.

Number 9 of the list. In CI 24,000 mutants; `make fuzz` takes fifty times as many. A finding names the number of the
mutant, from which it can be made again, and the file that holds its bytes.
"""

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.faults import decoding, mutants

ROUNDS = int(os.environ.get("RETRAIN_FAULT_ROUNDS", "1"))
AT_ONCE = 3000  # mutants of one process
BATCHES = 8  # processes in a round


def findings(first: int, count: int, kept: Path, runs: Sequence[str] = ("-m", mutants.__name__)) -> list[str]:
    """Decode mutants in a process of its own; return what was not as promised, in words that let it be repeated."""
    line = [sys.executable, *runs, str(first), str(count), str(kept)]
    try:
        done = subprocess.run(line, capture_output=True, text=True, timeout=600, check=False)
    except subprocess.TimeoutExpired:
        return [f"hangs: {kept / mutants.CURRENT}, between {first} and {first + count}"]
    rows = map(json.loads, done.stdout.splitlines())
    found = [f"{row}, kept as {kept}/mutant-{row['number']}" for row in rows]
    if done.returncode != 0:
        found.append(f"ended with {done.returncode} by {kept / mutants.CURRENT}, between {first} and {first + count}")
    if done.stderr:
        found.append(f"between {first} and {first + count} something was said: {done.stderr}")
    return found


def test_the_same_number_gives_the_same_mutant_and_others_another() -> None:
    known = mutants.sources()
    made = [mutants.mutant(number, known) for number in range(200)]
    again = mutants.sources()
    assert made == [mutants.mutant(number, again) for number in range(200)]
    assert len({one.data for one in made}) > 150
    assert {way for one in made for way in one.ways} == {way.__name__ for way in mutants.WAYS}


def test_sources_stay_as_they_are() -> None:
    known = mutants.sources()
    before = dict(known.data)
    for number in range(200):
        mutants.mutant(number, known)
    assert known.data == before


def test_mutants_reach_every_decoder_and_most_reasons() -> None:
    """They would prove little if all of them failed at the first bytes."""
    known = mutants.sources()
    came = {decoding.outcome(mutants.mutant(number, known).data)[0] for number in range(1500)}
    assert {"JPEG", "PNG", "GIF", "WEBP", "BMP", "TIFF", "AVIF"} <= came
    assert {"truncated", "corrupt", "too-large", "not-an-image", "unsupported-format"} <= came


def test_the_first_hundred_mutants_keep_the_promises(tmp_path: Path) -> None:
    assert not findings(0, 100, tmp_path)


BREAKS = {  # what a process does -> what is said of it
    "print('too many samples', file=sys.stderr)": "something was said",
    "os.abort()": "ended with -6",
    "mutants.decoding.within_limit(0); [0 for _ in iter(int, 1)]": "ended with -24",
    "mutants.broken_promise = lambda data: 'differs'; mutants.main()": "'problem': 'differs'",
    "mutants.decoding.outcome = lambda data: 1 / 0; mutants.main()": "ZeroDivisionError",
    "mutants.decoding.outcome = lambda data: [next(turns)]; mutants.main()": "first [0], then [1]",
}


@pytest.mark.parametrize("does", BREAKS)
def test_what_breaks_a_promise_is_found(does: str, tmp_path: Path) -> None:
    script = f"import itertools, os, sys; from tests.faults import mutants; turns = itertools.count(); {does}"
    (found,) = findings(7, 1, tmp_path, ["-c", script])
    assert BREAKS[does] in found
    assert "kept as" not in found or (tmp_path / "mutant-7").read_bytes() == mutants.mutant(7, mutants.sources()).data


@pytest.mark.faults
@pytest.mark.parametrize("batch", range(BATCHES))
def test_mutants_keep_the_promises(batch: int, tmp_path: Path) -> None:
    found: list[str] = []
    for turn in range(ROUNDS):
        found += findings((turn * BATCHES + batch) * AT_ONCE, AT_ONCE, tmp_path)
    assert not found, "\n".join(found)
