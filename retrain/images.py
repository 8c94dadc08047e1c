"""Find pictures and decode one: the only decoder, shared by train, label, classify and everything that comes later.

The format is taken from the content, never from the file name, and must be on a short list (`FORMATS`): most security
advisories of image libraries concern formats that nobody trains on. Rules, part of every cache key by way of
`DECODER`: the first frame of an animation; EXIF orientation applied; alpha composited on white; 16 bits scaled to 8;
at most 64 megapixels; large JPEGs decoded at a fraction of their size where that is all the caller needs.
"""

import contextlib
import errno
import importlib
import io
import os
import stat
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import ExifTags, Image

from retrain.errors import REASONS, BadImage
from retrain.quiet import native_chatter_dropped
from retrain.storage import is_own

DECODER = "decoder-1"  # raise it with any change that alters pixels: cached features of the old rules then miss
__all__ = ["REASONS", "Found", "Picture", "decode", "find", "is_ignored", "read_bytes", "sniff"]
MAX_PIXELS = 64_000_000  # errors.REASONS says both limits in words
MAX_BYTES = 512 * 2**20

FORMATS = {  # Pillow's name -> (extension of a copy, the Pillow module that reads it)
    "JPEG": ("jpg", "JpegImagePlugin"),
    "PNG": ("png", "PngImagePlugin"),
    "GIF": ("gif", "GifImagePlugin"),
    "WEBP": ("webp", "WebPImagePlugin"),
    "BMP": ("bmp", "BmpImagePlugin"),
    "TIFF": ("tif", "TiffImagePlugin"),
    "AVIF": ("avif", "AvifImagePlugin"),
}
_TURNS = {  # EXIF orientation -> what makes the picture upright
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_BAND_ROWS = 64  # scaled to 8 bits at a time
IGNORED_NAMES = {"thumbs.db", "desktop.ini"}

_SIGNATURES = (
    (b"\xff\xd8\xff", "JPEG"),
    (b"\x89PNG\r\n\x1a\n", "PNG"),
    (b"GIF87a", "GIF"),
    (b"GIF89a", "GIF"),
    (b"BM", "BMP"),
    (b"II*\0", "TIFF"),
    (b"MM\0*", "TIFF"),
    (b"II+\0", "TIFF"),
    (b"MM\0+", "TIFF"),
)
_UNSUPPORTED = (
    (b"%!PS", "EPS"),
    (b"\xc5\xd0\xd3\xc6", "EPS"),
    (b"%PDF", "PDF"),
    (b"8BPS", "PSD"),
    (b"SIMPLE  =", "FITS"),
    (b"\0\0\1\0", "ICO"),
    (b"\0\0\0\x0cjP  ", "JPEG 2000"),
    (b"\xff\x4f\xff\x51", "JPEG 2000"),
    (b"\0\0\0\x0cJXL ", "JPEG XL"),
    (b"\xff\x0a", "JPEG XL"),
    (b"\x89HDF", "HDF5"),
    (b"GRIB", "GRIB"),
    (b"PK\3\4", "ZIP"),
    (b"\x1f\x8b", "gzip"),
)
_HEIF_BRANDS = (b"heic", b"heix", b"hevc", b"heim", b"heis", b"mif1", b"msf1")

# Pillow reports sizes that it finds suspicious, and odd metadata, as warnings. Our own limit is stricter than its, and
# what cannot be read is raised and counted, so the warnings would only repeat that on stderr.
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)
warnings.filterwarnings("ignore", module=r"PIL\..*")


class Found(NamedTuple):
    """A path below a folder of pictures. `problem` is None for a file that can be tried, else why it cannot."""

    path: Path
    problem: BadImage | None


@dataclass(frozen=True)
class Picture:
    """A decoded picture.

    `image` is 8-bit RGB, upright, without alpha; `format` is a key of FORMATS; `notes` names what a person may want to
    know of how it was read (`first-frame`, `turned`, `broken-exif`).
    """

    image: Image.Image
    format: str
    notes: tuple[str, ...] = ()

    @property
    def extension(self) -> str:
        """The usual file name extension of the real format, without a dot."""
        return FORMATS[self.format][0]


