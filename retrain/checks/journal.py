"""The journal of a plan that is applied, `reports/applied/<number>.json`: where each picture is to go, and how far it is.

It is written whole or not at all, so that it can be read after a kill at any moment.
"""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NamedTuple

from retrain.errors import UsageError
from retrain.storage import Layout, sync_folder, write_atomically

APPLIED = "applied"
BEGUN, DONE, UNDONE = "begun", "done", "undone"


class Move(NamedTuple):
    """A picture's way; paths are relative to the working folder, so that it may be moved as a whole."""

    action: str
    path: str  # as in the plan
    source: str
    target: str
    sha256: str


@dataclass(frozen=True)
class Journal:
    """`plan`: tells plans apart. `made`: folders that were not there, outer ones first. The rest as in `apply.Applied`."""

    plan: str
    state: str
    moves: tuple[Move, ...]
    made: tuple[str, ...]
    new_classes: tuple[str, ...]
    skipped: tuple[tuple[str, str], ...]


def journals(layout: Layout) -> list[Path]:
    """Return where the journals of a working folder are, the last one at the end."""
    found = [path for path in (layout.reports / APPLIED).glob("*.json") if path.stem.isdecimal()]
    return sorted(found, key=lambda path: int(path.stem))


def find_last(layout: Layout) -> tuple[Path, Journal] | None:
    """Return the last journal that is not undone; raises UsageError for one that is damaged."""
    for path in reversed(journals(layout)):
        try:
            values = json.loads(path.read_bytes())
            values["moves"] = tuple(Move(*move) for move in values["moves"])
            values["skipped"] = tuple((picture, reason) for picture, reason in values["skipped"])
            values |= {name: tuple(values[name]) for name in ("made", "new_classes")}
            journal = Journal(**values)
        except (ValueError, TypeError, KeyError):
            raise UsageError(f"{path} is damaged; move it away, what it applied cannot be undone then") from None
        if journal.state != UNDONE:
            return path, journal
    return None


def save(path: Path, journal: Journal) -> None:
    """Write a journal, whole or not at all; raises EnvironmentProblem where that is not possible."""
    write_atomically(path, json.dumps(asdict(journal), indent=1).encode() + b"\n")


def sync(layout: Layout, journal: Journal) -> None:
    """Make the moves survive a power cut before the journal says that they are done."""
    paths = [*journal.made, *(path for move in journal.moves for path in (move.source, move.target))]
    for folder in sorted({(layout.root / path).parent for path in paths}):
        if folder.is_dir():
            sync_folder(folder)
