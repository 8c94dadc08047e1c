"""Class folders: their sizes, names and sources."""

import pytest

from retrain.checks.classes import names, sizes, sources


@pytest.mark.parametrize(
    ("counts", "kinds"),
    [
        ({"a": 100, "b": 90}, []),
        ({"a": 100, "b": 0}, ["empty-class"]),
        ({"a": 30, "b": 19}, ["tiny-class"]),
        ({"a": 400, "b": 39}, ["unequal-classes"]),
        ({"a": 300, "b": 30}, []),
        ({"a": 30, "b": 1, "c": 0}, ["empty-class", "tiny-class", "unequal-classes"]),
        ({}, []),
    ],
)
def test_sizes(counts: dict[str, int], kinds: list[str]) -> None:
    assert [found.kind for found in sizes(counts)] == kinds


def test_unequal_classes_are_named_with_the_option_that_helps() -> None:
    (found,) = sizes({"elsa": 500, "vader": 40})
    assert found.labels == ("elsa", "vader") and "12 times" in found.detail and "--class-weight balanced" in found.detail


@pytest.mark.parametrize(
    ("labels", "words"),
    [
        (("Cats", "cats"), "upper and lower case"),
        (("caf\u00e9", "cafe\u0301"), "Unicode"),
        (("a b", "a  b"), "spaces"),
        (("a:b", "a?b"), "file name"),
        (("a:b", "a_b"), "file name"),
    ],
)
def test_names_that_collide_are_told_once_with_the_reason(labels: tuple[str, ...], words: str) -> None:
    (found,) = names(("other", *labels))
    assert set(found.labels) == set(labels) and words in found.detail


def test_names_that_differ_are_left_alone() -> None:
    assert names(("C", "C++", "C#", "猫", "a-b", "a_b", "CON")) == []


def test_a_source_that_one_class_hardly_has_is_thin() -> None:
    labels = ["a"] * 40 + ["b"] * 40
    of = ["frames"] * 20 + ["fanart"] * 20 + ["frames"] * 39 + ["fanart"]
    table, (found,) = sources(labels, of)
    assert table == {"fanart": {"a": 20, "b": 1}, "frames": {"a": 20, "b": 39}}
    assert found.kind == "thin-source" and found.labels == ("b",) and "1 of 'fanart'" in found.detail


def test_without_sources_there_is_no_table() -> None:
    assert sources(["a", "b"], ["", ""]) == ({}, [])
