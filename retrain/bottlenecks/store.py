"""The feature cache: one SQLite file, keyed by content, safe to kill at any moment.

A row is found by the sha256 of the picture file's bytes and by its *space*: backbone, hash of its weights,
preprocessing, engine. A second table remembers which bytes a path held, by size and times, so that an unchanged file
is not even read; a third, which bytes are no usable picture. The cache is never a source of truth: a file that is damaged is
put aside and filled again, and every row carries a checksum.
"""

import itertools
import os
import sqlite3
import time
import zlib
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import NamedTuple

import numpy as np

from retrain.errors import REASONS, BadImage, EnvironmentProblem
from retrain.progress import SILENT, Progress
from retrain.storage import folder_locked, holder_of, lock_seconds

_APPLICATION = 0x72747231  # "rtr1"
_VERSION = 2  # 1: the checksum of a row did not say of which space it is
_SCHEMA = """
CREATE TABLE space (id INTEGER PRIMARY KEY, backbone TEXT NOT NULL, weights TEXT NOT NULL, preprocessing TEXT NOT NULL,
    engine TEXT NOT NULL, UNIQUE (backbone, weights, preprocessing, engine)) STRICT;
CREATE TABLE feature (id INTEGER PRIMARY KEY, space INTEGER NOT NULL, sha256 BLOB NOT NULL, crc32 INTEGER NOT NULL,
    vector BLOB NOT NULL, notes TEXT NOT NULL, UNIQUE (space, sha256)) STRICT;
CREATE TABLE bad (space INTEGER NOT NULL, sha256 BLOB NOT NULL, reason TEXT NOT NULL, detail TEXT NOT NULL,
    PRIMARY KEY (space, sha256)) STRICT, WITHOUT ROWID;
CREATE TABLE file (path BLOB PRIMARY KEY, size INTEGER NOT NULL, mtime INTEGER NOT NULL, ctime INTEGER NOT NULL,
    sha256 BLOB NOT NULL) STRICT, WITHOUT ROWID;
"""
_FRESH_NS = 2 * 10**9  # a file changed so recently may change again without its times showing it
_ASK_AT_ONCE = 500
_FAULTS = (sqlite3.Error, UnicodeDecodeError)  # the second where a message quotes what was damaged
# What is no fault of the file. All else is, also a table or column that is not there: its name was damaged.
_ENVIRONMENT = (
    sqlite3.SQLITE_PERM, sqlite3.SQLITE_NOMEM, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_FULL,
    sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_INTERRUPT, sqlite3.SQLITE_NOLFS,
)  # fmt: skip


class CacheDamaged(Exception):
    """The cache file cannot be trusted any more; `Store.renew` starts a fresh one."""


class Space(NamedTuple):
    """What, beside the picture, decides a feature vector."""

    backbone: str
    weights: str
    preprocessing: str
    engine: str


class Entry(NamedTuple):
    """One computed row: the features (float32), or why there are none."""

    sha256: bytes
    vector: np.ndarray | None
    problem: BadImage | None
    notes: tuple[str, ...] = ()


class Stamp(NamedTuple):
    """What tells, without reading it, that a file is still the same."""

    size: int
    mtime: int
    ctime: int

    @classmethod
    def of(cls, path: str | Path) -> "Stamp | None":
        """Return the stamp of a file, None where it cannot be had."""
        try:
            status = os.stat(path)
        except OSError:
            return None
        return cls(status.st_size, status.st_mtime_ns, status.st_ctime_ns)


