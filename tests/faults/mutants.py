"""Pictures damaged at random, each by its number: the same number over the same sources gives the same bytes.

As a process, `python -m tests.faults.mutants FIRST COUNT KEPT`, it decodes mutants FIRST, FIRST + 1 ... in little memory
and prints a line of JSON for each that breaks a promise; its bytes are then in the folder KEPT. The mutant that is being
decoded is in KEPT too, for one that ends the process.
"""

import json
import random
import struct
import sys
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from retrain.errors import BadImage
from retrain.images import FORMATS, sniff
from tests.faults import decoding
from tests.faults.pictures import PICTURES, content
from tests.test_images import CORPUS_FILES, encoded, noisy

LARGEST_SOURCE = 300_000  # bytes; of larger ones there would be few mutants
ROOM = 300  # MB
CURRENT = "current"
NUMBERS = (0, 1, 2, 0x7F, 0x80, 0xFF, 0x100, 0x7FFF, 0xFFFF, 0x10000, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFE, 0xFFFFFFFF)


class Mutant(NamedTuple):
    """Damaged bytes, and how they came about."""

    data: bytes
    source: str
    ways: list[str]


class Sources(NamedTuple):
    """What mutants are made of: name -> bytes of all bad and odd pictures and of good ones, and the names by format."""

    data: dict[str, bytes]
    of_format: dict[str, list[str]]


def sources() -> Sources:
    """Gather the sources, the same wherever the same collections are there."""
    found = {name: content(name) for name in PICTURES}
    found |= {f"collected {path.name}": path.read_bytes() for path in CORPUS_FILES}
    found |= {f"good {kind}": encoded(noisy(48), kind) for kind in FORMATS}
    found["good JPEG, progressive"] = encoded(noisy(48), "JPEG", progressive=True)
    for kind in ("tiff_lzw", "jpeg", "packbits"):
        found[f"good TIFF, {kind}"] = encoded(noisy(48), "TIFF", compression=kind)
    known = {name: found[name] for name in sorted(found) if 0 < len(found[name]) <= LARGEST_SOURCE}
    of_format: dict[str, list[str]] = {}
    for name, data in known.items():
        try:
            of_format.setdefault(sniff(data), []).append(name)
        except BadImage:
            of_format.setdefault("none that is read", []).append(name)
    return Sources(known, of_format)


def mutant(number: int, known: Sources) -> Mutant:
    """Make a mutant: a source damaged in one to four ways; of each format about as many."""
    chance = random.Random(number)
    source = chance.choice(known.of_format[chance.choice(sorted(known.of_format))])
    data, ways = bytearray(known.data[source]), []
    for _ in range(chance.choice((1, 1, 2, 4))):
        way = chance.choice(WAYS)
        data = way(data, chance, known.data)
        ways.append(way.__name__)
    if data[:4] == b"\x89PNG" and chance.random() < 0.7:  # else most would fail at the first checksum
        data = mended(data)
    return Mutant(bytes(data), source, ways)


# --- ways


def flipped(data: bytearray, chance: random.Random, _known: dict[str, bytes]) -> bytearray:
    for _ in range(chance.choice((1, 2, 4))):
        if data:
            data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
    return data


def flipped_in_front(data: bytearray, chance: random.Random, known: dict[str, bytes]) -> bytearray:
    """Headers are short, and most of what can go wrong is in them; the first bytes only say which format it is."""
    return data[:8] + flipped(data[8:72], chance, known) + data[72:]


def cut_off(data: bytearray, chance: random.Random, _known: dict[str, bytes]) -> bytearray:
    return data[: chance.randrange(len(data) + 1)]


def spliced(data: bytearray, chance: random.Random, known: dict[str, bytes]) -> bytearray:
    """The front of one picture, the end of another."""
    other = known[chance.choice(list(known))]
    return data[: chance.randrange(len(data) + 1)] + other[chance.randrange(len(other)) :]


