"""Which pictures are nearly the same: by comparing all pairs, and by random-projection trees."""

import tracemalloc
from itertools import pairwise

import numpy as np
import pytest

from retrain.dataset import Item, divide, near_duplicates, neighbours
from retrain.dataset.neighbours import Directed, Forest, close_pairs


def random_features(count: int, size: int = 256) -> np.ndarray:
    return np.random.default_rng(0).standard_normal((count, size)).astype(np.float32)


def crowded_features(count: int, size: int = 96) -> np.ndarray:
    """Rows in clusters, a quarter of them planted at all distances up to what counts as near, in chains, too."""
    rng = np.random.default_rng(2)
    centres = 3 * rng.standard_normal((40, size))
    features = centres[rng.integers(0, 40, count)] + rng.standard_normal((count, size))
    for one, other in pairwise(rng.permutation(count)[: count // 4]):
        if rng.random() < 0.7:
            features[other] = features[one] + rng.uniform(0.05, 0.3) * rng.standard_normal(size)
    return features.astype(np.float32)


def by_brute_force(features: np.ndarray, labels: np.ndarray) -> set[tuple[int, int]]:
    """The rule in its plainest form: cosine at least 0.97, and a third of the usual distance within a class."""
    unit = features / np.linalg.norm(features, axis=1, keepdims=True)
    squares = 2 - 2 * unit.astype(np.float64) @ unit.T
    above = np.triu(np.ones_like(squares, dtype=bool), 1)
    usual = np.median(squares[above & (labels[:, None] == labels)])
    return set(zip(*map(np.ndarray.tolist, np.nonzero(above & (squares <= min(0.06, usual / 9)))), strict=True))


def found(features: np.ndarray, labels: np.ndarray) -> set[tuple[int, int]]:
    """The links, which must be a forest: as many as there are fewer groups than rows."""
    links = near_duplicates(features, labels)
    assert links.dtype == np.int64 and links.shape[1:] == (2,)
    pairs = set(map(tuple, links.tolist()))
    assert len(pairs) == len(links) == len(features) - len(set(joined(pairs, len(features))))
    assert sorted(pairs) == list(map(tuple, links.tolist())) and all(first < second for first, second in pairs)
    return pairs


def joined(pairs: set[tuple[int, int]], count: int) -> list[int]:
    """The lowest row that each row is connected with, found one pair at a time."""
    lowest = list(range(count))

    def find(row: int) -> int:
        while lowest[row] != row:
            row = lowest[row]
        return row

    for first, second in pairs:
        low, high = sorted((find(first), find(second)))
        lowest[high] = low
    return [find(row) for row in range(count)]


# --- all pairs


@pytest.mark.parametrize("size", [40, 256])
def test_planted_pairs_are_found_among_thousands_and_no_others(size: int) -> None:
    features, rng = random_features(3000, size), np.random.default_rng(1)
    rows = rng.permutation(3000)[:200].reshape(100, 2)
    features[rows[:, 1]] = 5 * features[rows[:, 0]] + rng.uniform(0, 2.5, (100, 1)) * features[rows[:, 1]]
    labels = rng.integers(0, 5, 3000)
    pairs = found(features, labels)
    assert pairs == by_brute_force(features, labels)
    assert 30 < len(pairs) < 70 and pairs <= {tuple(pair) for pair in np.sort(rows, axis=1).tolist()}


def test_where_all_pictures_are_alike_only_the_much_closer_ones_count() -> None:
    alike = 10 + random_features(500, 64)
    labels = np.arange(500) % 3
    assert len(found(alike, labels)) <= 5
    alike[400] = alike[7] + 0.1 * random_features(1, 64)[0]
    assert (7, 400) in found(alike, labels) and found(alike, labels) == by_brute_force(alike, labels)


@pytest.mark.parametrize("count", [0, 1, 2])
def test_so_few_pictures_have_no_usual_distance_and_no_pairs(count: int) -> None:
    assert found(random_features(count), np.arange(count)) == set()


def test_links_connect_exactly_what_pairs_connect_and_are_pairs_themselves() -> None:
    features, labels = crowded_features(2500), np.arange(2500) % 4
    pairs, links = by_brute_force(features, labels), found(features, labels)
    assert links < pairs and joined(links, 2500) == joined(pairs, 2500)


@pytest.mark.weights  # for the time that it takes
@pytest.mark.parametrize("exact", [True, False])
def test_thousands_of_nearly_equal_frames_give_links_and_not_millions_of_pairs(
    exact: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not exact:
        monkeypatch.setattr(neighbours, "EXACT", 0)
    features = random_features(6000, 64)
    features[1000:5000] = features[0] + 0.01 * features[1000:5000]
    tracemalloc.start()
    links = found(features, np.arange(6000) % 3)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(links) == 4000 and len(set(joined(links, 6000)[1000:5000])) == 1
    assert peak < 120e6  # eight million pairs of two numbers are 128 MB, before anything is done with them


def test_rows_of_zeros_are_no_reason_to_fail() -> None:
    features = random_features(50, 64)
    features[:10] = 0
    assert found(features, np.zeros(50, np.int64)) == set()


# --- trees


@pytest.mark.weights  # for the time that it takes
def test_trees_connect_what_the_comparison_of_all_pairs_connects(monkeypatch: pytest.MonkeyPatch) -> None:
    features, labels = crowded_features(6000), np.arange(6000) % 4
    exactly = joined(found(features, labels), 6000)
    monkeypatch.setattr(neighbours, "EXACT", 0)
    links = found(features, labels)
    assert links == found(features, labels)
    assert joined(links, 6000) == exactly and len(links) > 500


@pytest.mark.weights  # for the time that it takes
def test_rows_that_are_equal_are_connected_though_they_fill_many_leaves(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(neighbours, "EXACT", 0)
    features = random_features(3000, 64)
    features[::4] = features[0]
    assert joined(found(features, np.arange(3000) % 3), 3000)[::4] == [0] * 750
    forest = Forest(2000)
    for pairs in close_pairs(Directed(np.ones((2000, 64), np.float32)), 0.06, forest.apart):
        forest.connect(pairs.first, pairs.second)
    assert set(forest.components().tolist()) == {0}


@pytest.mark.parametrize("count", [257, 300, 4000])
def test_leaves_are_a_partition_and_small(count: int) -> None:
    leaves = list(neighbours._leaves(random_features(count, 16), np.random.default_rng(0)))
    assert sorted(np.concatenate(leaves).tolist()) == list(range(count))
    assert {len(leaf) <= 256 for leaf in leaves} == {True} and min(map(len, leaves)) >= 100


@pytest.mark.parametrize(("exact", "repeats"), [(20_000, 1), (0, neighbours.TREES)])
def test_close_pairs_are_close_and_wanted(exact: int, repeats: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(neighbours, "EXACT", exact)
    directed = Directed(crowded_features(1500))
    blocks = list(close_pairs(directed, 0.06, lambda first, second: first % 2 == second % 2))
    first, second, squares = map(np.concatenate, zip(*blocks, strict=True))
    pairs, times = np.unique(np.stack([first, second]), axis=1, return_counts=True)
    assert (first < second).all() and (first % 2 == second % 2).all() and times.max() <= repeats
    assert squares == pytest.approx(directed.squares(first, second), abs=1e-5) and squares.max() <= 0.06
    expected = {pair for pair in by_brute_force(crowded_features(1500), np.zeros(1500)) if sum(pair) % 2 == 0}
    assert set(zip(*pairs.tolist(), strict=True)) == expected


# --- connecting


@pytest.mark.parametrize(
    ("name", "pairs"),
    [
        ("nothing", []),
        ("one", [(3, 7)]),
        ("a chain", list(pairwise(range(1000)))),
        ("a chain backwards", [(b, a) for a, b in pairwise(range(1000))][::-1]),
        ("a star", [(999, row) for row in range(999)]),
        ("a ring", [(row, (row + 1) % 1000) for row in range(1000)]),
        ("with itself and twice", [(5, 5), (5, 6), (6, 5), (5, 6)]),
        ("by chance", np.random.default_rng(0).integers(0, 1000, (900, 2)).tolist()),
    ],
)
@pytest.mark.parametrize("at_once", [1, 50, 2000])
def test_a_forest_has_the_components_of_its_pairs(name: str, pairs: list, at_once: int) -> None:
    forest, given = Forest(1000), np.array(pairs, np.int64).reshape(-1, 2)
    for at in range(0, len(given), at_once):
        forest.connect(given[at : at + at_once, 0], given[at : at + at_once, 1])
    expected = joined(set(map(tuple, pairs)), 1000)
    links = forest.links()
    assert forest.components().tolist() == expected and joined(set(map(tuple, links.tolist())), 1000) == expected
    assert len(links) == 1000 - len(set(expected))
    assert {tuple(link) for link in links.tolist()} <= {tuple(sorted(pair)) for pair in pairs}
    assert forest.apart(np.arange(999), np.arange(1, 1000)).tolist() == [a != b for a, b in pairwise(expected)]


def test_the_split_is_the_same_from_links_as_from_all_pairs() -> None:
    features, labels = crowded_features(1200), np.arange(1200) % 3
    items = [Item(f"{row:064x}"[::-1], int(label)) for row, label in enumerate(labels)]
    links = near_duplicates(features, labels).tolist()
    assert divide(items, links) == divide(items, by_brute_force(features, labels))
