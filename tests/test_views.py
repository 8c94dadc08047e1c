"""What the network gets to see of a picture."""

import io

import numpy as np
import pytest
from PIL import Image

from retrain.distortions import Distortion
from retrain.errors import BadImage, UsageError
from retrain.images import DECODER, Picture
from retrain.views import CROP_BORDERS, DEFAULT_VIEW, TTA, VIEWS, decode_for, distorted, preprocessing_id, render

DRAWN = "squash~2(flip=1,crop=25,scale=15,brightness=15,colour=20,rotation=8)"
DISTORTED = (
    "squash(flip=1)",
    "squash(width=0.8,x=0.05,turn=7)",
    "crop-borders(height=1.1,brightness=0.9,colour=0)",
    DRAWN,
    f"crop-borders{DRAWN[6:]}",
)


def as_picture(image: Image.Image) -> Picture:
    return Picture(image, "PNG", *image.size)


def picture(width: int = 90, height: int = 60) -> Picture:
    """Red on the left, blue on the right, with noise."""
    pixels = np.random.default_rng(1).integers(0, 60, (height, width, 3), dtype=np.uint8)
    pixels[:, : width // 2, 0] += 180
    pixels[:, width // 2 :, 2] += 180
    return as_picture(Image.fromarray(pixels))


@pytest.mark.parametrize("name", [*VIEWS, *DISTORTED])
@pytest.mark.parametrize("shape", [(90, 60), (32, 32), (1, 1), (3, 4000), (4000, 3), (1000, 700)])
def test_every_view_is_a_square_of_bytes_whatever_the_shape_of_the_picture(name: str, shape: tuple[int, int]) -> None:
    pixels = render(picture(*shape), name, 32)
    assert pixels.shape == (32, 32, 3) and pixels.dtype == np.uint8


@pytest.mark.parametrize("name", [*VIEWS, *DISTORTED])
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


def with_border(image: Image.Image, colour: str, left: int, top: int) -> Image.Image:
    page = Image.new("RGB", (image.width + 2 * left, image.height + 2 * top), colour)
    page.paste(image, (left, top))
    return page


@pytest.mark.parametrize(
    "borders", [[("black", 6, 6)], [("black", 0, 20)], [("white", 10, 9), ("black", 6, 6), ("red", 3, 0)]]
)
def test_with_borders_cut_off_a_picture_is_seen_as_it_is_without_them(borders: list[tuple[str, int, int]]) -> None:
    image = picture().image
    for border in borders:
        image = with_border(image, *border)
    expected = render(picture(), DEFAULT_VIEW, 32)
    assert np.array_equal(render(as_picture(image), CROP_BORDERS, 32), expected)
    assert not np.array_equal(render(as_picture(image), DEFAULT_VIEW, 32), expected)


@pytest.mark.parametrize("size", [(1, 1), (50, 2), (90, 60)])
def test_of_a_blank_picture_and_of_one_without_borders_nothing_is_cut_off(size: tuple[int, int]) -> None:
    for image in (Image.new("RGB", size, "black"), picture(*size).image):
        expected = render(as_picture(image), DEFAULT_VIEW, 32)
        assert np.array_equal(render(as_picture(image), CROP_BORDERS, 32), expected)


@pytest.mark.parametrize("width", [90, 1500])  # decoded whole, and at an eighth
def test_the_frame_of_a_jpeg_hardly_shows_whatever_size_it_is_decoded_at(width: int) -> None:
    soft = picture(9, 6).image.resize((width, width * 2 // 3), Image.Resampling.BICUBIC)
    bare, framed = io.BytesIO(), io.BytesIO()
    soft.save(bare, "JPEG", quality=90)
    with_border(soft, "black", width // 16, width // 20).save(framed, "JPEG", quality=90)
    pictures = [decode_for(file.getvalue(), 32) for file in (bare, framed)]
    assert width < 1000 or all(picture.image.width < width // 4 for picture in pictures)
    apart = {
        view: np.abs(np.subtract(*(render(picture, view, 32).astype(float) for picture in pictures))).mean()
        for view in (CROP_BORDERS, DEFAULT_VIEW)
    }
    assert apart[DEFAULT_VIEW] > 20 and apart[CROP_BORDERS] < (4 if width > 1000 else 8)


def test_an_unknown_view_is_refused_with_the_nearest_name() -> None:
    with pytest.raises(UsageError, match="unknown view 'squish'; did you mean 'squash'"):
        render(picture(), "squish", 32)


def test_the_preprocessing_id_tells_decoder_view_and_size_apart() -> None:
    several = [*VIEWS, *DISTORTED]
    names = {preprocessing_id(name, size) for name in several for size in (32, 224)}
    assert len(names) == 2 * len(several) and all(DECODER in name for name in names)
    assert preprocessing_id(DEFAULT_VIEW, 224) == preprocessing_id(DEFAULT_VIEW, 224)


def test_pictures_are_decoded_with_enough_pixels_for_the_view() -> None:
    buffer = io.BytesIO()
    picture(1600, 900).image.save(buffer, "JPEG")
    decoded = decode_for(buffer.getvalue(), 64)
    assert 128 <= min(decoded.image.size) < 900


def test_a_view_of_the_table_is_distorted_after_it_was_made() -> None:
    distortion = Distortion(width=0.5, x=0.25, brightness=0.8)
    framed = as_picture(with_border(picture().image, "black", 20, 30))
    for view, image in ((DEFAULT_VIEW, framed.image), (CROP_BORDERS, picture().image)):
        seen = render(framed, distorted(view, distortion), 32)
        assert np.array_equal(seen, np.asarray(distortion.apply(image, 32)))
    assert distorted(CROP_BORDERS, distortion) == "crop-borders(width=0.5,x=0.25,brightness=0.8)"


def test_test_time_augmentation_looks_at_mirror_images_and_the_middle() -> None:
    mirrored, middle, both = TTA
    for view in (DEFAULT_VIEW, CROP_BORDERS):
        plain, *seen = (render(picture(), name, 33) for name in (view, *(distorted(view, one) for one in TTA)))
        assert np.array_equal(seen[0], plain[:, ::-1]) and np.array_equal(seen[2], seen[1][:, ::-1])
        assert len({one.tobytes() for one in (plain, *seen)}) == 4
    assert (mirrored.flip, both.flip, middle.flip) == (1, 1, 0) and (middle.x, middle.y) == (0, 0)
    assert np.array_equal(render(picture(), "squash(flip=1)", 33), render(picture(), "mirror", 33))


@pytest.mark.parametrize(
    "name",
    [
        "mirror(flip=1)",
        "squish(flip=1)",
        "squash(flop=1)",
        "squash(",
        "squash(flip=1",
        "(flip=1)",
        "squash (flip=1)",
        "squash~",
        "squash~1()",
        f"mirror{DRAWN[6:]}",
    ],
)
def test_a_distorted_view_that_is_not_known_is_refused_in_one_line(name: str) -> None:
    with pytest.raises(UsageError, match=r"unknown view|no distortion that this version knows") as refused:
        render(picture(), name, 32)
    assert "\n" not in str(refused.value)


def test_that_memory_is_short_for_a_view_is_a_reason_to_skip_the_picture(monkeypatch: pytest.MonkeyPatch) -> None:
    def short(*_: object) -> None:
        raise MemoryError

    monkeypatch.setattr(Distortion, "apply", short)
    with pytest.raises(BadImage, match=r"too-large.*out of memory"):
        render(picture(), "squash(flip=1)", 32)
