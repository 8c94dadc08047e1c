"""What was copied where: `manifest.jsonl` (exact) and `manifest.csv` (for spreadsheets), a row a source.

Rows are in the order in which pictures are walked, so runs can be merged as streams and memory stays flat. While a run is
under way its rows go to a journal, each before its copy is made; whatever run comes next after a kill merges the journal
first, so that no picture is copied twice.
"""

import csv
import io
import json
import os
from collections.abc import Generator, Iterable, Iterator
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from retrain.errors import UsageError, from_os_error

MANIFEST_JSONL, MANIFEST_CSV = "manifest.jsonl", "manifest.csv"
_JOURNAL = ".manifest.journal"
_ADDED = "nearest"  # a column that manifests did not have at first


@dataclass(frozen=True, slots=True)
class Row:
    """One source, by its absolute path. `copy`: relative to the output folder, empty where it was skipped for `reason`.

    `nearest`: for a picture that is called unknown, the label that it would have had, whose score is `score`.
    """

    source: str
    copy: str = ""
    label: str = ""
    score: float | None = None
    reason: str = ""
    detail: str = ""
    nearest: str = ""

    @property
    def key(self) -> tuple[bytes, ...]:
        """Sorts as pictures are walked: name by name, as bytes."""
        return tuple(os.fsencode(self.source).split(b"/"))

    def as_line(self) -> str:
        """Return the row as a line of JSON."""
        return json.dumps(asdict(self)) + "\n"

    @classmethod
    def of_line(cls, line: str) -> "Row":
        """Read a line of JSON; raises ValueError for one that is not a row."""
        values = json.loads(line)
        texts = [field.name for field in fields(cls) if field.name != "score"]
        if not isinstance(values, dict):
            raise ValueError("not a row")
        values.setdefault(_ADDED, "")
        if set(values) != {*texts, "score"}:
            raise ValueError("not a row")
        if not all(isinstance(values[name], str) for name in texts) or not isinstance(values["score"], float | None):
            raise ValueError("not a row")
        return cls(**values)


_HEADER = [field.name for field in fields(Row)]
_HEADERS = [",".join(_HEADER).encode(), ",".join(name for name in _HEADER if name != _ADDED).encode()]


class Manifest:
    """The manifest of one output folder, open for one run that visits sources in order."""

    def __init__(self, folder: Path, read_only: bool = False) -> None:
        """Open the manifest of a folder; raises UsageError, nothing being changed, where one lies there that is not ours."""
        self._folder = folder
        self._read_only = read_only
        self._journal = folder / _JOURNAL
        self._handle: int | None = None
        self._refuse_foreign()
        if not read_only:
            self.finish()
        self._earlier = _merge(self._rows(), self._journal_rows() if read_only else iter(()))
        self._ahead: Row | None = None

    def _refuse_foreign(self) -> None:
        table = self._folder / MANIFEST_CSV
        if table.exists():
            with table.open("rb") as file:
                if file.readline(1000).strip() not in _HEADERS:
                    raise UsageError(f"{table} was not written by retrain classify; choose another output folder")
        last: tuple[bytes, ...] = ()
        for row in self._rows():
            if row.key <= last:
                raise UsageError(
                    f"{self._folder / MANIFEST_JSONL} is not in order; move it away or choose another output folder"
                )
            last = row.key

    def _rows(self) -> Iterator[Row]:
        path = self._folder / MANIFEST_JSONL
        if not path.exists():
            return
        with path.open(encoding="utf-8", errors="replace") as file:
            for number, line in enumerate(file, start=1):
                try:
                    row = Row.of_line(line)
                except ValueError:
                    raise UsageError(
                        f"{path} was not written by retrain classify, or is damaged in line {number};"
                        " move it away or choose another output folder"
                    ) from None
                yield row

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
        try:
            if self._handle is None:
                self._handle = os.open(self._journal, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
            line = row.as_line().encode()
            if os.write(self._handle, line) < len(line):
                raise OSError("no room for the whole line")
        except OSError as error:
            raise from_os_error(error, "write the manifest in", self._folder) from None

    def finish(self) -> None:
        """Merge the journal into the manifest and write both files anew; what other sources had is kept."""
        if hasattr(self, "_earlier"):
            self._earlier.close()
        if self._handle is not None:
            os.close(self._handle)
            self._handle = None
        if self._read_only or not self._journal.exists():
            return
        lines, table = (self._folder / f".{name}.tmp" for name in (MANIFEST_JSONL, MANIFEST_CSV))
        try:
            for path in (lines, table):  # whatever is there under these names may share its bytes with a copy
                path.unlink(missing_ok=True)
            self._write_merged(lines, table)
            table.replace(self._folder / MANIFEST_CSV)
            lines.replace(self._folder / MANIFEST_JSONL)
            self._journal.unlink()
        except OSError as error:
            raise from_os_error(error, "write the manifest in", self._folder) from None
        finally:
            lines.unlink(missing_ok=True)
            table.unlink(missing_ok=True)

    def _write_merged(self, lines: Path, table: Path) -> None:
        with (
            lines.open("w", encoding="utf-8") as jsonl,
            table.open("w", encoding="utf-8", errors="backslashreplace", newline="") as cells,
        ):
            cells.write(_cells(_HEADER))
            for row in _merge(self._rows(), self._journal_rows()):
                jsonl.write(row.as_line())
                cells.write(_cells("" if value is None else value for value in asdict(row).values()))

    def _journal_rows(self) -> Iterator[Row]:
        """Rows of the journal, the last of each source; what a kill or a full disk left unfinished is passed over."""
        last: Row | None = None
        if not self._journal.exists():
            return
        with self._journal.open(encoding="utf-8", errors="replace") as file:
            for line in file:
                try:
                    row = Row.of_line(line)
                except ValueError:
                    continue
                if last is not None and row.key != last.key:
                    yield last
                last = row
        if last is not None:
            yield last


def _cells(values: Iterable[object]) -> str:
    """Return a line of the spreadsheet."""
    line = io.StringIO()
    # Python before 3.13 quotes only those line ends that it writes itself; a name may hold either.
    csv.writer(line, lineterminator="\r\n").writerow(values)
    return line.getvalue().removesuffix("\r\n") + "\n"


def _merge(earlier: Iterable[Row], later: Iterable[Row]) -> Generator[Row, None, None]:
    """Merge two streams that are in order; where both have a source, the later one counts."""
    old, new = iter(earlier), iter(later)
    a, b = next(old, None), next(new, None)
    while a is not None or b is not None:
        if b is None or (a is not None and a.key < b.key):
            assert a is not None
            yield a
            a = next(old, None)
        else:
            if a is not None and a.key == b.key:
                a = next(old, None)
            yield b
            b = next(new, None)
