"""Bars, frames and margins are found, and cut off one after the other."""

import io

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from retrain.borders import TOLERANCE, Border, around, inside
from retrain.views import decode_for

BLACK, WHITE, GREEN = (0, 0, 0), (255, 255, 255), (20, 160, 30)
hypothetically = settings(max_examples=60, deadline=None, derandomize=True, database=None)


def scene(width: int = 60, height: int = 40) -> np.ndarray:
    """Noise, in which no line is of one colour: uint8 (height, width, 3)."""
    return np.random.default_rng(5).integers(0, 256, (height, width, 3), dtype=np.uint8)


def framed(pixels: np.ndarray, sides: tuple[int, int, int, int], colour: tuple[int, int, int] = BLACK) -> np.ndarray:
    """Add a border: left, top, right, bottom."""
    left, top, right, bottom = sides
    height, width, _ = pixels.shape
    page = np.full((height + top + bottom, width + left + right, 3), colour, np.uint8)
    page[top : top + height, left : left + width] = pixels
    return page


def left_of(pixels: np.ndarray) -> np.ndarray:
    """What is left of a picture without its borders."""
    left, top, right, bottom = inside(pixels)
    return pixels[top:bottom, left:right]


@pytest.mark.parametrize(
    "sides",
    [(6, 6, 6, 6), (0, 9, 0, 9), (9, 0, 9, 0), (3, 0, 0, 0), (0, 0, 0, 2), (1, 2, 3, 4), (0, 0, 0, 0), (40, 40, 40, 40)],
)
@pytest.mark.parametrize("colour", [BLACK, WHITE, GREEN])
def test_a_border_is_found_on_the_sides_that_have_one(sides: tuple[int, int, int, int], colour: tuple) -> None:
    found = around(framed(scene(), sides, colour))
    if sum(side > 0 for side in sides) > 1:  # one side alone is not what most of the outermost pixels show
        assert found[:4] == sides and np.abs(np.subtract(found.colour, colour)).max() <= TOLERANCE
    assert all(pixels in (0, side) for pixels, side in zip(found[:4], sides, strict=True))


@pytest.mark.parametrize(("size", "sides"), [((320, 160), (12, 0, 12, 0)), ((160, 320), (0, 12, 0, 12))])
def test_bars_are_found_where_they_are_a_small_part_of_the_edge(
    size: tuple[int, int], sides: tuple[int, int, int, int]
) -> None:
    assert around(framed(scene(*size), sides)) == Border(*sides, BLACK)


@pytest.mark.parametrize("size", [(1, 1), (1, 50), (50, 1), (64, 64)])
@pytest.mark.parametrize("colour", [BLACK, WHITE])
def test_a_picture_of_one_colour_stays_as_it_is(size: tuple[int, int], colour: tuple[int, int, int]) -> None:
    blank = np.full((size[1], size[0], 3), colour, np.uint8)
    assert around(blank) == Border(0, 0, 0, 0, colour) and inside(blank) == (0, 0, *size)


@hypothetically
@given(
    st.lists(st.tuples(*[st.integers(0, 12)] * 4), min_size=1, max_size=3), st.sampled_from([[BLACK, WHITE], [WHITE, GREEN]])
)
def test_a_frame_around_a_margin_ends_as_the_picture_without_them(layers: list[tuple], colours: list[tuple]) -> None:
    picture = scene(120, 90)
    page = picture
    for number, (width, *_) in enumerate(layers):
        page = framed(page, (width,) * 4, colours[number % 2])
    assert np.array_equal(left_of(page), picture)


@hypothetically
@given(st.integers(1, 40), st.integers(1, 40), st.tuples(*[st.integers(0, 60)] * 4), st.integers(0, 2**31))
def test_what_is_left_is_within_the_picture_and_never_next_to_nothing(
    width: int, height: int, sides: tuple[int, int, int, int], seed: int
) -> None:
    rng = np.random.default_rng(seed)
    page = framed(rng.integers(0, rng.integers(1, 255), (height, width, 3), dtype=np.uint8), sides)
    left, top, right, bottom = inside(page)
    assert 0 <= left < right <= page.shape[1] and 0 <= top < bottom <= page.shape[0]
    for kept, whole in ((right - left, page.shape[1]), (bottom - top, page.shape[0])):
        assert kept == whole or (kept >= 8 and kept >= whole / 4)


def test_a_speck_on_a_page_is_not_blown_up() -> None:
    page = framed(scene(20, 20), (60, 60, 60, 60), WHITE)
    assert inside(page) == (0, 0, 140, 140)
    assert np.array_equal(left_of(framed(page, (6, 6, 6, 6))), page)


def test_content_of_the_colour_of_the_frame_is_kept_where_the_line_shows_something_else() -> None:
    picture = scene()
    picture[:, :20] = 0
    picture[20:, 0] = 255
    assert np.array_equal(left_of(framed(picture, (6, 6, 6, 6))), picture)


def smooth(width: int, height: int) -> np.ndarray:
    """Something like a photo: no sharp edge within, light everywhere."""
    coarse = np.random.default_rng(2).integers(60, 256, (9, 12, 3), dtype=np.uint8)
    return np.asarray(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC))


@pytest.mark.parametrize("size", [32, 100, 400])
@pytest.mark.parametrize("sides", [(53, 53, 53, 53), (0, 77, 0, 77), (91, 0, 91, 0)])
@pytest.mark.parametrize("margin", [0, 70])
def test_blurred_edges_of_a_jpeg_that_is_decoded_smaller_go_too(
    size: int, sides: tuple[int, int, int, int], margin: int
) -> None:
    inner = framed(smooth(1000, 800), (margin,) * 4, WHITE)
    buffer = io.BytesIO()
    Image.fromarray(framed(inner, sides)).save(buffer, "JPEG", quality=90)
    picture = decode_for(buffer.getvalue(), size)
    scale = picture.width / picture.image.width
    width, height = picture.image.size
    expected = [side + margin for side in sides]
    left, top, right, bottom = inside(np.asarray(picture.image))
    for found, side in zip((left, top, width - right, height - bottom), expected, strict=True):
        assert -3 < found - side / scale < 2.5
