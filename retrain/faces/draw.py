"""A copy of a picture with boxes, labels and scores on it."""

import io
import statistics
from collections.abc import Iterator
from pathlib import Path

from PIL import Image, ImageDraw

from retrain.errors import BadImage, UsageError
from retrain.faces.detect import Box
from retrain.faces.found import Seen
from retrain.images import OUT_OF_MEMORY
from retrain.label import Labelled
from retrain.lettering import fitting
from retrain.settings import UNKNOWN

FORMATS = {".jpg": "JPEG", ".jpeg": "JPEG", ".png": "PNG"}  # of the copy, by the ending of its name
_QUALITY, _LONGEST_JPEG = 92, 65_500  # of the latter, pixels, libjpeg makes no more
# One after the other, so that neighbours differ; white or black can be read on each.
_COLOURS = ((0, 158, 115), (213, 94, 0), (0, 114, 178), (240, 228, 66), (204, 121, 167), (86, 180, 233))
_LINES = 350  # a line is so small a part of the picture's mean side, ...
_LETTERS = (0.012, 0.05)  # ... letters at least and at most so large a part of it,
_OF_A_FACE = 0.2  # in between, such a part of the median face, so that crowds are not covered with words
_SMALLEST = 10  # pixels: smaller letters cannot be read, however small the picture


def drawn(seen: Seen) -> Image.Image:
    """Return a copy of the upright picture with a box, a label and a score for each face.

    Without faces, what is said of the whole picture stands in its corner. Raises BadImage where memory is too short.
    """
    try:
        copy = seen.picture.image.copy()
    except MemoryError:
        raise BadImage("too-large", OUT_OF_MEMORY) from None
    pen, boxes = ImageDraw.Draw(copy), [one.face.box for one in seen.faces]
    line = max(2, round((copy.width + copy.height) / 2 / _LINES))
    letters = _letters(copy, boxes)
    colours = [_COLOURS[number % len(_COLOURS)] for number in range(len(boxes))]
    for box, colour in zip(boxes, colours, strict=True):
        # Within the box: at the edge of the picture a line around it would be lost.
        pen.rectangle((box.left, box.top, box.right - 1, box.bottom - 1), outline=colour, width=line)
    taken = list(boxes)
    for one, colour in zip(seen.faces, colours, strict=True):
        taken.append(_tag(pen, copy, _words(one.labelled), one.face.box, taken, letters, colour))
    if seen.whole is not None:
        _tag(pen, copy, _words(seen.whole), Box(0, 0, 0, 0), [], letters, _COLOURS[0])
    return copy


def as_file(image: Image.Image, path: Path) -> bytes:
    """Return the bytes of a picture file in the format that the ending of `path` tells: a key of FORMATS.

    Raises UsageError for a picture that is too long for a JPEG.
    """
    buffer, kind = io.BytesIO(), FORMATS[path.suffix.lower()]
    if kind == "JPEG" and max(image.size) > _LONGEST_JPEG:
        raise UsageError(f"{path} cannot be a JPEG, the picture is {max(image.size)} pixels long; name it .png")
    image.save(buffer, kind, **({"quality": _QUALITY} if kind == "JPEG" else {}))
    return buffer.getvalue()


def _words(labelled: Labelled) -> tuple[str, str]:
    label, score = labelled.scores[0]
    return UNKNOWN if labelled.unknown else label, f"{score:.2f}"


def _letters(image: Image.Image, boxes: list[Box]) -> int:
    mean = (image.width + image.height) / 2
    least, most = (part * mean for part in _LETTERS)
    wanted = _OF_A_FACE * statistics.median(box.height for box in boxes) if boxes else most
    return round(max(_SMALLEST, least, min(most, wanted)))


def _tag(
    pen: ImageDraw.ImageDraw,
    image: Image.Image,
    words: tuple[str, str],
    box: Box,
    taken: list[Box],
    letters: int,
    colour: tuple[int, ...],
) -> Box:
    """Write on a ground of `colour` beside a box, where the least of `taken` is hidden; return where."""
    pad = max(1, round(letters / 5))
    text, font = fitting(*words, letters, image.width - 2 * pad)
    width = min(round(font.getlength(text)) + 2 * pad, image.width)
    height = min(round(font.size) + 2 * pad, image.height)
    places = [
        Box(x, y, x + width, y + height)
        for x, y in _corners(box, width, height)
        if 0 <= y <= image.height - height
        for x in (min(max(x, 0), image.width - width),)
    ]
    place = min(places, key=lambda one: sum(one.shared(other) for other in taken))  # of equal ones the first
    pen.rectangle((place.left, place.top, place.right - 1, place.bottom - 1), fill=colour)
    ink = "black" if 0.299 * colour[0] + 0.587 * colour[1] + 0.114 * colour[2] > 140 else "white"
    pen.text((place.left + pad, (place.top + place.bottom) / 2), text, fill=ink, font=font, anchor="lm")
    return place


def _corners(box: Box, width: int, height: int) -> Iterator[tuple[int, int]]:
    """Yield corners for a tag, the best first: above, below, at the sides, and last within the box."""
    yield box.left, box.top - height
    yield box.right - width, box.top - height
    yield box.left, box.bottom
    yield box.right - width, box.bottom
    yield box.right, box.top
    yield box.left - width, box.top
    yield box.right, box.bottom - height
    yield box.left - width, box.bottom - height
    yield box.left, box.top
    yield box.left, box.bottom - height
    yield box.left, 0  # a picture may be lower than the tag is high: this one always fits
