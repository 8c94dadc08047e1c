"""Move pictures as a plan says, and take that back. Nothing is ever overwritten or deleted.

Where each picture goes is decided for all of them first and written to a journal, `reports/applied/<number>.json`, whole
or not at all; only then the first is moved. So after a kill at any moment the journal and the places where files lie tell
what was done: the same plan applied again goes on there, and `undo` takes back what there is.
"""

import contextlib
import ctypes
import errno
import json
import os
import stat
from collections import Counter
from collections.abc import Container, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from hashlib import sha256
from pathlib import Path
from typing import NamedTuple

from retrain.check.findings import KEEP, MOVE, RELABEL
from retrain.check.plan import Row, content_hash, mistake_in
from retrain.errors import EnvironmentProblem, UsageError, did_you_mean, from_os_error
from retrain.progress import SILENT, Progress
from retrain.storage import Layout, folder_locked, is_own, own_folder, sync_folder, write_atomically

SET_ASIDE = "set_aside"
APPLIED = "applied"
REASONS = {
    "missing": "no such file; it may have been moved already",
    "changed": "other bytes than when the plan was made",
    "not-a-file": "a folder, pipe, socket or device, or a link to one",
    "unreadable": "the system refuses to look at it",
    "behind-link": "it lies, or would lie, in a folder that is reached by a link",
    "relative-link": "a link that would lead elsewhere from its new place",
    "taken": "something else lies where it belongs",
    "too-long": "its new path would be longer than the system allows",
}  # why a picture was left where it is: stable identifiers, and what they mean
_BEGUN, _DONE, _UNDONE = "begun", "done", "undone"
_LONGEST, _LONGEST_PATH = 255, 4080  # bytes of a name, and of a path with room for a number
_AT_WORKING_FOLDER, _NO_REPLACE = -100, 1  # AT_FDCWD and RENAME_NOREPLACE of Linux
_NOT_SUPPORTED = {errno.ENOSYS, errno.EINVAL, errno.EPERM, errno.EOPNOTSUPP, errno.ENOTSUP, errno.EMLINK}


@dataclass(frozen=True)
class Applied:
    """What `apply` did: how many pictures are set aside, in another class, left.

    `skipped`: (path as in the plan, a key of REASONS). `new_classes`: class folders that were not there. `journal`: where
    it is written down, None where nothing was to be moved.
    """

    moved: int = 0
    relabelled: int = 0
    kept: int = 0
    skipped: tuple[tuple[str, str], ...] = ()
    new_classes: tuple[str, ...] = ()
    journal: Path | None = None


@dataclass(frozen=True)
class Undone:
    """What `undo` did: how many pictures are back where they were.

    `skipped`: (path below the working folder where the picture was, a key of REASONS). `complete`: False where a name was
    taken: the plan can be undone again when it is free.
    """

    journal: Path
    restored: int = 0
    skipped: tuple[tuple[str, str], ...] = ()
    complete: bool = True


class _Move(NamedTuple):
    """A picture's way; paths are relative to the working folder, so that it may be moved as a whole."""

    action: str
    path: str  # as in the plan
    source: str
    target: str
    sha256: str


@dataclass(frozen=True)
class _Journal:
    """`plan`: tells plans apart. `made`: folders that were not there, outer ones first. The rest as in `Applied`."""

    plan: str
    state: str
    moves: tuple[_Move, ...]
    made: tuple[str, ...]
    new_classes: tuple[str, ...]
    skipped: tuple[tuple[str, str], ...]


# --- apply


def apply(layout: Layout, rows: Sequence[Row], progress: Progress = SILENT) -> Applied:
    """Move pictures as the rows say, to the class `to` or to `set_aside/`, folders below the class kept.

    A name that is taken gets ` (2)`. A plan that was killed is gone on with, as if it had not been. Raises UsageError for
    rows that cannot be meant and EnvironmentProblem for other disks or locks, nothing being moved; EnvironmentProblem also
    where a picture cannot be moved: the same plan can then be applied again.
    """
    for row in rows:
        if mistake_in(row):
            raise UsageError(f"the plan's row for {row.path or 'no picture'}: {mistake_in(row)}")
    with _held(layout, "applying a plan to it"):
        path, journal, resumed = _begin(layout, rows)
        for label in journal.new_classes:
            progress.note(f"'{label}' is a new class{did_you_mean(label, _classes(layout, journal.new_classes))}")
        counts: Counter[str] = Counter()
        skipped = list(journal.skipped)
        with progress.bar("apply", len(journal.moves)) as advance:
            for number in range(len(journal.moves)):
                journal, reason = _carry_out(layout, path, journal, number, resumed)
                move = journal.moves[number]
                counts[reason or move.action] += 1
                skipped += [(move.path, reason)] if reason else []
                advance()
        if journal.moves:
            _sync(layout, journal)
            _save(path, replace(journal, state=_DONE))
    kept = sum(not _is_to_move(row) for row in rows)
    found = path if journal.moves else None
    return Applied(counts[MOVE], counts[RELABEL], kept, tuple(skipped), journal.new_classes, found)


