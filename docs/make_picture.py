"""Draw docs/images/classified.png: what `retrain classify` made of the pictures in test_data/.

    make demo
    python docs/make_picture.py

Reads classified/manifest.jsonl and shows each picture of test_data/ under the name of its copy. Needs Pillow only.
"""

import json
import sys
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

REPOSITORY = Path(__file__).resolve().parent.parent
MANIFEST = REPOSITORY / "classified" / "manifest.jsonl"
PICTURE = REPOSITORY / "docs" / "images" / "classified.png"
COLUMNS = 4
SIDE, GAP, NAME_HEIGHT = 200, 20, 48
PAPER, INK, PALE_INK, FRAME = "#ffffff", "#1f2328", "#6e7781", "#d0d7de"
COLOURS = 200  # of the palette: drawings need few, and the file stays small


def copies(manifest: Path) -> list[tuple[Path, str]]:
    """Return (source, name of its copy) of each picture of test_data/, sorted by that name; none where it isn't there."""
    rows = [json.loads(line) for line in manifest.read_text().splitlines()] if manifest.is_file() else []
    return sorted(
        (
            (REPOSITORY / "test_data" / Path(row["source"]).name, Path(row["copy"]).name)
            for row in rows
            if row["copy"] and Path(row["source"]).parent.name == "test_data"
        ),
        key=lambda pair: pair[1],
    )


def sheet(pairs: list[tuple[Path, str]]) -> Image.Image:
    """Lay the pictures out in rows, each above the name of its copy and, in grey, its own."""
    rows = -(-len(pairs) // COLUMNS)
    width, height = SIDE + GAP, SIDE + NAME_HEIGHT + GAP
    page = Image.new("RGB", (COLUMNS * width + GAP, rows * height + GAP), PAPER)
    pen = ImageDraw.Draw(page)
    name_font, source_font = ImageFont.load_default(17), ImageFont.load_default(13)
    for number, (source, name) in enumerate(pairs):
        left, top = GAP + number % COLUMNS * width, GAP + number // COLUMNS * height
        with Image.open(source) as opened:
            picture = opened.convert("RGB")
        picture.thumbnail((SIDE - 16, SIDE - 16), Image.Resampling.LANCZOS)
        pen.rectangle((left, top, left + SIDE - 1, top + SIDE - 1), PAPER, FRAME)
        page.paste(picture, (left + (SIDE - picture.width) // 2, top + (SIDE - picture.height) // 2))
        middle = left + SIDE / 2
        pen.text((middle, top + SIDE + 16), name, INK, name_font, "mm")
        pen.text((middle, top + SIDE + 37), f"was {source.name}", PALE_INK, source_font, "mm")
    return page


def main() -> None:
    """Write the picture."""
    pairs = copies(MANIFEST)
    if not pairs:
        sys.exit(f"{MANIFEST} lists no pictures of test_data; make it first: make demo")
    PICTURE.parent.mkdir(exist_ok=True)
    # No dithering: flat areas stay flat, and the file small.
    flat = sheet(pairs).quantize(COLOURS, dither=Image.Dither.NONE)
    flat.save(PICTURE, optimize=True)
    print(f"{PICTURE}: {len(pairs)} pictures, {PICTURE.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main()