def find(root: Path, within: Path | None = None) -> Iterator[Found]:
    """Yield every candidate below `root`, sorted by name within each folder (names compared as bytes).

    Dot files, Thumbs.db and desktop.ini are no inputs. Linked folders are followed unless they lead back to a folder
    that is read anyway: one below or above `root`, or `within`, the larger folder that is being read piece by piece.
    Memory is bounded by the largest single folder.
    """
    read_anyway = {Path(os.path.realpath(folder)) for folder in (root, within or root)}
    yield from _walk(root, read_anyway, {_identity(root)})


def _walk(root: Path, read_anyway: set[Path], seen: set[tuple[int, int]]) -> Iterator[Found]:
    open_folders = [_entries(root)]  # a stack of our own: folders may be nested deeper than Python can call
    while open_folders:
        entry = next(open_folders[-1], None)
        if entry is None:
            open_folders.pop()
            continue
        found, is_folder, is_link = entry
        if not is_folder:
            yield found
        elif is_own(found.path):
            continue
        elif _identity(found.path) in seen or (is_link and leads_back(found.path, read_anyway)):
            yield Found(found.path, BadImage("link-loop"))
        else:
            seen.add(_identity(found.path))
            open_folders.append(_entries(found.path))


def _entries(folder: Path) -> Iterator[tuple[Found, bool, bool]]:
    """Yield (what was found, is it a folder, is it a link) for one folder."""
    try:
        with os.scandir(folder) as scan:
            entries = sorted((os.fsencode(entry.name), entry.is_symlink()) for entry in scan)
    except OSError as error:
        yield Found(folder, _cannot_read(error)), False, False
        return
    for raw_name, is_link in entries:
        path = Path(os.path.join(folder, os.fsdecode(raw_name)))
        if is_ignored(path.name):
            continue
        try:
            mode = path.stat().st_mode
        except OSError as error:
            problem = BadImage("link-loop") if error.errno == errno.ELOOP else _cannot_read(error)
            yield Found(path, problem), False, is_link
            continue
        usable = stat.S_ISREG(mode) or stat.S_ISDIR(mode)
        yield Found(path, None if usable else BadImage("not-a-file")), stat.S_ISDIR(mode), is_link


def is_ignored(name: str) -> bool:
    """True for what no file manager means as a picture: dot files, Thumbs.db, desktop.ini."""
    return name.startswith(".") or name.lower() in IGNORED_NAMES


def _identity(folder: Path) -> tuple[int, int]:
    status = folder.stat()
    return status.st_dev, status.st_ino


def leads_back(link: Path, read_anyway: set[Path]) -> bool:
    """True for a link to a folder that is one of `read_anyway`, or below or above one."""
    target = Path(os.path.realpath(link))
    return any(target == folder or folder in target.parents or target in folder.parents for folder in read_anyway)


def _cannot_read(error: OSError) -> BadImage:
    reason = "missing" if error.errno in (errno.ENOENT, errno.ENOTDIR) else "unreadable"
    return BadImage(reason, error.strerror or str(error))


def read_bytes(path: Path) -> bytes:
    """Read a whole picture file, at most MAX_BYTES.

    Raises BadImage: missing, unreadable, not-a-file, too-large, empty. Never blocks on a pipe or device.
    """
    try:
        handle = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    except (OSError, ValueError) as error:  # ValueError: a name with a NUL character
        raise (_cannot_read(error) if isinstance(error, OSError) else BadImage("missing", str(error))) from None
    with contextlib.ExitStack() as stack:
        stack.callback(os.close, handle)
        status = os.fstat(handle)
        if not stat.S_ISREG(status.st_mode):
            raise BadImage("not-a-file", "a folder" if stat.S_ISDIR(status.st_mode) else "")
        if status.st_size > MAX_BYTES:
            raise BadImage("too-large", f"{status.st_size / 2**20:.0f} MiB")
        try:
            with os.fdopen(handle, "rb", closefd=False) as file:
                # Asked for the limit at once, Python would set aside that much memory for every picture.
                data = file.read(status.st_size + 1)
                if len(data) > status.st_size:  # it is growing
                    data += file.read(MAX_BYTES + 1 - len(data))
        except OSError as error:
            raise _cannot_read(error) from None
    if not data:
        raise BadImage("empty")
    if len(data) > MAX_BYTES:
        raise BadImage("too-large", f"over {MAX_BYTES / 2**20:.0f} MiB")
    return data


