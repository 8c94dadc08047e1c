"""Facts that tell classes, in drawn-up facts whose truth is known."""

import math
import re
from collections.abc import Callable

import numpy as np
import pytest

from retrain.checks import shortcuts as module
from retrain.checks.findings import KINDS
from retrain.checks.shortcuts import GROUPS, shortcuts
from retrain.facts import SIZE, Facts
from retrain.images import FORMATS

NAMES = ("apples", "pears", "plums")
AT = {name: number for number, name in enumerate(Facts._fields)}


def drawn(count: int = 600, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Facts, float32 (count, SIZE), that have nothing to do with the labels, int64 (count,)."""
    rng = np.random.default_rng(seed)
    rows = np.zeros((count, SIZE), np.float32)
    rows[:, AT["format"]] = list(FORMATS).index("JPEG")
    rows[:, AT["width"]] = rng.choice([320, 400, 500, 640], count)
    rows[:, AT["height"]] = rng.choice([240, 300, 480, 500], count)
    rows[:, AT["bytes"]] = rng.lognormal(10, 0.5, count)
    for name in ("brightness", "contrast", "darkest", "brightest", "colourfulness", "sharpness", "border_spread"):
        rows[:, AT[name]] = rng.beta(4, 4, count)
    for name in ("border_red", "border_green", "border_blue"):
        rows[:, AT[name]] = rng.random(count)
    framed = rng.random(count) < 0.1
    rows[framed, AT["left"] : AT["bottom"] + 1] = rng.uniform(0.01, 0.2, (int(framed.sum()), 4))
    return rows, np.arange(count) % 3


def put(**values: float) -> Callable[[np.ndarray], None]:
    def change(rows: np.ndarray) -> None:
        for name, value in values.items():
            rows[:, AT[name]] = value

    return change


def add(**values: float) -> Callable[[np.ndarray], None]:
    def change(rows: np.ndarray) -> None:
        for name, value in values.items():
            rows[:, AT[name]] += value

    return change


BLACK = {"border_red": 0.0, "border_green": 0.0, "border_blue": 0.0}
PLANTED = [  # what is done to the pears, the kind of finding, what it says
    (put(left=0.02, right=0.02, top=0.02, bottom=0.02, **BLACK), "border", "100 % of its pictures have a black border"),
    (put(left=0, right=0, top=0.1, bottom=0.1, **BLACK), "border", "100 % of its pictures have a black border"),
    (put(format=list(FORMATS).index("PNG")), "shortcut", "100 % of its pictures are PNG, of the others 0 %"),
    (put(turned=1), "shortcut", "100 % of its pictures are turned by EXIF, of the others 0 %"),
    (put(width=333, height=333), "shortcut", "(AUC 1.00): width typically 333 pixels, else "),
    (put(width=410, height=410), "shortcut", "(AUC 1.00): width typically 410 pixels, else "),
    (add(brightness=0.5), "shortcut", "brightness alone"),
    (add(darkest=-0.5), "shortcut", "dark parts typically"),
    (add(colourfulness=0.6), "shortcut", "colourfulness alone"),
    (put(sharpness=0.01), "shortcut", "sharpness alone"),
    (put(bytes=1000), "shortcut", "typically 1.0 kB"),
]


@pytest.mark.parametrize(("change", "kind", "says"), PLANTED)
def test_what_was_done_to_a_class_is_found_and_nothing_else(change: Callable, kind: str, says: str) -> None:
    rows, labels = drawn()
    pears = rows[labels == 1]
    change(pears)
    rows[labels == 1] = pears
    _, found = shortcuts(rows, labels, NAMES, np.arange(len(labels)))
    assert [(finding.kind, finding.labels) for finding in found] == [(kind, ("pears",))]
    assert says in found[0].detail and "'pears' from the rest in " in found[0].detail
    assert kind in KINDS and 0.86 < found[0].score <= 1 and found[0].paths == ()


@pytest.mark.parametrize("seed", range(5))
def test_where_facts_say_nothing_nothing_is_found(seed: int) -> None:
    rows, labels = drawn(seed=seed)
    table, found = shortcuts(rows, labels, NAMES, np.arange(len(labels)), seed)
    assert [row.fact for row in table] == list(GROUPS) and found == []
    for row in table:
        assert all(0.38 < auc < 0.62 for auc in row.aucs)
        assert row.accuracy.count == 600 and abs(row.accuracy.value - 1 / 3) < 0.08 and row.largest == pytest.approx(1 / 3)


def test_a_shift_that_only_shows_in_how_facts_go_together_is_found() -> None:
    rows, labels = drawn()
    rows[:, AT["contrast"]] = 1 - rows[:, AT["brightness"]] + np.random.default_rng(1).normal(0, 0.01, len(rows))
    rows[labels == 1, AT["brightness"]] += 0.06  # a third of what brightness varies by
    table, found = shortcuts(rows, labels, NAMES, np.arange(len(labels)))
    assert [finding.labels for finding in found] == [("pears",)] and found[0].detail.startswith("brightness")
    alone = module._scores([rows[:, AT["brightness"]]], labels, 3, np.arange(len(labels)) % 5)
    assert module._aucs(alone, labels, 3)[1] < 0.75 and table[3].aucs[1] > 0.9


@pytest.mark.parametrize(("pictures", "units", "expected"), [(3, 3, 0), (60, 3, 0), (60, 12, 1), (60, 60, 1)])
def test_few_units_prove_nothing(pictures: int, units: int, expected: int) -> None:
    rows, labels = drawn()
    labels = np.where(np.arange(600) < pictures, 1, 2 * (np.arange(600) % 2))
    rows[labels == 1, AT["format"]] = list(FORMATS).index("GIF")
    groups = np.where(labels == 1, np.arange(600) % units, np.arange(600) + 1000)
    assert len(shortcuts(rows, labels, NAMES, groups)[1]) == expected


def test_pictures_of_one_unit_are_never_learnt_from_to_tell_another_of_it() -> None:
    rows, _ = drawn(1200)
    scenes = np.arange(1200) // 40
    labels = np.random.default_rng(3).permutation(np.arange(30) % 3)[scenes]
    rows[:, AT["bytes"]] = 1000 * np.random.default_rng(4).permutation(30)[scenes]  # each scene its own size, by chance
    assert [row.aucs for row in shortcuts(rows, labels, NAMES, np.arange(1200))[0] if min(row.aucs) > 0.95]
    table, found = shortcuts(rows, labels, NAMES, scenes)
    assert not found and max(table[1].aucs) < 0.8


def test_of_two_classes_one_is_named_and_facts_may_come_as_such() -> None:
    rows, labels = drawn(200)
    labels = labels % 2
    rows[labels == 1, AT["format"]] = list(FORMATS).index("PNG")
    facts = [Facts(*row) for row in rows[:, : len(Facts._fields)].tolist()]
    table, found = shortcuts(facts, labels, NAMES[:2], np.arange(200))
    assert [finding.labels for finding in found] == [("apples",)] and "from 'pears' in 100 of 100" in found[0].detail
    assert shortcuts(rows, labels, NAMES[:2], np.arange(200)) == (table, found)


@pytest.mark.parametrize("labels", [[0], [0, 0], [0, 1], [0, 1, 1, 1]])
def test_a_handful_of_pictures_gives_rows_and_no_finding(labels: list[int]) -> None:
    rows, _ = drawn(len(labels))
    table, found = shortcuts(rows, np.array(labels), NAMES, np.arange(len(labels)))
    assert len(table) == len(GROUPS) and not found
    assert all(math.isnan(row.aucs[2]) and math.isnan(row.lows[2]) for row in table)


def test_the_auc_is_the_share_of_pairs_in_the_right_order_and_ties_count_half() -> None:
    rng = np.random.default_rng(0)
    scores, labels = rng.integers(0, 5, (40, 2)).astype(np.float32), rng.integers(0, 2, 40)
    for label, auc in enumerate(module._aucs(scores, labels, 2)):
        own, rest = scores[labels == label, label], scores[labels != label, label]
        pairs = [(a > b) + (a == b) / 2 for a in own for b in rest]
        assert auc == pytest.approx(np.mean(pairs))


def test_the_bound_is_that_of_hanley_and_mcneil() -> None:
    # Their example: 51 abnormal and 58 normal pictures, area 0.893, standard error 0.032.
    labels = np.repeat([0, 1], [51, 58])
    low = module._lows([0.893, 0.893], labels, np.arange(109))[0]
    assert (0.893 - low) / 1.645 == pytest.approx(0.032, abs=1e-3)


def test_the_colour_of_edges_without_a_border_is_no_border() -> None:
    rows, labels = drawn()
    rows[:, AT["left"] : AT["bottom"] + 1] = 0
    rows[labels == 1, AT["border_blue"]] = 0.9  # sky at the edge, say
    table, found = shortcuts(rows, labels, NAMES, np.arange(len(labels)))
    assert not found and table[list(GROUPS).index("border colour")].aucs == (0.5, 0.5, 0.5)


def test_bells_do_not_learn_from_the_pictures_that_they_judge() -> None:
    labels, folds = np.where(np.arange(200) < 6, 0, 1), np.arange(200) % 5
    aucs = []
    for seed in range(20):
        columns = list(np.random.default_rng(seed).normal(size=(4, 200)))
        aucs.append(module._aucs(module._bell_scores(columns, labels, 2, folds), labels, 2)[0])
    assert np.mean(aucs) < 0.6


def explained(fact: str, change: Callable[[np.ndarray, np.ndarray], None]) -> str:
    """What is said of pears beside the others, after a change of both."""
    rows, labels = drawn()
    pears, others = rows[labels == 1], rows[labels != 1]
    change(pears, others)
    rows[labels == 1], rows[labels != 1] = pears, others
    return module._typical(fact, module._columns(rows), labels == 1)


def white(*parts: np.ndarray, **sides: float) -> None:
    for rows in parts:
        put(border_red=1, border_green=1, border_blue=1, left=0.02, right=0.02, top=0.02, bottom=0.02)(rows)
        put(**sides)(rows)


def test_the_fact_is_named_that_differs_most_for_how_much_it_varies() -> None:
    def change(pears: np.ndarray, others: np.ndarray) -> None:
        rng = np.random.default_rng(0)
        pears[:, AT["darkest"]], others[:, AT["darkest"]] = rng.normal(0.1, 0.03, 200), rng.normal(0.12, 0.03, 400)
        pears[:, AT["contrast"]], others[:, AT["contrast"]] = rng.normal(0.2, 0.01, 200), rng.normal(0.3, 0.01, 400)

    assert explained("brightness", change) == ": contrast typically 20 % (19 to 21), else 30 % (29 to 31)"


def test_a_class_that_varies_less_than_the_others_is_told_by_its_range() -> None:
    said = explained("sharpness", lambda pears, others: put(sharpness=0.5)(pears))
    assert said.startswith(": sharpness typically 0.50, else 0.") and re.search(r"\(0\.[23]\d to 0\.[67]\d\)$", said)


def test_facts_that_tell_only_together_are_not_explained_by_one() -> None:
    said = explained("brightness", lambda pears, others: None)
    assert said == ": mean brightness, contrast, dark parts and bright parts differ together, not one by one"


@pytest.mark.parametrize("fact", ["sharpness", "file type", "border colour", "border width"])
def test_where_both_sides_read_the_same_they_are_not_compared(fact: str) -> None:
    def change(pears: np.ndarray, others: np.ndarray) -> None:
        white(pears, others)
        put(sharpness=0.5, width=350, height=350)(pears)
        put(sharpness=0.5, width=350, height=350)(others)

    said = explained(fact, change)
    assert "typically" not in said and "of the others" not in said and "100 %" not in said


def test_of_borders_of_one_colour_the_side_is_named_that_differs() -> None:
    def change(pears: np.ndarray, others: np.ndarray) -> None:
        white(pears, left=0.1)
        white(others)

    assert explained("border width", change) == ": left border typically 10.0 % of the width, else 2.0 % of the width"


def test_a_width_that_is_that_of_the_others_too_is_said_once() -> None:
    def change(pears: np.ndarray, others: np.ndarray) -> None:
        white(pears, others[:40])
        put(width=350, height=350)(pears)
        put(width=350, height=350)(others)
        put(left=0, right=0, top=0, bottom=0)(others[40:])

    said = ": 100 % of its pictures have a white border (about 7 pixels on its narrowest side), of the others 10 %"
    assert explained("border colour", change) == said
