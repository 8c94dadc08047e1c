"""What the network gets to see of a picture."""

import io

import numpy as np
import pytest
from PIL import Image

from retrain.errors import UsageError
from retrain.images import DECODER, Picture
from retrain.views import DEFAULT_VIEW, VIEWS, decode_for, preprocessing_id, render


def as_picture(image: Image.Image) -> Picture:
    return Picture(image, "PNG", *image.size)


def picture(width: int = 90, height: int = 60) -> Picture:
    """Red on the left, blue on the right, with noise."""
    pixels = np.random.default_rng(1).integers(0, 60, (height, width, 3), dtype=np.uint8)
    pixels[:, : width // 2, 0] += 180
    pixels[:, width // 2 :, 2] += 180
    return as_picture(Image.fromarray(pixels))


@pytest.mark.parametrize("name", VIEWS)
@pytest.mark.parametrize("shape", [(90, 60), (32, 32), (1, 1), (3, 4000), (4000, 3), (1000, 700)])
def test_every_view_is_a_square_of_bytes_whatever_the_shape_of_the_picture(name: str, shape: tuple[int, int]) -> None:
    pixels = render(picture(*shape), name, 32)
    assert pixels.shape == (32, 32, 3) and pixels.dtype == np.uint8


@pytest.mark.parametrize("name", VIEWS)
def test_a_view_is_the_same_every_time_and_leaves_the_picture_alone(name: str) -> None:
    original = picture()
    before = original.image.tobytes()
    assert np.array_equal(render(original, name, 48), render(original, name, 48))
    assert original.image.tobytes() == before


def test_black_and_white_keep_their_full_range() -> None:
    halves = np.zeros((64, 64, 3), np.uint8)
    halves[:, 32:] = 255
    pixels = render(as_picture(Image.fromarray(halves)), "squash", 32)
    assert (pixels[:, 0] == 0).all() and (pixels[:, -1] == 255).all()


def test_squash_shows_the_whole_picture_and_mirror_the_same_left_for_right() -> None:
    squashed = render(picture(), "squash", 32)
    assert squashed[:, 2, 0].min() > 150 and squashed[:, 29, 0].max() < 100
    assert np.array_equal(render(picture(), "mirror", 32), squashed[:, ::-1])


def test_squash_averages_over_the_pixels_that_it_leaves_out() -> None:
    board = (np.indices((512, 512)).sum(axis=0) % 2 * 255).astype(np.uint8)
    pixels = render(as_picture(Image.fromarray(board).convert("RGB")), "squash", 32)
    assert np.abs(pixels.astype(int) - 127).max() <= 8


def test_an_unknown_view_is_refused_with_the_nearest_name() -> None:
    with pytest.raises(UsageError, match="unknown view 'squish'; did you mean 'squash'"):
        render(picture(), "squish", 32)


def test_the_preprocessing_id_tells_decoder_view_and_size_apart() -> None:
    names = {preprocessing_id(name, size) for name in VIEWS for size in (32, 224)}
    assert len(names) == 2 * len(VIEWS) and all(DECODER in name for name in names)
    assert preprocessing_id(DEFAULT_VIEW, 224) == preprocessing_id(DEFAULT_VIEW, 224)


def test_pictures_are_decoded_with_enough_pixels_for_the_view() -> None:
    buffer = io.BytesIO()
    picture(1600, 900).image.save(buffer, "JPEG")
    decoded = decode_for(buffer.getvalue(), 64)
    assert 128 <= min(decoded.image.size) < 900
