"""Training with distorted views: computed once, of what is learnt from alone, and the same every time."""

import json
import shutil
import sqlite3
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from retrain import artifact, distortions, head, views
from retrain.backbones import Backbone
from retrain.bottlenecks import Bottlenecks
from retrain.distortions import Distortion, Drawn
from retrain.errors import UsageError
from retrain.images import Picture
from retrain.pipeline import Result, train
from retrain.pipeline.features import Extractor
from retrain.runner import Run
from retrain.settings import AugmentSettings, HeadSettings, SplitSettings
from tests.conftest import Ran
from tests.drawing import COLOURS, draw, draw_classes
from tests.test_learnt import Heard

QUICK = HeadSettings(steps=40, l2=1e-2)
Command = Callable[..., Ran]


def trained(folder: Path, tiny: Backbone, count: int, **options: Any) -> Result:
    augment = AugmentSettings(count, **options.pop("augment", {}))
    return train(folder, options.pop("split", SplitSettings()), QUICK, tiny, augment=augment, **options)


def counts(result: Result) -> tuple[int, int]:
    """Views computed, and views from the cache, as the run record says."""
    return result.record["counts"]["views_computed"], result.record["counts"]["views_cached"]


def parts_of(folder: Path) -> Counter[str]:
    return Counter(row.part for row in artifact.load(folder / "model").split())


def learnt_from(folder: Path) -> int:
    parts = parts_of(folder)
    assert parts["test"] > 0
    return parts["train"] + parts["validation"]


def learnt_of(result: Result) -> int:
    """Pictures that are learnt from, each file counted, also those with the same bytes."""
    classes = result.record["split"]["classes"].values()
    return sum(count for of_class in classes for part, count in of_class.items() if part != "test")


