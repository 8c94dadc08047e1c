"""Decode one picture."""

import contextlib
import importlib
import logging
import warnings
from dataclasses import dataclass

import numpy as np
from PIL import ExifTags, Image

from retrain.errors import BadImage
from retrain.images.files import OUT_OF_MEMORY
from retrain.images.formats import FORMATS, sniff
from retrain.images.hard_work import MAX_PIXELS, Frugal, is_animated_gif, refuse_before, refuse_opened
from retrain.quiet import native_chatter_dropped

DECODER = "decoder-1"  # raise it with any change that alters pixels: cached features of the old rules then miss
_TURNS = {  # EXIF orientation -> what makes the picture upright
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
# In these words Pillow tells of damage, and of memory that libjpeg or libwebp did not get: up to 8 bytes a pixel.
_SAID_OF_MEMORY_TOO = ("broken data stream", "could not create decoder object")
_BAND_ROWS = 64  # scaled to 8 bits at a time
_MAX_EXIF = 2**20  # bytes; a JPEG has room for 64 KiB

# Pillow reports sizes that it finds suspicious, and odd metadata, as warnings. Our own limit is stricter than its, and
# what cannot be read is raised and counted, so the warnings would only repeat that on stderr.
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)
warnings.filterwarnings("ignore", module=r"PIL\..*")
logging.getLogger("PIL").addHandler(logging.NullHandler())  # else Python shows what nobody listens to


@dataclass(frozen=True)
class Picture:
    """A decoded picture.

    `image` is 8-bit RGB, upright, without alpha; `format` is a key of FORMATS; `width` and `height` are those of the
    upright picture in the file, `image` may be smaller; `notes` names what a person may want to know of how it was read
    (`first-frame`, `turned`, `broken-exif`).
    """

    image: Image.Image
    format: str
    width: int
    height: int
    notes: tuple[str, ...] = ()

    @property
    def extension(self) -> str:
        """The usual file name extension of the real format, without a dot."""
        return FORMATS[self.format][0]


def decode(data: bytes, at_least: int | None = None) -> Picture:
    """Decode the bytes of one picture.

    With `at_least`, a JPEG may come out smaller by 2, 4 or 8, but no side shorter than `at_least` pixels: several
    times faster for photos. Two calls with the same bytes and the same `at_least` give the same pixels.

    Raises BadImage: empty, not-an-image, unsupported-format, too-large, truncated, corrupt.
    """
    kind, pixels = sniff(data), 0
    importlib.import_module(f"PIL.{FORMATS[kind][1]}")  # Pillow would else import all its plugins for the rarer ones
    try:
        refuse_before(data, kind)
        file = Frugal(data, kind)
        # Pillow raises far more than OSError on damaged files: ValueError, SyntaxError, RuntimeError, struct.error ...
        # at each of these four steps. Whatever it is, the one picture is bad and the run goes on.
        with Image.open(file, formats=[kind]) as opened:
            pixels = opened.width * opened.height
            refuse_opened(opened, kind, data)
            file.header_read()
            animated = is_animated_gif(data) if kind == "GIF" else getattr(opened, "is_animated", False)
            notes = ["first-frame"] if animated else []
            width, height = opened.size
            if at_least and kind == "JPEG":
                opened.draft(None, (at_least, at_least))
            with native_chatter_dropped() if kind == "TIFF" else contextlib.nullcontext():  # libtiff writes to stderr
                opened.load()
            upright = _upright(opened, notes)
            if (upright.width < upright.height) != (opened.width < opened.height):
                width, height = height, width
            return Picture(_to_rgb(upright), kind, width, height, tuple(notes))
    except BadImage:
        raise
    except Image.DecompressionBombError:
        raise BadImage("too-large", f"more than {MAX_PIXELS // 10**6} megapixels") from None
    except MemoryError:
        raise BadImage("too-large", OUT_OF_MEMORY) from None
    except Exception as error:  # noqa: BLE001  see above
        raise _damaged(error, pixels or _promised_by_webp(data)) from None


