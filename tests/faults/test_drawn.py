"""Names of classes, splits, manifests and settings drawn at random, to find one that breaks a promise.

15  test_any_class_names_go_through_train_to_folders_of_copies, and its longer sister
17  test_any_split_keeps_units_whole_whatever_the_settings_and_an_earlier_run_say; also the drawn tests of test_dataset
20  test_any_labels_of_a_model_give_copies_of_their_own; also test_names.test_any_labels_become_distinct_plain_names
21  test_any_manifests_merge_as_dictionaries_do, kills included
Settings: test_any_settings_are_refused_or_come_back_from_the_record, test_any_options_are_taken_or_refused_in_one_line.
Names of files (11): test_file_names.test_any_bytes_go_through_classify_and_come_back_from_both_manifests.
"""

import contextlib
import csv
import io
import json
import os
import tempfile
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from retrain import cli
from retrain.backbones import Backbone
from retrain.classify import classify
from retrain.classify.manifest import Manifest, Row
from retrain.dataset import PARTS, Item, SplitError, divide
from retrain.errors import Exit, UsageError
from retrain.label import Labeller, load
from retrain.pipeline import train
from retrain.pipeline.record import Record
from retrain.settings import HeadSettings, SplitSettings
from retrain.storage import Layout
from tests.drawing import draw
from tests.faults.nearest import nearest

ROUNDS = int(os.environ.get("RETRAIN_FAULT_ROUNDS", "1"))


def drawn(count: int) -> settings:
    """The same examples in every run, unless many rounds are asked for."""
    return settings(
        max_examples=count * ROUNDS, deadline=None, derandomize=ROUNDS == 1, database=None,
        suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
    )  # fmt: skip


@pytest.fixture(scope="module")
def labeller(trained: Path) -> Labeller:
    return load(trained / "model")


