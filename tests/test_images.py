"""One picture file in, upright 8-bit RGB out, or a reason; and which files a folder holds."""

import io
import os
import socket
import struct
import subprocess
import sys
import tracemalloc
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from retrain.errors import REASONS, BadImage
from retrain.images import FORMATS, MAX_BYTES, decode, find, read_bytes
from retrain.images.decode import _to_8_bit
from retrain.storage import own_folder
from tests.drawing import draw
from tests.privileges import where_permissions_count

CORPUS = Path(__file__).parents[1].parent / "shared" / "bad-images"
CORPUS_FILES = sorted(path for path in CORPUS.glob("*") if path.suffix != ".tsv")
RED, BLUE = (200, 50, 40), (40, 60, 200)
UNDO = {  # EXIF orientation -> what a camera held that way does to the scene
    1: None,
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}


def encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def flat(colour: object = RED, mode: str = "RGB", size: tuple[int, int] = (32, 16)) -> Image.Image:
    return Image.new(mode, size, colour)


def noisy(side: int = 64) -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 255, (side, side, 3), dtype=np.uint8))


def scene() -> Image.Image:
    """No two of its eight orientations look alike."""
    image = flat((240, 240, 240), size=(64, 48))
    image.paste(RED, (0, 0, 32, 16))
    image.paste(BLUE, (48, 32, 64, 48))
    return image


def exif(*entries: tuple[int, int, int, bytes]) -> bytes:
    """An EXIF block from (tag, type, count, value) entries."""
    body = b"".join(struct.pack("<HHI", *entry[:3]) + entry[3] for entry in entries)
    return b"Exif\0\0II*\0" + struct.pack("<IH", 8, len(entries)) + body + b"\0\0\0\0"