@contextlib.contextmanager
def _held(layout: Layout, what: str) -> Iterator[None]:
    if not layout.root.is_dir():
        raise UsageError(f"the working folder {layout.root} does not exist; check the path")
    try:
        with folder_locked(layout.root, what):
            yield
    except OSError as error:
        raise from_os_error(error, "change", error.filename or layout.root) from None


def _begin(layout: Layout, rows: Sequence[Row]) -> tuple[Path, _Journal, bool]:
    """Return where the journal is, what it says, and whether an earlier run wrote it."""
    own_folder(layout.reports)
    plan = sha256(json.dumps(sorted((row.action, row.path, row.to, row.sha256) for row in rows)).encode()).hexdigest()
    last = _last(layout)
    if last is not None and last[1].state == _BEGUN and last[1].plan == plan:
        return *last, True
    planner = _Planner(layout)
    for row in rows:
        if _is_to_move(row):
            planner.add(row)
    journal = planner.journal(plan)
    if any(move.action == MOVE for move in journal.moves):
        _make_aside(layout.root)
    numbers = [int(path.stem) for path in _journals(layout)]
    path = layout.reports / APPLIED / f"{max(numbers, default=0) + 1:04}.json"
    if journal.moves:
        path.parent.mkdir(exist_ok=True)
        _save(path, journal)
    return path, journal, False


def _make_aside(root: Path) -> None:
    """Make the folder for what is set aside, marked from its first moment on: beside it may be class folders."""
    if not os.path.lexists(root / SET_ASIDE):
        own_folder(root / f".{SET_ASIDE}.tmp").rename(root / SET_ASIDE)
    own_folder(root / SET_ASIDE)


def _is_to_move(row: Row) -> bool:
    """False also for one that is to get the label that it has."""
    return row.action != KEEP and (row.action, row.to) != (RELABEL, row.path.partition("/")[0])


def _classes(layout: Layout, new: Sequence[str]) -> list[str]:
    folders = [folder for folder in layout.data.iterdir() if folder.is_dir() and not is_own(folder)]
    return sorted({folder.name for folder in folders} - set(new))


