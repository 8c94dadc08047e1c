"""`retrain.evaluate` and `retrain evaluate`: which pictures a model is measured on, and what comes of it."""

import dataclasses
import json
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from PIL import Image

import retrain as package
from retrain import artifact
from retrain.backbones import Backbone
from retrain.errors import ModelRefused, NothingUsable, UsageError
from retrain.evaluation import predictions
from retrain.evaluation.evaluated import Evaluated
from retrain.evaluation.run import evaluate
from retrain.head import History
from retrain.label import Labeller
from retrain.nearest import held_out
from retrain.pipeline import Result
from retrain.pipeline import train as train_model
from retrain.settings import HeadSettings, SplitSettings
from retrain.storage import Layout
from tests.conftest import Ran
from tests.drawing import COLOURS, draw, draw_classes
from tests.test_imports import NO_TENSORFLOW, python

QUICK = HeadSettings(steps=60, l2=1e-2)
Command = Callable[..., Ran]


class Trained(NamedTuple):
    folder: Path
    result: Result


def draw_mixed(data: Path, first_seed: int = 0) -> Path:
    """Class folders with every fourth picture in the wrong one, so that no model is always right."""
    colours = list(COLOURS.values())
    for number, name in enumerate(COLOURS):
        for index in range(16):
            colour = colours[(number + (index % 4 == 0)) % 3]
            draw(
                data / name / ("web" if index % 2 else "book") / f"{index:03}.png",
                colour,
                first_seed + 1000 * number + index,
            )
    return data


def trained_on(folder: Path, tiny: Backbone, **split: Any) -> Trained:
    draw_mixed(folder / "data")
    return Trained(folder, train_model(folder, SplitSettings(**split), QUICK, tiny))


@pytest.fixture(scope="module")
def of_parts(tmp_path_factory: pytest.TempPathFactory, tiny: Backbone) -> Trained:
    return trained_on(tmp_path_factory.mktemp("parts") / "tf_files", tiny, test=35)


@pytest.fixture(scope="module")
def of_folds(tmp_path_factory: pytest.TempPathFactory, tiny: Backbone) -> Trained:
    return trained_on(tmp_path_factory.mktemp("folds") / "in_folds", tiny, folds=3)


@pytest.fixture(scope="module")
def of_test_dir(tmp_path_factory: pytest.TempPathFactory, tiny: Backbone) -> Trained:
    folder = tmp_path_factory.mktemp("apart") / "tf_files"
    return trained_on(folder, tiny, test_dir=draw_mixed(folder.parent / "held", 50_000))


def copied(trained: Trained, tmp_path: Path) -> Trained:
    shutil.copytree(trained.folder, tmp_path / trained.folder.name)
    return trained._replace(folder=tmp_path / trained.folder.name)


@pytest.fixture
def parts(of_parts: Trained, tmp_path: Path) -> Trained:
    return copied(of_parts, tmp_path)


@pytest.fixture
def folds(of_folds: Trained, tmp_path: Path) -> Trained:
    return copied(of_folds, tmp_path)


@pytest.fixture
def fresh(tmp_path: Path) -> Path:
    """Class folders of pictures that no model has seen: nine that it should know."""
    return draw_classes(tmp_path / "fresh", 3, first_seed=148_000)  # not nearly the same as any that is learnt from


def agree(found: Evaluated, result: Result) -> None:
    """Every figure is the one that training found."""
    metrics = result.record
    assert found.figures.accuracy == result.accuracy and found.judged_on == result.judged_on
    assert found.figures.by_source == result.by_source
    assert found.figures.log_loss == pytest.approx(metrics["test_log_loss"], rel=1e-5)
    assert found.figures.calibration_error == pytest.approx(metrics["test_calibration_error"], rel=1e-4)
    assert found.figures.uncalibrated_error == pytest.approx(metrics["test_calibration_error_before"], rel=1e-4)
    assert found.temperature == pytest.approx(metrics["temperature"]) and found.labels == result.labels