def _damaged(error: Exception, pixels: int) -> BadImage:
    words = str(error).lower()
    if "out of memory" in words or (any(said in words for said in _SAID_OF_MEMORY_TOO) and not _room_for(8 * pixels)):
        return BadImage("too-large", OUT_OF_MEMORY)
    if isinstance(error, Image.UnidentifiedImageError):
        return BadImage("corrupt", "the header cannot be read")
    if isinstance(error, EOFError) or any(word in words for word in ("truncated", "not processed", "unexpected end")):
        return BadImage("truncated")
    return BadImage("corrupt")  # Pillow's own words say nothing to a user, and hold object addresses now and then


def _room_for(size: int) -> bool:
    try:
        np.empty(min(size, 8 * MAX_PIXELS), np.uint8)
    except MemoryError:
        return False
    return True


def _promised_by_webp(data: bytes) -> int:
    """Return the number of pixels of a WebP that was not even opened; 0 for another format."""
    starts = {b"VP8X": (24, 27, 3, 0xFFFFFF, 1), b"VP8 ": (26, 28, 2, 0x3FFF, 0)}
    kind = data[12:16] if data[8:12] == b"WEBP" else b""
    if kind == b"VP8L":
        sides = int.from_bytes(data[21:25], "little")
        return ((sides & 0x3FFF) + 1) * ((sides >> 14 & 0x3FFF) + 1)
    if kind not in starts:
        return 0
    width, height, length, bits, more = starts[kind]
    sizes = [int.from_bytes(data[at : at + length], "little") & bits for at in (width, height)]
    return (sizes[0] + more) * (sizes[1] + more)


def _upright(image: Image.Image, notes: list[str]) -> Image.Image:
    """Turn the picture as its EXIF (or XMP) orientation says; with broken EXIF keep the pixels as they are."""
    try:
        method = _TURNS.get(_orientation(image))
        if method is not None:
            image = image.transpose(method)
            notes.append("turned")
    except Exception:  # noqa: BLE001  broken metadata raises almost anything, and the pixels are still good
        notes.append("broken-exif")
    return image


def _orientation(image: Image.Image) -> int:
    raw = image.info.get("exif")
    if isinstance(raw, bytes):
        if len(raw) > _MAX_EXIF:
            raise ValueError
        # Read anew: Pillow keeps what it read of a JPEG's EXIF when it was looking for the resolution, and hides errors.
        exif = Image.Exif()
        exif.load(raw)
        if ExifTags.Base.Orientation in exif:
            return exif[ExifTags.Base.Orientation]
    return image.getexif().get(ExifTags.Base.Orientation, 1)


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode == "RGB" and "transparency" not in image.info:
        return image
    if image.mode.startswith("I") or image.mode == "F":
        return Image.fromarray(_to_8_bit(image)).convert("RGB")
    if image.has_transparency_data:
        layers = image if image.mode == "RGBA" else image.convert("RGBA")  # converting like to like copies
        page = Image.new("RGB", image.size, "white")
        page.paste(layers, mask=layers.getchannel("A"))
        return page
    return image.convert("RGB")


def _to_8_bit(image: Image.Image) -> np.ndarray:
    """Scale 16-bit, 32-bit and floating-point grey to uint8 by a fixed rule, so that it doesn't depend on contrast.

    16 bits: 65535 is white. 32 bits: as 16 where the values fit, else the largest is white. Floats: [0, 1], or 0..255
    where any value is above 1; not finite counts as 0.
    """
    values = np.asarray(image)
    bands = [slice(top, top + _BAND_ROWS) for top in range(0, len(values), _BAND_ROWS)]
    top = max((_exact(values[band]).max(initial=0.0) for band in bands), default=0.0)
    if image.mode == "F":
        white = 1.0 if top <= 1.0 else 255.0
    else:
        white = 65535.0 if top <= 65535.0 else top
    hidden = image.info.get("transparency")  # the one value of a 16-bit PNG that is transparent
    grey = np.empty(values.shape, np.uint8)
    for band in bands:
        exact = _exact(values[band])
        grey[band] = np.clip(np.rint(exact * (255.0 / white)), 0, 255)
        if isinstance(hidden, int):
            grey[band][exact == hidden] = 255
    return grey


def _exact(values: np.ndarray) -> np.ndarray:
    """Return values as float64, whatever is not finite as 0: eight bytes a pixel, so some rows at a time."""
    with np.errstate(invalid="ignore"):  # a signalling NaN: numpy would warn on stderr
        return np.nan_to_num(values.astype(np.float64), nan=0.0, posinf=0.0, neginf=0.0)