def png_header(width: int, height: int) -> bytes:
    """A PNG that promises many pixels and has none."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


def refusal(data: bytes) -> BadImage:
    with pytest.raises(BadImage) as caught:
        decode(data)
    assert caught.value.reason in REASONS
    return caught.value


def found(root: Path, **options: object) -> dict[str, str | None]:
    """Relative path -> reason, None for files that can be tried, in the order in which they are found."""
    return {os.path.relpath(item.path, root): item.problem and item.problem.reason for item in find(root, **options)}


# --- pixels


@pytest.mark.parametrize("orientation", UNDO)
def test_every_exif_orientation_gives_the_same_upright_picture(orientation: int) -> None:
    held = scene() if UNDO[orientation] is None else scene().transpose(UNDO[orientation])
    tag = Image.Exif()
    tag[0x112] = orientation
    picture = decode(encoded(held, "JPEG", exif=tag, quality=95, subsampling=0))
    difference = np.asarray(picture.image).astype(int) - np.asarray(scene())
    assert np.abs(difference).mean() < 3
    assert picture.notes == (() if orientation == 1 else ("turned",))


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "TIFF", "AVIF"])
def test_the_orientation_counts_in_other_formats_too(kind: str) -> None:
    tag = Image.Exif()
    tag[0x112] = 6
    assert decode(encoded(flat(), kind, exif=tag)).image.size == (16, 32)


@pytest.mark.parametrize(("kind", "options"), [("PNG", {}), ("WEBP", {}), ("JPEG", {"dpi": (72, 72)}), ("JPEG", {})])
def test_a_picture_with_broken_exif_is_used_and_the_note_says_so(kind: str, options: dict) -> None:
    picture = decode(encoded(flat(), kind, exif=b"Exif\0\0nothing of the kind", **options))
    assert picture.image.size == (32, 16) and np.allclose(picture.image.getpixel((9, 9)), RED, atol=4)
    assert picture.notes == ("broken-exif",)


def test_a_good_orientation_counts_though_another_exif_tag_is_broken() -> None:
    words_as_resolution = exif((0x112, 3, 1, b"\6\0\0\0"), (0x11A, 2, 4, b"abc\0"))
    assert decode(encoded(flat(), "JPEG", exif=words_as_resolution)).image.size == (16, 32)


GREY_16 = Image.fromarray(np.full((16, 32), 40000, np.uint16))
FLOAT = Image.fromarray(np.full((16, 32), 0.5, np.float32))
PALETTE = Image.new("P", (32, 16), 0)
PALETTE.putpalette([*RED, *BLUE])
ODD = {  # name -> (bytes, the colour that comes out)
    "16-bit grey": (encoded(GREY_16, "PNG"), (156, 156, 156)),
    "16-bit grey TIFF": (encoded(GREY_16, "TIFF"), (156, 156, 156)),
    "16-bit grey, transparent": (encoded(GREY_16, "PNG", transparency=40000), (255, 255, 255)),
    "float": (encoded(FLOAT, "TIFF"), (128, 128, 128)),
    "8-bit grey": (encoded(flat(77, "L"), "JPEG"), (77, 77, 77)),
    "8-bit grey, transparent": (encoded(flat(77, "L"), "PNG", transparency=77), (255, 255, 255)),
    "1-bit white": (encoded(flat(1, "1"), "PNG"), (255, 255, 255)),
    "1-bit black": (encoded(flat(0, "1"), "BMP"), (0, 0, 0)),
    "palette": (encoded(PALETTE, "PNG"), RED),
    "palette BMP": (encoded(PALETTE, "BMP"), RED),
    "palette, transparent": (encoded(PALETTE, "PNG", transparency=0), (255, 255, 255)),
    "palette, half transparent": (encoded(PALETTE, "PNG", transparency=b"\x80\xff"), (227, 152, 147)),
    "grey, half transparent": (encoded(flat((0, 128), "LA"), "PNG"), (127, 127, 127)),
    "red, wholly transparent": (encoded(flat((255, 0, 0, 0), "RGBA"), "PNG"), (255, 255, 255)),
    "red, half transparent": (encoded(flat((255, 0, 0, 128), "RGBA"), "PNG"), (255, 127, 127)),
    "red, transparent WebP": (encoded(flat((255, 0, 0, 0), "RGBA"), "WEBP"), (255, 255, 255)),
    "a transparent colour": (encoded(flat(RED), "PNG", transparency=RED), (255, 255, 255)),
    "CMYK JPEG": (encoded(flat((0, 255, 255, 0), "CMYK"), "JPEG"), (255, 0, 0)),
    "CMYK TIFF": (encoded(flat((0, 255, 255, 0), "CMYK"), "TIFF"), (255, 0, 0)),
}


@pytest.mark.parametrize("name", ODD)
def test_odd_kinds_of_pixels_come_out_as_the_rules_say(name: str) -> None:
    data, colour = ODD[name]
    image = decode(data).image
    assert image.mode == "RGB" and image.size == (32, 16)
    assert np.abs(np.asarray(image).astype(int) - colour).max() <= 1


def test_16_bits_are_scaled_to_8_over_the_whole_range() -> None:
    every = np.arange(256, dtype=np.uint16)[np.newaxis]
    grey = decode(encoded(Image.fromarray(every * 257), "PNG")).image.getchannel("G")
    assert np.array_equal(np.asarray(grey), every)


DEEP: dict[str, tuple[str, float, list[float]]] = {  # name -> (type, what is white, values, the last at the very end)
    "16 bits": ("uint16", 65535, [0, 40000, 40001, 65534, 65535]),
    "16 bits, dark": ("uint16", 65535, [0, 1, 128, 129]),
    "32 bits, as 16": ("int32", 65535, [-5, 0, 40000, 65535]),
    "32 bits": ("int32", 2**31 - 1, [-5, 0, 65536, 2**30, 2**31 - 1]),
    "floats to 1": ("float32", 1, [-1, 0, 0.25, 0.5, np.nan, np.inf, 1]),
    "floats to 255": ("float32", 255, [-1, 0, 0.25, 0.5, np.nan, -np.inf, 1, 200]),
}


@pytest.mark.parametrize("height", [1, 63, 64, 65, 200])  # 64 rows are scaled at a time
@pytest.mark.parametrize("name", DEEP)
def test_deep_pictures_of_any_height_are_scaled_by_one_rule_for_all_rows(name: str, height: int) -> None:
    kind, white, values = DEEP[name]
    pixels = np.random.default_rng(height).choice(np.array(values[:-1], kind), (height, 21))
    pixels[-1, -1] = values[-1]
    exact = np.where(np.isfinite(pixels), pixels, 0).astype(np.float64)
    expected = np.clip(np.rint(exact * (255 / white)), 0, 255).astype(np.uint8)
    assert np.array_equal(_to_8_bit(Image.fromarray(pixels)), expected)


@pytest.mark.parametrize("height", [1, 63, 64, 65, 200])
def test_the_value_that_is_transparent_is_white_in_all_rows(height: int) -> None:
    pixels = np.random.default_rng(height).choice(np.array([0, 39999, 40000, 40001], np.uint16), (height, 21))
    grey = np.asarray(decode(encoded(Image.fromarray(pixels), "PNG", transparency=40000)).image.getchannel("G"))
    assert np.array_equal(grey == 255, pixels == 40000) and set(np.unique(grey[pixels != 40000])) == {0, 156}


@pytest.mark.parametrize("kind", FORMATS)
def test_every_format_on_the_list_decodes(kind: str) -> None:
    picture = decode(encoded(flat(), kind))
    assert np.allclose(picture.image.getpixel((5, 5)), RED, atol=5)
    assert (picture.format, picture.extension, picture.notes) == (kind, FORMATS[kind][0], ())


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG", "TIFF"])
def test_of_an_animation_or_several_pages_the_first_is_taken(kind: str) -> None:
    picture = decode(encoded(flat(RED), kind, save_all=True, append_images=[flat(BLUE), flat((0, 0, 0))]))
    assert np.allclose(picture.image.getpixel((5, 5)), RED, atol=5)
    assert picture.notes == ("first-frame",)


@pytest.mark.parametrize(("name", "kind"), [("a.jpg", "WEBP"), ("b.JPEG", "PNG"), ("c", "JPEG"), ("d.txt", "GIF")])
def test_the_content_decides_whatever_the_name_says(tmp_path: Path, name: str, kind: str) -> None:
    (tmp_path / name).write_bytes(encoded(flat(), kind))
    assert decode(read_bytes(tmp_path / name)).format == kind


def test_a_large_jpeg_is_decoded_smaller_but_not_below_what_is_asked_for() -> None:
    data = encoded(flat(size=(1600, 1200)), "JPEG")
    width, height = decode(data, at_least=290).image.size
    assert 290 <= height < 1200 and 290 <= width < 1600 and abs(width / height - 4 / 3) < 0.02
    assert decode(data).image.size == decode(data, at_least=1300).image.size == (1600, 1200)


def test_same_bytes_give_same_pixels() -> None:
    data = encoded(noisy(600), "JPEG")
    assert decode(data, at_least=100).image.tobytes() == decode(data, at_least=100).image.tobytes()


# --- reasons


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize("percent", [25, 50, 75, 99])
def test_a_file_that_was_cut_off_is_refused(kind: str, percent: int) -> None:
    whole = encoded(noisy(), kind)
    assert refusal(whole[: len(whole) * percent // 100]).reason in {"truncated", *(["corrupt"] if kind == "WEBP" else [])}


HEIC = b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(64)
UNSUPPORTED = {
    "SVG": b'<?xml version="1.0"?>\n<svg xmlns="http://www.w3.org/2000/svg"/>',
    "PDF": encoded(flat(), "PDF"),
    "PSD": b"8BPS\0\1" + bytes(64),
    "EPS": encoded(flat(), "EPS"),
    "HEIC": HEIC,
    "ICO": encoded(flat(), "ICO"),
    "JPEG 2000": encoded(flat(), "JPEG2000"),
    "JPEG XL": b"\xff\x0a" + bytes(64),
    "FITS": b"SIMPLE  =                    T",
    "ZIP": b"PK\3\4" + bytes(64),
}


@pytest.mark.parametrize("name", UNSUPPORTED)
def test_a_format_that_is_not_read_is_called_by_its_name(name: str) -> None:
    problem = refusal(UNSUPPORTED[name])
    assert problem.reason == "unsupported-format" and problem.detail.startswith(name)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "empty"),
        (b"<!DOCTYPE html><title>404</title>", "not-an-image"),
        (b"\xef\xbb\xbf\n <html lang=en><body><svg></svg> not found", "not-an-image"),
        (b"just words", "not-an-image"),
        (bytes(1000), "not-an-image"),
        (b"RIFF\x10\0\0\0WAVEfmt ", "not-an-image"),
        (b"\xff\xd8\xff" + bytes(500), "corrupt"),
        (encoded(noisy(), "PNG")[:33] + bytes(9000), "corrupt"),
        (b"GIF89a" + bytes(300), "corrupt"),
        (b"GIF89a\5\0\5\0\x80\0\0\0\0\0\xff\xff\xff," + bytes(9) + b"\2\2\x44\1\0;", "corrupt"),  # a frame of no pixels
    ],
)
def test_what_is_no_picture_is_refused_with_the_reason(data: bytes, reason: str) -> None:
    assert refusal(data).reason == reason


@pytest.mark.parametrize(
    ("side", "reason"), [(8000, {"truncated", "corrupt"}), (8001, {"too-large"}), (20000, {"too-large"})]
)
def test_the_limit_on_pixels_is_64_million(side: int, reason: set[str]) -> None:
    assert refusal(png_header(side, 8000 if side < 10000 else side)).reason in reason


def decoded_elsewhere(path: Path) -> tuple[str, int]:
    """Decode a file in a process of its own; return what came of it and by how many MB the process grew."""
    script = (
        "import resource, sys; from retrain.errors import BadImage; from retrain.images import decode, read_bytes\n"
        "def peak(): return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024\n"
        "decode(read_bytes(sys.argv[2])); before = peak()\n"
        "try: outcome = decode(read_bytes(sys.argv[1])).format\n"
        "except BadImage as problem: outcome = problem.reason\n"
        "print(outcome, peak() - before)"
    )
    small = path.with_name("small.png")
    small.write_bytes(encoded(GREY_16, "PNG"))
    line = [sys.executable, "-c", script, str(path), str(small)]
    outcome, grown = subprocess.run(line, capture_output=True, text=True, check=True, timeout=60).stdout.split()
    return outcome, int(grown)


def test_a_small_file_that_promises_many_pixels_takes_no_memory(tmp_path: Path) -> None:
    (tmp_path / "bomb.png").write_bytes(png_header(20000, 20000))
    outcome, grown = decoded_elsewhere(tmp_path / "bomb.png")
    assert outcome == "too-large" and grown < 50


def test_16_bit_pictures_take_no_more_than_a_few_times_the_memory_of_their_pixels(tmp_path: Path) -> None:
    (tmp_path / "deep.png").write_bytes(encoded(Image.fromarray(np.zeros((4000, 4000), np.uint16)), "PNG"))
    outcome, grown = decoded_elsewhere(tmp_path / "deep.png")
    assert outcome == "PNG" and grown < 200  # 32 MB as they are stored, 48 MB as RGB


def test_16_bit_pictures_are_never_held_as_floats_as_a_whole() -> None:
    data = encoded(Image.fromarray(np.zeros((2000, 2000), np.uint16)), "PNG")
    decode(data)  # what is imported on the way does not count
    tracemalloc.start()  # sees what numpy takes, not the pixels that Pillow itself holds
    try:
        decode(data)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 8 * 2000 * 2000  # a float64 of each pixel alone


@pytest.mark.parametrize("compression", ["tiff_lzw", "tiff_adobe_deflate", "jpeg"])
def test_a_damaged_tiff_is_refused_without_a_word_from_its_library(
    compression: str, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("RETRAIN_DEBUG", raising=False)  # would let it through
    whole = encoded(noisy(), "TIFF", compression=compression)
    damaged = whole[:8] + bytes(400) + whole[408:]  # the pixels begin behind the eight bytes of the header
    with pytest.raises(OSError, match="decoder error"):
        Image.open(io.BytesIO(damaged)).load()
    assert capfd.readouterr().err  # from C: Python never sees it
    assert refusal(damaged).reason in {"corrupt", "truncated"}
    assert capfd.readouterr() == ("", "")
    os.write(2, b"heard again")
    assert capfd.readouterr().err == "heard again"


@pytest.mark.skipif(not CORPUS_FILES, reason="the collection of damaged pictures is not there")
@pytest.mark.parametrize("path", CORPUS_FILES, ids=lambda path: path.name)
def test_a_damaged_picture_decodes_or_is_refused_and_always_the_same(path: Path) -> None:
    def outcome() -> object:
        try:
            picture = decode(read_bytes(path), at_least=448)
        except BadImage as problem:
            assert problem.reason in REASONS and "0x" not in problem.detail
            return problem.reason, problem.detail
        assert picture.image.mode == "RGB" and min(picture.image.size) >= 1
        return picture.image.size, picture.image.tobytes(), picture.notes

    assert outcome() == outcome()


# --- files


def test_reading_gives_the_bytes_or_the_reason(tmp_path: Path) -> None:
    (tmp_path / "good").write_bytes(b"bytes")
    (tmp_path / "empty").touch()
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")  # opening it to read would wait for a writer
    (tmp_path / "device").symlink_to("/dev/zero")
    (tmp_path / "loop").symlink_to("loop")
    with open(tmp_path / "huge", "wb") as file:
        file.truncate(MAX_BYTES + 1)
    expected = {"empty": "empty", "folder": "not-a-file", "pipe": "not-a-file", "device": "not-a-file", "huge": "too-large"}
    expected |= {"absent": "missing", "good/below": "missing", "nul\0": "missing"}
    expected |= {"loop": "unreadable", "n" * 300: "unreadable"}
    for name, reason in expected.items():
        with pytest.raises(BadImage, match=reason):
            read_bytes(tmp_path / name)
    assert read_bytes(tmp_path / "good") == b"bytes"


@where_permissions_count
def test_files_and_folders_without_permission_are_named(tmp_path: Path) -> None:
    draw(tmp_path / "open.png", RED, 1)
    draw(tmp_path / "closed.png", RED, 2).chmod(0)
    draw(tmp_path / "locked" / "x.png", RED, 3).parent.chmod(0)
    try:
        assert found(tmp_path) == {"closed.png": None, "locked": "unreadable", "open.png": None}
        with pytest.raises(BadImage, match="unreadable"):
            read_bytes(tmp_path / "closed.png")
    finally:
        (tmp_path / "locked").chmod(0o700)


def test_files_come_sorted_by_the_bytes_of_their_names_folder_by_folder(tmp_path: Path) -> None:
    for name in ("z.png", "a/2.png", "a/10.png", "B.png", "é.png", "a.png"):
        draw(tmp_path / name, RED, 1)
    assert list(found(tmp_path)) == ["B.png", "a/10.png", "a/2.png", "a.png", "z.png", "é.png"]


def test_what_file_managers_leave_behind_is_no_input(tmp_path: Path) -> None:
    for name in (".hidden/x.png", ".y.png", "sub/x.png"):
        draw(tmp_path / name, RED, 1)
    for name in (".DS_Store", "Thumbs.db", "THUMBS.DB", "Desktop.ini", "sub/desktop.ini", "sub/.x.png.part"):
        (tmp_path / name).touch()
    assert found(tmp_path) == {"sub/x.png": None}


def test_what_retrain_itself_wrote_is_no_input(tmp_path: Path) -> None:
    for name in ("model/x.png", "red/reports/x.png", "red/a.png"):
        draw(tmp_path / name, RED, 1)
    for name in ("model", "red/reports"):
        (tmp_path / name / "x.png").rename(tmp_path / "x.png")
        own_folder(tmp_path / name)
        (tmp_path / "x.png").rename(tmp_path / name / "x.png")
    assert found(tmp_path) == {"red/a.png": None}


def test_links_are_followed_unless_they_lead_back_or_nowhere(tmp_path: Path) -> None:
    root, outside = tmp_path / "root", tmp_path / "outside"
    draw(root / "in" / "a.png", RED, 1)
    draw(outside / "b.png", RED, 2)
    links = {"also": "in", "back": "..", "here": ".", "lost": "nowhere", "one.png": "in/a.png", "out": "../outside"}
    for name, target in {**links, "out2": "../outside", "ring": "ring"}.items():
        (root / name).symlink_to(target)
    assert found(root) == {
        "also": "link-loop",
        "back": "link-loop",
        "here": "link-loop",
        "in/a.png": None,
        "lost": "missing",
        "one.png": None,
        "out/b.png": None,
        "out2": "link-loop",
        "ring": "link-loop",
    }


def test_a_link_to_another_piece_of_a_larger_folder_is_not_followed(tmp_path: Path) -> None:
    draw(tmp_path / "red" / "a.png", RED, 1)
    draw(tmp_path / "blue" / "b.png", BLUE, 2)
    (tmp_path / "red" / "more").symlink_to("../blue")
    assert found(tmp_path / "red") == {"a.png": None, "more/b.png": None}
    assert found(tmp_path / "red", within=tmp_path) == {"a.png": None, "more": "link-loop"}


def test_pipes_and_sockets_are_named_and_hard_links_are_inputs_each(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    draw(tmp_path / "a.png", RED, 1)
    os.link(tmp_path / "a.png", tmp_path / "b.png")
    os.mkfifo(tmp_path / "c.png")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("d.png")  # the name of a socket may have no more than 107 bytes, its path included
        assert found(tmp_path) == {"a.png": None, "b.png": None, "c.png": "not-a-file", "d.png": "not-a-file"}


def test_names_that_are_no_text_lead_back_to_their_files(tmp_path: Path) -> None:
    names = [b"caf\xe9.png", b"new\nline.png", b"\x1b[31m.png", b"-rf.png", "猫.png".encode(), b"a" * 251 + b".png"]
    for number, name in enumerate(names):
        draw(tmp_path / "x.png", RED, number).rename(tmp_path / os.fsdecode(name))
    paths = [item.path for item in find(tmp_path)]
    assert [os.fsencode(path.name) for path in paths] == sorted(names)
    assert all(decode(read_bytes(path)).format == "PNG" for path in paths)


def test_folders_within_folders_are_read_however_deep_they_go(tmp_path: Path) -> None:
    deepest = tmp_path
    for _ in range(sys.getrecursionlimit() + 100):
        deepest = deepest / "a"
        deepest.mkdir()
    (deepest / "x.png").touch()
    try:
        assert [item.path.name for item in find(tmp_path)] == ["x.png"]
    finally:  # pytest itself could not clear this up
        (deepest / "x.png").unlink()
        while deepest != tmp_path:
            deepest.rmdir()
            deepest = deepest.parent