def pictures(folder: Path, part: str, model: Path | None = None) -> Iterator[Path]:
    """The pictures of a part of a split."""
    import hashlib

    wanted = {row.sha256 for row in artifact.load(model or folder / "model").split() if row.part == part}
    for path in sorted((folder / "data").rglob("*.png")):
        if hashlib.sha256(path.read_bytes()).hexdigest() in wanted:
            yield path


def read_json(path: Path) -> dict[str, Any]:
    def refuse(name: str) -> None:
        raise AssertionError(f"{name} is no JSON")

    found: dict[str, Any] = json.loads(path.read_text(), parse_constant=refuse)
    return found


def test_on_the_test_part_the_figures_are_those_of_training(parts: Trained) -> None:
    found = package.evaluate(parts.folder)
    agree(found, parts.result)
    assert 0.4 < found.figures.accuracy.value < 1, "there is something to see"
    assert found.judged_on == "test part" and set(found.figures.by_source) == {"book", "web"}
    assert found.skipped == () and found.backbone == "tiny" and found.data == parts.folder / "data"
    assert found.unknown is not None and found.unknown.known == parts.result.accuracy.count and not found.unknown.foreign


def test_it_does_not_matter_whether_features_are_still_in_the_cache(parts: Trained) -> None:
    (parts.folder / "bottlenecks.sqlite").unlink()
    agree(evaluate(parts.folder), parts.result)


def test_it_says_how_pictures_were_divided(parts: Trained, folds: Trained) -> None:
    first, second, *notes = evaluate(parts.folder).split
    counts = parts.result.record["split"]["classes"].values()
    learnt, chosen, tested = (sum(count.get(part, 0) for count in counts) for part in ("train", "validation", "test"))
    assert first.startswith(f"Of 48 pictures {learnt} were learnt from, {chosen} were there to choose")
    assert first.endswith(f"and {tested} were kept for the test.") and not notes
    assert "48 pictures in" in second and "near-duplicates" in second
    first, second, *notes = evaluate(folds.folder).split
    assert first.startswith("All 48 pictures were judged once") and "(3 folds)" in first and not notes


def test_what_new_pictures_are_compared_with_are_distances_to_other_units_of_the_split(of_parts: Trained) -> None:
    """Of 48 pictures some are nearly alike to a network that sees little more than colours; so they are one unit."""
    loaded = artifact.load(of_parts.folder / "model")
    reference, group = loaded.reference(), {row.sha256: row.group for row in loaded.split()}
    groups = np.array([group[row.tobytes().hex()] for row in reference.hashes])
    units = np.unique(groups, return_inverse=True)[1]
    logits = np.zeros((len(units), 3), np.float32)
    expected = held_out(reference.features, units, logits)[:, 0]
    assert len(set(units)) < len(units) and not np.allclose(
        expected, held_out(reference.features, np.arange(len(units)), logits)[:, 0]
    )
    assert reference.held_out[:, 0] == pytest.approx(expected, abs=1e-6)


def test_mistakes_are_the_surest_first_with_the_training_pictures_nearest_to_them(parts: Trained) -> None:
    found = evaluate(parts.folder)
    count = found.figures.accuracy.count - found.figures.accuracy.correct
    assert len(found.mistakes) == count > 0
    assert [one.score for one in found.mistakes] == sorted((one.score for one in found.mistakes), reverse=True)
    labeller = Labeller(artifact.load(parts.folder / "model").artifact)
    learnt = {str(path) for part in ("train", "validation") for path in pictures(parts.folder, part)}
    tested = set(pictures(parts.folder, "test"))
    for one in found.mistakes:
        path = Path(one.path) if Path(one.path).is_absolute() else found.data / one.path
        scores = dict(labeller.label(path).scores)
        assert path in tested and path.relative_to(parts.folder / "data").parts[0] == one.label != one.predicted
        assert (one.score, one.own_score) == pytest.approx((scores[one.predicted], scores[one.label]), abs=1e-5)
        assert one.score == pytest.approx(max(scores.values()), abs=1e-5)
        assert len(one.neighbours) == 3 and {near.path for near in one.neighbours} <= learnt
        assert all(Path(near.path).relative_to(parts.folder / "data").parts[0] == near.label for near in one.neighbours)
        values = [near.similarity for near in one.neighbours]
        assert values == sorted(values, reverse=True)


