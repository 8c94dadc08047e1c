"""Faces in a picture: where they are, cut out with a margin, labelled. The detector is one that finds painted squares."""

import dataclasses
import io
import itertools
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from retrain import faces
from retrain.errors import BadImage, EnvironmentProblem, UsageError
from retrain.faces import MARGIN, Box, Face, LabelledFace, Seen, detect, drawn, look
from retrain.faces.crop import cut, with_margin
from retrain.faces.detect import LEAST_CONFIDENCE, LONGEST_SIDE, find_faces
from retrain.faces.draw import as_file
from retrain.images import Picture
from retrain.label import Labelled, Labeller, Score, load
from tests.drawing import COLOURS, draw

PAINT = [(255, 0, 255), (0, 255, 255), (255, 255, 0)]
TURNS = {
    1: None,
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}  # what a camera held this way does to the upright picture


class Painted:
    """A detector that takes each colour of PAINT for a face, and is surer the more of it there is."""

    sizes: list[tuple[int, int]]

    def __init__(self) -> None:
        self.sizes = []

    def find(self, pixels: np.ndarray) -> list[Face]:
        self.sizes.append((pixels.shape[1], pixels.shape[0]))
        found = []
        for paint in PAINT:
            rows, columns = np.nonzero((np.abs(pixels.astype(int) - paint) < 30).all(axis=2))
            if len(rows):
                box = Box(int(columns.min()), int(rows.min()), int(columns.max()) + 1, int(rows.max()) + 1)
                found.append(Face(box, 1 - 0.01 / len(rows)))
        return found


class Fixed:
    """A detector that always says the same."""

    def __init__(self, *found: Face) -> None:
        self.found = list(found)

    def find(self, pixels: np.ndarray) -> list[Face]:
        return self.found


def paint(path: Path, *boxes: Box, colour: str = "red", size: tuple[int, int] = (120, 80), seed: int = 1) -> Path:
    """Write a noisy picture on which the detector finds a face in each box."""
    draw(path, COLOURS[colour], seed, size)
    with Image.open(path) as opened:
        picture = opened.convert("RGB")
    for box, fill in zip(boxes, PAINT, strict=False):
        picture.paste(fill, tuple(box))
    picture.save(path)
    return path


@pytest.fixture(scope="module")
def labeller(trained: Path) -> Labeller:
    return load(trained / "model")


ONE, OTHER = Box(20, 30, 40, 60), Box(70, 10, 90, 30)


# Boxes


@pytest.mark.parametrize("orientation", TURNS)
def test_boxes_are_in_pixels_of_the_upright_picture(tmp_path: Path, labeller: Labeller, orientation: int) -> None:
    upright = Image.open(paint(tmp_path / "a.png", ONE, OTHER))
    turn, exif = TURNS[orientation], Image.Exif()
    exif[0x0112] = orientation
    (upright if turn is None else upright.transpose(turn)).save(tmp_path / "turned.png", exif=exif)
    seen = look((tmp_path / "turned.png").read_bytes(), Painted(), labeller.label_bytes)
    assert [one.face.box for one in seen.faces] == [ONE, OTHER]
    assert np.array_equal(np.asarray(seen.picture.image), np.asarray(upright))
    assert seen.picture.notes == (() if orientation == 1 else ("turned",))


@pytest.mark.parametrize("size", [(4000, 1000), (300, 5000)])
def test_a_large_photo_is_reduced_for_the_detector_and_boxes_come_back_in_its_pixels(size: tuple[int, int]) -> None:
    picture, truth, detector = Image.new("RGB", size), Box(100, 400, 200, 600), Painted()
    picture.paste(PAINT[0], tuple(truth))
    (face,) = find_faces(detector, picture)
    assert max(detector.sizes[0]) == LONGEST_SIDE
    assert all(abs(one - other) <= 2 * max(size) / LONGEST_SIDE for one, other in zip(face.box, truth, strict=True))


def test_what_lies_outside_is_cut_off_and_unsure_or_empty_finds_are_dropped() -> None:
    sure = LEAST_CONFIDENCE
    detector = Fixed(
        Face(Box(30, 5, 60, 70), sure),
        Face(Box(-9, -9, 10, 10), 0.99),
        Face(Box(1, 1, 9, 9), sure - 0.001),
        Face(Box(60, 5, 70, 9), 0.99),
        Face(Box(5, 5, 5, 9), 0.99),
    )
    found = find_faces(detector, Image.new("RGB", (50, 40)))
    assert [face.box for face in found] == [Box(0, 0, 10, 10), Box(30, 5, 50, 40)]


