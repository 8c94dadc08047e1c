"""Refuse pictures that would keep the decoder busy for minutes, or fill the memory, though their files keep the limits."""

import io
import re
import struct
from collections.abc import Iterator

from PIL import Image

from retrain.errors import BadImage

MAX_PIXELS = 64_000_000  # errors.REASONS says it in words
# What cameras and programs write stays far below all of these.
_MAX_SCANNED = 20 * MAX_PIXELS  # pixels of a JPEG, times the scans that they come in
_MAX_RUN_LENGTH = 10_000_000  # pixels of a BMP that Pillow unpacks one by one, in Python
_MAX_HEADER_READS = 20_000  # Pillow reads a chunk, segment or block in up to four pieces, in Python
_MAX_HEADER_BYTES = 20 * 2**20  # it joins segments and comments one by one, each time copying those before
_BYTES_A_READ = 256  # at least, on average, of what follows the header
_MAX_VALUES = 2**20  # of one TIFF tag: each becomes a Python object of some 40 bytes
_MAX_CHUNKS = 100_000  # of a WebP

_MARKER = re.compile(rb"\xff([\x02-\xcf\xd8-\xfe])")  # of a JPEG; not zeros that are stuffed in, restarts and filling
_TIFF_BYTES = (1, 2, 6, 7)  # types of tags that stay bytes


class Frugal(io.BytesIO):
    """The bytes of a picture for Pillow, which may read only so often: first the header, after `header_read` the rest.

    read() raises BadImage: too-large.
    """

    def __init__(self, data: bytes, kind: str) -> None:
        super().__init__(data)
        self._size = len(data)
        self._reads = _MAX_HEADER_READS
        # These three are read at once, or are made so that a header may be large.
        self._bytes = self._size * 3 if kind in ("WEBP", "AVIF", "TIFF") else _MAX_HEADER_BYTES

    def header_read(self) -> None:
        """Allow what the pixels take."""
        self._reads = _MAX_HEADER_READS + self._size // _BYTES_A_READ
        self._bytes = self._size * 3

    def read(self, size: int | None = -1, /) -> bytes:
        """Read as BytesIO does."""
        self._reads -= 1
        data = super().read(size)
        self._bytes -= len(data)
        if self._reads < 0 or self._bytes < 0:
            raise BadImage("too-large", "more pieces than a picture has")
        return data


def refuse_before(data: bytes, kind: str) -> None:
    """Raise BadImage, too-large, for what would be hard work when Pillow opens it."""
    if kind == "TIFF" and max(_values_of_tags(data), default=0) > _MAX_VALUES:
        raise BadImage("too-large", "a tag of more values than a picture has")
    if kind == "WEBP" and _more_chunks_than(_MAX_CHUNKS, data):
        raise BadImage("too-large", "more pieces than a picture has")


def refuse_opened(opened: Image.Image, kind: str, data: bytes) -> None:
    """Raise BadImage, too-large, for what is opened and would be hard work to load."""
    pixels = opened.width * opened.height
    if pixels > MAX_PIXELS:
        raise BadImage("too-large", f"{opened.width}x{opened.height} is {pixels / 1e6:.0f} megapixels")
    if kind == "BMP" and pixels > _MAX_RUN_LENGTH and any(tile[0] == "bmp_rle" for tile in opened.tile):  # type: ignore[attr-defined]
        raise BadImage("too-large", f"more than {_MAX_RUN_LENGTH // 10**6} megapixels, run-length encoded")
    if kind == "JPEG" and data.count(b"\xff\xda") * pixels > _MAX_SCANNED and _scans(data) * pixels > _MAX_SCANNED:
        raise BadImage("too-large", f"{opened.width}x{opened.height} in {_scans(data)} scans")


def _scans(data: bytes) -> int:
    """Count the scans of a JPEG up to its end: what hangs on behind, a video say, may look like more."""
    at, scans = 2, 0
    while found := _MARKER.search(data, at):
        at, marker = found.end(), found[1]
        if marker == b"\xd9":
            break
        if marker != b"\xd8":
            at += int.from_bytes(data[at : at + 2], "big")
        scans += marker == b"\xda"
    return scans


def _values_of_tags(data: bytes) -> Iterator[int]:
    """Yield of each tag of a TIFF's first picture how many values Pillow would unpack."""
    order = "<" if data[:2] == b"II" else ">"
    # A tag: its number, the type and the number of its values, and these or where they are.
    start, count, tag = (8, f"{order}Q", f"{order}HHQQ") if b"+" in data[2:4] else (4, f"{order}H", f"{order}HHII")
    try:
        (at,) = struct.unpack_from(f"{order}{'Q' if start == 8 else 'I'}", data, start)
        (tags,) = struct.unpack_from(count, data, at)
        for number in range(min(tags, _MAX_HEADER_READS)):
            _, kind, values, _ = struct.unpack_from(tag, data, at + struct.calcsize(count) + number * struct.calcsize(tag))
            if kind not in _TIFF_BYTES:
                yield values
    except (struct.error, OverflowError):  # cut short: Pillow tells of it
        return


def _more_chunks_than(limit: int, data: bytes) -> bool:
    at = 12
    for _ in range(limit):
        if at + 8 > len(data):
            return False
        at += 8 + (int.from_bytes(data[at + 4 : at + 8], "little") + 1) // 2 * 2
    return True


def is_animated_gif(data: bytes) -> bool:
    """Whether a second picture follows the first. Pillow would take minutes for a long comment between them."""
    at, pictures, in_blocks = 13 + _palette(data[10:11]), 0, False
    for _ in range(_MAX_HEADER_READS + len(data) // 64):
        byte = data[at : at + 1]
        if not byte:
            break
        at += 1
        if in_blocks:
            at += byte[0]
            in_blocks = byte != b"\0"
        elif byte == b",":
            pictures += 1
            if pictures > 1:
                return True
            at += 10 + _palette(data[at + 8 : at + 9])
            in_blocks = True
        elif byte == b"!":
            at += 1
            in_blocks = True
        elif byte == b";":
            break
    return False


def _palette(flags: bytes) -> int:
    """Bytes of the palette that these flags of a GIF announce."""
    return 3 * 2 ** ((flags[0] & 7) + 1) if flags and flags[0] & 0x80 else 0
