"""Labels made safe for file names."""

import re

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from retrain.classify import safe_names

# Long enough for any score, a number of a million and the longest extension.
SUFFIX = "-0.99621-1000000.webp"
RESERVED = re.compile(r"(con|prn|aux|nul|com[0-9]|lpt[0-9])(\..*)?", re.IGNORECASE)
HOSTILE = [
    "a/b", "a\\b", "../../etc/passwd", "..", ".", "...", "", " ", " x ", "x.", "x. .", ".hidden", "-rf", "--", "~",
    "猫" * 100, "x" * 300, "CON", "con", "nul.txt", "COM1", "lpt9.tar.gz", "a\0b", "line\nbreak", "tab\t", "\x1b[31mred",
    "\x7f\x9b", "\udce4", "a:b", "a*b?", '<"|>', "👩‍👩‍👧", "Rosé", "Rose\u0301", "STRASSE", "straße", "x~2", "C++", "C#",
]  # fmt: skip


def check(labels: list[str]) -> dict[str, str]:
    names = safe_names(labels)
    assert set(names) == set(labels)
    assert len({name.casefold() for name in names.values()}) == len(names)
    for name in names.values():
        assert name and len((name + SUFFIX).encode()) <= 255
        assert not re.search(r'[/\\\x00-\x1f\x7f-\x9f<>:"|?*]', name)
        assert name not in (".", "..") and name[0] not in "-. " and name[-1] not in ". "
        assert not RESERVED.fullmatch(name), name
    return names


@pytest.mark.parametrize("label", HOSTILE)
def test_a_hostile_label_becomes_a_plain_name(label: str) -> None:
    check([label])


def test_hostile_labels_together_keep_apart() -> None:
    check(HOSTILE)
    check(HOSTILE[::-1])


@given(st.lists(st.text(), unique=True, max_size=8))
@example(["a", "A", "a~2", "A~2"])
@example(["x" * 180 + "a", "x" * 180 + "b", "x" * 180 + "~2"])
def test_any_labels_become_distinct_plain_names(labels: list[str]) -> None:
    check(labels)


@given(st.lists(st.text("aA~2./ ", max_size=5), unique=True, max_size=8))
def test_labels_that_come_out_alike_are_numbered_apart(labels: list[str]) -> None:
    check(labels)


@pytest.mark.parametrize("label", ["con" + " " * 200 + "x", "NUL" + "." * 200 + "x", "猫" * 59 + "  ." + "猫" * 9])
def test_a_label_that_turns_bad_only_when_cut_to_length_becomes_a_plain_name(label: str) -> None:
    check([label])


def test_ordinary_labels_stay_as_they_are() -> None:
    labels = ["elsa", "hello kitty", "C++", "C#", "猫", "Rosé", "A_B", "A-B", "a.b", "x" * 180]
    assert safe_names(labels) == {label: label for label in labels}


def test_what_is_forbidden_becomes_an_underscore() -> None:
    assert safe_names(["a/b", "..", " x ", "CON", ".git", "-v", "c\nd", "?"]) == {
        "a/b": "a_b", "..": "_", " x ": "x", "CON": "_CON", ".git": "_git", "-v": "_v", "c\nd": "c_d", "?": "_~2",
    }  # fmt: skip


def test_a_label_that_needs_no_change_keeps_its_name_and_the_other_gets_a_number() -> None:
    assert safe_names(["a/b", "a?b", "a_b"]) == {"a_b": "a_b", "a/b": "a_b~2", "a?b": "a_b~3"}
    assert safe_names(["CAT", "cat"]) == {"CAT": "CAT", "cat": "cat~2"}
