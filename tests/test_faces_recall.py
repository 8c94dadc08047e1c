"""How many faces the real detector finds, and how often it finds one where there is none; docs/faces.md has the figures.

python -m pytest tests/test_faces_recall.py -m weights -s      prints them
"""

import itertools
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageEnhance

from retrain.faces.detect import Box, Detector, Face, find_faces, open_detector

pytestmark = pytest.mark.weights
ROOT = Path(__file__).resolve().parent.parent
DATA = Path(pytest.importorskip("skimage").__file__).parent / "data"
FACE = Box(182, 64, 265, 171)  # of astronaut.png, as looked at by hand: brow to chin, ear to ear
ROUND_IT = 110  # pixels of astronaut.png to each side of the middle of the face that are shown: head and collar
# Nobody is on them. The drawings are not those that the least confidence was chosen on.
WITHOUT = [
    *sorted((ROOT / "test_data").glob("*.jpg")),
    *(DATA / f"{name}" for name in ("chelsea.png", "coffee.png", "rocket.jpg", "motorcycle_left.png", "coins.png")),
    *(DATA / f"{name}" for name in ("hubble_deep_field.jpg", "retina.jpg", "brick.png", "gravel.png", "text.png")),
]
WIDTHS, ANGLES, LIGHTS = (24, 36, 60, 90, 140), (-30, -20, -10, 0, 10, 20, 30), (0.5, 1.0, 1.5)
CELL, COLUMNS, ROWS, FACES_IN_ONE = 380, 4, 3, 3


@pytest.fixture(scope="module")
def detector() -> Detector:
    return open_detector()


def astronaut(width: int, angle: int, light: float) -> Image.Image:
    """The astronaut's head, the face `width` pixels wide, turned, darker or brighter; the face is in the middle."""
    room = 200
    whole = Image.fromarray(
        np.pad(np.asarray(Image.open(DATA / "astronaut.png")), ((room,) * 2, (room,) * 2, (0, 0)), "edge")
    )
    middle = (room + (FACE.left + FACE.right) / 2, room + (FACE.top + FACE.bottom) / 2)
    turned = whole.rotate(angle, Image.Resampling.BICUBIC, center=middle)
    head = turned.crop(tuple(round(side + sign * ROUND_IT) for sign in (-1, 1) for side in middle))  # type: ignore[arg-type]
    side = round(2 * ROUND_IT * width / FACE.width)
    return ImageEnhance.Brightness(head).enhance(light).resize((side, side), Image.Resampling.BICUBIC)


def montages() -> Iterator[tuple[Image.Image, list[tuple[int, int, Box]]]]:
    """Yield pictures of twelve cells, three with an astronaut and nine without a person; and width, angle, face of each."""
    rng = np.random.default_rng(20)
    wanted = list(itertools.product(WIDTHS, ANGLES, LIGHTS))
    rng.shuffle(wanted)
    for first in range(0, len(wanted), FACES_IN_ONE):
        some = wanted[first : first + FACES_IN_ONE]
        page, truth = Image.new("RGB", (CELL * COLUMNS, CELL * ROWS), "white"), []
        cells = rng.permutation(COLUMNS * ROWS)
        for cell, (width, angle, light) in zip(cells, some, strict=False):
            head = astronaut(int(width), int(angle), light)
            x, y = corner(cell, head, rng)
            page.paste(head, (x, y))
            half, scale = head.width / 2, width / FACE.width
            across, down = FACE.width * scale / 2, FACE.height * scale / 2
            box = Box(*map(round, (x + half - across, y + half - down, x + half + across, y + half + down)))
            truth.append((int(width), int(angle), box))
        for cell in cells[len(some) :]:
            other = Image.open(WITHOUT[rng.integers(len(WITHOUT))]).convert("RGB")
            other.thumbnail((CELL, CELL))
            page.paste(other, corner(cell, other, rng))
        yield page, truth


def corner(cell: int, picture: Image.Image, rng: np.random.Generator) -> tuple[int, int]:
    row, column = divmod(int(cell), COLUMNS)
    x, y = (int(rng.integers(CELL - side + 1)) for side in picture.size)
    return column * CELL + x, row * CELL + y