def files_of(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


class Asked:
    """What views were asked for, and of which files."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.of: list[tuple[frozenset[str], tuple[str, ...]]] = []
        extract = Extractor.extract_views

        def noted(extractor: Extractor, paths: Sequence[str], found: Sequence[Distortion | Drawn], *rest: Any) -> Any:
            self.of.append((frozenset(paths), tuple(one.name for one in found)))
            return extract(extractor, paths, found, *rest)

        monkeypatch.setattr(Extractor, "extract_views", noted)

    def by_path(self) -> dict[str, tuple[str, ...]]:
        assert sum(len(paths) for paths, _ in self.of) == len(set().union(*(paths for paths, _ in self.of)))
        return {path: names for paths, names in self.of for path in paths}


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> Asked:
    return Asked(monkeypatch)


@pytest.fixture
def rendered(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the views that are rendered, and 'decode' for each picture that is decoded."""
    seen: list[str] = []
    render, decode = views.render, views.decode_for

    def noted(picture: Picture, name: str, size: int) -> np.ndarray:
        seen.append(name)
        return render(picture, name, size)

    def decoded(data: bytes, size: int) -> Picture:
        seen.append("decode")
        return decode(data, size)

    monkeypatch.setattr(views, "render", noted)
    monkeypatch.setattr(views, "decode_for", decoded)
    return seen


# --- the cache


def test_a_second_run_computes_no_view_and_one_with_more_of_them_only_the_new_ones(
    tf_files: Path, tiny: Backbone, rendered: list[str]
) -> None:
    assert counts(trained(tf_files, tiny, 0)) == (0, 0)
    rendered.clear()
    first = trained(tf_files, tiny, 2)
    rows, names = learnt_from(tf_files), [f"squash{one.name}" for one in distortions.drawn(3, AugmentSettings())]
    assert counts(first) == (2 * rows, 0) and (first.computed, first.cached) == (0, 36)
    assert Counter(rendered) == {"decode": rows, names[0]: rows, names[1]: rows}, "decoded once for both views"
    rendered.clear()
    assert counts(trained(tf_files, tiny, 2)) == (0, 2 * rows) and rendered == []
    assert counts(trained(tf_files, tiny, 3)) == (rows, 2 * rows)
    assert Counter(rendered) == {"decode": rows, names[2]: rows}
    rendered.clear()
    assert counts(trained(tf_files, tiny, 1)) == (0, rows) and rendered == []
    record = json.loads((tf_files / "reports" / "train.json").read_text())
    assert (record["counts"]["views_computed"], record["counts"]["views_cached"]) == (0, rows) and "views" not in record


def test_new_pictures_cost_their_views_and_old_ones_nothing(tf_files: Path, tiny: Backbone) -> None:
    trained(tf_files, tiny, 2)
    before = paths_of(tf_files, "train", "validation")
    for index in range(10):
        draw(tf_files / "data" / "red" / f"new{index}.png", COLOURS["red"], seed=9000 + index)
    result = trained(tf_files, tiny, 2)
    after = paths_of(tf_files, "train", "validation")
    assert result.computed == 10 and len(after - before) >= 1
    assert counts(result) == (2 * len(after - before), 2 * len(after & before))


@pytest.mark.weights
def test_other_distortions_are_other_views(tf_files: Path, tiny: Backbone) -> None:
    trained(tf_files, tiny, 2)
    rows = learnt_from(tf_files)
    assert counts(trained(tf_files, tiny, 2, augment={"rotation": 30})) == (2 * rows, 0)
    assert counts(trained(tf_files, tiny, 2, crop_borders=True)) == (2 * rows, 0)
    assert counts(trained(tf_files, tiny, 2)) == (0, 2 * rows)


@pytest.mark.parametrize("damage", ["rows", pytest.param("file", marks=pytest.mark.weights)])
def test_a_damaged_cache_gives_the_same_model(tf_files: Path, tiny: Backbone, damage: str) -> None:
    trained(tf_files, tiny, 2)
    expected, path = files_of(tf_files / "model"), tf_files / "bottlenecks.sqlite"
    if damage == "file":
        path.write_bytes(b"no database at all " * 999)
    else:
        connection = sqlite3.connect(path)
        with connection:
            connection.execute("UPDATE feature SET crc32 = crc32 + 1 WHERE id % 5 = 0")
        connection.close()
    shutil.rmtree(tf_files / "model")
    result = trained(tf_files, tiny, 2)
    assert files_of(tf_files / "model") == expected and counts(result)[0] > 0
    assert counts(trained(tf_files, tiny, 2))[0] == 0


# --- what is distorted


def names_of(count: int) -> tuple[str, ...]:
    return tuple(one.name for one in distortions.drawn(count, AugmentSettings()))


def paths_of(folder: Path, *parts: str) -> set[str]:
    import hashlib

    wanted = {row.sha256 for row in artifact.load(folder / "model").split() if row.part.startswith(parts)}
    files = (folder / "data").rglob("*.png")
    return {str(path) for path in files if hashlib.sha256(path.read_bytes()).hexdigest() in wanted}


@pytest.mark.parametrize("tta", [pytest.param(False, marks=pytest.mark.weights), True])
def test_pictures_of_the_test_part_are_not_distorted_to_learn_from(
    tf_files: Path, tiny: Backbone, asked: Asked, tta: bool
) -> None:
    trained(tf_files, tiny, 2, tta=tta)
    learnt, tested = paths_of(tf_files, "train", "validation"), paths_of(tf_files, "test")
    found, to_test = asked.by_path(), tuple(one.name for one in views.TTA) if tta else ()
    assert {path: names for path, names in found.items() if path in learnt} == dict.fromkeys(learnt, names_of(2) + to_test)
    assert {path for path in found if path in tested} == (tested if tta else set())
    assert all(found[path] == to_test for path in tested if path in found)
    assert set(found) == learnt | (tested if tta else set()) and len(tested) >= 3


@pytest.mark.weights
def test_with_folds_all_pictures_are_distorted(tf_files: Path, tiny: Backbone, asked: Asked) -> None:
    result = trained(tf_files, tiny, 2, split=SplitSettings(folds=2))
    assert asked.by_path() == dict.fromkeys(map(str, (tf_files / "data").rglob("*.png")), names_of(2))
    assert counts(result) == (72, 0)


@pytest.mark.parametrize("tta", [pytest.param(False, marks=pytest.mark.weights), True])
def test_pictures_of_a_test_folder_are_not_distorted_to_learn_from_and_those_left_out_not_at_all(
    tf_files: Path, tiny: Backbone, asked: Asked, tmp_path: Path, tta: bool
) -> None:
    for name, colour in COLOURS.items():
        draw(tmp_path / "held" / name / "x.png", colour, seed=500)
        shutil.copy(tmp_path / "held" / name / "x.png", tf_files / "data" / name / "copy_of_x.png")
    result = trained(tf_files, tiny, 1, split=SplitSettings(test_dir=tmp_path / "held"), tta=tta)
    left_out = {item.path for item in result.skipped}
    assert {Path(path).name for path in left_out} >= {"copy_of_x.png"}
    learnt, tested = (set(map(str, folder.rglob("*.png"))) - left_out for folder in (tf_files / "data", tmp_path / "held"))
    to_test = tuple(one.name for one in views.TTA) if tta else ()
    expected = dict.fromkeys(learnt, names_of(1) + to_test) | (dict.fromkeys(tested, to_test) if tta else {})
    assert asked.by_path() == expected and len(tested) == 3


def test_heads_learn_from_the_picture_and_its_views_and_are_judged_by_the_picture(
    tf_files: Path, tiny: Backbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: list[np.ndarray] = []
    fit_best = head.fit_best
    monkeypatch.setattr(head, "fit_best", lambda features, *rest: given.append(features) or fit_best(features, *rest))
    trained(tf_files, tiny, 3)
    (features,) = given
    assert features.shape == (learnt_from(tf_files), 4, 24)
    assert len({features[:, view].tobytes() for view in range(4)}) == 4 and np.abs(features).sum(axis=2).min() > 0
    given.clear()
    trained(tf_files, tiny, 0)
    assert np.array_equal(given[0], features[:, 0])
    given.clear()
    trained(tf_files, tiny, 2, tta=True)
    assert np.array_equal(given[0], features[:, :3]), "views to test with are not learnt from"


def test_in_folds_heads_learn_from_views_and_never_from_those_of_their_own_fold(
    tf_files: Path, tiny: Backbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: list[int] = []
    fit_best = head.fit_best
    monkeypatch.setattr(
        head, "fit_best", lambda features, *rest: given.append(features.shape[:2]) or fit_best(features, *rest)
    )
    trained(tf_files, tiny, 2, split=SplitSettings(folds=2))
    folds = parts_of(tf_files)
    assert sorted(given) == sorted([(36, 3), *((36 - count, 3) for count in folds.values())])


def test_what_heads_learn_from_is_what_the_network_says_of_each_view(
    tf_files: Path, tiny: Backbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each view stands beside its own picture, in the order of the names."""
    from retrain.pipeline import look
    from retrain.runner import Runner

    seen: list[Any] = []
    looked = look.Looker.look
    monkeypatch.setattr(
        look.Looker, "look", lambda self, *given: seen.append((self._examples, looked(self, *given))) or seen[-1][1]
    )
    trained(tf_files, tiny, 2, tta=True)
    ((examples, found),) = seen
    runner = Runner(artifact.load(tf_files / "model").artifact.members[0].network.data)
    learnt = paths_of(tf_files, "train", "validation")

    def said(path: str, names: Iterable[str]) -> np.ndarray:
        picture = views.decode_for(Path(path).read_bytes(), 32)
        return runner.features(np.stack([views.render(picture, f"squash{name}", 32) for name in names]))

    assert found.augmented.dtype == found.views.dtype == np.float32
    for row, path in enumerate(examples.paths):
        assert np.array_equal(found.views[row], said(path, ("", *(one.name for one in views.TTA))))
        if path in learnt:
            assert np.array_equal(found.augmented[row], said(path, ("", *names_of(2))))


# --- what goes wrong on the way


def test_a_file_that_changes_after_the_picture_was_seen_stands_in_for_its_views(
    tf_files: Path, tiny: Backbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained(tf_files, tiny, 0)
    first, second = sorted(paths_of(tf_files, "train"))[:2]
    before = {row.sha256 for row in artifact.load(tf_files / "model").split()}
    given: list[np.ndarray] = []
    fit_best, extract = head.fit_best, Extractor.extract

    def meddled(extractor: Extractor, *rest: Any) -> Bottlenecks:
        found = extract(extractor, *rest)
        draw(Path(first), (1, 2, 3), 77_000)
        Path(second).write_bytes(b"no picture any more")
        return found

    monkeypatch.setattr(Extractor, "extract", meddled)
    monkeypatch.setattr(head, "fit_best", lambda features, *rest: given.append(features) or fit_best(features, *rest))
    result = trained(tf_files, tiny, 2)
    assert result.skipped == () and {row.sha256 for row in artifact.load(tf_files / "model").split()} == before
    alike = [(row == row[:1]).all() for row in given[0]]
    assert sum(alike) == 2


def test_a_run_that_ends_among_the_views_goes_on_from_there(
    tf_files: Path, tiny: Backbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    from retrain.bottlenecks import extract
    from retrain.runner import run_locally

    assert callable(extract)
    monkeypatch.setattr("retrain.bottlenecks.store._FRESH_NS", 0)
    import sys

    monkeypatch.setattr(sys.modules["retrain.bottlenecks.extract"], "_COMMIT_ROWS", 5)

    def killed(make_worker: Callable, tasks: Iterable) -> Iterable:
        for number, result in enumerate(run_locally(make_worker, tasks)):
            if number == 12:
                raise KeyboardInterrupt
            yield result

    run: Run = killed  # type: ignore[assignment]
    trained(tf_files, tiny, 0)
    with pytest.raises(KeyboardInterrupt):
        trained(tf_files, tiny, 2, run=run)
    rows = learnt_from(tf_files)
    assert counts(trained(tf_files, tiny, 2)) == (2 * rows - 20, 20)


@pytest.mark.weights
def test_views_of_pictures_with_the_same_bytes_are_found_for_each(tf_files: Path, tiny: Backbone) -> None:
    for index in range(6):
        shutil.copy(tf_files / "data" / "red" / f"red{index:03}.png", tf_files / "data" / "red" / f"twin{index}.png")
    result = trained(tf_files, tiny, 2)
    rows = learnt_of(result)
    assert result.used == 42 and sum(counts(result)) == 2 * rows
    again = trained(tf_files, tiny, 2)
    assert counts(again) == (0, 2 * rows) and again.accuracy == result.accuracy


# --- what comes of it


def test_the_same_settings_give_the_same_model_bytes_and_others_another_head(
    tf_files: Path, tiny: Backbone, tmp_path: Path
) -> None:
    copy = Path(shutil.copytree(tf_files, tmp_path / "elsewhere" / "tf_files"))
    trained(tf_files, tiny, 2)
    trained(copy, tiny, 3, model=tmp_path / "more")  # fills the cache in another order
    trained(copy, tiny, 2)
    assert files_of(tf_files / "model") == files_of(copy / "model")
    kernels = [artifact.load(folder).artifact.members[0].kernel for folder in (copy / "model", tmp_path / "more")]
    trained(copy, tiny, 0)
    kernels.append(artifact.load(copy / "model").artifact.members[0].kernel)
    assert len({kernel.tobytes() for kernel in kernels}) == 3


def test_without_views_the_other_switches_change_nothing_that_is_learnt(tf_files: Path, tiny: Backbone) -> None:
    heads = []
    for augment in ({}, {"flip": False, "crop": 0, "rotation": 90}):
        assert counts(trained(tf_files, tiny, 0, augment=augment)) == (0, 0)
        heads.append(artifact.load(tf_files / "model").artifact.members[0].kernel.tobytes())
    assert heads[0] == heads[1]


def test_the_settings_are_in_the_record_and_in_the_model(tf_files: Path, tiny: Backbone) -> None:
    result = trained(
        tf_files, tiny, 1, augment={"flip": False, "crop": 3, "scale": 2, "brightness": 10, "colour": 11, "rotation": 12}
    )
    expected = {
        "augment": 1, "flip": False, "crop": 3, "scale": 2, "brightness": 10, "colour": 11, "rotation": 12, "tta": False
    }  # fmt: skip
    for settings in (result.record["settings"], artifact.load(tf_files / "model").artifact.settings):
        assert {name: settings[name] for name in expected} == expected


def test_the_options_reach_the_pipeline(tf_files: Path, tiny_by_name: str, retrain: Command, asked: Asked) -> None:
    options = ("--no-flip", "--crop", 30, "--scale", 0, "--brightness", 5, "--colour", 0, "--rotation", 45)
    ran = retrain("train", tf_files, "--backbone", tiny_by_name, "--augment", 2, *options, "--steps", 40)
    assert ran.code == 0, ran.err
    chosen = AugmentSettings(2, flip=False, crop=30, scale=0, brightness=5, colour=0, rotation=45)
    assert {names for _, names in asked.of} == {tuple(one.name for one in distortions.drawn(2, chosen))}
    record = json.loads((tf_files / "reports" / "train.json").read_text())
    assert record["counts"]["views_computed"] == 2 * learnt_from(tf_files) and record["settings"]["rotation"] == 45


def test_the_help_of_train_lists_the_options(retrain: Command) -> None:
    lines = [line.split() for line in retrain("train", "--help").out]
    options = {words[0]: words for words in lines if words and words[0].startswith("--")}
    assert {"--augment", "--crop", "--scale", "--brightness", "--colour", "--rotation", "--tta"} <= set(options)
    assert options["--flip"][:3] == ["--flip", "/", "--no-flip"]


@pytest.mark.parametrize(
    ("option", "value"),
    [("augment", -1), ("augment", 65), ("crop", 91), ("scale", -1), ("brightness", 91), ("colour", 101), ("rotation", 181)],
)
def test_a_value_out_of_range_is_refused_before_anything_is_done(
    tf_files: Path, tiny_by_name: str, retrain: Command, option: str, value: int
) -> None:
    ran = retrain("train", tf_files, "--backbone", tiny_by_name, f"--{option}", value)
    assert ran.code == 2 and len(ran.err) == 1 and f"--{option}" in ran.err[0]
    assert not (tf_files / "bottlenecks.sqlite").exists()
    with pytest.raises(UsageError, match=f"--{option} {value} is out of range"):
        AugmentSettings(**{option: value})


@pytest.mark.weights
def test_the_most_views_and_the_strongest_distortions_can_be_learnt_from(tmp_path: Path, tiny: Backbone) -> None:
    draw_classes(tmp_path / "data", 4)
    heard = Heard()
    wild = {"crop": 90, "scale": 90, "brightness": 90, "colour": 100, "rotation": 180}
    result = trained(tmp_path, tiny, 64, augment=wild, progress=heard)
    assert counts(result) == (64 * learnt_of(result), 0) and result.skipped == ()
