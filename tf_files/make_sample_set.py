"""Make the sample picture set in tf_files/data/ and test_data/.

The pictures come from the Debian package openclipart-png (Open Clip Art
Library, public domain).  To get it:

    apt install openclipart-png

which puts the PNG files under /usr/share/openclipart/png, the default source
here.  To use it without installing it, unpack it instead and name the png
folder inside:

    apt download openclipart-png
    dpkg-deb -x openclipart-png_*.deb clipart
    python tf_files/make_sample_set.py clipart/usr/share/openclipart/png

Which pictures are taken is written down in sample_set.csv beside this script,
one a line: its class, the part it belongs to (data or test_data), its path
under the source folder, and the name it gets (.jpg is added).

Each picture is laid on white where it is transparent, made smaller if its
longer side is above 320 pixels (never larger), and saved as an RGB JPEG.  The
same version of Pillow gives the same bytes each time.  The script only writes
the files on the list and deletes nothing.
"""

from __future__ import annotations

import argparse
import csv
import sys
from pathlib import Path

from PIL import Image

HERE = Path(__file__).resolve().parent
CHOICE = HERE / "sample_set.csv"
DEFAULT_SOURCE = Path("/usr/share/openclipart/png")
LONGER_SIDE = 320
QUALITY = 85


def read_choice(path: Path) -> list[dict[str, str]]:
    """Return the lines of the list: class, part, source and name of each picture."""
    with path.open(newline="", encoding="utf-8") as lines:
        return list(csv.DictReader(lines))


def target_path(out: Path, line: dict[str, str]) -> Path:
    """Return where the picture of one line goes, under the folder out."""
    file_name = line["name"] + ".jpg"
    if line["part"] == "data":
        return out / "tf_files" / "data" / line["class"] / file_name
    if line["part"] == "test_data":
        return out / "test_data" / file_name
    raise ValueError(f"unknown part {line['part']!r} in {CHOICE.name}")


def load_on_white(path: Path) -> Image.Image:
    """Open a picture and return it as RGB, with white where it is transparent."""
    with Image.open(path) as opened:
        picture = opened.convert("RGBA")
    white = Image.new("RGBA", picture.size, "white")
    return Image.alpha_composite(white, picture).convert("RGB")


def write_picture(source: Path, target: Path) -> int:
    """Convert one picture and return the size in bytes of the JPEG written."""
    picture = load_on_white(source)
    picture.thumbnail((LONGER_SIDE, LONGER_SIDE), Image.Resampling.LANCZOS)
    target.parent.mkdir(parents=True, exist_ok=True)
    picture.save(target, "JPEG", quality=QUALITY, optimize=True)
    return target.stat().st_size


def main(arguments: list[str] | None = None) -> int:
    """Write every picture on the list; return 0, or 1 if a source file is missing."""
    parser = argparse.ArgumentParser(description="Make the sample picture set from the Debian package openclipart-png.")
    parser.add_argument(
        "source",
        nargs="?",
        type=Path,
        default=DEFAULT_SOURCE,
        help="the png folder of openclipart-png (default: %(default)s)",
    )
    parser.add_argument(
        "--out",
        type=Path,
        default=HERE.parent,
        help="folder to write tf_files/data/ and test_data/ into (default: the repository)",
    )
    options = parser.parse_args(arguments)

    lines = read_choice(CHOICE)
    missing = [line["source"] for line in lines if not (options.source / line["source"]).is_file()]
    if missing:
        print(
            f"{len(missing)} of {len(lines)} pictures are not in {options.source}"
            f" (first: {missing[0]}). Is openclipart-png installed?",
            file=sys.stderr,
        )
        return 1

    total = sum(write_picture(options.source / line["source"], target_path(options.out, line)) for line in lines)
    print(f"{len(lines)} pictures, {total} bytes, written under {options.out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
