"""Find picture files in folders, and read one."""

import contextlib
import errno
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from retrain.errors import BadImage
from retrain.storage import is_own

MAX_BYTES = 512 * 2**20  # errors.REASONS says it in words
OUT_OF_MEMORY = "out of memory"
IGNORED_NAMES = {"thumbs.db", "desktop.ini"}


class Found(NamedTuple):
    """A path below a folder of pictures. `problem` is None for a file that can be tried, else why it cannot."""

    path: Path
    problem: BadImage | None


def find(root: Path, within: Path | None = None) -> Iterator[Found]:
    """Yield every candidate below `root`, sorted by name within each folder (names compared as bytes).

    Dot files, Thumbs.db and desktop.ini are no inputs. Linked folders are followed unless they lead back to a folder
    that is read anyway: one below or above `root`, or `within`, the larger folder that is being read piece by piece.
    Memory is bounded by the largest single folder.
    """
    read_anyway = {Path(os.path.realpath(folder)) for folder in (root, within or root)}
    try:
        seen = {_identity(root)}
    except OSError as error:
        yield Found(root, _cannot_read(error))
        return
    yield from _walk(root, read_anyway, seen)


def _walk(root: Path, read_anyway: set[Path], seen: set[tuple[int, int]]) -> Iterator[Found]:
    open_folders = [_entries(root)]  # a stack of our own: folders may be nested deeper than Python can call
    while open_folders:
        entry = next(open_folders[-1], None)
        if entry is None:
            open_folders.pop()
            continue
        found, is_folder, is_link = entry
        if not is_folder:
            yield found
            continue
        if is_own(found.path):
            continue
        try:
            identity = _identity(found.path)
        except OSError as error:  # it went away since
            yield Found(found.path, _cannot_read(error))
            continue
        if identity in seen or (is_link and leads_back(found.path, read_anyway)):
            yield Found(found.path, BadImage("link-loop"))
        else:
            seen.add(identity)
            open_folders.append(_entries(found.path))


def _entries(folder: Path) -> Iterator[tuple[Found, bool, bool]]:
    """Yield (what was found, is it a folder, is it a link) for one folder."""
    try:
        with os.scandir(folder) as scan:
            entries = sorted((os.fsencode(entry.name), entry.is_symlink()) for entry in scan)
    except OSError as error:
        yield Found(folder, _cannot_read(error)), False, False
        return
    for raw_name, is_link in entries:
        path = Path(os.path.join(folder, os.fsdecode(raw_name)))
        if is_ignored(path.name):
            continue
        try:
            mode = path.stat().st_mode
        except OSError as error:
            problem = BadImage("link-loop") if error.errno == errno.ELOOP else _cannot_read(error)
            yield Found(path, problem), False, is_link
            continue
        usable = stat.S_ISREG(mode) or stat.S_ISDIR(mode)
        yield Found(path, None if usable else BadImage("not-a-file")), stat.S_ISDIR(mode), is_link


def is_ignored(name: str) -> bool:
    """True for what no file manager means as a picture: dot files, Thumbs.db, desktop.ini."""
    return name.startswith(".") or name.lower() in IGNORED_NAMES


def _identity(folder: Path) -> tuple[int, int]:
    status = folder.stat()
    return status.st_dev, status.st_ino


def leads_back(link: Path, read_anyway: set[Path]) -> bool:
    """True for a link to a folder that is one of `read_anyway`, or below or above one."""
    target = Path(os.path.realpath(link))
    return any(target == folder or folder in target.parents or target in folder.parents for folder in read_anyway)


def _cannot_read(error: OSError) -> BadImage:
    reasons = {errno.ENOENT: "missing", errno.ENOTDIR: "missing", errno.ENXIO: "not-a-file"}  # ENXIO: a socket
    return BadImage(reasons.get(error.errno or 0, "unreadable"), error.strerror or str(error))


def read_bytes(path: Path) -> bytes:
    """Read a whole picture file, at most MAX_BYTES.

    Raises BadImage: missing, unreadable, not-a-file, too-large, empty. Never blocks on a pipe or device.
    """
    try:
        handle = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    except (OSError, ValueError) as error:  # ValueError: a name with a NUL character
        raise (_cannot_read(error) if isinstance(error, OSError) else BadImage("missing", str(error))) from None
    with contextlib.ExitStack() as stack:
        stack.callback(os.close, handle)
        status = os.fstat(handle)
        if not stat.S_ISREG(status.st_mode):
            raise BadImage("not-a-file", "a folder" if stat.S_ISDIR(status.st_mode) else "")
        if status.st_size > MAX_BYTES:
            raise BadImage("too-large", f"{status.st_size / 2**20:.0f} MiB")
        try:
            with os.fdopen(handle, "rb", closefd=False) as file:
                # Asked for the limit at once, Python would set aside that much memory for every picture.
                data = file.read(status.st_size + 1)
                if len(data) > status.st_size:  # it is growing
                    data += file.read(MAX_BYTES + 1 - len(data))
        except OSError as error:
            raise _cannot_read(error) from None
        except MemoryError:
            raise BadImage("too-large", OUT_OF_MEMORY) from None
    if not data:
        raise BadImage("empty")
    if len(data) > MAX_BYTES:
        raise BadImage("too-large", f"over {MAX_BYTES / 2**20:.0f} MiB")
    return data
