"""Distortions: each has a name that gives it back, shows what it says, and is drawn the same every time."""

import math
from dataclasses import astuple, replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageEnhance

from retrain import views
from retrain.distortions import NAMES, Distortion, Drawn, draw, drawn, matrices, parse
from retrain.errors import UsageError
from retrain.images import Picture
from retrain.settings import AugmentSettings

SIZE = 32


def thousandths(low: float, high: float) -> st.SearchStrategy[float]:
    return st.integers(round(low * 1000), round(high * 1000)).map(lambda number: number / 1000)


ANY = st.builds(
    Distortion,
    flip=st.sampled_from([0.0, 1.0]),
    width=thousandths(0.001, 4),
    height=thousandths(0.001, 4),
    x=thousandths(-1, 1),
    y=thousandths(-1, 1),
    turn=thousandths(-180, 180),
    brightness=thousandths(0, 2),
    colour=thousandths(0, 2),
)
SETTINGS = st.builds(
    AugmentSettings,
    flip=st.booleans(),
    crop=st.integers(0, 90),
    scale=st.integers(0, 90),
    brightness=st.integers(0, 90),
    colour=st.integers(0, 100),
    rotation=st.integers(0, 180),
)


def noise(width: int = 70, height: int = 50, seed: int = 1) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8))


def shown(image: Image.Image, distortion: Distortion | Drawn, size: int = SIZE) -> np.ndarray:
    return np.asarray(distortion.apply(image, size)).astype(int)


def squashed(image: Image.Image, size: int = SIZE) -> np.ndarray:
    return views.render(Picture(image, "PNG", *image.size), "squash", size).astype(int)


# --- names


@given(ANY)
def test_the_name_of_a_distortion_gives_it_back(distortion: Distortion) -> None:
    assert parse(distortion.name) == distortion


@given(SETTINGS, st.integers(1, 64))
@settings(max_examples=50)
def test_the_name_of_what_is_drawn_for_each_picture_gives_it_back(limits: AugmentSettings, number: int) -> None:
    assert parse(Drawn(number, limits).name) == Drawn(number, limits)


def test_a_name_says_only_what_is_changed() -> None:
    assert Distortion().name == "()" and Distortion(flip=1.0).name == "(flip=1)"
    assert Distortion(width=0.5, x=-0.25, turn=-12.345, colour=0.0).name == "(width=0.5,x=-0.25,turn=-12.345,colour=0)"


@given(ANY, ANY)
def test_different_distortions_have_different_names(first: Distortion, second: Distortion) -> None:
    assert (first.name == second.name) == (first == second)


@pytest.mark.parametrize(
    "name",
    [
        "",
        "(",
        ")",
        "flip=1",
        "(flip=1",
        "flip=1)",
        "(flip=1))",
        "((flip=1)",
        "(flip=1) ",
        "(flip=1,)",
        "(flip=0)",
        "(flip=1.0)",
        "(flip=1;x=0.5)",
        "(flip=1, x=0.5)",
        "(x=0.5,flip=1)",
        "(flip=1,flip=1)",
        "(shear=1)",
        "(flip=1,shear=1)",
        "(flip)",
        "(flip=)",
        "(flip=yes)",
        "(turn=nan)",
        "(turn=inf)",
        "(turn=1.2.3)",
        "(turn=1e400)",
        "(turn=1e-5)",
        "(turn=0.00012)",
        "(x=--1)",
        "(x=+1)",
        "(width=0)",
        "(width=-1)",
        "(height=0)",
        "(height=-0.5)",
        "(Flip=1)",
        "(flip=١)",
        "~(flip=1,crop=25,scale=15,brightness=15,colour=20,rotation=8)",
        "~1",
        "~1()",
        "~1(flip=1)",
        "~1(flip=1,crop=25,scale=15,brightness=15,colour=20,rotation=8",
        "~01(flip=1,crop=25,scale=15,brightness=15,colour=20,rotation=8)",
        "~-1(flip=1,crop=25,scale=15,brightness=15,colour=20,rotation=8)",
        "~1234(flip=1,crop=25,scale=15,brightness=15,colour=20,rotation=8)",
        "~1(crop=25,flip=1,scale=15,brightness=15,colour=20,rotation=8)",
        "~1(flip=2,crop=25,scale=15,brightness=15,colour=20,rotation=8)",
        "~1(flip=1,crop=91,scale=15,brightness=15,colour=20,rotation=8)",
        "~1(flip=1,crop=-1,scale=15,brightness=15,colour=20,rotation=8)",
        "~1(flip=1,crop=2.5,scale=15,brightness=15,colour=20,rotation=8)",
        "~1(flip=1,crop=25,scale=15,brightness=15,colour=20,rotation=8,augment=2)",
        "1(flip=1,crop=25,scale=15,brightness=15,colour=20,rotation=8)",
    ],
)
def test_what_is_no_name_is_refused_in_one_line(name: str) -> None:
    with pytest.raises(UsageError) as refused:
        parse(name)
    assert str(refused.value) == f"'{name}' is no distortion that this version knows"


