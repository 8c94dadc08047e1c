"""Labels made safe for file names, on every system a copy may end up on."""

import re
import unicodedata
from collections.abc import Iterable

_FORBIDDEN = re.compile(r'[<>:"/\\|?*\x00-\x1f\x7f-\x9f\ud800-\udfff]')
# Names of devices on Windows, and of the manifest: a label may be a folder beside it.
_RESERVED = re.compile(r"(con|prn|aux|nul|com[0-9]|lpt[0-9])(\..*)?|manifest\.(csv|jsonl)", re.IGNORECASE)
_LONGEST = 180  # bytes; leaves room for the score, a number and an extension in the usual 255


def safe_names(labels: Iterable[str]) -> dict[str, str]:
    """Return label -> text for file names: distinct even where case does not count, and no path.

    Characters that some system forbids become `_`. Where two labels come out alike, all but the first (in the order
    given) get `~2`, `~3` ...
    """
    names: dict[str, str] = {}
    taken: set[str] = set()
    # Labels that need no change come first, so that they keep their own name whatever the others turn into.
    for label in sorted(labels, key=lambda label: _safe(label) != label):
        name, number = _safe(label), 1
        while _folded(name) in taken:
            number += 1
            name = f"{_safe(label)}~{number}"
        taken.add(_folded(name))
        names[label] = name
    return names


def as_file_name(label: str) -> str:
    """Return what is left of a label in a file name where case does not count; equal for labels that clash there."""
    return _folded(_safe(label))


def _safe(label: str) -> str:
    text = _FORBIDDEN.sub("_", label).strip(" ").rstrip(". ")
    text = re.sub(r"^[.-]", "_", text)
    text = text.encode()[:_LONGEST].decode(errors="ignore").rstrip(". ")
    return f"_{text}" if not text or _RESERVED.fullmatch(text) else text


def _folded(name: str) -> str:
    return unicodedata.normalize("NFC", name).casefold()