def resized(data: bytearray, chance: random.Random, _known: dict[str, bytes]) -> bytearray:
    """A number somewhere in front, a length or a size as likely as not, becomes an extreme one."""
    width, order = chance.choice((1, 2, 4)), chance.choice("<>")
    if len(data) < width:
        return data
    at = chance.randrange(min(len(data) - width + 1, 600))
    number = chance.choice((*NUMBERS, len(data) - 1, len(data), len(data) + 1)) % 256**width
    data[at : at + width] = struct.pack(f"{order}{'BHI'[width // 2]}", number)
    return data


def relengthened(data: bytearray, chance: random.Random, known: dict[str, bytes]) -> bytearray:
    """A chunk of a PNG or a segment of a JPEG says another length."""
    starts = [at for at, _ in chunks(data)] if data[:4] == b"\x89PNG" else segments(data)
    if not starts:
        return resized(data, chance, known)
    at, width = chance.choice(starts), 4 if data[:4] == b"\x89PNG" else 2
    old = int.from_bytes(data[at : at + width], "big")
    new = chance.choice((*NUMBERS, old - 1, old + 1, old * 2)) % 256**width
    data[at : at + width] = new.to_bytes(width, "big")
    return data


def doubled(data: bytearray, chance: random.Random, _known: dict[str, bytes]) -> bytearray:
    """A block comes several times."""
    start = chance.randrange(len(data) + 1)
    end = min(len(data), start + chance.choice((1, 12, 100, 1000)))
    return data[:end] + data[start:end] * chance.choice((1, 2, 30)) + data[end:]


def left_out(data: bytearray, chance: random.Random, _known: dict[str, bytes]) -> bytearray:
    start = chance.randrange(len(data) + 1)
    return data[:start] + data[start + chance.choice((1, 2, 12, 100)) :]


WAYS: tuple[Callable[[bytearray, random.Random, dict[str, bytes]], bytearray], ...] = (
    flipped, flipped_in_front, flipped_in_front, cut_off, spliced, resized, resized, relengthened, doubled, left_out,
)  # fmt: skip


# --- formats


def chunks(data: bytes | bytearray) -> list[tuple[int, int]]:
    """Start and length of each chunk of a PNG that is wholly there."""
    found, at = [], 8
    while at + 12 <= len(data):
        length = int.from_bytes(data[at : at + 4], "big")
        if at + 12 + length > len(data):
            break
        found.append((at, length))
        at += 12 + length
    return found


def mended(data: bytearray) -> bytearray:
    """Make the checksums of a PNG right again."""
    for at, length in chunks(data):
        data[at + 8 + length : at + 12 + length] = struct.pack(">I", zlib.crc32(data[at + 4 : at + 8 + length]))
    return data


def segments(data: bytes | bytearray) -> list[int]:
    """Where the segments of a JPEG say how long they are, up to its first scan."""
    found, at = [], 2
    while data[:2] == b"\xff\xd8" and at + 4 <= len(data) and data[at] == 0xFF:
        found.append(at + 2)
        if data[at + 1] == 0xDA:
            break
        at += 2 + int.from_bytes(data[at + 2 : at + 4], "big")
    return found


# --- as a process


def broken_promise(data: bytes) -> str | None:
    """Decode twice; return what was not as promised. Where memory runs out, the second time may find more of it."""
    try:
        first, second = decoding.outcome(data), decoding.outcome(data)
    except Exception as error:  # noqa: BLE001  whatever it is, it is a finding
        return repr(error)
    if first != second and "out of memory" not in first + second:
        return f"first {first}, then {second}"
    return None


def main() -> None:
    first, count, kept = int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3])
    known = sources()
    decoding.in_room_of(ROOM)
    for number in range(first, first + count):
        made = mutant(number, known)
        (kept / CURRENT).write_bytes(made.data)
        decoding.within_limit()
        problem = broken_promise(made.data)
        if problem is not None:
            (kept / f"mutant-{number}").write_bytes(made.data)
            print(json.dumps({"number": number, "source": made.source, "ways": made.ways, "problem": problem}), flush=True)
    (kept / CURRENT).unlink()


if __name__ == "__main__":
    main()