# Margins and labels


def test_a_face_is_cut_out_with_its_margin_pixel_by_pixel() -> None:
    picture = Image.fromarray(np.random.default_rng(1).integers(0, 255, (90, 100, 3), dtype=np.uint8))
    assert MARGIN == 0.3  # models that were trained with another one would see other pictures
    cropped = Image.open(io.BytesIO(cut(picture, Box(30, 40, 50, 70))))
    assert cropped.format == "PNG"
    assert np.array_equal(np.asarray(cropped), np.asarray(picture)[31:79, 24:56])


def test_a_margin_ends_at_the_edge_of_the_picture() -> None:
    assert with_margin(Box(2, 1, 22, 21), 25, 200) == Box(0, 0, 25, 27)


def test_what_is_labelled_is_the_very_file_that_is_cut_out_for_training(tmp_path: Path, labeller: Labeller) -> None:
    picture = paint(tmp_path / "a.png", ONE, OTHER)
    seen = look(picture.read_bytes(), Painted(), labeller.label_bytes)
    expected = [labeller.label_bytes(cut(Image.open(picture), box)) for box in (ONE, OTHER)]
    assert [one.labelled for one in seen.faces] == expected and seen.whole is None


def test_without_a_face_the_whole_picture_is_labelled(tmp_path: Path, labeller: Labeller) -> None:
    data = paint(tmp_path / "a.png", colour="blue").read_bytes()
    seen = look(data, Painted(), labeller.label_bytes)
    assert seen.faces == () and seen.whole == labeller.label_bytes(data)


@pytest.mark.parametrize(
    ("data", "reason"), [(b"", "empty"), (b"just words", "not-an-image"), (b"%PDF-1.7", "unsupported-format")]
)
def test_what_is_no_picture_is_refused_before_faces_are_looked_for(labeller: Labeller, data: bytes, reason: str) -> None:
    detector = Painted()
    with pytest.raises(BadImage) as caught:
        look(data, detector, labeller.label_bytes)
    assert caught.value.reason == reason and detector.sizes == []


def test_a_detector_that_runs_out_of_memory_is_a_picture_that_is_too_large(tmp_path: Path, labeller: Labeller) -> None:
    class Hungry:
        def find(self, pixels: np.ndarray) -> list[Face]:
            raise MemoryError

    with pytest.raises(BadImage, match="too-large: out of memory"):
        look(paint(tmp_path / "a.png").read_bytes(), Hungry(), labeller.label_bytes)


