"""One picture that a person names: a file, or standard input."""

import os
import sys
from pathlib import Path

from retrain.errors import BadImage

_PIECE = 2**20  # bytes


def read(image: str, instead: str) -> bytes:
    """Return the bytes of a picture file, or of standard input for `-`; `instead`: what to do with a folder.

    Raises BadImage for what cannot be read.
    """
    from retrain.images import MAX_BYTES, read_bytes

    if image != "-":
        if os.path.isdir(image):  # pathlib raises for a name that is too long, or a folder on the way that is closed
            raise BadImage("not-a-file", f"a folder; {instead}")
        return read_bytes(Path(image))
    if sys.stdin is None:
        raise BadImage("unreadable", "standard input is closed")
    data = bytearray()
    while piece := sys.stdin.buffer.read(_PIECE):  # asked for all at once, so much memory would be taken
        data += piece
        if len(data) > MAX_BYTES:
            raise BadImage("too-large")
    return bytes(data)