@given(st.text(alphabet="~()=,.-0123456789einaflpwdthxyu ", max_size=24))
def test_any_text_is_a_name_or_refused(text: str) -> None:
    try:
        found = parse(text)
    except UsageError:
        return
    assert found.name == text and (isinstance(found, Drawn) or min(found.width, found.height) > 0)


# --- what is shown


@pytest.mark.parametrize("shape", [(70, 50), (1, 1), (3, 400), (700, 500), (32, 32)])
@pytest.mark.parametrize("size", [32, 33])
def test_the_distortion_that_changes_nothing_shows_what_squash_shows(shape: tuple[int, int], size: int) -> None:
    image = noise(*shape)
    assert np.array_equal(shown(image, Distortion(), size), squashed(image, size))


@pytest.mark.parametrize("size", [32, 33])
def test_flip_shows_the_exact_mirror_image(size: int) -> None:
    flipped = shown(noise(), Distortion(flip=1.0), size)
    assert np.array_equal(flipped, squashed(noise(), size)[:, ::-1])
    assert not np.array_equal(flipped, squashed(noise(), size))


def test_a_picture_turned_by_right_angles_is_that_picture() -> None:
    for turn, times in ((90.0, 1), (180.0, 2), (-90.0, 3)):
        assert np.abs(shown(noise(), Distortion(turn=turn)) - np.rot90(squashed(noise()), times)).max() <= 1


@pytest.mark.parametrize(("across", "down"), [(-1, -1), (1, -1), (-1, 1), (1, 1)])
def test_a_crop_shows_what_is_in_its_window(across: int, down: int) -> None:
    """Each quarter of the picture has a colour of its own."""
    colours = {(-1, -1): (255, 0, 0), (1, -1): (0, 255, 0), (-1, 1): (0, 0, 255), (1, 1): (90, 90, 90)}
    pixels = np.zeros((64, 64, 3), np.uint8)
    for (x, y), colour in colours.items():
        pixels[slice(32) if y < 0 else slice(32, 64), slice(32) if x < 0 else slice(32, 64)] = colour
    quarter = Distortion(width=0.5, height=0.5, x=0.25 * across, y=0.25 * down)
    seen = shown(Image.fromarray(pixels), quarter)
    assert (seen[2:-2, 2:-2] == colours[across, down]).all()
    mirrored = shown(Image.fromarray(pixels), replace(quarter, flip=1.0))
    assert (mirrored[2:-2, 2:-2] == colours[across, down]).all(), "the window stays where it is"