@pytest.mark.parametrize(
    ("absent", "said"),
    [({"mtcnn"}, "mtcnn is not installed"), ({"mtcnn", "tensorflow"}, "mtcnn and tensorflow are not installed")],
)
def test_a_missing_extra_is_told_with_what_to_type(absent: set[str], said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(detect.importlib.util, "find_spec", lambda name: None if name in absent else name)
    for attempt in (faces.check_installed, faces.open_detector):
        with pytest.raises(EnvironmentProblem, match=rf"^{said}, .*run: pip install retrain\[faces\]$"):
            attempt()


# The copy that is drawn on


def seen_on(image: Image.Image, *boxes: Box, label: str = "elsa", unknown: bool = False) -> Seen:
    labelled = Labelled((Score(label, 0.75), Score("anna", 0.25)), "png", unknown=unknown)
    found = tuple(LabelledFace(Face(box, 0.99), labelled) for box in boxes)
    return Seen(Picture(image, "PNG", *image.size), found, None if found else labelled)


def changed(before: Image.Image, after: Image.Image) -> np.ndarray:
    return (np.asarray(before) != np.asarray(after)).any(axis=2)


@pytest.mark.parametrize("size", [(160, 120), (1200, 900), (5000, 3000)])
def test_line_and_letters_grow_with_the_picture_and_no_face_is_hidden(size: tuple[int, int]) -> None:
    blank = Image.new("RGB", size, "grey")
    width, height = size
    box = Box(width // 3, height // 3, width // 2, height // 2 + 20)
    drawing = changed(blank, drawn(seen_on(blank, box)))
    line = max(2, round((width + height) / 700))
    assert drawing[box.top : box.top + line, box.left : box.right].all()
    assert not drawing[box.top + line : box.bottom - line, box.left + line : box.right - line].any()
    outside = drawing.copy()
    outside[box.top : box.bottom, box.left : box.right] = False
    high = np.flatnonzero(outside.any(axis=1))
    assert len(high) >= max(10, 0.012 * (width + height) / 2) and high[-1] - high[0] < 0.12 * height + 12
    assert not changed(blank, Image.new("RGB", size, "grey")).any(), "the picture itself stays as it is"


@given(
    st.integers(1, 300), st.integers(1, 300), st.lists(st.tuples(*[st.integers(0, 299)] * 4), max_size=6),
    st.text(min_size=1, max_size=60),
)  # fmt: skip
def test_any_label_can_be_drawn_on_any_picture(width: int, height: int, corners: list, label: str) -> None:
    boxes = [Box(a % width, b % height, a % width + 1 + c % 50, b % height + 1 + d % 50) for a, b, c, d in corners]
    boxes = [Box(box.left, box.top, min(box.right, width), min(box.bottom, height)) for box in boxes]
    assert drawn(seen_on(Image.new("RGB", (width, height)), *boxes, label=label)).size == (width, height)


def test_tags_of_a_crowd_hide_neither_faces_nor_one_another() -> None:
    blank = Image.new("RGB", (1000, 700), "grey")
    boxes = [Box(60 + 160 * x, 60 + 160 * y, 130 + 160 * x, 150 + 160 * y) for x, y in itertools.product(range(5), range(3))]
    drawing = changed(blank, drawn(seen_on(blank, *boxes)))
    inside = [drawing[box.top + 3 : box.bottom - 3, box.left + 3 : box.right - 3].any() for box in boxes]
    assert not any(inside)


def written(seen: Seen, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What is written on a drawing."""
    from PIL import ImageDraw

    texts: list[str] = []
    text = ImageDraw.ImageDraw.text
    monkeypatch.setattr(
        ImageDraw.ImageDraw, "text", lambda pen, at, said, **how: texts.append(said) or text(pen, at, said, **how)
    )
    drawn(seen)
    return texts


def test_label_and_score_are_written_for_each_face_or_for_the_whole_picture(monkeypatch: pytest.MonkeyPatch) -> None:
    blank = Image.new("RGB", (400, 300))
    assert written(seen_on(blank, ONE, OTHER), monkeypatch) == ["elsa 0.75", "elsa 0.75"]
    assert written(seen_on(blank), monkeypatch) == ["elsa 0.75"]
    assert written(seen_on(blank, ONE, unknown=True), monkeypatch) == ["unknown 0.75"]
    (short,) = written(seen_on(Image.new("RGB", (90, 90)), ONE, label="a label that is far too long"), monkeypatch)
    assert short.startswith("a la") and short.endswith(".. 0.75")
    assert written(seen_on(blank, ONE, label="a\nb\x1b[1m"), monkeypatch) == ["a?b?[1m 0.75"]


def test_letters_that_no_font_has_are_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    from retrain import lettering as module

    monkeypatch.setattr(module, "_WIDER_FONTS", ("none-of-that-name.ttf",))
    module.readable.cache_clear()
    assert written(seen_on(Image.new("RGB", (400, 300)), ONE, label="Zoë 猫"), monkeypatch) == ["Zoe ? 0.75"]
    module.readable.cache_clear()


def test_the_ending_decides_the_format_of_the_copy() -> None:
    blank = Image.new("RGB", (30, 20))
    kinds = {name: Image.open(io.BytesIO(as_file(blank, Path(name)))).format for name in ("a.png", "a.JPG", "a.jpeg")}
    assert kinds == {"a.png": "PNG", "a.JPG": "JPEG", "a.jpeg": "JPEG"}
    with pytest.raises(UsageError, match=r"^a\.jpg cannot be a JPEG, the picture is 65501 pixels long; name it \.png$"):
        as_file(Image.new("RGB", (65_501, 1)), Path("a.jpg"))


def test_memory_that_is_short_for_a_copy_is_told_of_the_picture() -> None:
    class Full(Image.Image):
        def copy(self) -> Image.Image:
            raise MemoryError

    seen = seen_on(Image.new("RGB", (30, 20)))
    with pytest.raises(BadImage, match="too-large"):
        drawn(dataclasses.replace(seen, picture=dataclasses.replace(seen.picture, image=Full())))
