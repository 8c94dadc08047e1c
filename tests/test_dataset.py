"""From a folder of class folders to examples, and from examples to parts."""

import hashlib
import os
from collections import Counter, defaultdict
from collections.abc import Sequence
from itertools import product
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from retrain.dataset import PARTS, Example, Item, Listing, SplitError, divide, grouped, read
from retrain.errors import NothingUsable, UsageError
from retrain.storage import Layout, own_folder
from tests.privileges import where_permissions_count

hypothetically = settings(max_examples=150, deadline=None, derandomize=True, database=None)

# --- read: no picture is opened, so empty files will do


def fill(root: Path, *names: str) -> Layout:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    return Layout(root)


def test_folders_within_a_class_folder_belong_to_the_class(tmp_path: Path) -> None:
    listing = read(fill(tmp_path, "data/red/a.png", "data/red/deep/er/b.png", "data/blue/c.png", "data/.git/d.png"))
    assert listing.root == tmp_path / "data" and listing.labels == ("blue", "red") and listing.skipped == ()
    found = [(example.label, os.path.relpath(example.path, listing.root)) for example in listing.examples]
    assert found == [("blue", "blue/c.png"), ("red", "red/a.png"), ("red", "red/deep/er/b.png")]


def test_files_directly_in_the_data_folder_are_no_inputs(tmp_path: Path) -> None:
    listing = read(fill(tmp_path, "data/red/a.png", "data/loose.png", "data/notes.txt"))
    assert [example.label for example in listing.examples] == ["red"] and listing.skipped == ()


def test_without_a_data_folder_the_class_folders_lie_in_the_working_folder_beside_what_we_write(tmp_path: Path) -> None:
    layout = fill(tmp_path, "red/a.png", "blue/b.png", "bottlenecks.sqlite")
    own_folder(layout.model), own_folder(layout.reports)
    (layout.model / "thumbnail.png").touch()
    assert read(layout).labels == ("blue", "red")


def test_labels_are_the_exact_names_of_the_folders(tmp_path: Path) -> None:
    names = {"C++", "C#", "猫", "a b", "a-b", "a_b", "A b", "Ros\u00e9", "Rose\u0301", os.fsdecode(b"caf\xe9")}
    assert set(read(fill(tmp_path, *(f"data/{name}/x.png" for name in names))).labels) == names


def test_an_empty_class_folder_is_a_class_without_examples_and_what_cannot_be_read_is_skipped(tmp_path: Path) -> None:
    layout = fill(tmp_path, "data/red/a.png")
    (layout.data / "empty").mkdir()
    (layout.data / "red" / "lost.png").symlink_to("nowhere")
    listing = read(layout)
    assert listing.labels == ("empty", "red") and len(listing.examples) == 1
    assert [(Path(item.path).name, item.reason) for item in listing.skipped] == [("lost.png", "missing")]


def test_a_class_folder_may_be_a_link_to_elsewhere_but_not_one_that_leads_back(tmp_path: Path) -> None:
    fill(tmp_path, "elsewhere/x.png")
    layout = fill(tmp_path / "tf_files", "data/red/a.png", "data/blue/b.png")
    for name, target in {"linked": "../../elsewhere", "parent": "..", "self": ".", "alias": "red"}.items():
        (layout.data / name).symlink_to(target)
    listing = read(layout)
    real = [os.path.realpath(example.path) for example in listing.examples]
    assert len(real) == len(set(real)) == 3
    assert {example.label for example in listing.examples} == {"red", "blue", "linked"}


def test_a_folder_name_below_several_classes_is_a_source(tmp_path: Path) -> None:
    names = ("red/frames/a.png", "red/frames/deep/b.png", "blue/frames/c.png", "blue/fanart/d.png", "red/e.png")
    listing = read(fill(tmp_path, *(f"data/{name}" for name in names)))
    sources = {Path(example.path).name: example.source for example in listing.examples}
    assert sources == {"a.png": "frames", "b.png": "frames", "c.png": "frames", "d.png": "", "e.png": ""}


