"""Findings about pictures that are the same, or nearly."""

from collections import Counter

import numpy as np
import pytest

from retrain.checks.alike import find_alike
from retrain.checks.findings import KINDS, Finding
from retrain.checks.nearness import Alike, _similar_hashes, bits_set
from retrain.facts import Facts

ORDINARY = Facts(*[0.5] * len(Facts._fields))._replace(format=0, width=100, height=80, bytes=12345)


class Rows:
    """Rows that are unlike one another, until something is planted; two classes in turns, all parts unknown."""

    def __init__(self, count: int = 60, size: int = 256, seed: int = 0) -> None:
        self.rng = np.random.default_rng(seed)
        self.features = self.rng.standard_normal((count, size)).astype(np.float32)
        self.bits = self.rng.random((count, 128)) < 0.5
        self.labels = ["ab"[row % 2] for row in range(count)]
        self.paths = [f"{label}/{row:04}.png" for row, label in enumerate(self.labels)]
        self.hashes = [f"{row:064x}" for row in range(count)]
        self.parts = [""] * count
        self.facts = [ORDINARY] * count

    def copy(self, row: int, of: int) -> None:
        self.hashes[row], self.features[row], self.bits[row] = self.hashes[of], self.features[of], self.bits[of]

    def near(self, row: int, of: int, cosine: float = 0.99, bits: int = 2) -> None:
        """Make the features have this cosine, and let so many bits differ."""
        unit = self.features[of] / np.linalg.norm(self.features[of])
        away = self.features[row] - (self.features[row] @ unit) * unit
        self.features[row] = cosine * unit + np.sqrt(1 - cosine**2) * away / np.linalg.norm(away)
        self.bits[row] = self.bits[of]
        self.bits[row, self.rng.permutation(128)[:bits]] ^= True

    def found(self) -> list[Finding]:
        dhashes = np.packbits(self.bits, axis=1).view(np.uint64).reshape(-1, 2)
        rows = Alike(self.paths, self.labels, self.hashes, self.features, dhashes, self.parts, self.facts)
        findings = find_alike(rows)
        assert {finding.kind for finding in findings} <= set(KINDS)
        assert all(0 <= finding.score <= 1 and len(finding.paths) > 1 and finding.detail for finding in findings)
        return findings

    def short(self) -> list[tuple[str, list[int]]]:
        """Each finding as its kind and the numbers of its rows."""
        return [(one.kind, [self.paths.index(path) for path in one.paths]) for one in self.found()]


@pytest.mark.parametrize("count", [0, 1, 2, 60])
def test_where_nothing_is_alike_there_is_nothing_to_say(count: int) -> None:
    assert Rows(count).found() == []


def test_each_copy_beyond_the_first_path_is_one_finding() -> None:
    rows = Rows()
    rows.copy(4, of=10), rows.copy(20, of=10), rows.copy(31, of=33)
    assert rows.short() == [("same-file", [10, 4]), ("same-file", [20, 4]), ("same-file", [33, 31])]
    first = rows.found()[0]
    assert first.labels == ("a",) and first.score == 1 and first.detail == "the same 12,345 bytes"


def test_the_same_file_in_two_classes_is_one_finding_and_copies_within_each_are_others() -> None:
    rows = Rows()
    rows.copy(5, of=10), rows.copy(7, of=10)
    assert rows.short() == [("same-file", [7, 5]), ("same-file-two-classes", [10, 5])]
    assert rows.found()[1].labels == ("a", "b")


def test_a_cluster_is_one_finding_about_the_smallest_compared_with_the_largest() -> None:
    rows = Rows()
    for row, width in {12: 50, 14: 400, 16: 200}.items():
        rows.near(row, of=10)
        rows.facts[row] = ORDINARY._replace(width=width)
    (finding,) = rows.found()
    assert rows.short() == [("near-duplicate", [12, 14, 10, 16])] and finding.labels == ("a",)
    assert finding.detail.startswith(
        "4 pictures; compared with the largest, 3 are the same picture in another size or file,"
    )


@pytest.mark.parametrize(
    ("cosine", "bits", "other", "words"),
    [
        (0.98, 2, {"width": 50}, "the same picture in another size or file; cosine 0.980, 2 of 128"),
        (0.98, 2, {"format": 1}, "the same picture in another size or file"),
        (0.98, 2, {}, "alike; cosine 0.980, 2 of 128 hash bits differ"),
        (0.9995, 1, {}, "the same picture in another size or file"),
        (0.98, 30, {"width": 50}, "alike"),
        (0.92, 3, {"width": 50}, "alike"),
        (0.92, 30, {}, ""),
        (0.85, 1, {}, ""),
    ],
)
def test_near_is_what_features_or_the_hash_call_near(cosine: float, bits: int, other: dict, words: str) -> None:
    rows = Rows(600)
    rows.near(12, of=10, cosine=cosine, bits=bits)
    rows.facts[12] = ORDINARY._replace(**other)
    details = [finding.detail for finding in rows.found()]
    assert len(details) == bool(words) and all(detail.startswith(words) for detail in details)


def test_the_hash_of_a_small_thing_on_an_empty_ground_and_blank_pictures_say_nothing() -> None:
    rows = Rows()
    rows.bits[10] = np.arange(128) < 20
    rows.near(12, of=10, cosine=0.95, bits=1)
    rows.near(22, of=20, cosine=1, bits=0)
    rows.facts[20] = rows.facts[22] = ORDINARY._replace(spread=0.0)
    assert rows.found() == []


