"""Where the pictures of a split lie: `reports/split.csv`, for people, and to show a training picture again.

A model knows its training pictures by their bytes alone, so that it depends on no name; this file, beside the pictures and
not part of the model, has the names.
"""

import csv
import hashlib
import io
import os
from collections.abc import Iterable
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

from retrain.errors import BadImage
from retrain.images import read_bytes
from retrain.storage import Layout, own_folder, write_atomically

FILE = "split.csv"


class Row(NamedTuple):
    """A picture of the split. `path`: relative to the working folder, absolute for one that does not lie in it."""

    path: str
    label: str
    part: str
    group: str
    source: str
    sha256: str


def write(layout: Layout, rows: Iterable[Row]) -> None:
    """Write `reports/split.csv`, replacing the one of an earlier run; paths as they can be opened."""
    text = io.StringIO(newline="")
    writer = csv.writer(text)  # with its own line ends: Python before 3.13 quotes only those that it writes itself
    writer.writerow(Row._fields)
    root = os.path.abspath(layout.root)
    for row in rows:
        path = os.path.abspath(row.path)
        writer.writerow(row._replace(path=os.path.relpath(path, root) if Path(path).is_relative_to(root) else path))
    write_atomically(own_folder(layout.reports) / FILE, text.getvalue().encode("utf-8", "surrogateescape"))


class Whereabouts:
    """Finds the file of a training picture again, as far as it still lies where it did."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout

    @cached_property
    def _paths(self) -> dict[str, str]:
        if not (self._layout.reports / FILE).is_file():  # none, or a pipe that would never end
            return {}
        try:
            with (self._layout.reports / FILE).open(encoding="utf-8", errors="surrogateescape", newline="") as file:
                return {row[-1]: row[0] for row in csv.reader(file) if len(row) == len(Row._fields)}
        except (OSError, csv.Error):  # not there, or damaged
            return {}

    def path(self, sha256: str) -> str:
        """Return where the picture of these bytes lies now; empty where that is not known."""
        if sha256 not in self._paths:
            return ""
        path = self._layout.root / self._paths[sha256]
        try:
            return str(path) if hashlib.sha256(read_bytes(path)).hexdigest() == sha256 else ""
        except BadImage:
            return ""
