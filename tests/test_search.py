"""A search for a better model: cheapest first, within its time, kept by pictures not learnt from and judged by others."""

import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from retrain import artifact, backbones, finetune, views
from retrain.backbones import Backbone
from retrain.errors import UsageError
from retrain.evaluation.paired import Paired
from retrain.evaluation.run import evaluate
from retrain.pipeline import Result, search, train
from retrain.pipeline.features import Extractor
from retrain.pipeline.learnt import Learnt
from retrain.pipeline.look import Looker
from retrain.settings import AugmentSettings, FineTuneSettings, HeadSettings, SplitSettings
from tests.conftest import Ran
from tests.drawing import COLOURS, draw, draw_classes
from tests.test_augment import files_of
from tests.test_evaluate import draw_mixed
from tests.test_learnt import Heard
from tests.test_tuned import BLIND, COLOURFUL, STILL, Asking, build_grey, draw_tinted

pytestmark = pytest.mark.weights  # they train networks, most of a minute in all

QUICK, PARTS, PLENTY, NONE = HeadSettings(steps=60, l2=1e-2), SplitSettings(validation=25, test=25), 10_000.0, 1e-6
LABELLING = f"{1 + len(views.TTA)} views when labelling"
Command = Callable[..., Ran]


@pytest.fixture(scope="module")
def working(tmp_path_factory: pytest.TempPathFactory, tiny: Backbone) -> Path:
    """A working folder after a training without a search; tests must not change it."""
    folder = tmp_path_factory.mktemp("search") / "tf_files"
    draw_mixed(folder / "data")
    train(folder, PARTS, QUICK, tiny)
    return folder


@pytest.fixture
def copied(working: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(working, tmp_path / "tf_files"))


@pytest.fixture
def small(squares: Backbone, monkeypatch: pytest.MonkeyPatch) -> None:
    """There is little to try: two kinds of views, and another backbone."""
    monkeypatch.setattr(search, "VIEWS", (1, 2))
    monkeypatch.setattr(search, "_UNEVEN", 99)
    monkeypatch.setattr(search, "BLOCKS", {})
    monkeypatch.setitem(backbones.BACKBONES, squares.name, squares)
    monkeypatch.setattr(backbones, "EMBEDDED", {squares.name})


def searched(folder: Path, tiny: Backbone, seconds: float = PLENTY, **options: Any) -> Result:
    return train(folder, PARTS, QUICK, tiny, search=seconds, **options)


def trials_of(result: Result) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = result.record["search"]["trials"]
    return found


def names_of(result: Result) -> list[str]:
    return [trial["name"] for trial in trials_of(result)]


# --- what is told


@pytest.mark.usefixtures("small")
def test_each_trial_is_told_and_in_the_record_beside_what_there_was_without_a_search(copied: Path, tiny: Backbone) -> None:
    before = dict(artifact.load(copied / "model").artifact.metrics)
    heard = Heard()
    result = searched(copied, tiny, progress=heard)
    trials, record = trials_of(result), result.record
    assert set(names_of(result)) >= {LABELLING, "1 views to learn from", "squares, or with it"}
    assert ("2 views to learn from" in names_of(result)) is trials[1]["kept"], "more only where fewer were worth it"
    told = [note for note in heard.notes if note.startswith(("kept: ", "tried: ")) and " nats, " in note and " s" in note]
    for trial in trials:
        word = "kept" if trial["kept"] else "tried"
        assert any(note.startswith(f"{word}: {trial['name']}, gain {trial['gain']['mean']:+.3f} ± ") for note in told)
        gain = Paired(**trial["gain"])
        assert gain.beyond_noise or not trial["kept"]
    found = record["search"]
    assert json.loads(json.dumps(found["default"])) == before
    accuracy = (record["test_correct"] - before["test_correct"]) / before["test_count"]
    assert found["over_default"]["mean"] == pytest.approx(accuracy)
    assert found["over_default"]["pictures"] == before["test_count"] == record["test_count"]
    assert json.loads((copied / "reports" / "train.json").read_text())["search"] == json.loads(json.dumps(found))
    assert record["settings"]["search"] == PLENTY and "search" in record["seconds"]
    assert evaluate(copied).figures.accuracy == result.accuracy


# --- no time


