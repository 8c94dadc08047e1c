"""What is said of a picture that is unlike all training pictures, and of the nearest of these: `label` and `classify`."""

import csv
import dataclasses
import hashlib
import json
import re
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import retrain as package
from retrain import artifact
from retrain.classify import Outcome, classify
from retrain.classify.manifest import Row
from retrain.errors import UsageError
from retrain.label import Labeller, load
from retrain.nearest import Nearest
from tests.conftest import Ran
from tests.drawing import COLOURS, draw

UNKNOWN = re.compile(r"unknown \(typicality = 0\.0\d{4}\)")
NEAR = re.compile(r"near: (blue|green|red) \(similarity = [01]\.\d{5}\) (.+)")
Command = Callable[..., Ran]


@pytest.fixture(scope="module")
def black(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A picture like none that the model has learnt from."""
    return draw(tmp_path_factory.mktemp("black") / "black.png", (0, 0, 0), 1)


@pytest.fixture(scope="module")
def red(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A picture that the model has not seen, but many like it."""
    return draw(tmp_path_factory.mktemp("red") / "red.png", COLOURS["red"], 4000)


@pytest.fixture
def model(trained: Path) -> Path:
    return trained / "model"


@pytest.fixture
def labeller(model: Path) -> Labeller:
    return load(model)


@pytest.fixture
def images(tmp_path: Path, black: Path, red: Path) -> Path:
    """Two black pictures and a red one."""
    (tmp_path / "in").mkdir()
    shutil.copy(black, tmp_path / "in" / "a.png")
    draw(tmp_path / "in" / "b.png", (0, 0, 0), 2)
    shutil.copy(red, tmp_path / "in" / "c.png")
    return tmp_path / "in"


def renamed(labeller: Labeller, *labels: str, unknown: float = 0.05) -> Labeller:
    """The same model with other names for its classes."""
    known = dataclasses.replace(labeller.model, labels=labels)
    return Labeller(known, nearest=labeller._nearest, unknown=unknown)


def names(out: Path) -> list[str]:
    paths = (path.relative_to(out).as_posix() for path in out.rglob("*.png"))
    return sorted(re.sub(r"[01]\.\d{5}", "S", path) for path in paths)


def rows(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / "manifest.jsonl").read_text().splitlines()]


def test_the_first_line_says_unknown_and_the_labels_follow(retrain: Command, model: Path, black: Path, red: Path) -> None:
    ran = retrain("label", black, "--model", model)
    assert ran.code == 0 and len(ran.out) == 4 and UNKNOWN.fullmatch(ran.out[0])
    assert [line.split()[0] for line in ran.out[1:]] == [score.label for score in load(model).label(black).scores]
    known = retrain("label", red, "--model", model)
    assert len(known.out) == 3 and known.out[0].startswith("red (score")


def test_each_of_several_pictures_has_its_own_first_line(retrain: Command, model: Path, black: Path, red: Path) -> None:
    out = retrain("label", red, black, "--model", model, "--top", 1).out
    assert out[0] == f"{red}:" and out[1].startswith("red (score") and out[2:4] == ["", f"{black}:"]
    assert UNKNOWN.fullmatch(out[4]) and "(score = " in out[5] and len(out) == 6


def test_with_unknown_off_no_picture_is_called_so(retrain: Command, model: Path, black: Path) -> None:
    ran = retrain("label", black, "--model", model, "--unknown", "off")
    assert len(ran.out) == 3 and not any("unknown" in line for line in ran.out)
    (line,) = retrain("label", black, "--model", model, "--unknown", "off", "--json").out
    found = json.loads(line)
    assert found["unknown"] is False and 0 < found["typicality"] < 0.05


def test_a_higher_rate_calls_more_pictures_unknown(retrain: Command, model: Path, tmp_path: Path) -> None:
    pictures = [draw(tmp_path / f"{seed}.png", colour, 600 + seed) for seed, colour in enumerate([*COLOURS.values()] * 6)]
    counts = [
        sum(line.startswith("unknown (") for line in retrain("label", *pictures, "--model", model, "--unknown", rate).out)
        for rate in ("off", "0.05", "0.5")
    ]
    assert counts[0] == 0 and counts[1] < counts[2] < len(pictures)


