"""Bad and odd pictures made on the spot, a table for each number: name of the file -> what it holds, what comes of it.

The names lie where names on the web do. `PICTURES` has them all; `CORPUS_FILES` of tests/test_images.py are the
collected ones that lie beside the clone now and then.
"""

import functools
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image, PngImagePlugin

from tests.test_images import BLUE, HEIC, ODD, RED, UNDO, encoded, flat, noisy, png_header, scene


class Made(NamedTuple):
    """A file. `reasons`: with one of which it is refused; without any it is used, with `notes` and, where it has but one,
    the `colour` of its pixels."""

    make: Callable[[], bytes]
    reasons: tuple[str, ...] = ()
    colour: tuple[int, int, int] | None = None
    notes: tuple[str, ...] = ()


# --- building blocks


def chunk(kind: bytes, data: bytes = b"", length: int | None = None) -> bytes:
    """A chunk of a PNG; `length` is what it says of itself."""
    size = len(data) if length is None else length
    return struct.pack(">I", size) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def endless_chunk(kind: bytes) -> bytes:
    """A PNG of 57 bytes with a chunk that says to be as long as can be."""
    return png_header(1, 1)[:33] + chunk(kind, length=2**31 - 1) + chunk(b"IEND")


@functools.cache
def inflating() -> bytes:
    """50 kB that are 50 MB."""
    return zlib.compress(bytes(50 * 2**20), 9)


def png_with(extra: bytes) -> bytes:
    """A small PNG with something between its header and its pixels."""
    whole = encoded(flat(), "PNG")
    return whole[:33] + extra + whole[33:]


def segment(marker: int, data: bytes) -> bytes:
    """A segment of a JPEG."""
    return bytes([0xFF, marker]) + struct.pack(">H", len(data) + 2) + data


def jpeg_of_scans(side: int, scans: int) -> bytes:
    """A square JPEG, arithmetic-coded: each scan says next to nothing, and all pixels are gone through for it."""
    planes = [bytes([number, 0]) for number in (1, 2, 3)]
    size = struct.pack(">BHHB", 8, side, side, 3) + b"".join(bytes([number, 0x11, 0]) for number in (1, 2, 3))
    head = b"\xff\xd8" + segment(0xDB, b"\0" + b"\1" * 64) + segment(0xC9, size)
    all_planes = segment(0xDA, b"\3" + b"".join(planes) + b"\0\x3f\0") + b"\0"
    return head + segment(0xDA, b"\1" + planes[0] + b"\0\x3f\0") + b"\0" + all_planes * (scans - 1) + b"\xff\xd9"


def run_length_bmp(width: int, height: int) -> bytes:
    """An 8-bit BMP with one pixel in each row and an end of the row: Pillow fills the others one by one."""
    rows = b"\1\1\0\0" * height
    sizes = (40, width, height, 1, 8, 1, len(rows), 0, 0, 256, 0)
    head = struct.pack("<IHHI", 1078 + len(rows), 0, 0, 1078) + struct.pack("<IiiHHIIiiII", *sizes)
    return b"BM" + head + bytes(1024) + rows


def gif_of(width: int, height: int) -> bytes:
    """A GIF of one pixel on a page of any size."""
    return b"GIF89a" + struct.pack("<HH", width, height) + encoded(Image.new("P", (1, 1)), "GIF")[10:]


