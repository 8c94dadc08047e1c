"""Words on pictures: a font that has their letters, and as much of them as there is room for."""

import unicodedata
from functools import lru_cache

from PIL import ImageFont

# The font that comes with Pillow knows ASCII only. These are looked for where the system keeps fonts.
_WIDER_FONTS = ("DejaVuSans.ttf", "NotoSans-Regular.ttf", "NotoSansCJK-Regular.ttc", "Arial Unicode.ttf", "arial.ttf")
_NO_LETTER = "\uffff"


def fitting(label: str, score: str, letters: int, width: float) -> tuple[str, ImageFont.FreeTypeFont]:
    """Return a label and its score in letters of so many pixels, no wider than `width` pixels, and their font.

    Where there is not room enough the label is shortened, and the score stays whole as long as there is a letter to lose.
    """
    label = "".join(letter if letter.isprintable() else "?" for letter in label)
    text, font = readable(f"{label} {score}", letters)
    label = text[: len(text) - len(score) - 1]
    while len(text) > 1 and font.getlength(text) > width:
        label = label.rstrip(".")[:-1]
        text = f"{label}.. {score}" if label else text[:-1]
    return text, font


@lru_cache(maxsize=64)
def readable(text: str, letters: int) -> tuple[str, ImageFont.FreeTypeFont]:
    """Return a font that has all letters of a text; where there is none, what is left of the text in ASCII."""
    own = ImageFont.load_default(letters)
    assert isinstance(own, ImageFont.FreeTypeFont)  # where Pillow was built without FreeType it raises
    for name in () if text.isascii() else _WIDER_FONTS:
        try:
            font = ImageFont.truetype(name, letters)
        except OSError:  # not on this machine
            continue
        nothing = bytes(font.getmask(_NO_LETTER))
        if all(letter.isspace() or bytes(font.getmask(letter)) != nothing for letter in text):
            return text, font
    bare = (letter for letter in unicodedata.normalize("NFKD", text) if not unicodedata.combining(letter))
    return "".join(letter if letter.isascii() else "?" for letter in bare), own
