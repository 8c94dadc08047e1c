"""The plan of a check: a table of what to do with pictures, for a person to change in a spreadsheet before it is applied."""

import csv
import hashlib
import io
import os
import re
import stat
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from retrain.checks.cells import from_cell, to_cell
from retrain.checks.findings import ACTIONS, KEEP, KINDS, MOVE, OF_CONTENT, RELABEL, Finding
from retrain.errors import UsageError, did_you_mean
from retrain.images.files import is_ignored
from retrain.storage import Layout, write_atomically

COLUMNS = ("action", "path", "label", "to", "finding", "detail", "score", "sha256")
_NEEDED = ("action", "path", "to", "sha256")  # of a plan that is read; the others are for people
_NAMES = ("path", "label", "to")
_SEPARATORS = ",;\t"  # spreadsheets write what their language has them write
_STRENGTH = (RELABEL, MOVE, KEEP)
_LONGEST = 255  # bytes of a name
_LONGEST_DETAIL = 2000  # what a spreadsheet shows and a reader of CSV takes
_HEADER_BYTES = 1000
_NAMED = 3  # pictures that one is compared with


class Row(NamedTuple):
    """What to do with one picture.

    `action`: one of ACTIONS. `path`: of the picture, below the data folder. `label`: its class. `to`: for RELABEL, the
    class that it is to have. `finding`, `detail`, `score`: why, for people. `sha256`: of its bytes in hex, empty: any.
    """

    action: str
    path: str
    label: str = ""
    to: str = ""
    finding: str = ""
    detail: str = ""
    score: float = 0.0
    sha256: str = ""


# --- write


def write(path: Path, layout: Layout, findings: Sequence[Finding], hashes: Mapping[str, str]) -> int:
    """Write a plan, a row for each picture of the data folder that a finding is about, and return how many there are.

    `hashes`: the sha256 of pictures in hex, by their path as findings have it; what is not there is read.
    Raises UsageError where a file lies there that is no plan, EnvironmentProblem where it cannot be written.
    """
    refuse_foreign(path)
    there = {(_label(path, layout), sha256) for path, sha256 in hashes.items() if _below(path, layout)}
    rows = [_row(picture, layout, found, hashes, there) for picture, found in by_picture(layout, findings).items()]
    rows.sort(key=lambda row: (_STRENGTH.index(row.action), -row.score, os.fsencode(row.path)))
    table = io.StringIO()
    writer = csv.writer(table, lineterminator="\n")
    writer.writerow(COLUMNS)
    for row in rows:
        cells = row._asdict() | {"score": f"{row.score:.3f}"}
        writer.writerow(to_cell(cells[name], name in _NAMES) for name in COLUMNS)
    write_atomically(path, table.getvalue().encode())
    return len(rows)


def by_picture(layout: Layout, findings: Sequence[Finding]) -> dict[str, list[Finding]]:
    """Return what was found about each picture of the data folder, by its path: each will be a row."""
    about: dict[str, list[Finding]] = defaultdict(list)
    for finding in findings:
        if finding.paths and _below(finding.paths[0], layout):
            about[finding.paths[0]].append(finding)
    return dict(about)


def content_hash(path: Path) -> str:
    """Return the sha256, in hex, of a file's bytes; empty for what is no file or cannot be read. Never blocks on a pipe."""
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):
            return ""
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        return ""


def refuse_foreign(path: Path) -> None:
    """Raise UsageError where no plan can be written: its folder is absent, or what is no plan would be replaced."""
    advice = "give the plan another name"
    try:
        if not path.parent.is_dir():
            raise UsageError(f"there is no folder {path.parent} for the plan {path.name}; make it, or give another")
        if not os.path.lexists(path):
            return
        if not path.is_file():
            raise UsageError(f"{path} is no file; {advice}")
        with path.open("rb") as file:
            begin = file.read(_HEADER_BYTES).decode("utf-8-sig", errors="replace")
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {(error.strerror or str(error)).lower()}; {advice}") from None
    if not set(COLUMNS) <= set(_header(begin)[0]):
        raise UsageError(f"{path} exists and is no plan of retrain check; {advice}, or move it away")


def _below(picture: str, layout: Layout) -> bool:
    """True for a path in a class folder; pictures of a test folder elsewhere are not the plan's."""
    path = Path(picture)
    return path.is_relative_to(layout.data) and len(path.relative_to(layout.data).parts) > 1