def test_pictures_that_were_learnt_from_are_left_out_of_a_folder(parts: Trained, retrain: Command) -> None:
    found = evaluate(parts.folder, data=parts.folder)
    learnt = 48 - parts.result.accuracy.count
    assert found.figures.accuracy == parts.result.accuracy
    assert [item.reason for item in found.skipped] == ["learnt-from"] * learnt
    assert {item.path for item in found.skipped} == {
        str(path) for part in ("train", "validation") for path in pictures(parts.folder, part)
    }
    assert f"{learnt} of the pictures were left out: the model has learnt from them, or from nearly the same." in found.split
    ran = retrain("evaluate", parts.folder, "--data", parts.folder / "data")
    assert ran.code == 3 and sum(line.startswith("skipped /") and "learnt from" in line for line in ran.out) == 10
    assert f"skipped {learnt - 10} more, all listed in the report" in ran.out


def test_a_folder_of_learnt_pictures_alone_is_nothing_to_measure_on(parts: Trained, retrain: Command) -> None:
    for path in pictures(parts.folder, "test"):
        path.unlink()
    ran = retrain("evaluate", parts.folder, "--data", parts.folder)
    learnt = 48 - parts.result.accuracy.count
    assert ran.code == 4 and f"of {learnt} that can be used the model has learnt from {learnt}" in ran.err[-1]


def test_pictures_of_classes_that_the_model_does_not_know_count_only_as_such(
    trained: Path, tmp_path: Path, fresh: Path, retrain: Command
) -> None:
    folder = tmp_path / "sure"
    shutil.copytree(trained, folder)
    alone = evaluate(folder, data=fresh)
    for number, name in enumerate(("black", "coal", "coal")):
        draw(fresh / name / f"{number}.png", (0, 0, 0), number)
    found = evaluate(folder, data=fresh)
    assert np.array_equal(found.figures.confusion, alone.figures.confusion)
    assert dataclasses.replace(found.figures, confusion=alone.figures.confusion) == alone.figures
    assert found.labels == tuple(sorted(COLOURS)) and found.figures.accuracy.count == 9
    assert alone.unknown is not None and found.unknown is not None
    assert found.unknown == dataclasses.replace(alone.unknown, foreign=3, found=3)
    (note,) = [sentence for sentence in found.split if sentence.startswith("3 pictures are of classes that")]
    assert "('black', 'coal')" in note and found.skipped == () and found.judged_on == "a folder of their own"
    ran = retrain("evaluate", folder, "--data", fresh)
    assert ran.code == 0 and "of other classes:  3 of 3 called unknown" in ran.out


def test_a_folder_of_foreign_classes_alone_is_nothing_to_measure_on(
    parts: Trained, tmp_path: Path, retrain: Command
) -> None:
    for name in ("black", "white"):
        draw(tmp_path / "other" / name / "1.png", (0, 0, 0), len(name))
    with pytest.raises(NothingUsable, match="2 are of classes that it does not know; give other pictures with --data"):
        evaluate(parts.folder, data=tmp_path / "other")
    assert retrain("evaluate", parts.folder, "--data", tmp_path / "other").code == 4


def test_a_picture_that_cannot_be_read_is_named_where_all_of_a_folder_was_asked_for(
    parts: Trained, fresh: Path, retrain: Command
) -> None:
    (fresh / "red" / "broken.png").write_text("words")
    ran = retrain("evaluate", parts.folder, "--data", fresh)
    assert ran.code == 3 and any("broken.png" in line and "no picture" in line for line in ran.out)
    assert any(line.startswith("pictures:          9 (a folder of their own)") for line in ran.out)
    (parts.folder / "data" / "red" / "broken.png").write_text("words")  # never one of the test part
    ran = retrain("evaluate", parts.folder)
    assert ran.code == 0 and not any("broken.png" in line for line in ran.out)