@pytest.mark.parametrize(
    ("groups", "expected"),
    [
        (None, ["", "", "", "", "", ""]),
        ("folder", ["blue/s1", "", "red/s1", "red/s1", "red/s1", "red/s2"]),
        (r"s\d/\w", ["s1/a", "", "s1/a", "s1/b", "s1/b", "s2/c"]),
        (r"/(s\d)/", ["s1", "", "s1", "s1", "s1", "s2"]),
        (r"(b)lue|red", ["b", "b", "", "", "", ""]),
        ("name", ["blue/s1/a", "blue/x", "red/s1/a", "red/s1/b", "red/s1/b", "red/s2/c"]),
        ("auto", ["", "", "", "", "", ""]),
    ],
)
def test_groups_are_folders_or_names_or_what_an_expression_matches(
    tmp_path: Path, groups: str | None, expected: list[str]
) -> None:
    names = ("blue/s1/a.png", "blue/x.png", "red/s1/a.png", "red/s1/b-12.png", "red/s1/b.png", "red/s2/c.png")
    listing = read(fill(tmp_path, *(f"data/{name}" for name in names)), groups)
    assert [example.group for example in listing.examples] == expected
    again = grouped(read(Layout(tmp_path), r"\w+"), groups)
    assert again == listing


@pytest.mark.parametrize(
    ("groups", "words"),
    [
        ("foldr", "did you mean 'folder'"),
        ("names", "did you mean 'name'"),
        (r"take_\d+", "matches no path; check it"),
        ("folder", "no picture lies in a folder"),
        ("name", "no two names differ only in numbers"),
    ],
)
def test_groups_that_match_nothing_are_a_mistake(tmp_path: Path, groups: str, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        read(fill(tmp_path, "data/red/a.png", "data/blue/b.png"), groups)


WORDS = st.text("kmnopqrstuvwxyzéß猫", min_size=1, max_size=4)  # no hexadecimal digits: hashes are no names
SEPARATORS = st.sampled_from(["", "-", "_", " ", ".", " (", "__"])


@hypothetically
@given(
    st.lists(st.tuples(WORDS, SEPARATORS), min_size=1, max_size=4),
    st.lists(st.tuples(*[st.integers(0, 10**9)] * 4), min_size=2, max_size=4),
    st.sampled_from([".png", ".JPG", ".tar.webp", ""]),
)
def test_names_that_differ_only_in_numbers_are_one_group(
    pieces: list[tuple[str, str]], numbers: list[tuple[int, ...]], ending: str
) -> None:
    stems = ["".join(f"{word}{gap}{number}" for (word, gap), number in zip(pieces, row, strict=False)) for row in numbers]
    paths = [f"data/red/s1/{stem}{ending or '.x'}" for stem in stems]
    listing = Listing(
        Path("data"), ("red",), (*map(example, paths), example("data/red/s1/ä1.png"), example("data/red/ä2.png")), ()
    )
    groups = [row.group for row in grouped(listing, "name").examples] if len(stems) > 1 else []
    assert len(set(groups[:-2])) == 1 and groups[0].startswith("red/s1/")
    assert len({*groups}) == 3


def example(path: str) -> Example:
    return Example(path, Path(path).parts[1])


@pytest.mark.parametrize(
    ("name", "group"),
    [
        ("scene12_frame034.png", "scene_frame"), ("walk-3.png", "walk"), ("walk.jpeg", "walk"), ("3-walk (2).png", "walk"),
        ("face0001.png", "face"), ("bed-01-02.png", "bed"), ("a1b2.png", "a_b"), ("fabaceae.png", "fabaceae"),
        ("0001.png", ""), ("1.5.png", ""), ("2024-05-06 07.08.09.jpg", ""), ("1234567a.png", ""), ("_.png", ""),
        ("d41d8cd98f00b204e9800998ecf8427e.png", ""), ("123E4567-E89B-12D3-A456-426614174000.jpg", ""),
    ],
)  # fmt: skip
def test_the_group_of_a_name_is_what_is_left_without_numbers(name: str, group: str) -> None:
    listing = Listing(
        Path("data"), ("red",), (example(f"data/red/{name}"), *map(example, ["data/red/x1", "data/red/x2"])), ()
    )
    assert grouped(listing, "name").examples[0].group == (group and f"red/{group}")


def test_groups_named_anew_reach_over_to_the_test_folder_and_back_to_none(tmp_path: Path) -> None:
    layout = fill(tmp_path, "data/red/a1.png", "data/red/a2.png", "held/red/a3.png", "chosen/red/a4.png")
    listing = read(layout, test_dir=tmp_path / "held", validation_dir=tmp_path / "chosen")
    named = grouped(listing, "name")
    assert {row.group for row in named.examples} == {"red/a"} and grouped(named, None) == listing


SOURCES = ("red/frames/a.png", "blue/frames/b.png", "red/fanart/c.png", "blue/fanart/d.png", "red/e.png", "blue/own/f.png")


def test_the_pictures_of_a_source_are_tested_on_and_never_validated_on(tmp_path: Path) -> None:
    layout = fill(tmp_path, *(f"data/{name}" for name in SOURCES), *(f"chosen/{name}" for name in SOURCES))
    listing = read(layout, test_source="fanart", validation_dir=tmp_path / "chosen")
    parts = {os.path.relpath(row.path, tmp_path): row.part for row in listing.examples}
    assert {path for path, part in parts.items() if part == "test"} == {"data/red/fanart/c.png", "data/blue/fanart/d.png"}
    assert {path for path, part in parts.items() if part == "validation"} == {
        f"chosen/{name}" for name in SOURCES if "fanart" not in name
    }
    assert [(item.reason, item.detail) for item in listing.skipped] == [
        ("left-out", "source 'fanart' is only tested on")
    ] * 2
    assert {row.group for row in grouped(listing, "folder").examples if row.part == "test"} == {"red/fanart", "blue/fanart"}


@pytest.mark.parametrize(
    ("source", "names", "words"),
    [
        ("fanrt", SOURCES, r"^--test-source 'fanrt' is none of the sources \(fanart, frames\); did you mean 'fanart'\?$"),
        ("own", SOURCES, r"^--test-source 'own' is none of the sources \(fanart, frames\)$"),
        ("", SOURCES, r"^--test-source '' is none of the sources"),
        ("fanart", ("red/a.png", "blue/b.png"), "^--test-source 'fanart': there are no sources; a source is a folder name"),
        ("x", [f"{label}/s{n:02}/a.png" for n in range(12) for label in "ab"], r"s00, .*, s09, \.\.\.\)$"),
    ],
)
def test_an_unknown_source_is_a_mistake(tmp_path: Path, source: str, names: Sequence[str], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        read(fill(tmp_path, *(f"data/{name}" for name in names)), test_source=source)


def test_folders_of_their_own_set_the_part_and_unknown_classes_in_them_are_left_out(tmp_path: Path) -> None:
    layout = fill(tmp_path, "data/red/a.png", "data/blue/b.png")
    fill(tmp_path, "held/red/c.png", "held/green/d.png", "chosen/blue/e.png")
    listing = read(layout, validation_dir=tmp_path / "chosen", test_dir=tmp_path / "held")
    assert {Path(example.path).name: example.part for example in listing.examples} == {
        "a.png": "",
        "b.png": "",
        "c.png": "test",
        "e.png": "validation",
    }
    assert [(Path(item.path).name, item.reason) for item in listing.skipped] == [("d.png", "left-out")]
    assert listing.labels == ("blue", "red")


def test_groups_reach_over_to_the_test_folder(tmp_path: Path) -> None:
    layout = fill(tmp_path, "data/red/take1_a.png", "data/blue/take2_b.png", "held/red/take1_c.png")
    listing = read(layout, r"take\d", test_dir=tmp_path / "held")
    assert [example.group for example in listing.examples] == ["take2", "take1", "take1"]


def test_paths_that_cannot_work_are_named_with_a_hint(tmp_path: Path) -> None:
    layout = fill(tmp_path / "tf_files", "data/red/a.png")
    fill(tmp_path, "file", "other/green/x.png")
    (tmp_path / "empty").mkdir()
    for action, error, words in [
        (lambda: read(Layout(tmp_path / "tf_flies")), UsageError, "tf_flies, does not exist; did you mean 'tf_files'"),
        (lambda: read(Layout(tmp_path / "file")), UsageError, "file, is a file"),
        (lambda: read(Layout(tmp_path / "empty")), NothingUsable, "empty has no class folders"),
        (lambda: read(layout, test_dir=tmp_path / "othr"), UsageError, "--test-dir.* did you mean 'other'"),
        (lambda: read(layout, test_dir=tmp_path / "other"), UsageError, "none of the class folders"),
        (lambda: read(layout, validation_dir=tmp_path / "file"), UsageError, "--validation-dir.* is a file"),
    ]:
        with pytest.raises(error, match=words):
            action()


@where_permissions_count
@pytest.mark.parametrize("closed", ["", "data", "../outer"])
def test_a_folder_without_permission_is_named(tmp_path: Path, closed: str) -> None:
    layout = fill(tmp_path / "outer" / "tf_files", "data/red/a.png", "data/blue/b.png")
    folder = layout.root.parent if closed == "../outer" else layout.root / closed
    folder.chmod(0)
    try:
        with pytest.raises(UsageError, match="permission denied"):
            read(layout)
    finally:
        folder.chmod(0o700)


@where_permissions_count
def test_a_class_folder_without_permission_is_a_class_and_skipped_with_the_reason(tmp_path: Path) -> None:
    layout = fill(tmp_path, "data/red/a.png", "data/blue/b.png", "data/green/deep/c.png")
    closed = [layout.data / "blue", layout.data / "green" / "deep"]
    for folder in closed:
        folder.chmod(0)
    try:
        listing = read(layout)
    finally:
        for folder in closed:
            folder.chmod(0o700)
    assert [(Path(item.path), item.reason) for item in listing.skipped] == [(folder, "unreadable") for folder in closed]
    assert listing.labels == ("blue", "green", "red") and [example.label for example in listing.examples] == ["red"]


# --- divide


def sha(number: int) -> str:
    return hashlib.sha256(str(number).encode()).hexdigest()


def singles(count: int, classes: int = 3, first: int = 0) -> list[Item]:
    return [Item(sha(number), number % classes) for number in range(first, first + count)]


@st.composite
def mixed(draw: st.DrawFn) -> tuple[list[Item], list[tuple[int, int]]]:
    """Items with copies and groups, some over several classes, and pairs of near-duplicates."""
    group = st.sampled_from(["", "", "", "one", "two"])
    item = st.builds(Item, st.integers(0, 60).map(sha), st.integers(0, 2), group, st.just(""))
    items = draw(st.lists(item, min_size=1, max_size=30)) + singles(draw(st.integers(0, 20)), first=100)
    row = st.integers(0, len(items) - 1)
    return items, draw(st.lists(st.tuples(row, row), max_size=6))


def assert_units_are_whole(items: list[Item], pairs: list[tuple[int, int]], parts: tuple[str, ...]) -> None:
    together = defaultdict(set)
    for item, part in zip(items, parts, strict=True):
        together["bytes", item.sha256].add(part)
        together["group", item.group].add(part)
    together.pop(("group", ""), None)
    assert all(len(sides) == 1 for sides in together.values())
    assert all(parts[first] == parts[second] for first, second in pairs)


@hypothetically
@given(mixed())
def test_every_item_goes_to_one_part_together_with_its_unit_and_no_class_lacks_one(drawn: tuple) -> None:
    items, pairs = drawn
    labels = {item.label for item in items}
    try:
        split = divide(items, pairs)
    except SplitError as error:
        assert set(error.missing) <= labels and min(error.missing.values()) >= 1
        return
    assert len(split.parts) == len(items)
    assert {(item.label, part) for item, part in zip(items, split.parts, strict=True)} == set(product(labels, PARTS))
    assert_units_are_whole(items, pairs, split.parts)


@hypothetically
@given(st.lists(st.integers(0, 2), min_size=1, max_size=20))
def test_only_a_class_of_fewer_than_three_units_cannot_be_split(labels: list[int]) -> None:
    items = [Item(sha(number), label) for number, label in enumerate(labels)]
    small = {label: 3 - count for label, count in Counter(labels).items() if count < 3}
    try:
        divide(items)
        assert not small
    except SplitError as error:
        assert error.missing == small


@hypothetically
@given(mixed(), st.randoms(use_true_random=False), st.sampled_from([0, 3]))
def test_the_order_of_the_items_does_not_matter(drawn: tuple, random: object, folds: int) -> None:
    items, pairs = drawn
    order = list(range(len(items)))
    random.shuffle(order)
    now_at = {old: new for new, old in enumerate(order)}
    try:
        expected = divide(items, pairs, folds=folds)
    except SplitError as error:
        with pytest.raises(SplitError) as caught:
            divide([items[row] for row in order], [(now_at[a], now_at[b]) for a, b in pairs])
        assert caught.value.missing == error.missing
        return
    shuffled = divide([items[row] for row in order], [(now_at[a], now_at[b]) for a, b in pairs], folds=folds)
    assert [shuffled.parts[now_at[row]] for row in range(len(items))] == list(expected.parts)
    assert [shuffled.units[now_at[row]] for row in range(len(items))] == list(expected.units)


@hypothetically
@given(st.integers(9, 60), st.integers(1, 40), st.sampled_from([0, 4]))
def test_added_items_move_none_that_were_there(count: int, added: int, folds: int) -> None:
    before = singles(count)
    parts = divide(before, folds=folds).parts
    kept = {item.sha256: part for item, part in zip(before, parts, strict=True)}
    after = divide([*singles(added, first=1000), *before], folds=folds, kept=kept)
    assert after.parts[added:] == parts


def test_the_parts_are_about_as_large_as_asked_for_and_do_not_move_when_items_are_added() -> None:
    items = singles(2000)
    parts = divide(items, validation=10, test=20).parts
    share = {part: count / 20 for part, count in Counter(parts).items()}
    assert abs(share["validation"] - 10) < 2.5 and abs(share["test"] - 20) < 2.5
    assert divide(singles(3000), validation=10, test=20).parts[:2000] == parts


def test_what_an_earlier_run_decided_is_kept() -> None:
    items = singles(300)
    kept = {item.sha256: PARTS[number // 3 % 3] for number, item in enumerate(items)}
    assert divide(items, kept=kept).parts == tuple(kept.values())


@pytest.mark.parametrize("part", ["validation", "test"])
def test_what_an_earlier_run_decided_gives_way_to_a_folder_of_its_own(part: str) -> None:
    items = singles(300)
    kept = {item.sha256: PARTS[number // 3 % 3] for number, item in enumerate(items)}
    held = [Item(sha(900 + label), label, part=part) for label in range(3)]
    parts = divide([*items, *held], kept=kept).parts
    assert parts[300:] == (part,) * 3 and part not in parts[:300]
    assert all(now == before for now, before in zip(parts[:300], kept.values(), strict=True) if before != part)


def test_a_unit_joined_from_several_parts_goes_where_most_were_and_a_tie_to_the_one_least_trained_on() -> None:
    items = singles(300)
    kept = {item.sha256: PARTS[number // 3 % 3] for number, item in enumerate(items)}
    train, test = [row for row in range(300) if row // 3 % 3 == 0], [row for row in range(300) if row // 3 % 3 == 2]
    pairs = [(train[0], test[0]), (train[1], test[1]), (train[1], train[2])]
    parts = divide(items, pairs, kept=kept).parts
    assert {parts[train[0]], parts[test[0]]} == {"test"} and {parts[row] for row in (train[1], train[2], test[1])} == {
        "train"
    }


def test_a_class_below_its_minimum_moves_only_training_or_new_pictures() -> None:
    big = [Item(sha(number), 0) for number in range(100)]
    few = [Item(sha(1000 + number), 1) for number in range(4)]
    kept = {item.sha256: part for item, part in zip(few, ["test", "test", "train", "train"], strict=True)}
    parts = divide(big + few, kept=kept).parts[-4:]
    assert parts[:2] == ("test", "test") and sorted(parts[2:]) == ["train", "validation"]
    with pytest.raises(SplitError) as caught:
        divide(big + few, kept={item.sha256: "test" for item in few})
    assert set(caught.value.missing) == {1}


def test_with_a_test_folder_the_rest_is_learnt_from_and_what_would_leak_is_left_out() -> None:
    rest = singles(60)
    held = [Item(sha(5), 2, part="test"), *(Item(sha(900 + label), label, "take", "test") for label in range(3))]
    split = divide([*rest, Item(sha(80), 0, "take"), *held], [(7, 62)])
    assert split.parts[61:] == ("test",) * 4 and split.parts.count("test") == 4
    assert [row for row, part in enumerate(split.parts) if part == "left-out"] == [5, 7, 60]
    assert set(split.parts) == {"train", "validation", "test", "left-out"}


def test_the_same_picture_is_not_in_the_validation_folder_and_the_test_folder_at_once() -> None:
    held = [Item(sha(900), 0, part="validation"), Item(sha(900), 0, part="test"), Item(sha(901), 0, part="validation")]
    parts = divide([*singles(60), *held]).parts[60:]
    assert parts == ("left-out", "test", "validation")


@hypothetically
@given(mixed(), st.integers(2, 7))
def test_folds_keep_units_together(drawn: tuple, folds: int) -> None:
    items, pairs = drawn
    split = divide(items, pairs, folds=folds)
    assert set(split.fold_numbers()) <= set(range(folds)) and len(split.parts) == len(items)
    assert_units_are_whole(items, pairs, split.parts)


@hypothetically
@given(st.lists(st.integers(0, 4), min_size=1, max_size=100), st.integers(2, 10))
def test_folds_are_of_even_size_and_each_class_is_spread_over_them(labels: list[int], folds: int) -> None:
    numbers = divide([Item(sha(number), label) for number, label in enumerate(labels)], folds=folds).fold_numbers()
    for label in {*labels, None}:
        mine = numbers if label is None else numbers[np.array(labels) == label]
        sizes = np.bincount(mine, minlength=folds)
        assert sizes.max() - sizes.min() <= (1 if label is not None else 2)