def _label(picture: str, layout: Layout) -> str:
    return Path(picture).relative_to(layout.data).parts[0]


def _row(
    picture: str, layout: Layout, findings: Sequence[Finding], hashes: Mapping[str, str], there: set[tuple[str, str]]
) -> Row:
    """`there`: class and sha256 of every picture."""
    ordered = sorted(findings, key=lambda finding: (_STRENGTH.index(_action(finding)), -finding.score))
    action, path = _action(ordered[0]), Path(picture).relative_to(layout.data)
    sha256 = hashes.get(picture) or content_hash(Path(picture))
    label, to = _label(picture, layout), ordered[0].to
    if action == RELABEL and to != label and (to, sha256) in there:  # what the class has already is of no use there
        action = MOVE
    if not sha256:  # gone meanwhile: no row may move whatever comes to lie there
        action = KEEP
    details = [_detail(finding, layout) for finding in ordered if finding.detail]
    return Row(
        action=action,
        path=path.as_posix(),
        label=label,
        to=to if action == RELABEL else "",
        finding="; ".join(dict.fromkeys(finding.kind for finding in ordered)),
        detail="; ".join(dict.fromkeys(details))[:_LONGEST_DETAIL],
        score=ordered[0].score,
        sha256=sha256,
    )


def _detail(finding: Finding, layout: Layout) -> str:
    """The finding's words, with the pictures that it compares this one with: nothing else in a plan shows them."""
    others = [Path(path).relative_to(layout.data).as_posix() if _below(path, layout) else path for path in finding.paths[1:]]
    if not others or not finding.kind.startswith(("same-file", "near-duplicate")):
        return finding.detail
    more = f" and {len(others) - _NAMED} more" if len(others) > _NAMED else ""
    named = ", ".join(others[:_NAMED]) + more
    return f"{finding.detail} as {named}" if finding.kind.startswith("same-file") else f"like {named}: {finding.detail}"


def _action(finding: Finding) -> str:
    if finding.kind == "unreadable" and finding.reason not in OF_CONTENT:
        return KEEP
    action = KINDS[finding.kind].action
    return KEEP if action == RELABEL and not finding.to else action


# --- read


def read(path: Path) -> list[Row]:
    """Read a plan, as `write` or a spreadsheet left it, a row a picture, in the order of the file.

    Raises UsageError, naming file and line, for whatever could not be meant.
    """
    header, rows = _table(path)
    for name in _NEEDED:
        if header.count(name) != 1:
            hint = did_you_mean(name, set(header) - set(COLUMNS)) if name not in header else ""
            said = "more than one column" if name in header else "no column"
            raise UsageError(f"{path} has {said} '{name}'{hint or '; write a new plan with --plan'}")
    found: dict[str, tuple[int, Row]] = {}
    for number, cells in rows:
        row = _read_row(dict(zip(header, map(from_cell, cells), strict=False)))
        mistake = mistake_in(row)
        if mistake:
            raise UsageError(f"{path}, line {number}: {mistake}")
        earlier, other = found.setdefault(row.path, (number, row))
        if (other.action, other.to) != (row.action, row.to):
            raise UsageError(f"{path}, lines {earlier} and {number}: different actions for {row.path}; keep one of them")
    if not found:
        raise UsageError(f"{path} is a plan without rows: there is nothing to apply; write one with --plan")
    return [row for _, row in found.values()]


def mistake_in(row: Row) -> str:
    """Say what is wrong with a row and what to do about it; empty where it could be meant."""
    if row.action not in ACTIONS:
        choices = f"; give one of {', '.join(ACTIONS)}"
        return f"unknown action '{row.action}'{did_you_mean(row.action, ACTIONS) or choices}"
    return (
        _mistake_in_path(row.path)
        or (f"relabel to {_mistake_in_label(row.to)}" if row.action == RELABEL and _mistake_in_label(row.to) else "")
        or _mistake_in_use(row)
        or _mistake_in_hash(row.sha256)
    )


def _mistake_in_use(row: Row) -> str:
    # Our own suggestion may stay beside a keep: whoever declines it changes one cell.
    if not row.to or row.action == RELABEL or (row.action == KEEP and "mislabelled" in row.finding):
        return ""
    return f"{row.action} does nothing with the class '{row.to}' in 'to'; did you mean relabel? If not, empty the cell"