def test_of_a_model_that_was_judged_in_folds_what_the_folds_said_is_shown(folds: Trained) -> None:
    found = evaluate(folds.folder)
    agree(found, folds.result)
    assert found.judged_on == "cross-validation, 3 folds" and found.figures.accuracy.count == 48
    assert found.unknown is None, "the model has learnt from all of them"
    assert all(len(one.neighbours) == 3 for one in found.mistakes) and found.mistakes
    for one in found.mistakes:  # it is not beside itself
        assert all(near.path and Path(near.path) != found.data / one.path for near in one.neighbours)


def test_what_the_folds_said_is_not_what_the_model_says_now(folds: Trained) -> None:
    """The check can fail: the model itself is better on pictures that it has learnt from."""
    said = predictions.load(Layout(folds.folder), artifact.load(folds.folder / "model").manifest["sha256"], 3)
    assert said is not None and said.scores.shape == (48, 3) and said.scores.sum(axis=1) == pytest.approx(np.ones(48))
    labeller = Labeller(artifact.load(folds.folder / "model").artifact)
    wrong = evaluate(folds.folder).mistakes
    now = [labeller.label(Layout(folds.folder).data / one.path).scores[0].score for one in wrong]
    assert not np.allclose(now, [one.score for one in wrong], atol=1e-4)


@pytest.mark.parametrize("spoil", ["gone", "empty", "words", "cut", "another model", "other classes", "a folder"])
def test_without_what_the_folds_said_there_is_nothing_to_show(folds: Trained, retrain: Command, spoil: str) -> None:
    path, layout = folds.folder / "reports" / predictions.FILE, Layout(folds.folder)
    model = artifact.load(layout.model).manifest["sha256"]
    said = predictions.load(layout, model, 3)
    assert said is not None
    data = path.read_bytes()
    path.unlink()
    if spoil in ("empty", "words", "cut"):
        path.write_bytes({"empty": b"", "words": b"just words, but many", "cut": data[:-1]}[spoil])
    elif spoil == "a folder":
        path.mkdir()
    elif spoil == "another model":
        predictions.save(layout, "0" * 64, said.hashes, said.scores, said.uncalibrated)
    elif spoil == "other classes":
        predictions.save(layout, model, said.hashes, said.scores[:, :2], said.uncalibrated[:, :2])
    with pytest.raises(UsageError, match=r"judged\.safetensors, is gone or belongs to another model; train again, or give"):
        evaluate(folds.folder)
    assert retrain("evaluate", folds.folder).code == 2


def test_a_model_that_was_judged_in_folds_can_be_measured_on_new_pictures(folds: Trained, fresh: Path) -> None:
    (folds.folder / "reports" / predictions.FILE).unlink()
    found = evaluate(folds.folder, data=fresh)
    assert found.figures.accuracy.count == 9 and found.unknown is not None and found.judged_on == "a folder of their own"
    with pytest.raises(NothingUsable, match="learnt from 48, or from nearly the same"):
        evaluate(folds.folder, data=folds.folder)


def test_a_model_that_was_tested_on_a_folder_is_measured_on_that_folder(
    of_test_dir: Trained, tmp_path: Path, retrain: Command
) -> None:
    trained = copied(of_test_dir, tmp_path)
    ran = retrain("evaluate", trained.folder)
    assert ran.code == 2 and "(--test-dir); give that folder: --data DIR" in ran.err[-1]
    found = evaluate(trained.folder, data=of_test_dir.folder.parent / "held")
    assert found.figures.accuracy == trained.result.accuracy and found.skipped == ()
    assert found.figures.log_loss == pytest.approx(trained.result.record["test_log_loss"], rel=1e-5)


