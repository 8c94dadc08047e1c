"""Which face came from which photo: `faces.jsonl`, a line of JSON a photo.

While a run is under way a line is added after the faces of each photo; at its end all lines are written anew, in the order
of the photos. After a kill the next run finds what was done, so no photo is cut twice.
"""

import json
import os
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

from retrain.errors import UsageError, from_os_error
from retrain.faces.detect import Box
from retrain.storage import write_atomically

MANIFEST = "faces.jsonl"


@dataclass(frozen=True, slots=True)
class Cut:
    """A face that was cut out. `file`: relative to the output folder. `box`: without the margin, in pixels of the upright
    photo. `confidence`: of the detector, in [0, 1].
    """

    file: str
    box: Box
    confidence: float


@dataclass(frozen=True, slots=True)
class Cutting:
    """What came of one photo, by its path relative to the folder of photos and the sha256 of its bytes in hex.

    `faces`: none where none was found. `reason`, `detail`: why the photo could not be used.
    """

    photo: str
    sha256: str = ""
    faces: tuple[Cut, ...] = ()
    reason: str = ""
    detail: str = ""

    @property
    def key(self) -> tuple[tuple[bytes, ...], str]:
        """Sorts as photos are walked: name by name, as bytes."""
        return tuple(os.fsencode(self.photo).split(b"/")), self.sha256

    def as_line(self) -> str:
        """Return it as a line of JSON."""
        said = asdict(self)
        for empty in ("reason", "detail") if not self.reason else ("sha256", "faces"):
            del said[empty]
        return json.dumps(said) + "\n"

    @classmethod
    def of_line(cls, line: str) -> "Cutting":
        """Read a line of JSON; raises ValueError for another."""
        said = json.loads(line)
        try:
            faces = tuple(Cut(one["file"], Box(*one["box"]), float(one["confidence"])) for one in said.pop("faces", ()))
            row = cls(faces=faces, **said)
        except (AttributeError, KeyError, TypeError):
            raise ValueError("not a cutting") from None
        if not all(isinstance(text, str) for text in (row.photo, row.sha256, row.reason, row.detail)):
            raise ValueError("not a cutting")
        return row


class Cuttings:
    """The manifest of one output folder, open for one run; holds a row for each photo in memory."""

    def __init__(self, folder: Path) -> None:
        """Read what earlier runs did; raises UsageError, nothing being changed, for a file that is not ours."""
        self._path = folder / MANIFEST
        self._rows = {row.key: row for row in self._read() if not row.reason}

    def _read(self) -> Iterable[Cutting]:
        try:
            lines = self._path.read_text(encoding="utf-8", errors="replace").splitlines(keepends=True)
        except FileNotFoundError:
            return
        except OSError as error:
            raise from_os_error(error, "read", self._path) from None
        for number, line in enumerate(lines, start=1):
            try:
                yield Cutting.of_line(line)
            except ValueError:
                if number == len(lines) and not line.endswith("\n"):  # a kill in the middle of it
                    return
                raise UsageError(
                    f"{self._path} was not written by retrain faces, or is damaged in line {number};"
                    " move it away or choose another output folder"
                ) from None

    def earlier(self, photo: str, sha256: str) -> Cutting | None:
        """Return what an earlier run made of the same photo, if its bytes are the same."""
        return self._rows.get(Cutting(photo, sha256).key)

    def add(self, row: Cutting) -> None:
        """Note what was done, at once also on disk."""
        self._rows[row.key] = row
        try:
            with self._path.open("a", encoding="utf-8") as file:
                file.write(row.as_line())
        except OSError as error:
            raise from_os_error(error, "write", self._path) from None

    def finish(self) -> None:
        """Write all rows in order; without any, nothing."""
        if self._rows:
            rows = sorted(self._rows.items())
            write_atomically(self._path, "".join(row.as_line() for _, row in rows).encode())