def test_json_has_what_is_known_of_a_picture(retrain: Command, model: Path, black: Path, red: Path) -> None:
    ran = retrain("label", black, red, "--model", model, "--json", "--neighbours", 2)
    for line, path, unknown in zip(ran.out, (black, red), (True, False), strict=True):
        found, said = json.loads(line), load(model).label(path, neighbours=2)
        assert list(found) == ["image", "labels", "unknown", "typicality", "neighbours", "notes"]
        assert found["image"] == str(path) and found["unknown"] is unknown
        assert found["typicality"] == pytest.approx(said.typicality)
        assert [[one["label"], one["sha256"]] for one in found["neighbours"]] == [
            [one.label, one.sha256] for one in said.neighbours
        ]
        for near in found["neighbours"]:
            assert list(near) == ["label", "similarity", "sha256", "path"]
            assert hashlib.sha256(Path(near["path"]).read_bytes()).hexdigest() == near["sha256"]
            assert Path(near["path"]).parent.name == near["label"] and 0 < near["similarity"] <= 1
    (plain,) = retrain("label", black, "--model", model, "--json").out
    assert "neighbours" not in json.loads(plain)


def test_json_of_a_model_that_cannot_tell_says_so(retrain: Command, trained: Path, tmp_path: Path, black: Path) -> None:
    loaded = artifact.load(trained / "model")
    mute = dataclasses.replace(loaded.reference(), held_out=np.empty((0, 2), np.float32))
    artifact.save(tmp_path / "model", loaded.artifact, mute, loaded.split(), loaded.manifest["split"]["settings"])
    (line,) = retrain("label", black, "--model", tmp_path / "model", "--json", "--neighbours", 1).out
    found = json.loads(line)
    assert found["unknown"] is False and found["typicality"] is None and len(found["neighbours"]) == 1
    assert found["neighbours"][0]["path"] == "", "no split.csv beside this model"
    assert len(retrain("label", black, "--model", tmp_path / "model").out) == 3


def test_neighbours_are_named_by_paths_that_are_there(retrain: Command, model: Path, red: Path) -> None:
    ran = retrain("label", red, "--model", model, "--top", 1, "--neighbours", 3)
    found = [NEAR.fullmatch(line) for line in ran.out[1:]]
    assert ran.code == 0 and len(found) == 3 and ran.out[0].startswith("red (score")
    for match in found:
        assert match and match[1] == "red" and Path(match[2]).is_file() and Path(match[2]).parent.name == "red"
    assert len(retrain("label", red, "--model", model, "--neighbours", 10_000).out) > 20
    assert retrain("label", red, "--model", model, "--neighbours", -1).code == 2


def test_neighbours_whose_file_is_gone_or_changed_go_by_their_hash(
    retrain: Command, trained: Path, tmp_path: Path, red: Path
) -> None:
    shutil.copytree(trained, tmp_path / "tf_files")
    line = ("label", red, "--model", tmp_path / "tf_files" / "model", "--top", 1, "--neighbours", 2)
    first, second = (NEAR.fullmatch(near) for near in retrain(*line).out[1:])
    assert first and second and str(tmp_path / "tf_files" / "data") in first[2]
    expected = [hashlib.sha256(Path(match[2]).read_bytes()).hexdigest() for match in (first, second)]
    Path(first[2]).unlink()
    Path(second[2]).write_bytes(b"other bytes")
    assert [match[2] for near in retrain(*line).out[1:] if (match := NEAR.fullmatch(near))] == [
        f"sha256 {one}" for one in expected
    ]
    assert len({*expected}) == 2


def test_a_model_from_elsewhere_names_neighbours_by_their_hash(
    retrain: Command, model: Path, tmp_path: Path, red: Path
) -> None:
    shutil.copytree(model, tmp_path / "alone")
    ran = retrain("label", red, "--model", tmp_path / "alone", "--top", 1, "--neighbours", 1)
    assert re.fullmatch(r"near: red \(similarity = [01]\.\d{5}\) sha256 [0-9a-f]{64}", ran.out[1])