def test_test_pictures_that_are_gone_are_named_and_the_others_count(parts: Trained, retrain: Command) -> None:
    first, second, *_ = pictures(parts.folder, "test")
    first.unlink()
    second.rename(parts.folder / "data" / next(name for name in COLOURS if name not in second.parts) / "moved.png")
    found, count = evaluate(parts.folder), parts.result.accuracy.count
    assert found.figures.accuracy.count == count - 2
    assert [item.reason for item in found.skipped] == ["missing"] * 2
    assert "2 pictures that the model was judged on are gone, or lie in another class now." in found.split
    assert retrain("evaluate", parts.folder).code == 3


def test_without_a_single_test_picture_there_is_nothing_to_measure_on(parts: Trained, retrain: Command) -> None:
    for path in pictures(parts.folder, "test"):
        path.unlink()
    ran = retrain("evaluate", parts.folder)
    assert (
        ran.code == 4 and f"none of the {parts.result.accuracy.count} pictures that the model was judged on" in ran.err[-1]
    )


@pytest.mark.parametrize("kind", ["parts", "folds"])
def test_pictures_that_were_added_are_not_counted_but_told(kind: str, request: pytest.FixtureRequest) -> None:
    trained: Trained = request.getfixturevalue(kind)
    for seed in range(2):
        draw(trained.folder / "data" / "red" / f"new{seed}.png", COLOURS["red"], 9000 + seed)
    found = evaluate(trained.folder)
    agree(found, trained.result)
    assert "2 pictures are in no part of the split, left out then or added since, and are not counted." in found.split


def test_pictures_of_the_folds_that_are_gone_are_named_and_the_others_count(folds: Trained, retrain: Command) -> None:
    first, second, *_ = sorted(folds.folder.glob("data/red/web/*.png"))
    first.unlink()
    second.rename(folds.folder / "data" / "blue" / "moved.png")
    found = evaluate(folds.folder)
    assert found.figures.accuracy.count == 46 and [item.reason for item in found.skipped] == ["missing"] * 2
    assert "2 pictures that the model was judged on are gone, or lie in another class now." in found.split
    assert retrain("evaluate", folds.folder).code == 3


def test_of_a_source_that_was_tested_on_only_that_source_is_measured(
    tmp_path: Path, tiny: Backbone, retrain: Command
) -> None:
    book = draw_mixed(tmp_path / "tf_files" / "data") / "red" / "book" / "002.png"
    shutil.copy(book, tmp_path / "tf_files" / "data" / "red" / "web" / "copy.png")  # left out: it would leak
    result = train_model(tmp_path / "tf_files", SplitSettings(test_source="book"), QUICK, tiny)
    found = evaluate(tmp_path / "tf_files")
    agree(found, result)
    assert (
        found.judged_on == "source 'book'"
        and set(found.figures.by_source) == {"book"}
        and found.figures.accuracy.count == 24
    )
    (note,) = found.split[2:]
    left_out = sum(item.reason == "left-out" for item in result.skipped)
    assert (
        left_out
        and note == f"{left_out:,} pictures are in no part of the split, left out then or added since, and are not counted."
    )


@pytest.mark.parametrize(("shift", "code"), [(-0.001, 0), (0, 0), (0.001, 1)])
def test_an_accuracy_below_the_one_that_was_asked_for_ends_with_1(
    parts: Trained, retrain: Command, shift: float, code: int
) -> None:
    value = parts.result.accuracy.value
    ran = retrain("evaluate", parts.folder, "--assert-accuracy", value + shift)
    assert ran.code == code and (parts.folder / "reports" / "evaluate.html").exists()
    assert bool(ran.err) == bool(code) and all("is not at least" in line for line in ran.err)


def test_the_summary_has_the_figures_and_the_path_of_the_page(parts: Trained, retrain: Command) -> None:
    ran, figures = retrain("evaluate", parts.folder), evaluate(parts.folder).figures
    right = figures.accuracy
    assert ran.code == 0 and not ran.err and len(ran.out) < 24
    assert f"pictures:          {right.count} (test part)" in ran.out
    assert any(re.match(rf"accuracy: .*; {right.correct} of {right.count}\)$", line) for line in ran.out)
    assert (
        f"macro F1:          {figures.macro_f1:.3f}" in ran.out and f"log loss:          {figures.log_loss:.3f}" in ran.out
    )
    assert any(line.startswith("called unknown: ") for line in ran.out) and "most confused:" in ran.out
    assert "by source:" in ran.out and "weakest classes:" in ran.out
    assert ran.out[-1] == f"report:            {parts.folder}/reports/evaluate.html"