def matches(face: Face, truth: Box) -> bool:
    """Whether the boxes share at least 0.4 of what they cover together; the turned face's box is wider than the truth."""
    shared = face.box.shared(truth)
    return shared >= 0.4 * (face.box.width * face.box.height + truth.width * truth.height - shared)


def test_an_astronaut_among_other_pictures_is_found_at_many_sizes_and_angles(detector: Detector) -> None:
    there, found, false, pictures = Counter(), Counter(), 0, 0
    for page, truth in montages():
        faces = find_faces(detector, page)
        pictures += COLUMNS * ROWS - len(truth)
        for width, angle, box in truth:
            there[width, angle] += 1
            found[width, angle] += any(matches(face, box) for face in faces)
        false += sum(not any(matches(face, box) for _, _, box in truth) for face in faces)
    print(f"\nfaces: {found.total()} of {there.total()} found; {false} false finds among {pictures} pictures")
    for name, which, values in (("width", 0, WIDTHS), ("angle", 1, ANGLES)):
        for value in values:
            keys = [key for key in there if key[which] == value]
            print(f"{name} {value}: {sum(found[key] for key in keys)} of {sum(there[key] for key in keys)}")
    assert there.total() == len(WIDTHS) * len(ANGLES) * len(LIGHTS)
    upright = sum(found[width, angle] for width, angle in found if -20 <= angle <= 20)
    # Measured: 93 of 105, of those turned by 20 degrees at most 72 of 75, and no false find among 315 pictures.
    assert found.total() >= 88 and upright >= 68 and false <= 3


@pytest.mark.parametrize(("times", "least"), [(1, 95), (2, 91)])  # measured: 99 and 96
def test_faces_of_a_hundred_people_are_found_and_none_in_a_hundred_other_patches(
    detector: Detector, times: int, least: int
) -> None:
    found = []
    for grey in np.load(DATA / "lfw_subset.npy"):  # the first hundred are faces; 25 by 25 pixels, in [0, 1]
        patch = Image.fromarray((grey * 255).round().astype(np.uint8)).convert("RGB")
        page = Image.new("RGB", (55 * times, 55 * times), "grey")
        page.paste(patch.resize((25 * times, 25 * times), Image.Resampling.BICUBIC), (15 * times, 15 * times))
        found.append(bool(find_faces(detector, page)))
    print(f"\n{25 * times} pixels: {sum(found[:100])} of 100 faces, {sum(found[100:])} false finds in 100 patches")
    assert sum(found[:100]) >= least and sum(found[100:]) <= 2


def test_the_astronaut_is_found_once_in_the_middle_of_the_face(detector: Detector) -> None:
    with Image.open(DATA / "astronaut.png") as picture:
        (face,) = find_faces(detector, picture.convert("RGB"))
    assert matches(face, FACE) and face.confidence > 0.99


def test_a_photo_of_16_megapixels_is_reduced_and_its_face_found_in_its_own_pixels(detector: Detector) -> None:
    with Image.open(DATA / "astronaut.png") as picture:
        (face,) = find_faces(detector, picture.convert("RGB").resize((4096, 4096), Image.Resampling.BICUBIC))
    assert matches(face, Box(*(8 * side for side in FACE)))


@pytest.mark.parametrize("size", [(1, 1), (11, 12), (3, 500), (2000, 30)])
def test_pictures_of_odd_sizes_have_no_face_and_do_no_harm(detector: Detector, size: tuple[int, int]) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (size[1], size[0], 3), dtype=np.uint8)
    assert find_faces(detector, Image.fromarray(noise)) == [] == find_faces(detector, Image.new("RGB", size))


def test_weights_come_from_the_package_whatever_lies_in_the_current_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("pnet.lz4", "rnet.lz4", "onet.lz4"):  # mtcnn would load these, and run what is in them
        (tmp_path / name).write_bytes(b"not weights")
    monkeypatch.chdir(tmp_path)
    open_detector()