class _Planner:
    """Finds each picture a place of its own; nothing is changed."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self._moves: list[_Move] = []
        self._skipped: list[tuple[str, str]] = []
        self._new: dict[str, None] = {}
        self._made: dict[Path, None] = {}
        self._claimed: set[Path] = set()

    def journal(self, plan: str) -> _Journal:
        made = tuple(_relative(folder, self._layout) for folder in self._made)
        return _Journal(plan, _BEGUN, tuple(self._moves), made, tuple(self._new), tuple(self._skipped))

    def add(self, row: Row) -> None:
        """Plan the move of one picture, or skip it with a reason; raises UsageError, EnvironmentProblem as `apply` does."""
        self._refuse_folders_of_ours(row)
        source, top = self._layout.data / row.path, self._layout.root / SET_ASIDE
        target = top / row.path
        if row.action == RELABEL:
            top = self._layout.data
            target = top / row.to / row.path.partition("/")[2]
        reason = self._why_not(row, source) or self._why_not_there(source, target, top)
        if reason:
            self._skipped.append((row.path, reason))
            return
        _check_disk(source, target)
        self._moves.append(self._claim(row, source, target))
        if row.action == RELABEL and not (top / row.to).exists():
            self._new[row.to] = None

    def _refuse_folders_of_ours(self, row: Row) -> None:
        data, root = self._layout.data, self._layout.root
        for folder in (data / row.path).parents:
            if folder == data:
                break
            if is_own(folder):
                raise UsageError(f"the plan's row for {row.path}: {folder} was made by retrain, no class; delete the row")
        if row.action != RELABEL:
            return
        names = {"data", SET_ASIDE, self._layout.model.name, self._layout.reports.name, self._layout.bottlenecks.name}
        if is_own(data / row.to) or (data == root and row.to in names):
            raise UsageError(
                f"the plan's row for {row.path}: {data / row.to} is no class but retrain's; choose another name"
            )
        if os.path.lexists(data / row.to) and not (data / row.to).is_dir():
            raise UsageError(
                f"the plan's row for {row.path}: {data / row.to} is a file; move it away or choose another class"
            )

    def _why_not(self, row: Row, source: Path) -> str:
        try:
            mode = os.lstat(source).st_mode
        except (FileNotFoundError, NotADirectoryError):
            return "missing"
        except OSError:
            return "unreadable"
        if not (stat.S_ISREG(mode) or stat.S_ISLNK(mode)) or os.path.isdir(source):
            return "not-a-file"
        if not _is_direct(source.parent, self._layout.data):
            return "behind-link"
        return "changed" if row.sha256 and content_hash(source) != row.sha256 else ""

    def _why_not_there(self, source: Path, target: Path, top: Path) -> str:
        if not _is_direct(target.parent, top):
            return "behind-link"
        if len(os.fsencode(os.path.abspath(target))) > _LONGEST_PATH:
            return "too-long"
        for folder in (target.parent, *target.parent.parents):
            if folder in self._claimed or (os.path.lexists(folder) and not folder.is_dir()):
                return "taken"
            if folder == top:
                break
        if source.is_symlink():
            text = os.readlink(source)
            if os.path.realpath(target.parent / text) != os.path.realpath(source.parent / text):
                return "relative-link"
        return ""

    def _claim(self, row: Row, source: Path, target: Path) -> _Move:
        target = _free(target, self._claimed, self._made)
        self._claimed.add(target)
        above = [target.parent, *target.parent.parents]
        for folder in reversed(above[: above.index(self._layout.root)]):
            if folder != self._layout.root / SET_ASIDE and not folder.exists():
                self._made[folder] = None
        ways = (_relative(source, self._layout), _relative(target, self._layout))
        return _Move(row.action, row.path, *ways, row.sha256 or content_hash(source))


def _is_direct(folder: Path, top: Path) -> bool:
    """True for a folder that no link leads to, on the way from `top`; it need not exist."""
    return os.path.realpath(folder) == os.path.join(os.path.realpath(top), folder.relative_to(top))


def _check_disk(source: Path, target: Path) -> None:
    """Raises EnvironmentProblem where a picture cannot be renamed; it is never copied, for that can fail halfway."""
    there = next(folder for folder in target.parents if folder.exists())
    for folder in (source.parent, there):
        if not os.access(folder, os.W_OK | os.X_OK):
            raise EnvironmentProblem(f"cannot move pictures in {folder}: permission denied; fix permissions, then rerun")
    if os.lstat(source).st_dev != there.stat().st_dev:
        raise EnvironmentProblem(f"{source} and {there} are on different disks; put the pictures on the disk of {there}")


def _relative(path: Path, layout: Layout) -> str:
    return str(path.relative_to(layout.root))


def _free(target: Path, *claimed: Container[Path]) -> Path:
    """Return the path, or the first with ` (2)`, ` (3)` ... before the extension that is neither claimed nor there."""
    stem, extension = os.path.splitext(target.name)
    if len(os.fsencode(extension)) > 100:  # a dot somewhere, no extension
        stem, extension = target.name, ""
    number, path = 1, target
    while any(path in those for those in claimed) or os.path.lexists(path):
        number += 1
        ending = f" ({number}){extension}"
        while len(os.fsencode(stem + ending)) > _LONGEST:
            stem = stem[:-1]
        path = target.with_name(stem + ending)
    return path


# --- moving


def _carry_out(layout: Layout, path: Path, journal: _Journal, number: int, resumed: bool) -> tuple[_Journal, str]:
    """See to it that one move is done; returns the journal, with another name if that was taken, and why it was not done."""
    while True:
        move = journal.moves[number]
        reason = _do(layout.root / move.source, layout.root / move.target, move.sha256, resumed)
        if reason != "taken":
            return journal, reason
        claimed = {layout.root / other.target for other in journal.moves}
        target = _relative(_free(layout.root / move.target, claimed), layout)
        moves = [*journal.moves[:number], move._replace(target=target), *journal.moves[number + 1 :]]
        journal = replace(journal, moves=tuple(moves))
        _save(path, journal)


def _do(source: Path, target: Path, digest: str, resumed: bool) -> str:
    """Move a picture unless it was; returns why it is not moved. A target was free when the journal was written."""
    if not os.path.lexists(source):
        return "" if os.path.lexists(target) else "missing"
    if os.path.lexists(target):
        if os.path.samestat(os.lstat(source), os.lstat(target)):  # killed between link and unlink
            os.unlink(source)
            return ""
        # Other bytes under the old name: the picture was moved, and since then somebody put another there.
        return "taken" if content_hash(source) == digest else ""
    if resumed and digest and content_hash(source) != digest:
        return "changed"
    target.parent.mkdir(parents=True, exist_ok=True)
    return "" if _rename_to_free(source, target) else "taken"


def _rename_to_free(source: Path, target: Path) -> bool:
    """Rename a file, or a link itself, and overwrite nothing; False where the name is taken."""
    rename = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if rename is not None:
        names = (_AT_WORKING_FOLDER, os.fsencode(source), _AT_WORKING_FOLDER, os.fsencode(target))
        if rename(*names, _NO_REPLACE) == 0:
            return True
        number = ctypes.get_errno()
        if number == errno.EEXIST:
            return False
        if number not in _NOT_SUPPORTED:
            raise OSError(number, os.strerror(number), str(source))
    try:
        os.link(source, target, follow_symlinks=False)
    except FileExistsError:
        return False
    except OSError as error:
        if error.errno not in _NOT_SUPPORTED:
            raise
        # No hard links either: we have looked just now, and what retrain itself does here waits for our lock.
        if os.path.lexists(target):
            return False
        os.rename(source, target)
        return True
    os.unlink(source)
    return True


# --- undo


def undo(layout: Layout, progress: Progress = SILENT) -> Undone:
    """Take back the plan that was applied last and is not undone yet, also one that was killed; the last move first.

    Folders that it made go as well, unless something lies in them. Raises UsageError where there is nothing to take back,
    EnvironmentProblem where a picture cannot be moved: it can then be undone again.
    """
    with _held(layout, "undoing a plan"):
        last = _last(layout)
        if last is None:
            raise UsageError(f"no plan was applied to {layout.root} that is not undone yet; there is nothing to undo")
        path, journal = last
        restored, skipped = 0, []
        with progress.bar("undo", len(journal.moves)) as advance:
            for move in reversed(journal.moves):
                back, reason = _take_back(layout.root / move.source, layout.root / move.target, move.sha256)
                restored += back
                skipped += [(move.source, reason)] if reason else []
                advance()
        _sync(layout, journal)
        for folder in reversed(journal.made):
            with contextlib.suppress(OSError):  # something lies in it, or it went already
                os.rmdir(layout.root / folder)
        # What is gone cannot be brought back, and must not keep earlier plans from being undone.
        complete = all(reason != "taken" for _, reason in skipped)
        if complete:
            _save(path, replace(journal, state=_UNDONE))
    return Undone(path, restored, tuple(skipped), complete)


def _take_back(source: Path, target: Path, digest: str) -> tuple[bool, str]:
    """Move a picture from `target` back to `source`; returns whether that was done, and why it could not be."""
    if not os.path.lexists(target):
        return False, "" if os.path.lexists(source) else "missing"  # never moved, or taken back already
    if os.path.lexists(source):
        if os.path.samestat(os.lstat(source), os.lstat(target)):  # killed between link and unlink, there or back
            os.unlink(target)
            return True, ""
        never_moved = content_hash(source) == digest != content_hash(target)
        return False, "" if never_moved else "taken"
    source.parent.mkdir(parents=True, exist_ok=True)
    moved = _rename_to_free(target, source)
    return moved, "" if moved else "taken"


# --- the journal


def _journals(layout: Layout) -> list[Path]:
    found = [path for path in (layout.reports / APPLIED).glob("*.json") if path.stem.isdecimal()]
    return sorted(found, key=lambda path: int(path.stem))


def _last(layout: Layout) -> tuple[Path, _Journal] | None:
    """Return the last journal that is not undone; raises UsageError for one that is damaged."""
    for path in reversed(_journals(layout)):
        try:
            values = json.loads(path.read_bytes())
            values["moves"] = tuple(_Move(*move) for move in values["moves"])
            values["skipped"] = tuple((picture, reason) for picture, reason in values["skipped"])
            values |= {name: tuple(values[name]) for name in ("made", "new_classes")}
            journal = _Journal(**values)
        except (ValueError, TypeError, KeyError):
            raise UsageError(f"{path} is damaged; move it away, what it applied cannot be undone then") from None
        if journal.state != _UNDONE:
            return path, journal
    return None


def _save(path: Path, journal: _Journal) -> None:
    write_atomically(path, json.dumps(asdict(journal), indent=1).encode() + b"\n")


def _sync(layout: Layout, journal: _Journal) -> None:
    """Make the moves survive a power cut before the journal says that they are done."""
    paths = [*journal.made, *(path for move in journal.moves for path in (move.source, move.target))]
    for folder in sorted({(layout.root / path).parent for path in paths}):
        if folder.is_dir():
            sync_folder(folder)