def test_the_json_beside_the_page_has_the_same_figures(parts: Trained) -> None:
    found = evaluate(parts.folder)
    record = read_json(parts.folder / "reports" / "evaluate.json")
    assert (record["format"], record["version"]) == ("retrain-evaluation", 1)
    assert record["accuracy"]["value"] == found.figures.accuracy.value and record["log_loss"] == found.figures.log_loss
    assert len(record["mistakes"]) == len(found.mistakes) and record["unknown"]["rate"] == 0.05
    assert (parts.folder / "reports" / "evaluate.html").read_text().startswith("<!DOCTYPE html>")


def test_an_evaluation_of_one_picture_has_no_nan_in_its_json(parts: Trained, tmp_path: Path) -> None:
    one = tmp_path / "one"
    draw(one / "red" / "1.png", COLOURS["red"], 4321)
    (one / "blue").mkdir()
    try:
        found = evaluate(parts.folder, data=one)
    except NothingUsable:  # a folder of a single class is no folder of classes
        draw(one / "blue" / "2.png", COLOURS["blue"], 4322)
        found = evaluate(parts.folder, data=one)
    assert read_json(parts.folder / "reports" / "evaluate.json")["accuracy"]["pictures"] == found.figures.accuracy.count
    assert any(row.support == 0 and row.recall is None for row in found.figures.classes)


def test_a_report_goes_where_it_is_wanted_and_replaces_only_itself(parts: Trained, tmp_path: Path, retrain: Command) -> None:
    page = tmp_path / "mine" / "report.html"
    page.parent.mkdir()
    for _ in range(2):
        ran = retrain("evaluate", parts.folder, "--output", page)
        assert ran.code == 0 and ran.out[-1].endswith(f" {page}")
    assert {path.name for path in page.parent.iterdir()} == {"report.html", "report.json"}
    assert not (parts.folder / "reports" / "evaluate.html").exists()


@pytest.mark.parametrize("name", ["report.html", "report.json"])
def test_a_file_that_is_not_ours_is_not_replaced(parts: Trained, tmp_path: Path, retrain: Command, name: str) -> None:
    theirs = {"report.html": b"<!DOCTYPE html>\n<html><body>mine", "report.json": b'{"mine": 1}'}[name]
    (tmp_path / name).write_bytes(theirs)
    ran = retrain("evaluate", parts.folder, "--output", tmp_path / "report.html")
    assert ran.code == 2 and f"{tmp_path / name} was not written by retrain evaluate" in ran.err[-1]
    assert (tmp_path / name).read_bytes() == theirs
    assert not (tmp_path / ({"report.html", "report.json"} - {name}).pop()).exists()


def test_an_output_that_cannot_be_is_one_line(parts: Trained, tmp_path: Path, retrain: Command) -> None:
    ran = retrain("evaluate", parts.folder, "--output", tmp_path / "nowhere" / "x.html")
    assert ran.code == 2 and "nowhere/x.html does not exist; make it or choose another" in ran.err[-1]
    ran = retrain("evaluate", parts.folder, "--output", tmp_path / "nowhere" / "evaluate.html")
    assert ran.code == 2 and "nowhere/evaluate.html does not exist; make it or choose another" in ran.err[-1]
    assert not (tmp_path / "nowhere").exists()
    ran = retrain("evaluate", parts.folder, "--output", tmp_path / "x.json")
    assert ran.code == 2 and "give one that ends in .html" in ran.err[-1] and not (tmp_path / "x.json").exists()
    ran = retrain("evaluate", parts.folder, "--output", tmp_path)
    assert ran.code == 2 and "is a folder; give the name of a page" in ran.err[-1] and "Traceback" not in "".join(ran.err)