def test_without_time_all_is_left_out_and_the_model_is_the_usual_one(
    copied: Path, tiny: Backbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Extractor, "milliseconds", lambda _: 20.0)  # as of a real network
    monkeypatch.setattr(search, "open_extractor", None)  # none is opened
    monkeypatch.setattr(search, "_UNEVEN", 99)
    expected, heard = files_of(copied / "model"), Heard()
    result = searched(copied, tiny, NONE, progress=heard)
    trials = trials_of(result)
    assert all(trial["gain"] is None and trial["kept"] is False for trial in trials)
    others = [f"{name}, or with it" for name in sorted(backbones.EMBEDDED)]
    fine_tuning = [f"fine-tuning {name}" for name in search.BLOCKS]
    assert set(names_of(result)[:-2]) == {LABELLING, f"{search.VIEWS[0]} views to learn from", *others}
    assert names_of(result)[-2:] == fine_tuning and len(trials) == 4 + len(others)
    assert all(trial["seconds"] > 2 for trial in trials)
    said = [f"left out: {trial['name']}, would take about {trial['seconds']:.0f} s" for trial in trials]
    assert [note for note in heard.notes if note.startswith("left out: ")] == said
    found = {name: data for name, data in files_of(copied / "model").items() if name != "manifest.json"}
    assert found == {name: data for name, data in expected.items() if name != "manifest.json"}
    manifests = [json.loads(data["manifest.json"]) for data in (expected, files_of(copied / "model"))]
    for manifest in manifests:
        assert manifest.pop("sha256") and manifest["settings"].pop("search") in (0.0, NONE)
    assert manifests[0] == manifests[1]
    assert result.record["search"]["over_default"]["mean"] == 0 and "fine_tuning" not in result.record


def test_what_is_cheaper_is_tried_first(copied: Path, tiny: Backbone, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Extractor, "milliseconds", lambda _: 20.0)  # as of a real network
    monkeypatch.setattr(search, "_decoding", lambda *_: 5.0)
    trials = [trial for trial in trials_of(searched(copied, tiny, NONE)) if not trial["name"].startswith("rare classes")]
    costs = [trial["seconds"] for trial in trials if not trial["name"].startswith("fine-tuning")]
    assert len(costs) >= 5 and costs == sorted(costs)


# --- what is kept


