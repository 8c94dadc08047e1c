"""Picture -> scores, without TensorFlow."""

import dataclasses
import io
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

import retrain
from retrain import artifact, views
from retrain.errors import BadImage, ModelRefused
from retrain.label import Labeller, Score, load, softmax
from retrain.runner import Network, Runner
from tests.drawing import COLOURS, draw


@pytest.fixture(scope="module")
def model(trained: Path) -> artifact.Artifact:
    return artifact.load(trained / "model").artifact


@pytest.fixture(scope="module")
def labeller(model: artifact.Artifact) -> Labeller:
    return Labeller(model)


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    return draw(tmp_path / "unseen.png", COLOURS["green"], seed=501)


def test_scores_fall_add_up_to_one_and_cover_every_label(labeller: Labeller, picture: Path) -> None:
    scores = labeller.label(picture).scores
    values = [score.score for score in scores]
    assert values == sorted(values, reverse=True) and sum(values) == pytest.approx(1, abs=1e-12)
    assert {score.label for score in scores} == {"blue", "green", "red"} and scores[0].label == "green"


def test_scores_are_the_softmax_of_one_matrix_product(model: artifact.Artifact, labeller: Labeller, picture: Path) -> None:
    (member,) = model.members
    pixels = views.render(views.decode_for(picture.read_bytes(), member.image_size), member.view, member.image_size)
    features = Runner(member.network.data).features(pixels[np.newaxis])[0].astype(np.float64)
    logits = (features @ member.kernel + member.bias) / model.temperature["none"]
    powers = [np.exp(logits[column]) for column in range(len(model.labels))]
    expected = {label: power / sum(powers) for label, power in zip(model.labels, powers, strict=True)}
    assert dict(labeller.label(picture).scores) == pytest.approx(expected, abs=1e-6)


def test_features_are_the_mean_of_the_map_that_comes_with_them(model: artifact.Artifact, picture: Path) -> None:
    pixels = views.render(views.decode_for(picture.read_bytes(), 32), "squash", 32)[np.newaxis]
    runner = Runner(model.members[0].network.data)
    features, spatial = runner.features_and_map(pixels)
    assert spatial is not None and np.allclose(features, spatial.mean(axis=(1, 2)), atol=1e-5)
    assert np.array_equal(features, runner.features(pixels))


def test_bytes_and_file_give_the_same_answer_on_any_number_of_threads(model: artifact.Artifact, picture: Path) -> None:
    answers = [Labeller(model).label(picture), Labeller(model).label_bytes(picture.read_bytes())]
    answers += [Labeller(model, threads=2).label(picture), Labeller(model, threads=2).copy().label(str(picture))]
    assert all(answer == answers[0] for answer in answers)


def test_a_temperature_flattens_the_scores_but_keeps_their_order(model: artifact.Artifact, picture: Path) -> None:
    sharp = Labeller(model).label(picture).scores
    flat = Labeller(dataclasses.replace(model, temperature={"none": 3.0})).label(picture).scores
    assert [score.label for score in flat] == [score.label for score in sharp]
    assert flat[0].score < sharp[0].score and sum(score.score for score in flat) == pytest.approx(1)


def test_several_members_are_averaged(model: artifact.Artifact, picture: Path) -> None:
    (member,) = model.members
    other = dataclasses.replace(member, kernel=-member.kernel, bias=-member.bias)
    alone = [dict(Labeller(dataclasses.replace(model, members=(one,))).label(picture).scores) for one in (member, other)]
    both = dict(Labeller(dataclasses.replace(model, members=(member, other))).label(picture).scores)
    assert both == pytest.approx({label: (alone[0][label] + alone[1][label]) / 2 for label in model.labels})


@pytest.mark.parametrize(
    ("score", "text"),
    [
        (Score("elsa", 0.99621), "elsa (score = 0.99621)"),
        (Score("elsa", 1.0), "elsa (score = 1.00000)"),
        (Score("elsa", 0.0), "elsa (score = 0.00000)"),
        (Score("elsa", 4e-9), "elsa (score = 0.00000)"),
        (Score("hello kitty (猫)", 0.123456789), "hello kitty (猫) (score = 0.12346)"),
    ],
)
def test_a_score_is_shown_with_five_decimals(score: Score, text: str) -> None:
    assert str(score) == text


def test_the_real_format_decides_the_extension_whatever_the_name_says(
    labeller: Labeller, picture: Path, tmp_path: Path
) -> None:
    endings = {}
    for kind in ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF"):
        buffer = io.BytesIO()
        Image.open(picture).save(buffer, kind)
        (tmp_path / "same.jpg").write_bytes(buffer.getvalue())
        endings[kind] = labeller.label(tmp_path / "same.jpg").extension
    assert endings == {"JPEG": "jpg", "PNG": "png", "WEBP": "webp", "GIF": "gif", "BMP": "bmp", "TIFF": "tif"}


@pytest.mark.parametrize(
    ("data", "reason"), [(b"", "empty"), (b"just words", "not-an-image"), (b"%PDF-1.7", "unsupported-format")]
)
def test_what_is_no_picture_is_refused_with_the_reason(labeller: Labeller, tmp_path: Path, data: bytes, reason: str) -> None:
    (tmp_path / "file.jpg").write_bytes(data)
    for attempt in (lambda: labeller.label(tmp_path / "file.jpg"), lambda: labeller.label_bytes(data)):
        with pytest.raises(BadImage) as caught:
            attempt()
        assert caught.value.reason == reason


def test_a_model_that_wants_other_preprocessing_is_refused(model: artifact.Artifact) -> None:
    stale = dataclasses.replace(model.members[0], preprocessing="decoder-0/squash-1/32")
    with pytest.raises(ModelRefused, match=r"decoder-0/squash-1/32.*train again"):
        Labeller(dataclasses.replace(model, members=(stale,)))


def test_a_backbone_that_is_no_flatbuffer_is_refused(model: artifact.Artifact, picture: Path) -> None:
    broken = dataclasses.replace(model.members[0], network=Network(Runner.engine, b"not a flatbuffer" * 9))
    with pytest.raises(ModelRefused, match="train again"):
        Labeller(dataclasses.replace(model, members=(broken,))).label(picture)


def test_the_model_object_for_python_says_what_the_model_folder_holds(trained: Path, picture: Path) -> None:
    loaded = retrain.load(trained / "model")
    assert loaded.labels == ("blue", "green", "red") and 0.8 <= loaded.metrics["test_accuracy"] <= 1
    assert loaded.label(picture) == list(load(trained / "model").label(picture).scores)
    assert len(list(loaded.split())) == 36


@given(st.lists(st.floats(-1e30, 1e30), min_size=1, max_size=9))
def test_softmax_of_any_logits_is_a_distribution_in_the_same_order(values: list[float]) -> None:
    probabilities = softmax(np.array(values))
    assert np.isfinite(probabilities).all() and probabilities.sum() == pytest.approx(1)
    assert probabilities.argmax() == np.argmax(values) or probabilities.max() == probabilities[np.argmax(values)]


def test_softmax_gives_the_textbook_values_and_is_not_moved_by_a_shift() -> None:
    assert softmax(np.log([1.0, 2.0, 5.0])) == pytest.approx([0.125, 0.25, 0.625])
    assert softmax(np.float32([10_000, 10_000])) == pytest.approx([0.5, 0.5])
    assert softmax(np.array([3.0, 1.0]) - 1e6) == pytest.approx(softmax(np.array([3.0, 1.0])))