def in_colours(folder: Path, names: list[str]) -> list[Path]:
    """A picture of another colour for each name."""
    colours = [(number % 3 * 120, number // 3 % 3 * 120, 40 + number * 20) for number in range(len(names))]
    return [
        draw(folder / name / f"{seed}.png", colour, seed)
        for seed, (name, colour) in enumerate(zip(names, colours, strict=True))
    ]


def labels_of_copies(out: Path) -> dict[str, tuple[str, str]]:
    """Source -> (label, folder of the copy)."""
    rows = [json.loads(line) for line in (out / "manifest.jsonl").read_text().splitlines()]
    assert all((out / row["copy"]).read_bytes() == Path(row["source"]).read_bytes() for row in rows)
    assert all(len(part.encode()) <= 255 for row in rows for part in row["copy"].split("/"))
    return {row["source"]: (row["label"], row["copy"].partition("/")[0]) for row in rows}


# --- 15: class folders


def as_folder(raw: bytes) -> str:
    """Make of any bytes a name that a folder can have and that is not hidden."""
    name = os.fsdecode(raw[:255].replace(b"\0", b"0").replace(b"/", b"|"))
    return f"x{name[1:]}" if name.startswith(".") or name.lower() in ("thumbs.db", "desktop.ini") else name


a_class = (st.binary(min_size=1, max_size=300) | st.text(min_size=1, max_size=80).map(str.encode) | st.just(b"model")).map(
    as_folder
)
some_classes = st.lists(a_class, min_size=2, max_size=8, unique=True)


def check_classes(tiny: Backbone, names: list[str]) -> None:
    with tempfile.TemporaryDirectory() as room:
        data, out = Path(room, "data"), Path(room, "out")
        pictures = dict(zip(names, in_colours(data, names), strict=True))
        train(room, head=HeadSettings(steps=10, l2=0.0), split=SplitSettings(folds=2), backbone=tiny)
        model = load(Path(room, "model")).model
        assert model.labels == tuple(sorted(names, key=os.fsencode))
        classify(nearest(model, {name: pictures[name] for name in model.labels}), data, out, sort=True)
        found = labels_of_copies(out)
        assert {source: label for source, (label, _) in found.items()} == {str(pictures[name]): name for name in names}
        assert len({folder.casefold() for _, folder in found.values()}) == len(names)


@drawn(1)
@given(some_classes)
@example(["a", "A", "a~2", "Ros\u00e9", "Rose\u0301", "manifest.csv", "\udce9", "x\r\n"])
def test_any_class_names_go_through_train_to_folders_of_copies(tiny: Backbone, names: list[str]) -> None:
    check_classes(tiny, names)


@pytest.mark.faults
@drawn(25)
@given(some_classes)
def test_many_class_names_go_through_train_to_folders_of_copies(tiny: Backbone, names: list[str]) -> None:
    check_classes(tiny, names)


# --- 20: labels of a model


@drawn(10)
@given(st.lists(st.text(max_size=400), min_size=1, max_size=8, unique=True), st.booleans())
@example(["manifest.csv", "manifest.jsonl", "MANIFEST.CSV", ".manifest.journal", ".copy.tmp", "\0", "/"], True)
def test_any_labels_of_a_model_give_copies_of_their_own(labeller: Labeller, labels: list[str], sort: bool) -> None:
    with tempfile.TemporaryDirectory() as room:
        images, out = Path(room, "in"), Path(room, "out")
        pictures = dict(zip(labels, in_colours(images, [str(number) for number in range(len(labels))]), strict=True))
        for copied in (len(labels), 0):
            assert classify(nearest(labeller.model, pictures), images, out, sort=sort).copied == copied
            found = labels_of_copies(out)
            assert {label: source for source, (label, _) in found.items()} == {
                key: str(path) for key, path in pictures.items()
            }
        assert len({folder.casefold() for _, folder in found.values()}) == len(labels) and set(os.listdir(room)) == {
            "in",
            "out",
        }


# --- 17: splits

HASHES = [f"{number * 97003 % 65536:04x}" + 60 * "0" for number in range(50)]
an_item = st.builds(
    Item,
    st.sampled_from(HASHES),
    st.integers(0, 3),
    st.sampled_from(["", "", "", "a", "b"]),
    st.sampled_from(["", "", "", *PARTS[1:]]),
)
earlier = st.dictionaries(
    st.sampled_from(HASHES), st.sampled_from([*PARTS, "fold-0", "fold-1", "fold-99", "left-out", "", "mine"])
)


@drawn(300)
@given(
    st.lists(an_item, min_size=1, max_size=40),
    earlier,
    st.integers(1, 45),
    st.integers(1, 45),
    st.sampled_from([0, 0, 2, 100]),
)
def test_any_split_keeps_units_whole_whatever_the_settings_and_an_earlier_run_say(
    items: list[Item], kept: dict[str, str], validation: int, test: int, folds: int
) -> None:
    items = [item._replace(part="") for item in items] if folds else items
    try:
        split = divide(items, validation=validation, test=test, folds=folds, kept=kept)
    except SplitError as error:
        assert set(error.missing) <= {item.label for item in items} and not folds
        return
    allowed = {f"fold-{number}" for number in range(folds)} if folds else {*PARTS, "left-out"}
    assert len(split.parts) == len(split.units) == len(items) and set(split.parts) <= allowed
    sides = defaultdict(set)
    for item, part, unit in zip(items, split.parts, split.units, strict=True):
        assert part in (item.part, "left-out") if item.part else True
        if part != "left-out":
            for key in (unit, item.sha256, item.group and f"group {item.group}"):
                sides[key].add(part)
    assert all(len(parts) == 1 for key, parts in sides.items() if key)


# --- 21: manifests of one output folder

a_path = st.text(max_size=12).map(lambda text: "/" + text.replace("\0", "0").replace("/", "|"))
any_text = st.text(st.characters(codec=None, exclude_categories=[]), max_size=12)
a_row = st.builds(Row, a_path, any_text, any_text, st.none() | st.floats(0, 1), any_text, any_text, any_text)
a_run = st.tuples(st.lists(a_row, max_size=8, unique_by=lambda row: row.key), st.booleans())


@drawn(80)
@given(st.lists(a_run, min_size=1, max_size=4))
@example([([Row("/a", 'co"py', "la\rbel", 1.0, "\n", ",\r\n")], True)])
def test_any_manifests_merge_as_dictionaries_do(runs: list[tuple[list[Row], bool]]) -> None:
    """Each run visits some sources in order, and may be killed before it merges what it noted."""
    expected: dict[tuple[bytes, ...], Row] = {}
    with tempfile.TemporaryDirectory() as room:
        for rows, is_killed in runs:
            manifest = Manifest(Path(room))
            for row in sorted(rows, key=lambda row: row.key):
                assert manifest.earlier(row) == expected.get(row.key)
                manifest.intend(row)
            expected |= {row.key: row for row in rows}
            if is_killed and manifest._handle is not None:
                os.close(manifest._handle)
            elif not is_killed:
                manifest.finish()
        Manifest(Path(room)).finish()
        if not expected:
            assert os.listdir(room) == []
            return
        exact = [Row.of_line(line) for line in Path(room, "manifest.jsonl").read_text(encoding="ascii").splitlines()]
        assert exact == [expected[key] for key in sorted(expected)]
        with Path(room, "manifest.csv").open(newline="", encoding="utf-8") as file:
            cells = list(csv.reader(file))
        texts = [
            [
                "" if value is None else str(value)
                for value in (row.source, row.copy, row.label, row.score, row.reason, row.detail, row.nearest)
            ]
            for row in exact
        ]
        assert cells[1:] == [[text.encode("utf-8", "backslashreplace").decode() for text in row] for row in texts]


# --- settings

odd_values = [None, True, b"x", "folder", "balanced", "float32", "(a)", "a{99999999999}", "(" * 2000, "[[a]", "(?i)x"]
a_value = (
    st.sampled_from(odd_values) | st.integers(-3, 130) | st.integers() | st.floats() | st.floats(0, 11)
    | st.text(max_size=8) | st.text("([{*+?|)]}\\^$.a1,-<>=!:P\n", max_size=8) | st.builds(Path, st.text(max_size=5))
)  # fmt: skip
NAMES = {kind: list(kind.__dataclass_fields__) for kind in (SplitSettings, HeadSettings)}
some_settings = st.sampled_from(list(NAMES)).flatmap(
    lambda kind: st.tuples(st.just(kind), st.dictionaries(st.sampled_from(NAMES[kind]), a_value, max_size=3))
)


@drawn(250)
@given(some_settings)
@example((SplitSettings, {"groups": "a{99999999999}"}))
@example((SplitSettings, {"groups": "(" * 5000}))
@example((SplitSettings, {"groups": "[[a]"}))
@example((HeadSettings, {"learning_rate": 10**400}))
@example((SplitSettings, {"test_dir": Path("caf\udce9"), "groups": "\udce9"}))
def test_any_settings_are_refused_or_come_back_from_the_record(asked: tuple[type, dict[str, Any]]) -> None:
    kind, values = asked
    try:
        made = kind(**values)
    except UsageError as error:
        assert str(error).startswith("--") and error.exit_code == Exit.USAGE
        return
    chosen = {SplitSettings: SplitSettings(), HeadSettings: HeadSettings(), kind: made}
    record = Record(Layout(Path("nowhere")), "tiny", chosen[SplitSettings], chosen[HeadSettings])
    written = json.loads(json.dumps(record.as_json(), allow_nan=False))["settings"]
    for each, settings_made in chosen.items():
        assert each(**{name: written[name] for name in NAMES[each]}) == settings_made


OPTIONS = [f"--{name.replace('_', '-')}" for kind in NAMES.values() for name in kind] + [
    "--model",
    "--image-size",
    "--weights",
    "--x",
]
typed = st.text(max_size=8) | st.sampled_from(
    ["", "folder", "a{99999999999}", "(\n", "[[a]", "nan", "1e400", "-0", "٣", "1_0", "auto\n"]
)


@drawn(150)
@given(st.lists(st.tuples(st.sampled_from(OPTIONS), typed | st.integers().map(str) | st.floats().map(str)), max_size=3))
def test_any_options_are_taken_or_refused_in_one_line(asked: list[tuple[str, str]]) -> None:
    """There is no folder to train on, so either the options are refused or that is."""
    with contextlib.redirect_stdout(io.StringIO()) as out, contextlib.redirect_stderr(io.StringIO()) as err:
        code = cli._run(["train", "/nowhere/at all", *(word for option in asked for word in option)])
    told = err.getvalue()
    assert code == Exit.USAGE and out.getvalue() == "", told
    assert told.startswith("retrain: ") and told.endswith("\n") and told[:-1].isprintable(), told