def flat_png(width: int, height: int) -> bytes:
    """A valid 1-bit PNG of many pixels and few bytes."""
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0))
    pixels = zlib.compress(bytes((1 + (width + 7) // 8) * height), 9)
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", pixels) + chunk(b"IEND")


def webp_of(width: int, height: int) -> bytes:
    """A lossless WebP that promises many pixels and has none."""
    body = b"\x2f" + struct.pack("<I", (width - 1) | (height - 1) << 14) + bytes(16)
    return b"RIFF" + struct.pack("<I", len(body) + 13) + b"WEBPVP8L" + struct.pack("<I", len(body)) + body + b"\0"


def xmp_png(image: Image.Image, orientation: int) -> bytes:
    """A PNG whose orientation stands in its XMP only."""
    info = PngImagePlugin.PngInfo()
    info.add_itxt("XML:com.adobe.xmp", f'<rdf:Description xmlns:tiff="t" tiff:Orientation="{orientation}"/>')
    return encoded(image, "PNG", pnginfo=info)


def held(kind: str, orientation: int) -> bytes:
    """The scene as a camera that was turned wrote it."""
    turn = UNDO[orientation]
    image = scene() if turn is None else scene().transpose(turn)
    if kind == "PNG":
        return xmp_png(image, orientation)
    tag = Image.Exif()
    tag[0x112] = orientation
    options: dict[str, object] = {"JPEG": {"quality": 95, "subsampling": 0}, "WEBP": {"lossless": True}}.get(kind, {})
    return encoded(image, kind, exif=tag, **options)


def ycck_jpeg() -> bytes:
    """Red, in the colours of a Photoshop file: a CMYK JPEG told to be YCCK, of values that are red when read so."""
    data = encoded(flat((76, 84, 254, 0), "CMYK"), "JPEG", quality=100, subsampling=0)
    at = data.index(b"Adobe") + 11
    return data[:at] + b"\2" + data[at + 1 :]


def several(kind: str, **options: object) -> bytes:
    return encoded(flat(RED), kind, save_all=True, append_images=[flat(BLUE), flat((0, 0, 0))], **options)


def cut(kind: str, percent: int) -> bytes:
    whole = encoded(noisy(), kind)
    return whole[: len(whole) * percent // 100]


def photo(width: int, height: int) -> bytes:
    return encoded(flat(size=(width, height)), "JPEG")


# --- the tables, by number

ENDING = {"JPEG": "jpg", "PNG": "png", "WEBP": "webp", "TIFF": "tif"}
BOMB = ("too-large", "corrupt", "truncated")
HUGE_CHUNKS = [b"bKGD", b"cHRM", b"eXIf", b"gAMA", b"hIST", b"iCCP", b"iTXt", b"juNk", b"pCAL", b"sPLT", b"tEXt", b"zTXt"]
TESTED = {
    f"{name.replace(' ', '-').replace(',', '')}.png": Made(lambda d=data: d, colour=c) for name, (data, c) in ODD.items()
}

EMPTY = {"empty.jpg": Made(bytes, ("empty",))}
CUT = {
    f"cut-at-{percent}.{ENDING[kind]}": Made(functools.partial(cut, kind, percent), ("truncated", "corrupt"))
    for kind in ("JPEG", "PNG", "WEBP", "TIFF")
    for percent in (25, 50, 75, 99)
}
MISNAMED = {
    "webp.jpg": Made(lambda: encoded(flat(), "WEBP", lossless=True), colour=RED),
    "png.JPEG": Made(lambda: encoded(flat(), "PNG"), colour=RED),
    "jpeg-without-extension": Made(lambda: encoded(flat(), "JPEG"), colour=RED),
    "page.jpg": Made(lambda: b"<!DOCTYPE html><title>404</title><img src=x>", ("not-an-image",)),
}
HELD = {
    f"held-{orientation}.{ENDING[kind]}": Made(functools.partial(held, kind, orientation))
    for kind in ENDING
    for orientation in UNDO
} | {"broken-exif.jpg": Made(lambda: encoded(scene(), "JPEG", exif=b"Exif\0\0nonsense"), notes=("broken-exif",))}
ODD_PIXELS = TESTED | {
    "YCCK.jpg": Made(ycck_jpeg, colour=(255, 0, 0)),
    "I.tif": Made(lambda: encoded(Image.fromarray(np.full((16, 32), 40000, np.int32)), "TIFF"), colour=(156, 156, 156)),
    "F-to-255.tif": Made(lambda: encoded(Image.fromarray(np.full((16, 32), 77, np.float32)), "TIFF"), colour=(77, 77, 77)),
    "LA.webp": Made(lambda: encoded(flat((0, 128), "LA").convert("RGBA"), "WEBP", lossless=True), colour=(127, 127, 127)),
}
SEVERAL = {
    "animated.gif": Made(lambda: several("GIF"), colour=RED, notes=("first-frame",)),
    "animated.png": Made(lambda: several("PNG"), colour=RED, notes=("first-frame",)),
    "animated.webp": Made(lambda: several("WEBP", lossless=True), colour=RED, notes=("first-frame",)),
    "pages.tif": Made(lambda: several("TIFF"), colour=RED, notes=("first-frame",)),
    "several.mpo": Made(lambda: several("MPO"), colour=RED, notes=("first-frame",)),
}
BOMBS = {
    "page-of-68-megapixels.gif": Made(lambda: gif_of(8289, 8192), ("too-large",)),
    "169-megapixels.png": Made(lambda: flat_png(13000, 13000), ("too-large",)),
    "promises.png": Made(lambda: png_header(20000, 20000), ("too-large",)),
    "promises-less.png": Made(lambda: png_header(8000, 8000), BOMB),
    "promises.webp": Made(lambda: webp_of(16383, 16383), BOMB),
    "iCCP.png": Made(lambda: png_with(chunk(b"iCCP", b"x\0\0" + inflating())), BOMB),
    "zTXt.png": Made(lambda: png_with(chunk(b"zTXt", b"x\0\0" + inflating())), BOMB),
    "iTXt.png": Made(lambda: png_with(chunk(b"iTXt", b"x\0\1\0\0\0" + inflating())), BOMB),
    "scans.jpg": Made(lambda: jpeg_of_scans(8000, 200), ("too-large",)),
    "run-length.bmp": Made(lambda: run_length_bmp(64_000_000, 1), ("too-large",)),
} | {f"chunk-{kind.decode()}.png": Made(functools.partial(endless_chunk, kind), BOMB) for kind in HUGE_CHUNKS}
FOREIGN = {  # number 8: the name that the refusal gives -> the file
    "EPS": Made(lambda: encoded(flat(), "EPS"), ("unsupported-format",)),
    "PSD": Made(lambda: b"8BPS\0\1" + bytes(64), ("unsupported-format",)),
    "FITS": Made(lambda: b"SIMPLE  =                    T".ljust(2880), ("unsupported-format",)),
    "SVG": Made(
        lambda: b'<svg xmlns="http://www.w3.org/2000/svg"><image href="http://127.0.0.1:9/x.png"/></svg>',
        ("unsupported-format",),
    ),
    "PDF": Made(lambda: encoded(flat(), "PDF"), ("unsupported-format",)),
    "HEIC": Made(lambda: HEIC, ("unsupported-format",)),
}
PHOTOS = {
    "20-megapixels.jpg": Made(lambda: photo(5472, 3648), colour=RED),
    "60-megapixels.jpg": Made(lambda: photo(9504, 6336), colour=RED),
    "of-many-colours.jpg": Made(lambda: encoded(noisy(700), "JPEG")),
}
NUMBERS = {
    1: EMPTY,
    2: CUT,
    3: MISNAMED,
    4: HELD,
    5: ODD_PIXELS,
    6: SEVERAL,
    7: BOMBS,
    8: {f"{name}.png": made for name, made in FOREIGN.items()},
    10: PHOTOS,
}
PICTURES = {f"{number}-{name}": made for number, table in NUMBERS.items() for name, made in table.items()}


@functools.cache
def content(name: str) -> bytes:
    """The bytes of one of PICTURES, made once."""
    return PICTURES[name].make()


def write_all(folder: Path) -> list[Path]:
    """Write all of PICTURES."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in PICTURES:
        (folder / name).write_bytes(content(name))
    return sorted(folder.iterdir())