@pytest.mark.usefixtures("small")
def test_what_is_not_better_by_more_than_noise_is_not_kept(
    copied: Path, tiny: Backbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Views that say nothing, and a backbone that sees nothing."""
    rng, look = np.random.default_rng(0), Looker.look

    def noise(_: Looker, rows: np.ndarray, wanted: Sequence[Any], features: np.ndarray) -> np.ndarray:
        several = rng.normal(features.mean(), features.std(), (len(rows), len(wanted), features.shape[1]))
        return np.concatenate([features[rows, np.newaxis], several], axis=1).astype(np.float32)

    def blind(looker: Looker, *given: Any) -> Any:
        found = look(looker, *given)
        if found.backbone != "tiny":
            found.features[:] = rng.normal(0, 1, found.features.shape)
        return found

    monkeypatch.setattr(Looker, "_views", noise)
    monkeypatch.setattr(Looker, "look", blind)
    expected = artifact.load(copied / "model").artifact
    result = searched(copied, tiny)
    assert names_of(result) == ["1 views to learn from", "squares, or with it", LABELLING]
    assert not any(trial["kept"] for trial in trials_of(result))
    model = artifact.load(copied / "model").artifact
    assert [member.backbone for member in model.members] == ["tiny"] and model.temperature == expected.temperature
    assert model.members[0].kernel.tobytes() == expected.members[0].kernel.tobytes() and model.metrics == expected.metrics


@pytest.mark.usefixtures("small")
def test_each_trial_changes_the_best_that_was_found_so_far_and_the_model_is_what_was_kept(
    copied: Path, tiny: Backbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked: list[tuple[str, int, int]] = []
    look = Looker.look

    def noted(looker: Looker, parts: Any, to_learn: Sequence[Any], to_test: Sequence[Any], *rest: Any) -> Any:
        found = look(looker, parts, to_learn, to_test, *rest)
        looked.append((found.backbone, len(to_learn), len(to_test)))
        return found

    monkeypatch.setattr(Looker, "look", noted)
    monkeypatch.setattr(search.Search, "_compare", lambda *_: (Paired(1.0, 0.1, 20, 20), True))
    result = searched(copied, tiny)
    several = len(views.TTA)
    assert names_of(result) == ["1 views to learn from", "squares, or with it", LABELLING, "2 views to learn from"]
    assert looked == [
        ("tiny", 0, 0), ("tiny", 1, 0), ("squares", 1, 0), ("tiny", 1, several), ("squares", 1, several),
        ("tiny", 2, several), ("squares", 2, several),
    ]  # fmt: skip
    model = artifact.load(copied / "model").artifact
    assert set(model.temperature) == {"none", "views"} and {one.backbone for one in model.members} <= {"tiny", "squares"}
    found = evaluate(copied)
    assert found.figures.accuracy == result.accuracy
    assert found.figures.log_loss == pytest.approx(result.record["test_log_loss"], rel=1e-5)


@pytest.mark.usefixtures("small")
def test_what_was_asked_for_is_where_a_search_begins(copied: Path, tiny: Backbone, monkeypatch: pytest.MonkeyPatch) -> None:
    looked: list[tuple[int, int]] = []
    look = Looker.look

    def noted(looker: Looker, parts: Any, to_learn: Sequence[Any], to_test: Sequence[Any], *rest: Any) -> Any:
        looked.append((len(to_learn), len(to_test)))
        return look(looker, parts, to_learn, to_test, *rest)

    monkeypatch.setattr(Looker, "look", noted)
    result = searched(copied, tiny, augment=AugmentSettings(2), tta=True)
    assert names_of(result) == ["squares, or with it"] and looked == [(2, len(views.TTA))] * 2


@pytest.mark.usefixtures("small")
def test_where_classes_are_uneven_rare_ones_may_count_more(
    tmp_path: Path, tiny: Backbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(search, "_UNEVEN", 1.5)
    draw_classes(tmp_path / "data", 10)
    for index in range(15):
        draw(tmp_path / "data" / "red" / f"more{index}.png", COLOURS["red"], 70_000 + index)
    assert names_of(searched(tmp_path, tiny, NONE))[0] == "rare classes count more"
    balanced = train(tmp_path, PARTS, HeadSettings(steps=60, l2=1e-2, class_weight="balanced"), tiny, search=NONE)
    assert "rare classes count more" not in names_of(balanced) and LABELLING in names_of(balanced)


# --- by what


@pytest.mark.usefixtures("small")
def test_pictures_to_test_on_choose_nothing(copied: Path, tiny: Backbone, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever networks see of them, each trial comes out the same."""
    look, held_out_scores = Looker.look, Learnt.held_out_scores
    asked: list[set[int]] = []
    tested: list[int] = []

    def garbled(looker: Looker, parts: Any, *given: Any) -> Any:
        found = look(looker, parts, *given)
        tested[:] = parts.rows("test").tolist()
        for features in (found.features, found.augmented, found.views):
            if features is not None:
                features[tested] = 1e3 * np.random.default_rng(len(asked)).normal(size=features[tested].shape)
        return found

    def noted(learnt: Learnt, seen: Any, rows: np.ndarray) -> np.ndarray:
        asked.append(set(rows.tolist()))
        return held_out_scores(learnt, seen, rows)

    expected = searched(copied, tiny)
    kept = artifact.load(copied / "model").artifact
    monkeypatch.setattr(Looker, "look", garbled)
    monkeypatch.setattr(Learnt, "held_out_scores", noted)
    found = searched(copied, tiny)
    for one, other in zip(trials_of(expected), trials_of(found), strict=True):
        assert (one["name"], one["kept"], one["gain"]) == (other["name"], other["kept"], other["gain"])
    model = artifact.load(copied / "model").artifact
    assert [one.kernel.tobytes() for one in model.members] == [one.kernel.tobytes() for one in kept.members]
    assert len(tested) >= 6 and len(asked) >= 4 and not any(rows & set(tested) for rows in asked)
    assert found.record["search"]["default"]["test_log_loss"] != expected.record["search"]["default"]["test_log_loss"]


# --- fine-tuning


def test_fine_tuning_is_tried_last_and_the_better_outcome_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(search, "VIEWS", ())
    monkeypatch.setattr(backbones, "EMBEDDED", set())
    (tmp_path / "grey").write_bytes(b"grey")
    grey = Backbone("grey", 33, 27, "Apache-2.0", "drawn by the tests", lambda: tmp_path / "grey", build_grey)
    draw_tinted(tmp_path / "tf_files" / "data")
    asking = Asking(monkeypatch, COLOURFUL, COLOURFUL, BLIND, BLIND)
    result = searched(tmp_path / "tf_files", grey, augment=STILL, tuning=FineTuneSettings(epochs=2))
    names = [f"fine-tuning {name}" for name in search.BLOCKS]
    assert names_of(result) == [LABELLING, *names] and len(names) == 2
    assert [trial["kept"] for trial in trials_of(result)][1:] == [True, False]
    assert [one.settings.blocks for one in asking.asked][:3] == [None, None, 0]
    model = artifact.load(tmp_path / "tf_files" / "model").artifact
    assert model.members[0].backbone == "grey+fine-tuned" and model.members[0].tuned
    assert result.record["fine_tuning"]["compared"][1]["kept"] and result.record["search"]["over_default"]["mean"] > 0
    assert evaluate(tmp_path / "tf_files").figures.accuracy == result.accuracy
    assert not list((tmp_path / "tf_files" / "reports").glob("*.safetensors"))


def test_of_fine_tuning_that_was_not_better_nothing_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(search, "VIEWS", ())
    monkeypatch.setattr(backbones, "EMBEDDED", set())
    (tmp_path / "grey").write_bytes(b"grey")
    grey = Backbone("grey", 33, 27, "Apache-2.0", "drawn by the tests", lambda: tmp_path / "grey", build_grey)
    draw_tinted(tmp_path / "tf_files" / "data")
    monkeypatch.setattr(search.Paired, "beyond_noise", property(lambda _: False))
    asking = Asking(monkeypatch, COLOURFUL, COLOURFUL, COLOURFUL, COLOURFUL)
    answer = finetune.fine_tune

    def leaves_a_checkpoint(*given: Any, checkpoint: Path, **options: Any) -> Any:
        checkpoint.write_bytes(b"how far it is")
        return answer(*given, checkpoint=checkpoint, **options)

    monkeypatch.setattr(finetune, "fine_tune", leaves_a_checkpoint)
    result = searched(tmp_path / "tf_files", grey, augment=STILL, tuning=FineTuneSettings(epochs=2))
    assert len(asking.asked) >= 2 and not any(trial["kept"] for trial in trials_of(result))
    assert artifact.load(tmp_path / "tf_files" / "model").artifact.members[0].backbone == "grey"
    assert not list((tmp_path / "tf_files" / "reports").glob("fine-tuning*"))


# --- refused


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--backbone", "tiny,squares"), "--search tries backbones and fine-tuning by itself; give one --backbone"),
        (("--backbone", "tiny", "--fine-tune"), "--search tries backbones and fine-tuning by itself"),
        (("--backbone", "tiny", "--search", -1), "-1.0 is not in the range x>=0"),
    ],
)
@pytest.mark.usefixtures("small", "tiny_by_name")
def test_what_a_search_does_by_itself_cannot_be_asked_for(
    tf_files: Path, retrain: Command, options: tuple[str, ...], message: str
) -> None:
    ran = retrain("train", tf_files, "--search", 5, *options)
    assert ran.code == 2 and ran.out == [] and len(ran.err) == 1 and message in ran.err[0]
    assert sorted(path.name for path in tf_files.iterdir()) == ["data"]


