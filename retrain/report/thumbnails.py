"""Small copies of pictures that are part of the page."""

import base64
import io
import os
from collections.abc import Iterable
from dataclasses import dataclass

from PIL import Image

from retrain.errors import REASONS, BadImage
from retrain.images import OUT_OF_MEMORY, decode, read_bytes
from retrain.progress import SILENT, Progress

SIDE = 128  # pixels of the longer side
# The first quality that stays below the limit: a page of 400 pictures of noise would else be twice as large.
_QUALITIES = (80, 65, 50, 30)
_BYTES = 7000


@dataclass(frozen=True)
class Thumbnail:
    """A small copy of a picture as a data URI, or, with that empty, why there is none."""

    uri: str
    width: int = 0
    height: int = 0
    reason: str = ""  # a key of errors.REASONS
    detail: str = ""


def make(path: str | os.PathLike[str]) -> Thumbnail:
    """Return the thumbnail of a picture file. Raises nothing, whatever the file is."""
    try:
        return of_image(small(read_bytes(path)))  # type: ignore[arg-type]
    except BadImage as bad:
        return Thumbnail("", reason=bad.reason, detail=bad.detail or REASONS.get(bad.reason, ""))
    except MemoryError:
        return Thumbnail("", reason="too-large", detail=OUT_OF_MEMORY)


def small(data: bytes) -> Image.Image:
    """Return a small copy of a picture given as the bytes of its file; raises BadImage."""
    image = decode(data, at_least=SIDE).image
    image.thumbnail((SIDE, SIDE), Image.Resampling.LANCZOS, reducing_gap=3.0)
    return image


def of_image(image: Image.Image) -> Thumbnail:
    """Return what shows a small picture on a page."""
    return Thumbnail(f"data:image/jpeg;base64,{base64.b64encode(_jpeg(image)).decode()}", *image.size)


def _jpeg(image: Image.Image) -> bytes:
    data = b""
    for quality in _QUALITIES:
        file = io.BytesIO()
        image.save(file, "JPEG", quality=quality, optimize=True)
        data = file.getvalue()
        if len(data) <= _BYTES:
            break
    return data


def make_all(paths: Iterable[str], what: str, progress: Progress = SILENT) -> dict[str, Thumbnail]:
    """Return the thumbnail of each path; each is read once. `what` names the work on the progress bar."""
    once = list(dict.fromkeys(paths))
    made = {}
    with progress.bar(what, len(once)) as advance:
        for path in once:
            made[path] = make(path)
            advance()
    return made