class Store:
    """An open cache for one space. Used by one thread; several processes may share the file."""

    def __init__(self, path: Path, space: Space, progress: Progress = SILENT) -> None:
        """Open or create the cache; raises EnvironmentProblem where neither can be done."""
        self._path, self._space, self._progress = path, space, progress
        try:
            self._start()
        except CacheDamaged:
            self.renew()

    def _start(self) -> None:
        self._connection = self._open()
        with self._transaction():
            values = tuple(self._space)
            self._connection.execute(
                "INSERT OR IGNORE INTO space (backbone, weights, preprocessing, engine) VALUES (?, ?, ?, ?)", values
            )
            found = self._connection.execute(
                "SELECT id FROM space WHERE (backbone, weights, preprocessing, engine) = (?, ?, ?, ?)", values
            ).fetchall()
            if len(found) != 1:
                raise sqlite3.DatabaseError("a space that was just written cannot be found")
            ((self._id,),) = found

    def renew(self) -> None:
        """Put a damaged file aside, under a name that says so, and start an empty one."""
        if hasattr(self, "_connection"):
            self._connection.close()
        with folder_locked(self._path.parent, "putting a damaged feature cache aside"):
            if _file_number(self._path) == self._file:  # else another run that found the damage was first
                aside = _unused(self._path.with_name(f"{self._path.name}.corrupt-{time.strftime('%Y%m%d-%H%M%S')}"))
                try:
                    os.replace(self._path, aside)
                except OSError as error:
                    raise _trouble(error, self._path) from None
                self._progress.note(
                    f"the feature cache {self._path} is damaged, or of another version: put aside as {aside.name},"
                    " features are computed again"
                )
            self._start()

    def _open(self) -> sqlite3.Connection:
        connection = None
        try:
            os.close(os.open(self._path, os.O_CREAT, 0o666))  # the umask decides; SQLite would make it 0644 at most
            connection = sqlite3.connect(self._path, isolation_level=None, timeout=lock_seconds())
            self._file = _file_number(self._path)
            _prepare(connection)
            self._file = _file_number(self._path)  # SQLite opens it only now
            if not all(os.access(path, os.W_OK) for path in (self._path, self._path.parent)):
                connection.close()
                connection = self._in_memory()
        except (*_FAULTS, OSError) as error:
            if connection is not None:
                connection.close()
            raise _trouble(error, self._path) from None
        connection.text_factory = lambda raw: raw.decode(errors="replace")
        return connection

    def _in_memory(self) -> sqlite3.Connection:
        """Take over what a cache holds that can only be read; what is computed now lasts as long as this process."""
        connection = sqlite3.connect(":memory:", isolation_level=None)
        with closing(sqlite3.connect(f"{self._path.absolute().as_uri()}?mode=ro", uri=True)) as source:
            source.backup(connection)
        _prepare(connection)
        self._progress.note(f"the feature cache {self._path} can only be read: what it lacks is computed and not kept")
        return connection

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        try:
            self._connection.execute("BEGIN IMMEDIATE")
            yield
            self._connection.execute("COMMIT")
        except _FAULTS as error:
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")
            raise _trouble(error, self._path) from None

    def known_files(self, paths: Iterable[str]) -> dict[str, bytes]:
        """Return path -> sha256 for the files that have not changed since their bytes were last hashed."""
        found = {}
        for path, size, mtime, ctime, sha256 in self._lookup(
            "SELECT path, size, mtime, ctime, sha256 FROM file WHERE path IN", [os.fsencode(path) for path in paths]
        ):
            if Stamp.of(os.fsdecode(path)) == (size, mtime, ctime):
                found[os.fsdecode(path)] = sha256
        return found

    def hashes(self) -> set[bytes]:
        """Return the sha256 of all pictures that need not be computed in this space, usable or not."""
        try:
            good = self._connection.execute("SELECT sha256 FROM feature WHERE space = ?", (self._id,)).fetchall()
            bad = self._connection.execute("SELECT sha256 FROM bad WHERE space = ?", (self._id,)).fetchall()
        except _FAULTS as error:
            raise _trouble(error, self._path) from None
        return {sha256 for (sha256,) in good + bad}

    def add(self, entries: Iterable[Entry], files: Iterable[tuple[str, Stamp, bytes]]) -> None:
        """Write computed rows, and which bytes (sha256) paths held at a stamp, in one transaction."""
        now = time.time_ns()
        with self._transaction():
            for entry in entries:
                if entry.problem is not None:
                    self._connection.execute(
                        "INSERT OR IGNORE INTO bad VALUES (?, ?, ?, ?)",
                        (self._id, entry.sha256, entry.problem.reason, entry.problem.detail),
                    )
                elif entry.vector is not None:
                    blob, notes = entry.vector.astype("<f4").tobytes(), " ".join(entry.notes)
                    self._connection.execute(
                        "INSERT OR IGNORE INTO feature (space, sha256, crc32, vector, notes) VALUES (?, ?, ?, ?, ?)",
                        (self._id, entry.sha256, self._checksum(entry.sha256, blob, notes), blob, notes),
                    )
            self._connection.executemany(
                "INSERT OR REPLACE INTO file VALUES (?, ?, ?, ?, ?)",
                [
                    (os.fsencode(path), *stamp, sha256)
                    for path, stamp, sha256 in files
                    if now - max(stamp.mtime, stamp.ctime) > _FRESH_NS
                ],
            )

    def read(self, hashes: Iterable[bytes], size: int) -> Iterator[Entry]:
        """Yield the rows of these pictures, in no order; a row that fails its checksum is deleted and not yielded."""
        wanted = list(hashes)
        damaged = []
        for sha256, crc32, blob, notes in self._lookup(
            f"SELECT sha256, crc32, vector, notes FROM feature WHERE space = {self._id} AND sha256 IN", wanted
        ):
            # A damaged row may hold anything anywhere.
            whole = (type(sha256), type(blob), type(notes)) == (bytes, bytes, str)
            if not whole or len(blob) != 4 * size or self._checksum(sha256, blob, notes) != crc32:
                damaged.append(sha256)
                continue
            yield Entry(sha256, np.frombuffer(blob, "<f4"), None, tuple(notes.split()))
        for sha256, reason, detail in self._lookup(
            f"SELECT sha256, reason, detail FROM bad WHERE space = {self._id} AND sha256 IN", wanted
        ):
            if reason not in REASONS or not isinstance(detail, str):
                damaged.append(sha256)
                continue
            yield Entry(sha256, None, BadImage(reason, detail))
        with self._transaction():
            for sha256 in damaged:
                for table in ("feature", "bad"):
                    self._connection.execute(f"DELETE FROM {table} WHERE space = ? AND sha256 = ?", (self._id, sha256))

    def forget_others(self) -> None:
        """Delete the features under other weights of the same backbone: those of what was fine-tuned before."""
        self._forget("!=")

    def forget(self) -> None:
        """Delete the features under this backbone with these weights, of all views."""
        self._forget("=")

    def _forget(self, compared: str) -> None:
        with self._transaction():
            spaces = f"SELECT id FROM space WHERE backbone = ? AND weights {compared} ?"
            for table in ("feature", "bad"):
                self._connection.execute(f"DELETE FROM {table} WHERE space IN ({spaces})", self._space[:2])

    def _lookup(self, select: str, keys: list[bytes]) -> Iterator[tuple]:
        """Run a query that ends in IN for many keys, some hundred at a time: no read lock is held for long."""
        for at in range(0, len(keys), _ASK_AT_ONCE):
            some = keys[at : at + _ASK_AT_ONCE]
            try:
                yield from self._connection.execute(f"{select} ({','.join('?' * len(some))})", some).fetchall()
            except _FAULTS as error:
                raise _trouble(error, self._path) from None

    def _checksum(self, sha256: bytes, blob: bytes, notes: str) -> int:
        """Of the key too: a damaged index must not hand out features of another picture, or of another space."""
        crc = 0
        for part in ("\0".join(self._space).encode(), sha256, blob, notes.encode()):
            crc = zlib.crc32(part, crc)
        return crc

    def close(self) -> None:
        """Close the file."""
        self._connection.close()

    def __enter__(self) -> "Store":
        return self

    def __exit__(self, *_unused: object) -> None:
        self.close()


