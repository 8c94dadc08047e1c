"""Move one picture, there or back: to a name that is free, never over what lies there.

Why one is not moved is a key of REASONS in `retrain.checks.apply`, empty where it is.
"""

import ctypes
import errno
import os
from collections.abc import Container
from pathlib import Path

from retrain.checks.plan import content_hash
from retrain.errors import EnvironmentProblem

_LONGEST = 255  # bytes of a name
_AT_WORKING_FOLDER, _NO_REPLACE = -100, 1  # AT_FDCWD and RENAME_NOREPLACE of Linux
_NOT_SUPPORTED = {errno.ENOSYS, errno.EINVAL, errno.EPERM, errno.EOPNOTSUPP, errno.ENOTSUP, errno.EMLINK}


def check_disk(source: Path, target: Path) -> None:
    """Raises EnvironmentProblem where a picture cannot be renamed; it is never copied, for that can fail halfway."""
    there = next(folder for folder in target.parents if folder.exists())
    for folder in (source.parent, there):
        if not os.access(folder, os.W_OK | os.X_OK):
            raise EnvironmentProblem(f"cannot move pictures in {folder}: permission denied; fix permissions, then rerun")
    if os.lstat(source).st_dev != there.stat().st_dev:
        raise EnvironmentProblem(f"{source} and {there} are on different disks; put the pictures on the disk of {there}")


def free_path(target: Path, *claimed: Container[Path]) -> Path:
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


def put_there(source: Path, target: Path, digest: str, resumed: bool) -> str:
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


def take_back(source: Path, target: Path, digest: str) -> tuple[bool, str]:
    """Move a picture from `target` back to `source`; returns whether that was done, and why it could not be.

    "taken" is said of `source`, all else of `target`. Other bytes than those that were moved are left.
    """
    if not os.path.lexists(target):
        return False, "" if os.path.lexists(source) else "missing"  # never moved, or taken back already
    if os.path.lexists(source):
        if os.path.samestat(os.lstat(source), os.lstat(target)):  # killed between link and unlink, there or back
            os.unlink(target)
            return True, ""
        if content_hash(target) == digest:
            return False, "taken"
        return False, "" if content_hash(source) == digest else "changed"  # the first was never moved
    if content_hash(target) != digest:
        return False, "changed"
    source.parent.mkdir(parents=True, exist_ok=True)
    moved = _rename_to_free(target, source)
    return moved, "" if moved else "taken"


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