@pytest.mark.parametrize("few", [True, False])
def test_folds_are_refused(tmp_path: Path, tiny_by_name: str, retrain: Command, few: bool) -> None:
    draw_classes(tmp_path / "data", 2 if few else 4)
    folds = () if few else ("--folds", 2)
    ran = retrain("train", tmp_path, "--backbone", tiny_by_name, "--search", 5, "--steps", 40, "--l2", 0.01, *folds)
    assert ran.code == 2 and "--search needs a validation and a test part, not folds" in ran.err[-1]
    assert "Traceback" not in "".join(ran.err) and not (tmp_path / "model" / "manifest.json").exists()


def test_from_python_too_these_are_refused(tf_files: Path, tiny: Backbone, squares: Backbone) -> None:
    with pytest.raises(UsageError, match="--search tries backbones"):
        train(tf_files, backbone=[tiny, squares], search=1.0)
    with pytest.raises(UsageError, match="--search tries backbones"):
        train(tf_files, backbone=tiny, tuning=FineTuneSettings(fine_tune=True), search=1.0)


@pytest.mark.parametrize("seconds", [float("nan"), float("inf"), -1.0])
def test_a_budget_that_is_no_number_of_seconds_is_refused_at_once(copied: Path, tiny: Backbone, seconds: float) -> None:
    before = files_of(copied / "model")
    with pytest.raises(UsageError, match="is no number of seconds; give 0 or more"):
        searched(copied, tiny, seconds)
    assert files_of(copied / "model") == before
