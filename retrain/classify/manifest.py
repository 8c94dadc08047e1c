"""What was copied where: `manifest.jsonl` (exact) and `manifest.csv` (for spreadsheets), a row a source.

Rows are in the order in which pictures are walked, so runs can be merged as streams and memory stays flat. While a run is
under way its rows go to a journal, each before its copy is made; whatever run comes next after a kill merges the journal
first, so that no picture is copied twice.
"""

import csv
import json
import os
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from retrain.errors import UsageError, from_os_error

MANIFEST_JSONL, MANIFEST_CSV = "manifest.jsonl", "manifest.csv"
_JOURNAL = ".manifest.journal"


@dataclass(frozen=True, slots=True)
class Row:
    """One source. `copy`: its copy, relative to the output folder, empty where it was skipped for `reason`."""

    source: str
    copy: str = ""
    label: str = ""
    score: float | None = None
    reason: str = ""
    detail: str = ""

    @property
    def key(self) -> tuple[bytes, ...]:
        """Sorts as pictures are walked: name by name, as bytes."""
        return tuple(os.fsencode(self.source).split(b"/"))


_HEADER = [field.name for field in fields(Row)]


class Manifest:
    """The manifest of one output folder, open for one run that visits sources in order."""

    def __init__(self, folder: Path, read_only: bool = False) -> None:
        """Open the manifest of a folder; raises UsageError where one lies there that is not ours."""
        self._folder = folder
        self._read_only = read_only
        self._journal = folder / _JOURNAL
        self._handle: int | None = None
        self._refuse_foreign()
        if self._journal.exists():
            self.finish()
        self._earlier = self._rows(folder / MANIFEST_JSONL)
        self._ahead: Row | None = None

    def _refuse_foreign(self) -> None:
        path = self._folder / MANIFEST_CSV
        if path.exists() and path.open("rb").readline().strip() != ",".join(_HEADER).encode():
            raise UsageError(f"{path} was not written by retrain classify; choose another output folder")
        path = self._folder / MANIFEST_JSONL
        try:
            next(self._rows(path), None)
        except (ValueError, TypeError):
            raise UsageError(f"{path} was not written by retrain classify; choose another output folder") from None

    def _rows(self, path: Path) -> Iterator[Row]:
        if not path.exists():
            return
        with path.open(encoding="utf-8") as file:
            for line in file:
                yield Row(**json.loads(line))

    def earlier(self, source: Row) -> Row | None:
        """Return the row that an earlier run wrote for a source; sources must be asked for in order."""
        while self._ahead is None or self._ahead.key < source.key:
            self._ahead = next(self._earlier, None)
            if self._ahead is None:
                return None
        return self._ahead if self._ahead.key == source.key else None

    def intend(self, row: Row) -> None:
        """Note what is about to be done for a source; a later note for the same source replaces it."""
        if self._read_only:
            return
        if self._handle is None:
            self._handle = os.open(self._journal, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
        os.write(self._handle, (json.dumps(asdict(row)) + "\n").encode())

    def finish(self) -> None:
        """Merge the journal into the manifest and write both files anew; what other sources had is kept."""
        if self._read_only:
            return
        if self._handle is not None:
            os.close(self._handle)
            self._handle = None
        merged = self._folder / f".{MANIFEST_JSONL}.tmp"
        table = self._folder / f".{MANIFEST_CSV}.tmp"
        try:
            with (
                merged.open("w", encoding="utf-8") as lines,
                table.open("w", encoding="utf-8", errors="backslashreplace", newline="") as cells,
            ):
                writer = csv.writer(cells, lineterminator="\n")
                writer.writerow(_HEADER)
                for row in _merge(self._rows(self._folder / MANIFEST_JSONL), self._journal_rows()):
                    lines.write(json.dumps(asdict(row)) + "\n")
                    writer.writerow(["" if value is None else value for value in asdict(row).values()])
            os.replace(table, self._folder / MANIFEST_CSV)
            os.replace(merged, self._folder / MANIFEST_JSONL)
            self._journal.unlink(missing_ok=True)
        except OSError as error:
            raise from_os_error(error, "write the manifest in") from None

    def _journal_rows(self) -> Iterator[Row]:
        """Rows of the journal, the last of each source; a line that a kill left unfinished is passed over."""
        last: Row | None = None
        if not self._journal.exists():
            return
        with self._journal.open(encoding="utf-8") as file:
            for line in file:
                if not line.endswith("\n"):
                    break
                row = Row(**json.loads(line))
                if last is not None and row.key != last.key:
                    yield last
                last = row
        if last is not None:
            yield last


def _merge(earlier: Iterable[Row], later: Iterable[Row]) -> Iterator[Row]:
    """Merge two streams that are in order; where both have a source, the later one counts."""
    old, new = iter(earlier), iter(later)
    a, b = next(old, None), next(new, None)
    while a is not None or b is not None:
        if b is None or (a is not None and a.key < b.key):
            yield a  # type: ignore[misc]
            a = next(old, None)
        else:
            if a is not None and a.key == b.key:
                a = next(old, None)
            yield b
            b = next(new, None)