def test_the_path_of_a_neighbour_cannot_move_the_cursor(retrain: Command, trained: Path, tmp_path: Path, red: Path) -> None:
    shutil.copytree(trained, tmp_path / "tf_files")
    root = tmp_path / "tf_files"
    near = load(root / "model").label(red, neighbours=1).neighbours[0].sha256
    (path,) = [path for path in root.glob("data/red/*") if hashlib.sha256(path.read_bytes()).hexdigest() == near]
    hostile = path.rename(path.parent / "\x1b[2Jtwo\nlines.png")
    table = root / "reports" / "split.csv"
    relative = hostile.relative_to(root)
    table.write_text(table.read_text().replace(f"data/red/{path.name}", f'"{relative}"'))
    out = retrain("label", red, "--model", root / "model", "--top", 1, "--neighbours", 1).out
    assert len(out) == 2 and out[1].endswith("\\x1b[2Jtwo\\nlines.png")


def test_python_knows_the_same(model: Path, black: Path, red: Path) -> None:
    loaded = package.load(model)
    said = loaded.label_bytes(black.read_bytes(), neighbours=4)
    assert said.unknown and said.typicality is not None and said.typicality <= 0.05 and len(said.neighbours) == 4
    assert not loaded.label_bytes(red.read_bytes()).unknown and loaded.label_bytes(red.read_bytes()).neighbours == ()
    off = package.load(model, unknown=0).label_bytes(black.read_bytes())
    assert not off.unknown and off.typicality == said.typicality and off.scores == said.scores


def test_copies_of_unknown_pictures_are_called_so(labeller: Labeller, images: Path, tmp_path: Path) -> None:
    outcome = classify(labeller, images, tmp_path / "out")
    assert outcome == Outcome(copied=3, labels=Counter({"unknown": 2, "red": 1}))
    assert [name.removesuffix("-2.png").removesuffix(".png") for name in names(tmp_path / "out")] == [
        "red-S", "unknown-S", "unknown-S",
    ]  # fmt: skip
    for row in rows(tmp_path / "out")[:2]:
        label, score = labeller.label(row["source"]).scores[0]
        assert (row["label"], row["nearest"], row["score"]) == ("unknown", label, score)
        assert re.fullmatch(rf"unknown-{score:.5f}(-2)?\.png", row["copy"])
    assert rows(tmp_path / "out")[2]["nearest"] == ""


def test_with_unknown_off_copies_have_their_labels(retrain: Command, model: Path, images: Path, tmp_path: Path) -> None:
    ran = retrain("classify", images, tmp_path / "out", "--model", model, "--unknown", "off")
    assert ran.code == 0 and not any(name.startswith("unknown") for name in names(tmp_path / "out"))
    assert all(row["nearest"] == "" and row["label"] in COLOURS for row in rows(tmp_path / "out"))


def test_the_summary_counts_unknown_pictures(retrain: Command, model: Path, images: Path, tmp_path: Path) -> None:
    ran = retrain("classify", images, tmp_path / "out", "--model", model)
    assert ran.code == 0 and "labels:   red 1, unknown 2" in ran.out
    again = retrain("classify", images, tmp_path / "out", "--model", model)
    assert "pictures: 0 copied, 3 there already, 0 skipped" in again.out and len(names(tmp_path / "out")) == 3


def test_sort_puts_unknown_pictures_into_a_folder_of_their_own(labeller: Labeller, images: Path, tmp_path: Path) -> None:
    classify(labeller, images, tmp_path / "out", sort=True)
    assert {path.name: len([*path.iterdir()]) for path in (tmp_path / "out").iterdir() if path.is_dir()} == {
        "unknown": 2,
        "red": 1,
    }
    assert all(name.split("/")[1].startswith(name.split("/")[0]) for name in names(tmp_path / "out"))


@pytest.mark.parametrize(
    ("labels", "known", "strange"),
    [
        (("blue", "green", "unknown"), "unknown", "unknown"),
        (("blue", "green", "Unknown"), "Unknown", "unknown~2"),
        (("UNKNOWN", "Unknown", "unknown"), "unknown~3", "unknown~3"),
        (("blue", "green", "unknown~2"), "unknown~2", "unknown"),
    ],
)
def test_a_class_that_is_called_so_too_keeps_its_name(
    labeller: Labeller, images: Path, tmp_path: Path, labels: tuple[str, ...], known: str, strange: str
) -> None:
    """The last class is the one of the red picture. A class called exactly `unknown` shares the name, and no other does."""
    other = renamed(labeller, *labels)
    classify(other, images, tmp_path / "out", sort=True)
    first, second, third = rows(tmp_path / "out")
    assert [Path(row["copy"]).parent.name for row in (first, second, third)] == [strange, strange, known]
    assert (first["label"], third["label"]) == ("unknown", labels[2]) and first["nearest"] in labels
    assert third["nearest"] == "" and all((tmp_path / "out" / row["copy"]).is_file() for row in (first, second, third))


