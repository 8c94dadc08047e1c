"""Findings about single pictures, from pictures drawn for each."""

from collections.abc import Callable

import numpy as np
import pytest
from PIL import Image, ImageFilter

from retrain import facts
from retrain.checks.pictures import strange, unreadable
from retrain.dataset import Skipped
from tests.test_images import encoded, flat, noisy

Draw = Callable[[], Image.Image]


def grey(level: int, size: tuple[int, int] = (100, 100)) -> Image.Image:
    """Nearly one level, but not blank."""
    pixels = np.full((size[1], size[0]), level, np.uint8)
    pixels[:4, : size[0] // 2] = 255 - level
    return Image.fromarray(pixels).convert("RGB")


def halves() -> Image.Image:
    pixels = np.zeros((256, 256, 3), np.uint8)
    pixels[:, 100:] = pixels[150:, :100] = (200, 90, 240)
    return Image.fromarray(pixels)


def of_one_luminance() -> Image.Image:
    """Half red, half green: 0.299 * 200 is 0.587 * 102."""
    pixels = np.zeros((100, 100, 3), np.uint8)
    pixels[:, :50, 0], pixels[:, 50:, 1] = 200, 102
    return Image.fromarray(pixels)


def kinds(data: bytes, name: str = "picture.png") -> list[str]:
    vector, _ = facts.measure(data)
    return [found.kind for found in strange([name], ["class"], facts.of_rows(vector[np.newaxis]))]


TABLE: dict[str, tuple[Draw, list[str]]] = {
    "ordinary": (lambda: noisy(200), []),
    "small": (lambda: noisy(40), ["too-small"]),
    "long": (lambda: noisy(400).resize((400, 80)), ["odd-shape"]),
    "high": (lambda: noisy(400).resize((80, 400)), ["odd-shape"]),
    "black": (lambda: grey(5), ["dark"]),
    "white": (lambda: grey(250), ["bright"]),
    "one colour": (lambda: flat(size=(100, 100)), ["blank"]),
    "all black": (lambda: flat((0, 0, 0), size=(100, 100)), ["blank"]),
    "two colours of one luminance": (of_one_luminance, []),
    "blurred": (lambda: halves().filter(ImageFilter.GaussianBlur(12)), ["blurry"]),
    "the same, sharp": (halves, []),
}


@pytest.mark.parametrize("name", TABLE)
def test_each_kind_of_picture_is_told_and_no_other(name: str) -> None:
    draw, expected = TABLE[name]
    assert kinds(encoded(draw(), "PNG")) == expected


@pytest.mark.parametrize(
    ("kind", "name", "told"),
    [
        ("JPEG", "a.jpg", False), ("JPEG", "a.JPEG", False), ("JPEG", "a.jfif", False), ("JPEG", "a.png", True),
        ("PNG", "a.jpg", True), ("PNG", "a", True), ("TIFF", "a.tiff", False), ("WEBP", "a.jpg", True),
    ],
)  # fmt: skip
def test_an_extension_of_another_format_is_told(kind: str, name: str, told: bool) -> None:
    assert ("wrong-extension" in kinds(encoded(noisy(100), kind), name)) == told


def test_a_picture_that_exif_turns_is_told_with_its_upright_size_and_does_not_matter() -> None:
    tag = Image.Exif()
    tag[0x112] = 6
    vector, _ = facts.measure(encoded(noisy(100).resize((120, 80)), "JPEG", exif=tag))
    (found,) = strange(["a.jpg"], ["class"], facts.of_rows(vector[np.newaxis]))
    assert (found.kind, found.detail, found.matters) == ("turned", "80x120 pixels when upright", False)


def test_what_cannot_be_used_is_told_with_the_reason() -> None:
    (found,) = unreadable([Skipped("data/cat/x.jpg", "corrupt", "the header cannot be read")], lambda path: "cat")
    assert (found.kind, found.paths, found.labels) == ("unreadable", ("data/cat/x.jpg",), ("cat",))
    assert (found.detail, found.reason) == ("corrupt: the header cannot be read", "corrupt")
    (found,) = unreadable([Skipped("data/cat/x.jpg", "missing")], lambda path: "cat")
    assert (found.detail, found.reason) == ("missing", "missing")


def test_sizes_are_those_of_the_file_also_where_less_is_decoded() -> None:
    vector, _ = facts.measure(encoded(flat(size=(3000, 1000)), "JPEG"))
    (row,) = facts.of_rows(vector[np.newaxis])
    assert (row.width, row.height, row.kind) == (3000, 1000, "JPEG")


def test_the_hash_is_the_same_for_another_size_and_another_for_another_picture() -> None:
    scene = noisy(256).filter(ImageFilter.GaussianBlur(20))
    images = (scene, scene.resize((100, 100)), scene.transpose(Image.Transpose.FLIP_LEFT_RIGHT))
    vectors = [facts.measure(encoded(image, "PNG"))[0] for image in images]
    one, smaller, other = facts.hashes_of_rows(np.stack(vectors))

    def bits(first: np.ndarray, second: np.ndarray) -> int:
        return sum(int(word).bit_count() for word in first ^ second)

    assert bits(one, smaller) < 12
    assert bits(one, other) > 30