def test_a_crop_is_drawn_from_the_pixels_of_the_picture_and_not_from_the_square() -> None:
    """Of a window half as wide all details are seen that the picture has."""
    image = noise(2 * SIZE, 2 * SIZE)
    seen = shown(image, Distortion(width=0.5, height=0.5))
    assert np.array_equal(seen, np.asarray(image).astype(int)[SIZE // 2 : -SIZE // 2, SIZE // 2 : -SIZE // 2])


def test_width_and_height_are_not_mixed_up() -> None:
    pixels = np.zeros((64, 64, 3), np.uint8)
    pixels[:, 16:48], pixels[16:48, :, 1] = (255, 0, 0), 255
    narrow = shown(Image.fromarray(pixels), Distortion(width=0.4))
    low = shown(Image.fromarray(pixels), Distortion(height=0.4))
    assert (narrow[..., 0] == 255).all() and narrow[..., 1].min() == 0
    assert (low[..., 1] == 255).all() and low[..., 0].min() == 0


def test_beyond_its_edge_a_picture_goes_on_as_it_is_there() -> None:
    plain, wide = squashed(noise()), shown(noise(), Distortion(width=2.0))
    assert (wide[:, : SIZE // 4] == plain[:, :1]).all() and (wide[:, -SIZE // 4 :] == plain[:, -1:]).all()
    aside = shown(noise(), Distortion(x=0.5, y=-0.25))
    assert np.array_equal(aside[SIZE // 4 :, : SIZE // 2], plain[: SIZE * 3 // 4, SIZE // 2 :])
    assert (aside[SIZE // 4 :, SIZE // 2 :] == plain[: SIZE * 3 // 4, -1:]).all()
    assert (aside[: SIZE // 4, : SIZE // 2] == plain[:1, SIZE // 2 :]).all()


@given(ANY.filter(lambda one: min(one.width, one.height) >= 0.05))
@settings(max_examples=60, deadline=None)
def test_nothing_is_seen_that_is_not_in_the_picture(distortion: Distortion) -> None:
    of_one_colour = shown(Image.new("RGB", (40, 30), (200, 120, 60)), replace(distortion, brightness=1.0, colour=1.0))
    assert (of_one_colour == (200, 120, 60)).all() and of_one_colour.shape == (SIZE, SIZE, 3)


@pytest.mark.parametrize("factor", [0.0, 0.6, 1.3, 2.0])
def test_brightness_and_colour_are_those_of_pillow(factor: float) -> None:
    plain = Image.fromarray(squashed(noise()).astype(np.uint8))
    brighter, deeper = ImageEnhance.Brightness(plain).enhance(factor), ImageEnhance.Color(plain).enhance(factor)
    assert np.array_equal(shown(noise(), Distortion(brightness=factor)), np.asarray(brighter))
    assert np.array_equal(shown(noise(), Distortion(colour=factor)), np.asarray(deeper))
    both = ImageEnhance.Color(brighter).enhance(1.5)
    assert np.array_equal(shown(noise(), Distortion(brightness=factor, colour=1.5)), np.asarray(both))


def test_without_colour_a_picture_is_grey() -> None:
    grey = shown(noise(), Distortion(colour=0.0))
    assert (grey == grey[..., :1]).all() and len(np.unique(grey)) > 20


@given(st.lists(ANY, min_size=1, max_size=4))
def test_many_matrices_at_once_are_those_of_each_alone(several: list[Distortion]) -> None:
    numbers = np.array([astuple(one) for one in several])
    found = matrices(numbers)
    assert found.shape == (len(several), 2, 3)
    for row, one in enumerate(several):
        assert np.array_equal(found[row], matrices(numbers[row : row + 1])[0])
        centre = found[row] @ (0.5, 0.5, 1)
        assert centre == pytest.approx((0.5 + one.x, 0.5 + one.y)), "the middle of the square is that of the window"
        assert abs(np.linalg.det(found[row, :, :2])) == pytest.approx(one.width * one.height)


# --- drawing


USUAL = AugmentSettings()


def test_the_same_settings_give_the_same_names_and_the_first_of_a_larger_number_are_the_same() -> None:
    many = drawn(9, USUAL)
    names = [one.name for one in many]
    assert [one.name for one in drawn(9, USUAL)] == names and drawn(4, USUAL) == many[:4] and drawn(0, USUAL) == []
    assert drawn(9, AugmentSettings(augment=64)) == many == drawn(9, replace(USUAL, augment=3)), "their number is no part"
    assert all(one.settings.augment == 0 and parse(one.name) == one for one in many)
    assert len(set(names)) == 9 and [one.number for one in many] == list(range(1, 10))
    assert not {one.name for one in drawn(9, replace(USUAL, rotation=USUAL.rotation + 1))} & set(names)


def test_every_strength_is_in_the_name_and_the_number() -> None:
    other = {"flip": False, "crop": 1, "scale": 1, "brightness": 1, "colour": 1, "rotation": 1}
    names = {Drawn(1, USUAL).name, Drawn(2, USUAL).name}
    names |= {Drawn(1, replace(USUAL, **{kind: value})).name for kind, value in other.items()}
    assert len(names) == 8
    assert Drawn(3, AugmentSettings(flip=False, crop=1, scale=2, brightness=3, colour=4, rotation=5)).name == (
        "~3(flip=0,crop=1,scale=2,brightness=3,colour=4,rotation=5)"
    )


def test_a_picture_is_seen_the_same_every_time_but_each_in_another_way() -> None:
    pictures = [noise(seed=seed) for seed in range(12)]
    before = [picture.tobytes() for picture in pictures]
    first = [shown(picture, Drawn(1, USUAL)) for picture in pictures]
    np.random.default_rng(0).normal(size=99)
    for picture, view in zip(pictures, first, strict=True):
        again = parse(Drawn(1, AugmentSettings(augment=64)).name)
        assert np.array_equal(shown(picture.copy(), again), view)
        assert not np.array_equal(shown(picture, Drawn(2, USUAL)), view), "each number is drawn anew"
    assert [picture.tobytes() for picture in pictures] == before


def test_half_of_the_pictures_are_exchanged_left_for_right_and_not_always_the_same_ones() -> None:
    """With all else off, a view is the picture or its exact mirror image."""
    flip = AugmentSettings(crop=0, scale=0, brightness=0, colour=0, rotation=0)
    mirrored = []
    for seed in range(40):
        plain, seen = squashed(noise(seed=seed)), [shown(noise(seed=seed), one) for one in drawn(2, flip)]
        assert all(np.array_equal(one, plain) or np.array_equal(one, plain[:, ::-1]) for one in seen)
        mirrored.append([not np.array_equal(one, plain) for one in seen])
        assert np.array_equal(shown(noise(seed=seed), Drawn(1, replace(flip, flip=False))), plain)
    first, second = np.array(mirrored).T
    assert 10 <= first.sum() <= 30 and 10 <= second.sum() <= 30 and 10 <= (first != second).sum() <= 30


def test_what_is_drawn_for_a_picture_keeps_to_the_settings() -> None:
    """What is white stays where it is, and is darkened by no more than was allowed."""
    rng = np.random.default_rng(2)
    pixels = rng.integers(0, 256, (64, 64, 3), dtype=np.uint8)
    pixels[:, 8:] = 255
    still = AugmentSettings(flip=False, crop=0, scale=0, rotation=0)
    seen = [shown(Image.fromarray(pixels), one)[:, 8:] for one in drawn(20, still)]
    assert all(one.min() > 255 * (1 - USUAL.brightness / 100) - 2 for one in seen) and min(map(np.min, seen)) < 250


KINDS = {
    "crop": ("x", "y", "width", "height"),
    "rotation": ("turn",),
    "brightness": ("brightness",),
    "colour": ("colour",),
    "flip": ("flip",),
}


def columns(limits: AugmentSettings, seed: int = 3) -> dict[str, np.ndarray]:
    return dict(zip(NAMES, draw(40, limits, np.random.default_rng(seed)).T, strict=True))


def test_by_default_every_kind_of_distortion_is_drawn() -> None:
    found = columns(USUAL)
    assert set(found.pop("flip")) == {0.0, 1.0}
    assert all(len(set(values)) >= 39 for values in found.values())


@pytest.mark.parametrize("kind", KINDS)
def test_a_switch_at_0_turns_its_kind_off_and_leaves_the_others_as_they_are(kind: str) -> None:
    usual = replace(USUAL, scale=0) if kind == "crop" else USUAL
    before, after = columns(usual), columns(replace(usual, **{kind: False if kind == "flip" else 0}))
    for name in NAMES:
        if name in KINDS[kind]:
            assert (after[name] == getattr(Distortion(), name)).all() and len(set(before[name])) > 1
        else:
            assert np.array_equal(after[name], before[name])


def test_without_scale_a_window_has_the_proportions_of_the_picture() -> None:
    stretched, still = columns(USUAL), columns(replace(USUAL, scale=0))
    assert np.array_equal(still["width"], still["height"]) and (stretched["width"] != stretched["height"]).all()
    for name in ("x", "y", "turn", "flip", "brightness", "colour"):
        assert np.array_equal(still[name], stretched[name])


def test_with_everything_off_a_view_is_the_picture() -> None:
    off = AugmentSettings(flip=False, crop=0, scale=0, brightness=0, colour=0, rotation=0)
    for seed, one in enumerate(drawn(5, off)):
        assert np.array_equal(shown(noise(seed=seed), one), squashed(noise(seed=seed)))


@given(SETTINGS, st.integers(0, 2**31))
@settings(max_examples=60)
def test_no_distortion_goes_beyond_its_settings(limits: AugmentSettings, seed: int) -> None:
    found = draw(30, limits, np.random.default_rng(seed))
    assert found.shape == (30, 8) and found.dtype == np.float64 and np.isfinite(found).all()
    flip, width, height, x, y, turn, brightness, colour = found.T
    least, stretch = 1 - limits.crop / 100, 1 + limits.scale / 100
    assert set(flip) <= ({0, 1} if limits.flip else {0})
    for side in (width, height):
        assert (least / stretch - 1e-9 <= side).all() and (side <= stretch + 1e-9).all()
    assert np.maximum(abs(x), abs(y)).max() <= (1 - least) / 2 + 1e-9
    assert abs(turn).max() <= limits.rotation
    assert abs(brightness - 1).max() <= limits.brightness / 100 and abs(colour - 1).max() <= limits.colour / 100
    if not limits.scale:  # then the window lies in the picture
        assert (abs(x) + width / 2 <= 0.5 + 1e-9).all() and (abs(y) + height / 2 <= 0.5 + 1e-9).all()


def test_drawn_values_fill_the_range_that_is_allowed() -> None:
    limits = AugmentSettings(crop=15, scale=10, brightness=10, colour=20, rotation=8)
    found = dict(zip(NAMES, draw(4000, limits, np.random.default_rng(5)).T, strict=True))
    assert found["flip"].mean() == pytest.approx(0.5, abs=0.05)
    for name, low, high in (("turn", -8, 8), ("brightness", 0.9, 1.1), ("colour", 0.8, 1.2)):
        assert found[name].min() == pytest.approx(low, rel=0.02) and found[name].max() == pytest.approx(high, rel=0.02)
        assert found[name].mean() == pytest.approx((low + high) / 2, abs=0.05 * (high - low))
    assert found["width"].min() < 0.85 / 1.1 * 1.03 and found["width"].max() > 1.1 / 1.03
    ratio = np.log(found["width"] / found["height"])
    assert abs(ratio.mean()) < 0.01 and ratio.max() > math.log(1.1**2) * 0.95
    assert np.corrcoef(found["x"], found["y"])[0, 1] == pytest.approx(0, abs=0.06)
    assert abs(found["x"]).max() > 0.07


@pytest.mark.parametrize("name", ["(width=40)", "(height=4.5)", "(x=2)", "(y=-1.5)", "(turn=999)", "(flip=3)", "(colour=9)"])
def test_a_distortion_that_shows_nothing_or_takes_memory_is_refused(name: str) -> None:
    with pytest.raises(UsageError, match="is no distortion that this version knows"):
        parse(name)
