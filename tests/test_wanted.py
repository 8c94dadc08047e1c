"""What a run is asked for and cannot be done is told before anything is computed."""

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from retrain import summaries
from retrain.backbones import Backbone
from retrain.devices import start
from retrain.errors import EnvironmentProblem, UsageError
from retrain.pipeline import train
from retrain.settings import FineTuneSettings, HeadSettings
from retrain.storage import Layout
from tests.conftest import Ran
from tests.test_folded import plain
from tests.test_learnt import Heard

QUICK = HeadSettings(steps=40, l2=1e-2)
Command = Callable[..., Ran]


@pytest.fixture
def deep(tmp_path: Path) -> Backbone:
    """A network with something to train."""
    import keras

    def build(_weights: Path, image_size: int = 32) -> Any:
        if image_size < 32:
            raise UsageError(f"cannot be built for --image-size {image_size}")
        pixels = keras.Input((image_size, image_size, 3))
        x = keras.layers.AveragePooling2D(image_size // 9)(pixels)
        spatial = plain()(keras.layers.Conv2D(4, 1)(x[:, :9, :9]))
        return keras.Model(pixels, [keras.layers.GlobalAveragePooling2D()(spatial), spatial])

    weights = tmp_path / "deep"
    weights.write_bytes(b"deep")
    return Backbone("deep", 32, 3, "Apache-2.0", "drawn by the tests", lambda: weights, build)


@pytest.mark.parametrize(
    ("settings", "options", "told"),
    [
        ({"blocks": 99}, {}, "--blocks 99 is more than deep has"),
        ({}, {"devices": ["GPU:7"]}, "there is no device 'GPU:7' here; there are CPU:0"),
        ({}, {"summaries": "taken"}, "taken cannot be a folder for summaries .*; choose another"),
    ],
)
def test_what_fine_tuning_cannot_do_is_told_before_features_are_computed(
    tf_files: Path, deep: Backbone, settings: dict, options: dict, told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tf_files)
    Path("taken").write_text("words")
    with pytest.raises(UsageError, match=told):
        train(tf_files, head=QUICK, backbone=deep, tuning=FineTuneSettings(fine_tune=True, **settings), **options)
    assert not Layout(tf_files).bottlenecks.exists()


def test_a_missing_tensorboard_is_told_before_features_are_computed(
    tf_files: Path, tiny: Backbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(summaries.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(EnvironmentProblem, match=r"run: pip install retrain\[tensorboard\]"):
        train(tf_files, head=QUICK, backbone=tiny, summaries=tf_files / "summaries")
    assert not Layout(tf_files).bottlenecks.exists() and not (tf_files / "summaries").exists()


def test_one_network_under_two_names_is_told(tf_files: Path, tiny: Backbone) -> None:
    with pytest.raises(UsageError, match="--backbone again is the same network as tiny; name it once"):
        train(tf_files, head=QUICK, backbone=[tiny, dataclasses.replace(tiny, name="again")])
    assert not Layout(tf_files).bottlenecks.exists()


def test_the_curves_of_the_head_are_written_for_tensorboard(tf_files: Path, tiny: Backbone) -> None:
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    result = train(tf_files, head=QUICK, backbone=tiny, summaries=tf_files / "summaries", progress=Heard())
    drawn = accumulator.EventAccumulator(str(tf_files / "summaries" / "head"), {"tensors": 0}).Reload()
    history = json.loads((tf_files / "reports" / "train.json").read_text())["history"]
    of = {
        "loss": "learnt_loss",
        "validation loss": "held_out_loss",
        "error": "learnt_error",
        "validation error": "held_out_error",
    }
    assert result.accuracy.count and set(drawn.Tags()["tensors"]) == set(of)
    for name, key in of.items():
        figures = [(one.step, start().make_ndarray(one.tensor_proto).item()) for one in drawn.Tensors(name)]
        assert [step for step, _ in figures] == history["steps"] and len(figures) > 3
        assert [value for _, value in figures] == pytest.approx(history[key])


@pytest.mark.parametrize(
    ("typed", "told"),
    [
        ("--epochs 3", "--epochs does nothing without --fine-tune; add that, or leave --epochs out"),
        ("--no-refit", "--no-refit does nothing without --fine-tune"),
        ("--devices CPU:0", "--devices does nothing without --fine-tune"),
        ("--lr-find --assert-accuracy 0.5", "--assert-accuracy does nothing with --lr-find, which trains no model; leave"),
        ("--lr-find --tta", "--tta does nothing with --lr-find"),
        ("--assert-accuracy nan", "'nan' is no number"),
        (
            "--fine-tune --folds 3",
            "--fine-tune needs a validation and a test part, not folds; leave out --folds, or --fine-tune",
        ),
        ("--search 9 --devices GPU:7 --backbone tiny", "there is no device 'GPU:7' here"),
        ("--crop 10", "--crop does nothing without --augment N, or --fine-tune"),
    ],
)
@pytest.mark.usefixtures("tiny_by_name")
def test_an_option_that_would_do_nothing_is_refused(tf_files: Path, retrain: Command, typed: str, told: str) -> None:
    done = retrain("train", tf_files, *typed.split())
    assert done.code == 2 and told in " ".join(done.err)
    assert not Layout(tf_files).bottlenecks.exists()