def sniff(data: bytes) -> str:
    """Return the key of FORMATS that the first bytes belong to.

    Raises BadImage: empty, unsupported-format (naming it), not-an-image.
    """
    if not data:
        raise BadImage("empty")
    for signature, name in _SIGNATURES:
        if data.startswith(signature):
            return name
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "WEBP"
    if data[4:8] == b"ftyp":
        brands = data[8 : max(16, min(int.from_bytes(data[:4], "big"), 256))]
        if b"avif" in brands or b"avis" in brands:
            return "AVIF"
        if any(brand in brands for brand in _HEIF_BRANDS):
            raise BadImage("unsupported-format", "HEIC; convert it to JPEG")
    for signature, name in _UNSUPPORTED:
        if data.startswith(signature):
            raise BadImage("unsupported-format", name)
    text = data[:1024].lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if text.startswith((b"<!doctype html", b"<html", b"<head", b"<body")):
        raise BadImage("not-an-image", "an HTML page")
    if b"<svg" in text:
        raise BadImage("unsupported-format", "SVG")
    raise BadImage("not-an-image")


def decode(data: bytes, at_least: int | None = None) -> Picture:
    """Decode the bytes of one picture.

    With `at_least`, a JPEG may come out smaller by 2, 4 or 8, but no side shorter than `at_least` pixels: several
    times faster for photos. Two calls with the same bytes and the same `at_least` give the same pixels.

    Raises BadImage: empty, not-an-image, unsupported-format, too-large, truncated, corrupt.
    """
    kind = sniff(data)
    importlib.import_module(f"PIL.{FORMATS[kind][1]}")  # Pillow would else import all its plugins for the rarer ones
    try:
        # Pillow raises far more than OSError on damaged files: ValueError, SyntaxError, RuntimeError, struct.error ...
        # at each of these four steps. Whatever it is, the one picture is bad and the run goes on.
        with Image.open(io.BytesIO(data), formats=[kind]) as opened:
            width, height = opened.size
            if width * height > MAX_PIXELS:
                raise BadImage("too-large", f"{width}x{height} is {width * height / 1e6:.0f} megapixels")
            notes = ["first-frame"] if getattr(opened, "is_animated", False) else []
            if at_least and kind == "JPEG":
                opened.draft(None, (at_least, at_least))
            with native_chatter_dropped() if kind == "TIFF" else contextlib.nullcontext():  # libtiff writes to stderr
                opened.load()
            upright = _upright(opened, notes)
            return Picture(_to_rgb(upright), kind, tuple(notes))
    except BadImage:
        raise
    except Image.DecompressionBombError:
        raise BadImage("too-large", f"more than {MAX_PIXELS // 10**6} megapixels") from None
    except MemoryError:
        raise BadImage("too-large", "out of memory") from None
    except Exception as error:  # noqa: BLE001  see above
        raise _damaged(error) from None


def _damaged(error: Exception) -> BadImage:
    words = str(error).lower()
    if isinstance(error, Image.UnidentifiedImageError):
        return BadImage("corrupt", "the header cannot be read")
    if isinstance(error, EOFError) or any(word in words for word in ("truncated", "not processed", "unexpected end")):
        return BadImage("truncated")
    return BadImage("corrupt")  # Pillow's own words say nothing to a user, and hold object addresses now and then


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
    return np.nan_to_num(values.astype(np.float64), nan=0.0, posinf=0.0, neginf=0.0)