def test_the_spreadsheet_names_the_nearest_label(labeller: Labeller, images: Path, tmp_path: Path) -> None:
    (images / "d.png").write_text("words")
    classify(labeller, images, tmp_path / "out")
    with (tmp_path / "out" / "manifest.csv").open(newline="") as file:
        table = list(csv.DictReader(file))
    assert list(table[0])[-1] == "nearest"
    nearest = [labeller.label(images / name).scores[0].label for name in ("a.png", "b.png")]
    assert [row["nearest"] for row in table] == [*nearest, "", ""]
    assert [row["label"] for row in table] == ["unknown", "unknown", "red", ""]


def as_before(out: Path) -> None:
    """Write the manifest of a folder as it was before there was a column `nearest`."""
    kept = [{name: value for name, value in row.items() if name != "nearest"} for row in rows(out)]
    (out / "manifest.jsonl").write_text("".join(json.dumps(row) + "\n" for row in kept))
    lines = (out / "manifest.csv").read_text().splitlines()
    (out / "manifest.csv").write_text("".join(line.rpartition(",")[0] + "\n" for line in lines))
    assert (out / "manifest.csv").read_text().startswith("source,copy,label,score,reason,detail\n")


def test_a_manifest_without_that_column_is_read_and_merged(labeller: Labeller, images: Path, tmp_path: Path) -> None:
    out, first = tmp_path / "out", tmp_path / "first"
    first.mkdir()
    shutil.move(images / "c.png", first / "c.png")
    plain = renamed(labeller, *labeller.model.labels, unknown=0)
    classify(plain, first, out)
    as_before(out)
    outcome = classify(labeller, images, out)
    assert outcome == Outcome(copied=2, labels=Counter({"unknown": 2}))
    found = {Path(row["source"]).name: row for row in rows(out)}
    assert set(found) == {"a.png", "b.png", "c.png"} and found["c.png"]["nearest"] == "" != found["a.png"]["nearest"]
    assert classify(labeller, first, out) == Outcome(present=1, labels=Counter({"red": 1}))
    with (out / "manifest.csv").open(newline="") as file:
        assert [len(row) for row in csv.reader(file)] == [7] * 4


def test_a_picture_that_was_labelled_before_gets_another_copy_once_it_is_unknown(
    labeller: Labeller, images: Path, tmp_path: Path
) -> None:
    classify(renamed(labeller, *labeller.model.labels, unknown=0), images, tmp_path / "out")
    as_before(tmp_path / "out")
    outcome = classify(labeller, images, tmp_path / "out")
    assert (outcome.copied, outcome.present, outcome.unlisted) == (2, 1, 2)
    assert sum(name.startswith("unknown") for name in names(tmp_path / "out")) == 2 and len(names(tmp_path / "out")) == 5


@pytest.mark.parametrize("header", ["source,copy,label,score,reason", "source,copy,label,score,reason,detail,nearest,more"])
def test_a_spreadsheet_with_other_columns_is_still_refused(
    labeller: Labeller, images: Path, tmp_path: Path, header: str
) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "manifest.csv").write_text(f"{header}\n")
    with pytest.raises(UsageError, match="was not written by retrain classify"):
        classify(labeller, images, tmp_path / "out")


def test_a_row_of_before_is_read_and_one_with_another_value_is_not() -> None:
    row = Row("/a.png", "unknown-0.50000.png", "unknown", 0.5, nearest="red")
    assert Row.of_line(row.as_line()) == row
    values = dataclasses.asdict(row)
    del values["nearest"]
    assert Row.of_line(json.dumps(values)) == dataclasses.replace(row, nearest="")
    for nearest in (None, 1, ["red"]):
        with pytest.raises(ValueError, match="not a row"):
            Row.of_line(json.dumps({**values, "nearest": nearest}))


def test_threads_share_what_is_known_of_training_pictures(labeller: Labeller, model: Path, black: Path) -> None:
    other = labeller.copy()
    assert other.label(black, neighbours=3) == labeller.label(black, neighbours=3)
    assert other.label(black).unknown and isinstance(other._nearest, Nearest) and other._nearest is labeller._nearest