def test_it_works_where_there_is_no_tensorflow(parts: Trained) -> None:
    (parts.folder / "bottlenecks.sqlite").unlink()  # so that the network runs, too
    start = NO_TENSORFLOW + "from retrain.cli import main; main()"
    ran = python(start, "evaluate", parts.folder)
    right = parts.result.accuracy
    assert ran.returncode == 0 and f"{right.correct} of {right.count})" in ran.stdout, ran.stderr


def test_a_model_that_cannot_be_used_ends_with_5(parts: Trained, retrain: Command) -> None:
    assert retrain("evaluate", parts.folder, "--model", parts.folder / "nowhere").code == 5
    (head,) = (parts.folder / "model").glob("head-*")
    head.write_bytes(head.read_bytes()[::-1])
    with pytest.raises(ModelRefused):
        evaluate(parts.folder)
    ran = retrain("evaluate", parts.folder)
    assert ran.code == 5 and "changed after it was saved; train again" in ran.err[-1]
    assert not (parts.folder / "reports" / "evaluate.html").exists()


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["{}/nowhere"], 5, "no model at"),
        (["{}/nowhere", "--model", "{}/tf_files/model"], 2, "does not exist"),
        (["{}/tf_files", "--data", "{}/nowhere"], 2, "the folder to evaluate on, {}/nowhere, does not exist"),
        (["{}/tf_files", "--data", "{}/tf_files/model/manifest.json"], 2, "is a file"),
        (["{}/tf_files", "--assert-accuracy", "1.5"], 2, "1.5 is not in the range"),
        (["{}/tf_files", "--assert-accuracy", "good"], 2, "'good' is not a valid float"),
        ([], 2, "Missing argument 'TF_FILES'"),
    ],
)
def test_a_mistake_is_one_line(
    parts: Trained, tmp_path: Path, retrain: Command, arguments: list[str], code: int, words: str
) -> None:
    ran = retrain("evaluate", *(argument.format(tmp_path) for argument in arguments))
    assert ran.code == code and words.format(tmp_path) in ran.err[-1] and not ran.out
    assert not (tmp_path / "nowhere").exists()


def test_a_model_elsewhere_is_measured_on_the_pictures_here(parts: Trained, tmp_path: Path) -> None:
    (parts.folder / "model").rename(tmp_path / "elsewhere")
    found = evaluate(parts.folder, model=tmp_path / "elsewhere")
    agree(found, parts.result)
    assert found.model == tmp_path / "elsewhere"


def test_with_unknown_off_nothing_is_called_so(parts: Trained, fresh: Path, retrain: Command) -> None:
    draw(fresh / "black" / "1.png", (0, 0, 0), 1)
    assert evaluate(parts.folder, data=fresh, unknown=0).unknown is None
    ran = retrain("evaluate", parts.folder, "--data", fresh, "--unknown", "off")
    assert ran.code == 0 and not any("called unknown" in line for line in ran.out)
    assert read_json(parts.folder / "reports" / "evaluate.json")["unknown"] is None
    narrow, wide = evaluate(parts.folder).unknown, evaluate(parts.folder, unknown=0.5).unknown
    assert narrow is not None and wide is not None and (narrow.rate, wide.rate) == (0.05, 0.5)
    assert narrow.refused < wide.refused < wide.known and wide.refused_wrong <= wide.refused


@pytest.mark.parametrize("rate", ["0", "-0.1", "0.51", "1", "nan", "inf", "of", "", "5%"])
@pytest.mark.parametrize("command", ["evaluate", "label", "classify"])
def test_a_rate_that_is_none_is_a_mistake(tmp_path: Path, retrain: Command, command: str, rate: str) -> None:
    ran = retrain(command, *[tmp_path] * (2 if command == "classify" else 1), "--unknown", rate)
    assert ran.code == 2 and "is neither 'off' nor a share above 0 and at most 0.5" in ran.err[-1]