def _prepare(connection: sqlite3.Connection) -> None:
    """Set the file up as a cache, or make sure that it is one; raises sqlite3.Error."""
    # DELETE, not WAL: WAL needs shared memory, and its reset race is in the SQLite that many Pythons carry.
    for pragma in ("page_size=16384", "journal_mode=DELETE", "synchronous=FULL", "trusted_schema=OFF", "mmap_size=0"):
        connection.execute(f"PRAGMA {pragma}")
    connection.execute("BEGIN IMMEDIATE")
    names = ("application_id", "user_version")
    (application,), (version,) = (connection.execute(f"PRAGMA {name}").fetchone() for name in names)
    if (application, version) == (0, 0) and not connection.execute("SELECT 1 FROM sqlite_master").fetchone():
        for statement in _SCHEMA.split(";\n"):
            connection.execute(statement)
        connection.execute(f"PRAGMA application_id={_APPLICATION}")
        connection.execute(f"PRAGMA user_version={_VERSION}")
    elif (application, version) != (_APPLICATION, _VERSION):
        raise sqlite3.DatabaseError("written by something else, or by another version")
    connection.execute("COMMIT")


def _file_number(path: Path) -> tuple[int, int] | None:
    """Tell a file from another that later has its name; None where there is none."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino


def _unused(path: Path) -> Path:
    numbered = (path.with_name(f"{path.name}-{number}") for number in itertools.count(2))
    return next(name for name in itertools.chain([path], numbered) if not os.path.lexists(name))


def _kind(error: BaseException) -> int | None:
    code: int | None = getattr(error, "sqlite_errorcode", None)
    return None if code is None else code & 0xFF


def _forbids_to_write(path: Path) -> bool:
    """True where it is the file's header, damaged, and not the system, that allows a cache only to be read."""
    try:
        with path.open("rb") as file:
            return file.read(19)[18:] not in (b"", b"\1", b"\2")  # b"": a file that was only just made
    except OSError:
        return False


def _trouble(error: BaseException, path: Path) -> CacheDamaged | EnvironmentProblem:
    """Tell a damaged file from a disk, lock or permission that stands in the way."""
    if _kind(error) in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
        return EnvironmentProblem(
            f"the feature cache {path} is held by another run{holder_of(path)}; wait for it or end it, then rerun"
        )
    forbidden = _kind(error) == sqlite3.SQLITE_READONLY and _forbids_to_write(path)
    if forbidden or (isinstance(error, _FAULTS) and _kind(error) not in _ENVIRONMENT):
        return CacheDamaged(str(error))
    return EnvironmentProblem(
        f"the feature cache {path} cannot be used: {error}; free space, fix permissions or delete the file, then rerun"
    )
