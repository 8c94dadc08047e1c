"""Move pictures as a plan says, and take that back. Nothing is ever overwritten or deleted.

Where each picture goes is decided for all of them first and written to a journal, `reports/applied/<number>.json`, whole
or not at all; only then the first is moved. So after a kill at any moment the journal and the places where files lie tell
what was done: the same plan applied again goes on there, and `undo` takes back what there is.
"""

import contextlib
import json
import os
import stat
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path

from retrain.checks.findings import KEEP, MOVE, RELABEL
from retrain.checks.journal import APPLIED, BEGUN, DONE, UNDONE, Journal, Move, find_last, journals, save, sync
from retrain.checks.moves import check_disk, free_path, put_there, take_back
from retrain.checks.plan import Row, content_hash, mistake_in
from retrain.errors import UsageError, did_you_mean, from_os_error
from retrain.progress import SILENT, Progress
from retrain.storage import Layout, folder_locked, is_own, own_folder

SET_ASIDE = "set_aside"
REASONS = {
    "missing": "no such file; it may have been moved already",
    "changed": "other bytes than when the plan was made or applied",
    "not-a-file": "a folder, pipe, socket or device, or a link to one",
    "unreadable": "the system refuses to look at it",
    "behind-link": "it lies, or would lie, in a folder that is reached by a link",
    "relative-link": "a link that would lead elsewhere from its new place",
    "taken": "something else lies where it belongs",
    "too-long": "its new path would be longer than the system allows",
}  # why a picture was left where it is: stable identifiers, and what they mean
_LONGEST_PATH = 4080  # bytes, with room for a number


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

    `skipped`: (path below the working folder, a key of REASONS): where the picture is or should be, or the name that is
    taken. `complete`: False where one is taken: the plan can be undone again when it is free.
    """

    journal: Path
    restored: int = 0
    skipped: tuple[tuple[str, str], ...] = ()
    complete: bool = True


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
            sync(layout, journal)
            save(path, replace(journal, state=DONE))
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


def _begin(layout: Layout, rows: Sequence[Row]) -> tuple[Path, Journal, bool]:
    """Return where the journal is, what it says, and whether an earlier run wrote it."""
    own_folder(layout.reports)
    plan = sha256(json.dumps(sorted((row.action, row.path, row.to, row.sha256) for row in rows)).encode()).hexdigest()
    last = find_last(layout)
    if last is not None and last[1].state == BEGUN and last[1].plan == plan:
        return *last, True
    planner = _Planner(layout)
    for row in rows:
        if _is_to_move(row):
            planner.add(row)
    journal = planner.journal(plan)
    if any(move.action == MOVE for move in journal.moves):
        _make_aside(layout.root)
    numbers = [int(path.stem) for path in journals(layout)]
    path = layout.reports / APPLIED / f"{max(numbers, default=0) + 1:04}.json"
    if journal.moves:
        path.parent.mkdir(exist_ok=True)
        save(path, journal)
    return path, journal, False


def _carry_out(layout: Layout, path: Path, journal: Journal, number: int, resumed: bool) -> tuple[Journal, str]:
    """See to it that one move is done; returns the journal, with another name if that was taken, and why it was not done."""
    while True:
        move = journal.moves[number]
        reason = put_there(layout.root / move.source, layout.root / move.target, move.sha256, resumed)
        if reason != "taken":
            return journal, reason
        claimed = {layout.root / other.target for other in journal.moves}
        target = _relative(free_path(layout.root / move.target, claimed), layout)
        moves = [*journal.moves[:number], move._replace(target=target), *journal.moves[number + 1 :]]
        journal = replace(journal, moves=tuple(moves))
        save(path, journal)


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
        self._moves: list[Move] = []
        self._skipped: list[tuple[str, str]] = []
        self._new: dict[str, None] = {}
        self._made: dict[Path, None] = {}
        self._claimed: set[Path] = set()

    def journal(self, plan: str) -> Journal:
        made = tuple(_relative(folder, self._layout) for folder in self._made)
        return Journal(plan, BEGUN, tuple(self._moves), made, tuple(self._new), tuple(self._skipped))

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
        check_disk(source, target)
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
        digest = content_hash(source)
        if not digest and stat.S_ISREG(mode):  # it could not be told from others when it is to come back
            return "unreadable"
        return "changed" if row.sha256 and digest != row.sha256 else ""

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

    def _claim(self, row: Row, source: Path, target: Path) -> Move:
        target = free_path(target, self._claimed, self._made)
        self._claimed.add(target)
        above = [target.parent, *target.parent.parents]
        for folder in reversed(above[: above.index(self._layout.root)]):
            if folder != self._layout.root / SET_ASIDE and not folder.exists():
                self._made[folder] = None
        ways = (_relative(source, self._layout), _relative(target, self._layout))
        return Move(row.action, row.path, *ways, row.sha256 or content_hash(source))


def _is_direct(folder: Path, top: Path) -> bool:
    """True for a folder that no link leads to, on the way from `top`; it need not exist."""
    return os.path.realpath(folder) == os.path.join(os.path.realpath(top), folder.relative_to(top))


def _relative(path: Path, layout: Layout) -> str:
    return str(path.relative_to(layout.root))


# --- undo


def undo(layout: Layout, progress: Progress = SILENT) -> Undone:
    """Take back the plan that was applied last and is not undone yet, also one that was killed; the last move first.

    Folders that it made go as well, unless something lies in them. Raises UsageError where there is nothing to take back,
    EnvironmentProblem where a picture cannot be moved: it can then be undone again.
    """
    with _held(layout, "undoing a plan"):
        last = find_last(layout)
        if last is None:
            raise UsageError(f"no plan was applied to {layout.root} that is not undone yet; there is nothing to undo")
        path, journal = last
        restored, skipped = 0, []
        with progress.bar("undo", len(journal.moves)) as advance:
            for move in reversed(journal.moves):
                back, reason = take_back(layout.root / move.source, layout.root / move.target, move.sha256)
                restored += back
                skipped += [(move.source if reason == "taken" else move.target, reason)] if reason else []
                advance()
        sync(layout, journal)
        for folder in reversed(journal.made):
            with contextlib.suppress(OSError):  # something lies in it, or it went already
                os.rmdir(layout.root / folder)
        # What is gone cannot be brought back, and must not keep earlier plans from being undone.
        complete = all(reason != "taken" for _, reason in skipped)
        if complete:
            save(path, replace(journal, state=UNDONE))
    return Undone(path, restored, tuple(skipped), complete)