def test_the_members_of_an_ensemble_are_averaged(parts: Trained) -> None:
    loaded = artifact.load(parts.folder / "model")
    (member,) = loaded.artifact.members
    rng = np.random.default_rng(0)
    other = dataclasses.replace(member, kernel=rng.normal(0, 3, member.kernel.shape).astype(np.float32))
    both = dataclasses.replace(loaded.artifact, members=(member, other), temperature={"none": 2.0})
    settings = loaded.manifest["split"]["settings"]
    artifact.save(parts.folder / "model", both, loaded.reference(), loaded.split(), settings)
    found = evaluate(parts.folder)
    assert found.backbone == "tiny, tiny" and found.figures.accuracy.count == parts.result.accuracy.count
    labeller = Labeller(artifact.load(parts.folder / "model").artifact)
    said = {path: labeller.label(path).scores for path in pictures(parts.folder, "test")}
    right = sum(scores[0].label == path.relative_to(parts.folder / "data").parts[0] for path, scores in said.items())
    assert found.figures.accuracy.correct == right
    for one in found.mistakes:
        scores = said[found.data / one.path]
        assert (one.predicted, one.score) == (scores[0].label, pytest.approx(scores[0].score, abs=1e-5))
    assert found.mistakes and found.curve is None, "the curve is that of another model"


def test_the_curve_is_that_of_the_run_that_the_model_came_from(parts: Trained) -> None:
    curve, history = evaluate(parts.folder).curve, parts.result.record["history"]
    assert curve is not None and curve == History(**{name: history[name] for name in history})
    assert curve.steps[-1] == 60


@pytest.mark.parametrize(
    "spoil",
    [
        lambda record: {**record, "model": {**record["model"], "sha256": "0" * 64}},
        lambda record: {**record, "history": None},
        lambda record: {**record, "history": {**record["history"], "steps": []}},
        lambda record: {**record, "history": {**record["history"], "steps": record["history"]["steps"][:-1]}},
        lambda record: {**record, "history": {**record["history"], "held_out_loss": "words"}},
        lambda record: {**record, "history": [1, 2]},
        lambda record: {key: value for key, value in record.items() if key != "model"},
        lambda _record: [],
        lambda _record: None,
        lambda _record: "words",
    ],
)
def test_without_the_record_of_that_run_there_is_no_curve(parts: Trained, spoil: Callable[[dict], Any]) -> None:
    from retrain.evaluation.words import curve_of

    loaded, layout = artifact.load(parts.folder / "model"), Layout(parts.folder)
    path = layout.reports / "train.json"
    record = json.loads(path.read_text())
    assert curve_of(loaded, layout) is not None
    path.write_text(json.dumps(spoil(record)))
    assert curve_of(loaded, layout) is None
    for data in (b"", b"{", b"\xff", b"[" * 100_000):
        path.write_bytes(data)
        assert curve_of(loaded, layout) is None
    path.unlink()
    assert curve_of(loaded, layout) is None


def test_what_is_nearly_the_same_as_a_picture_that_was_learnt_from_is_left_out(parts: Trained, tmp_path: Path) -> None:
    """Saved again, a picture has other bytes and says as little of how good the model is."""
    learnt = list(pictures(parts.folder, "train"))[:6]
    for path in learnt:
        again = tmp_path / "again" / path.parent.name / f"{path.stem}.webp"
        again.parent.mkdir(parents=True, exist_ok=True)
        Image.open(path).save(again, lossless=True)
    draw(tmp_path / "again" / "red" / "fresh.png", COLOURS["red"], 148_500)
    found = evaluate(parts.folder, data=tmp_path / "again")
    assert found.figures.accuracy.count == 1 and len(found.skipped) == 6
    assert {(item.reason, item.detail) for item in found.skipped} == {
        ("learnt-from", "nearly the same as one that it has learnt from")
    }
    (parts.folder / "bottlenecks.sqlite").unlink()  # then the reference of the model has to do
    assert evaluate(parts.folder, data=tmp_path / "again").figures.accuracy.count == 1