def _mistake_in_path(path: str) -> str:
    parts = path.split("/")
    if not path:
        return "the path is empty; give <class>/<picture>, or delete the row"
    if path.startswith("/"):
        return f"the path {path} is absolute; give it as <class>/<picture>, from the data folder on"
    if ".." in parts:
        return f"the path {path} leads out of the data folder; give <class>/<picture>"
    if len(parts) < 2 or any(not part or part.startswith(".") for part in parts) or not _is_encodable(path):
        return f"the path {path} is none of a picture; give <class>/<picture>, names that start with a dot are not read"
    return ""


def _mistake_in_label(label: str) -> str:
    if not label:
        return "no class: the cell 'to' is empty; name a class, or make it keep"
    if "/" in label or not _is_encodable(label):
        return f"'{label}': no folder can have that name; name a class"
    if is_ignored(label):
        return f"'{label}': folders of that name are not read; name a class that does not start with a dot"
    if len(os.fsencode(label)) > _LONGEST:
        return f"'{label[:20]}...': {len(os.fsencode(label))} bytes are too many for a folder; name a class"
    return ""


def _is_encodable(name: str) -> bool:
    try:
        return b"\0" not in os.fsencode(name)
    except UnicodeEncodeError:
        return False


def _mistake_in_hash(sha256: str) -> str:
    if re.fullmatch(r"([0-9a-f]{64})?", sha256):
        return ""
    return f"'{sha256[:80]}' is no sha256; take it from a new plan, or empty the cell to have the picture taken as it is"


def _read_row(texts: Mapping[str, str]) -> Row:
    try:
        score = float(texts.get("score", "").replace(",", "."))
    except ValueError:  # it is only for people, who may clear it
        score = 0.0
    said = {name: texts.get(name, "") for name in COLUMNS if name != "score"}
    row = Row(**said)  # type: ignore[arg-type]  # the score is not among them
    return row._replace(action=row.action.lower(), score=score, sha256=row.sha256.lower())


def _table(path: Path) -> tuple[list[str], list[tuple[int, list[str]]]]:
    """Return the header, and each row that is not empty with its line number."""
    text = _decoded(path)
    header, separator = _header(text)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True)
    try:
        rows = [(reader.line_num, cells) for cells in reader if any(map(str.strip, cells))]
    except csv.Error as error:
        raise UsageError(
            f"{path}, line {reader.line_num}: {error}; save it as CSV, or write a new plan with --plan"
        ) from None
    return header, rows[1:]


def _header(text: str) -> tuple[list[str], str]:
    """Return the names of columns and what separates them, as most columns are known by it; no names if it is no table."""
    line = next((line for line in text.splitlines() if line.strip(f'{_SEPARATORS}" ')), "")

    def names(separator: str) -> list[str]:
        try:
            return [cell.strip().lower() for cell in next(csv.reader([line], delimiter=separator), [])]
        except csv.Error:
            return []

    separator = max(_SEPARATORS, key=lambda separator: len(set(names(separator)) & set(COLUMNS)))
    return names(separator), separator


def _decoded(path: Path) -> str:
    advice = "save it as CSV in UTF-8, or write a new plan with --plan"
    try:
        if not os.path.lexists(path):
            siblings = [item.name for item in path.parent.iterdir()] if path.parent.is_dir() else []
            raise UsageError(f"the plan {path} does not exist{did_you_mean(path.name, siblings) or '; check the path'}")
        if not path.is_file():
            raise UsageError(f"the plan {path} is no file; give one that --plan wrote")
        data = path.read_bytes()
    except OSError as error:
        raise UsageError(
            f"the plan {path} cannot be read: {(error.strerror or str(error)).lower()}; fix its permissions"
        ) from None
    if data.startswith(b"PK\3\4"):
        raise UsageError(f"the plan {path} is a workbook or an archive; {advice}")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise UsageError(f"the plan {path} is not UTF-8 in line {line}; {advice}") from None
    if "\0" in text:
        raise UsageError(f"the plan {path} is no text; {advice}")
    if not text.strip():
        raise UsageError(f"the plan {path} is empty; write one with --plan")
    return text
