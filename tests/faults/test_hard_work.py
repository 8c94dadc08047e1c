"""Files within the limit of size that are made of millions of pieces, none of which is a pixel: numbers 7 and 9."""

import io
import struct
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from retrain.errors import BadImage
from retrain.images import decode
from tests.faults import decoding
from tests.faults.pictures import chunk, png_with, segment
from tests.test_images import BLUE, RED, encoded, flat, noisy

MEGABYTES = 200  # below the limit of size
ROOM = 800  # MB, for a file of that size


def times(piece: bytes, size: int) -> bytes:
    return piece * (size // len(piece))


def behind_pixels(extra: bytes) -> bytes:
    return encoded(flat(), "PNG")[:-12] + extra + chunk(b"IEND")


def behind_soi(extra: bytes) -> bytes:
    whole = encoded(flat(), "JPEG")
    return whole[:2] + extra + whole[2:]


def gif(front: bytes = b"", behind: bytes = b"", colour: tuple[int, int, int] | None = None) -> bytes:
    """A GIF with something before its picture and behind it; with a second picture behind that, of this colour."""
    whole = encoded(flat(), "GIF")
    start = 13 + 3 * 2 ** ((whole[10] & 7) + 1)
    second = encoded(flat(colour), "GIF") if colour else b";"
    return whole[:start] + front + whole[start:-1] + behind + (second[start:] if colour else second)


def comment(block: bytes, size: int) -> bytes:
    return b"!\xfe" + times(bytes([len(block)]) + block, size) + b"\0"


def riff(form: bytes, size: int) -> bytes:
    """A WebP with something behind its pixels, and a header that allows for it."""
    flat_picture = encoded(flat(), "WEBP", lossless=True)[12:]
    sides = struct.pack("<I", 31)[:3] + struct.pack("<I", 15)[:3]
    body = b"WEBPVP8X" + struct.pack("<I", 10) + bytes(4) + sides + flat_picture + times(form + bytes(4), size)
    return b"RIFF" + struct.pack("<I", len(body)) + body


def tiff_of_values(size: int, order: str, big: bool) -> bytes:
    """A TIFF with a tag of as many values as there is room for."""
    tags = [
        (256, 3, 1, 32),
        (257, 3, 1, 16),
        (258, 3, 1, 8),
        (259, 3, 1, 1),
        (262, 3, 1, 1),
        (273, 4, size // 4, 0),
        (277, 3, 1, 1),
    ]
    head = struct.pack(f"{order}HHHQ", 43, 8, 0, 16) if big else struct.pack(f"{order}HI", 42, 8)
    entry = f"{order}HHQ" if big else f"{order}HHI"
    behind = len(head) + 2 + (8 if big else 2) + len(tags) * (20 if big else 12) + 8
    body = struct.pack(f"{order}{'Q' if big else 'H'}", len(tags))
    for number, kind, count, value in tags:
        field = struct.pack(f"{order}{'Q' if big else 'I'}", behind) if count > 1 else struct.pack(f"{order}H", value)
        body += struct.pack(entry, number, kind, count) + field.ljust(8 if big else 4, b"\0")
    return (b"II" if order == "<" else b"MM") + head + body + bytes(8 + size)


# What the file is made of -> (how it is made in about as many bytes, as many as the quick run needs).
PIECES: dict[str, tuple[Callable[[int], bytes], int]] = {
    "PNG, unknown chunks": (lambda size: png_with(times(chunk(b"teSt"), size)), 300_000),
    "PNG, texts": (lambda size: png_with(times(chunk(b"tEXt"), size)), 300_000),
    "PNG, no pixels": (lambda size: png_with(times(chunk(b"IDAT"), size)), 300_000),
    "PNG, behind the pixels": (lambda size: behind_pixels(times(chunk(b"teSt"), size)), 300_000),
    "PNG, one chunk": (lambda size: png_with(chunk(b"eXIf", bytes(size))), 21_000_000),
    "JPEG, comments": (lambda size: behind_soi(times(segment(0xFE, b""), size)), 100_000),
    "JPEG, EXIF": (lambda size: behind_soi(times(segment(0xE1, b"Exif\0\0" + bytes(65000)), size)), 22_000_000),
    "JPEG, filling": (lambda size: behind_soi(times(b"\xff", size)), 100_000),
    "GIF, a comment": (lambda size: gif(front=comment(b"x" * 255, size)), 3_000_000),
    "GIF, a comment of letters": (lambda size: gif(front=comment(b"x", size)), 50_000),
    "WebP, chunks": (lambda size: riff(b"abcd", size), 900_000),
    "TIFF, values": (lambda size: tiff_of_values(size, "<", big=False), 4_300_000),
    "TIFF, of the other byte order": (lambda size: tiff_of_values(size, ">", big=False), 4_300_000),
    "TIFF, for large files": (lambda size: tiff_of_values(size, "<", big=True), 4_300_000),
}  # fmt: skip
# The same, where Pillow need not look: the picture is used.
BEHIND = {
    "JPEG": (lambda size: encoded(flat(), "JPEG") + times(segment(0xFE, b""), size), ()),
    "GIF, a comment": (lambda size: gif(behind=comment(b"x" * 255, size), colour=BLUE), ("first-frame",)),
    "GIF, a comment of letters": (lambda size: gif(behind=comment(b"x", size)), ()),
}


@pytest.mark.parametrize("name", PIECES)
def test_a_picture_of_too_many_pieces_is_refused(name: str) -> None:
    make, size = PIECES[name]
    with pytest.raises(BadImage, match=r"^too-large: .* than a picture has$"):
        decode(make(size))
    assert decode(make(1000)).image.size == (32, 16)  # so it is their number that is refused


@pytest.mark.parametrize("name", BEHIND)
def test_what_hangs_on_behind_a_picture_does_not_keep_it_from_being_used(name: str) -> None:
    make, notes = BEHIND[name]
    assert decode(make(500_000)).notes == decode(make(1000)).notes == notes


@pytest.mark.faults
@pytest.mark.parametrize("name", [*PIECES, *(f"{name}, behind" for name in BEHIND)])
def test_no_picture_of_pieces_takes_long_or_much_memory(name: str, tmp_path: Path) -> None:
    """Most took from ten seconds to hours, the TIFF 20 times its size in memory."""
    make = PIECES[name][0] if name in PIECES else BEHIND[name.removesuffix(", behind")][0]
    (tmp_path / "pieces").write_bytes(make(MEGABYTES * 10**6))
    came = decoding.elsewhere([tmp_path / "pieces"], room=ROOM)["pieces"]
    assert "out of memory" not in came and came[0] in ("too-large", "corrupt", "JPEG", "GIF"), came


def test_pictures_of_many_honest_pieces_are_used() -> None:
    """Small chunks of pixels, a picture of thousands of blocks, an ICC profile in 255 parts, a long text."""
    large = noisy(1200)
    assert decode(recut(encoded(large, "PNG"), 1024)).image.tobytes() == decode(encoded(large, "PNG")).image.tobytes()
    several = encoded(large.quantize(), "GIF", save_all=True, append_images=[flat(RED, size=large.size)])
    assert decode(several).notes == ("first-frame",)
    profile = b"".join(segment(0xE2, b"ICC_PROFILE\0" + bytes([part, 255]) + bytes(65000)) for part in range(1, 256))
    assert decode(behind_soi(profile)).image.size == (32, 16)
    assert decode(png_with(chunk(b"tEXt", b"Comment\0" + b"x" * 10**6))).image.size == (32, 16)
    buffer = io.BytesIO()
    Image.new("L", (64, 18_000)).save(buffer, "TIFF", tiffinfo={278: 1})  # a strip for each row
    assert decode(buffer.getvalue()).image.size == (64, 18_000)


def recut(png: bytes, length: int) -> bytes:
    """The same PNG, its pixels in chunks of this length."""
    start, pixels = png.index(b"IDAT") - 4, b""
    at = start
    while png[at + 4 : at + 8] == b"IDAT":
        size = int.from_bytes(png[at : at + 4], "big")
        pixels += png[at + 8 : at + 8 + size]
        at += 12 + size
    cut = b"".join(chunk(b"IDAT", pixels[first : first + length]) for first in range(0, len(pixels), length))
    return png[:start] + cut + png[at:]