def test_pictures_of_one_luminance_and_many_colours_are_not_blank() -> None:
    rows = Rows()
    rows.near(22, of=20, cosine=1, bits=0)
    rows.facts[20] = rows.facts[22] = ORDINARY._replace(contrast=0.0)
    assert [kind for kind, _ in rows.short()] == ["near-duplicate"]


def test_nearer_ones_come_first_and_score_higher() -> None:
    rows = Rows()
    rows.near(12, of=10, cosine=0.975, bits=6), rows.near(22, of=20, cosine=0.999, bits=0), rows.near(32, of=30)
    findings = rows.found()
    assert [finding.paths[0] for finding in findings] == ["a/0022.png", "a/0032.png", "a/0012.png"]
    assert [finding.score for finding in findings] == sorted((finding.score for finding in findings), reverse=True)


def test_near_ones_of_two_classes_are_pairs_each_once_with_the_nearest() -> None:
    rows = Rows()
    rows.near(11, of=10, cosine=0.99), rows.near(13, of=10, cosine=0.975), rows.near(20, of=33, cosine=0.92, bits=1)
    pairs = [(kind, *sorted(pair)) for kind, pair in rows.short()]
    assert pairs == [
        ("near-duplicate", 11, 13),
        ("near-duplicate-two-classes", 10, 11),
        ("near-duplicate-two-classes", 10, 13),
        ("near-duplicate-two-classes", 20, 33),
    ]
    assert {finding.labels for finding in rows.found()[1:]} <= {("a", "b"), ("b", "a")}


@pytest.mark.parametrize(
    ("parts", "pairs"),
    [
        (("train", "test"), [[12, 10]]),
        (("test", "validation"), [[10, 12]]),
        (("train", "validation"), []),
        (("test", "test"), []),
        (("fold-0", "fold-1"), [[10, 12]]),
        (("fold-1", "fold-1"), []),
        (("", "test"), []),
        (("left-out", "train"), []),
    ],
)
@pytest.mark.parametrize("same", [True, False])
def test_what_is_tested_on_and_near_what_is_learnt_from_is_a_finding(parts: tuple, pairs: list, same: bool) -> None:
    rows = Rows()
    rows.copy(12, of=10) if same else rows.near(12, of=10, cosine=0.95)
    rows.parts[10], rows.parts[12] = parts
    across = [finding for finding in rows.found() if finding.kind == "near-duplicate-across-parts"]
    found = [[rows.paths.index(path) for path in finding.paths] for finding in across]
    assert list(map(sorted, found)) == list(map(sorted, pairs))
    assert found == pairs or "fold-0" in parts
    assert all(finding.detail.startswith(f"{rows.parts[pair[0]]} and ") for finding, pair in zip(across, found, strict=True))


@pytest.mark.parametrize("nearest", [12, 14, 16])
def test_a_picture_of_the_test_part_is_compared_with_the_nearest_that_is_learnt_from(nearest: int) -> None:
    rows = Rows()
    for row in (12, 14, 16):
        rows.near(row, of=10, cosine=0.99 if row == nearest else 0.975)
        rows.parts[row] = "train"
    rows.parts[10] = "test"
    assert ("near-duplicate-across-parts", [10, nearest]) in rows.short()


def test_what_only_the_hash_calls_near_is_found_across_parts_though_others_connect_it() -> None:
    rows = Rows(16)  # so few that two links are taken in at once
    rows.near(12, of=10, cosine=0.98), rows.near(14, of=12, cosine=0.98)
    rows.parts[10], rows.parts[12], rows.parts[14] = "train", "test", "test"
    found = [pair for kind, pair in rows.short() if kind == "near-duplicate-across-parts"]
    assert sorted(found) == [[12, 10], [14, 10]]


def test_copies_count_once_in_clusters() -> None:
    rows = Rows()
    rows.copy(12, of=10), rows.copy(14, of=10), rows.near(16, of=10)
    kinds = rows.short()
    assert Counter(kind for kind, _ in kinds) == {"same-file": 2, "near-duplicate": 1}
    assert sorted(dict(kinds)["near-duplicate"]) == [10, 16]


def test_of_a_lump_across_classes_and_parts_no_more_is_told_than_can_be_looked_at() -> None:
    rows = Rows(1500, 64)
    for row in range(1, 1200):
        rows.near(row, of=0, cosine=0.999, bits=1)
    rows.parts = ["train", "train", "test", "test"] * 375
    kinds = Counter(finding.kind for finding in rows.found())
    assert kinds["near-duplicate"] == 2 and 300 <= kinds["near-duplicate-two-classes"] <= 1000
    assert 500 <= kinds["near-duplicate-across-parts"] <= 750


def test_planted_hashes_are_found_among_thousands_and_a_crowd_of_equal_ones_is_no_hindrance() -> None:
    rng = np.random.default_rng(0)
    bits = rng.random((20_000, 128)) < 0.5
    bits[10_000:12_000] = bits[0]
    for row in range(500):
        bits[19_000 + row] = bits[5000 + row]
        bits[19_000 + row, rng.permutation(128)[: rng.integers(0, 6)]] ^= True
    dhashes = np.packbits(bits, axis=1).view(np.uint64)
    found, most = set(), 0
    for first, second in _similar_hashes(dhashes):
        assert (bits_set(dhashes[first] ^ dhashes[second]) <= 16).all() and (first < second).all()
        found |= set(zip(first.tolist(), second.tolist(), strict=True))
        most = max(most, len(first))
    assert most < 16 * 3000
    assert len({(5000 + row, 19_000 + row) for row in range(500)} - found) <= 1
