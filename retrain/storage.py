"""What lies where, and how it gets there whole: names of files and folders, atomic writes, locks.

tf_files/
  data/<class>/...        the pictures: only read
  bottlenecks.sqlite      features, computed once a picture
  model/                  the model folder
  reports/                run records, reports, plans that were applied
  set_aside/              pictures that a plan moved out of the way
"""

import contextlib
import errno
import glob
import os
import re
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from retrain.errors import EnvironmentProblem, UsageError, did_you_mean, from_os_error

DEFAULT_TF_FILES = Path("tf_files")
DEFAULT_MODEL = DEFAULT_TF_FILES / "model"
RATE_RECORD = "learning_rate.json"
RATE_PAGE = "learning_rate.html"  # in reports: what `retrain train --lr-find` draws
# Lies in every folder that we create beside pictures, so that a later run can tell it from a class folder.
SENTINEL = ".retrain"
LOCK_SECONDS = 60.0  # how long to wait for another run; RETRAIN_LOCK_SECONDS in the environment says otherwise
_YOUNG_SECONDS = 1.0
_TEMPORARY = "retrain-"  # and the user's number: the cache folder where there is no better one


@dataclass(frozen=True)
class Layout:
    """The paths of one working folder (`tf_files/`)."""

    root: Path

    @property
    def data(self) -> Path:
        """The folder of class folders: `data/` where there is one, else the working folder itself."""
        return self.root / "data" if (self.root / "data").is_dir() else self.root

    @property
    def bottlenecks(self) -> Path:
        """The feature cache."""
        return self.root / "bottlenecks.sqlite"

    @property
    def model(self) -> Path:
        """The model folder."""
        return self.root / "model"

    @property
    def reports(self) -> Path:
        """Run records and reports."""
        return self.root / "reports"

    @property
    def checkpoint(self) -> Path:
        """How far fine-tuning is: there only while it runs, or after it was killed."""
        return self.reports / "fine-tuning.safetensors"

    @property
    def second_checkpoint(self) -> Path:
        """The same of the second time, on the validation part, too."""
        return self.reports / "fine-tuning-2.safetensors"


def own_folder(folder: Path, hint: str = "") -> Path:
    """Create a folder for our output, marked as ours, and return it.

    Raises UsageError where a folder of that name holds something else, EnvironmentProblem where it cannot be made.
    """
    try:
        if folder.is_dir() and not (folder / SENTINEL).exists() and not _is_empty(folder):
            advice = hint or f"move it away, or class folders into {folder.parent}/data"
            raise UsageError(f"{folder} exists and was not made by retrain; {advice}")
        folder.mkdir(parents=True, exist_ok=True)
        if not (folder / SENTINEL).exists():
            # At once under its name, all that counts: a kill must not leave a folder that is neither empty nor ours.
            (folder / SENTINEL).write_bytes(b"written by retrain\n")
    except FileExistsError:
        raise UsageError(f"{folder} is a file, but a folder of that name is needed; move it away") from None
    except OSError as error:
        raise from_os_error(error, "write to", folder) from None
    if not os.access(folder, os.W_OK):
        raise EnvironmentProblem(f"cannot write to {folder}: permission denied; fix permissions, then rerun")
    return folder


def _is_empty(folder: Path) -> bool:
    """True also where a run of an earlier version was killed while it marked the folder."""
    return all(re.fullmatch(rf"\.{re.escape(SENTINEL)}\.[0-9]+\.tmp", path.name) for path in folder.iterdir())


def is_own(folder: Path) -> bool:
    """True for a folder that we made: no class folder, whatever it is called."""
    try:
        return (folder / SENTINEL).exists()
    except OSError:  # closed, or its name just too long
        return False


def write_atomically(path: Path, data: bytes) -> None:
    """Write a file so that after a kill or a full disk there is the old one or the new one, never a part.

    What a killed run left of the same file is removed. Raises EnvironmentProblem, naming the path.
    """
    _write(path, data, os.replace)


def write_new(path: Path, data: bytes) -> None:
    """Write a file that was not there, so that after a kill or a full disk there is none, or all of it.

    Raises UsageError where it is there, which then stays as it is, and EnvironmentProblem, naming the path.
    """
    check_new(path)
    _write(path, data, _place_new)


def check_folder(folder: Path, called: str) -> None:
    """Raise UsageError, with the nearest name, where a folder to read, `called` so, does not exist."""
    if not folder.exists():
        siblings = [item.name for item in folder.parent.iterdir()] if folder.parent.is_dir() else []
        raise UsageError(f"{called}, {folder}, does not exist{did_you_mean(folder.name, siblings) or '; check the path'}")


def check_apart(source: Path, out: Path, told: str, above: bool = True) -> None:
    """Raise UsageError where a folder to write lies in the one to read, or, with `above`, around it.

    `told`: what would come of it.
    """
    read, made = Path(os.path.realpath(source)), Path(os.path.realpath(out))
    if made == read or read in made.parents or (above and made in read.parents):
        raise UsageError(f"{out} and {source} lie inside one another, {told}; choose another output folder")


def check_new(path: Path) -> None:
    """Raise UsageError where a file cannot be one that `write_new` makes: it is there, or no folder is there for it."""
    if os.path.lexists(path):
        raise UsageError(f"{path} is there already and is not overwritten; choose another name, or move it away")
    if not path.parent.is_dir():
        raise UsageError(f"{path.parent} is no folder to write {path.name} to; make it, or choose another")


def _place_new(temporary: Path, path: Path) -> None:
    try:
        os.link(temporary, path)  # which, other than renaming, replaces nothing
    except FileExistsError:
        check_new(path)
        raise
    except OSError:  # no hard links here
        try:
            with path.open("xb") as file:
                file.write(temporary.read_bytes())
        except FileExistsError:
            check_new(path)
            raise
    temporary.unlink()


def _write(path: Path, data: bytes, place: Callable[[Path, Path], None]) -> None:
    # Drawn, since process numbers are not unique: every container counts its own.
    temporary = path.with_name(f".{path.name}.{int.from_bytes(os.urandom(6), 'big')}.tmp")
    try:
        with _claimed(temporary, os.O_CREAT):
            with temporary.open("wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            place(temporary, path)
        sync_folder(path.parent)
    except BaseException as error:
        with contextlib.suppress(OSError):
            temporary.unlink()
        if isinstance(error, OSError):
            raise from_os_error(error, "write", path) from None
        raise
    _sweep(path)


@contextlib.contextmanager
def _claimed(path: Path, flags: int = 0) -> Iterator[bool]:
    """Hold a file while a block runs; a kill lets go of it. Gives False where another run holds it."""
    try:
        import fcntl
    except ImportError:  # Windows
        yield True
        return
    handle = os.open(path, os.O_RDONLY | flags, 0o666)
    try:
        claimed = True
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:  # others: a file system without locks
            claimed = not isinstance(error, BlockingIOError)
        yield claimed
    finally:
        os.close(handle)


def _sweep(path: Path) -> None:
    """Remove what killed runs left of a file; what a run is writing at this moment is claimed, or very young."""
    for left in path.parent.glob(f".{glob.escape(path.name)}.*.tmp"):
        with contextlib.suppress(OSError), _claimed(left) as abandoned:
            if abandoned and time.time() - left.stat().st_mtime > _YOUNG_SECONDS:
                left.unlink()


def sync_folder(folder: Path) -> None:
    """Make renames in a folder survive a power cut, where the system can."""
    if not hasattr(os, "O_DIRECTORY"):
        return
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # some network file systems cannot
            raise
    finally:
        os.close(handle)


def user_cache() -> Path:
    """Return the user's cache folder for things worth keeping between runs, made if need be.

    `$RETRAIN_CACHE_DIR`, else the system's usual place; a folder below the temporary one where neither can be written.
    """
    candidates = _cache_candidates()
    for folder in candidates:
        try:
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            if not os.access(folder, os.W_OK) or not _ours(folder):
                continue
            if not (folder / "CACHEDIR.TAG").exists():
                tag = b"Signature: 8a477f597d28d172789f06886806bc55\n# retrain: may be deleted; it is made again\n"
                write_atomically(folder / "CACHEDIR.TAG", tag)
            return folder
        except (OSError, EnvironmentProblem):
            continue
    tried = f", tried {candidates[0]}" if candidates else ""
    raise EnvironmentProblem(f"no cache folder can be written{tried}; set RETRAIN_CACHE_DIR to one that can")


def find_cached(name: str) -> Path | None:
    """Return the file that an earlier run kept as `name`, a path within the cache folder; None where there is none.

    A folder that can only be read serves as well: a container with a read-only root has what its image brought.
    """
    for folder in _cache_candidates():
        with contextlib.suppress(OSError):
            if (folder / name).is_file() and _ours(folder):
                return folder / name
    return None


def _cache_candidates() -> list[Path]:
    import platformdirs

    found = []
    with contextlib.suppress(RuntimeError):  # a user without a home, as in a container run under a foreign number
        chosen = os.environ.get("RETRAIN_CACHE_DIR")
        found.append(Path(chosen) if chosen else platformdirs.user_cache_path("retrain"))
    with contextlib.suppress(FileNotFoundError):  # nothing at all can be written
        found.append(Path(tempfile.gettempdir()) / f"{_TEMPORARY}{_user()}")
    return found


def _ours(folder: Path) -> bool:
    """False below the temporary folder, if someone else made it first: what is loaded from it could be anything."""
    return folder.name != f"{_TEMPORARY}{_user()}" or folder.stat().st_uid == _user()


def _user() -> int:
    return os.getuid() if hasattr(os, "getuid") else 0


def lock_seconds() -> float:
    """Return how long to wait for another run: LOCK_SECONDS, or what RETRAIN_LOCK_SECONDS in the environment says.

    Raises UsageError where that is no number.
    """
    said = os.environ.get("RETRAIN_LOCK_SECONDS", str(LOCK_SECONDS))
    if not re.fullmatch(r"[0-9]{1,5}(\.[0-9]+)?", said):
        raise UsageError(f"RETRAIN_LOCK_SECONDS is '{said}'; give a number of seconds")
    return float(said)


def holder_of(path: Path) -> str:
    """Say which process holds a lock on a file or folder, as ` (process 123)`; empty where the system does not tell."""
    try:
        status = path.stat()
        lines = Path("/proc/locks").read_text().splitlines()
    except OSError:
        return ""
    file = f"{os.major(status.st_dev):02x}:{os.minor(status.st_dev):02x}:{status.st_ino}"
    # 1: POSIX  ADVISORY  WRITE 1234 fe:00:5678 0 EOF; a line with -> is of one that waits
    rows = [line.split() for line in lines if "->" not in line]
    numbers = {row[4] for row in rows if len(row) > 5 and row[5] == file and row[3] == "WRITE"} - {str(os.getpid())}
    return f" (process {min(numbers)})" if numbers else ""


@contextlib.contextmanager
def locked(path: Path, what: str, seconds: float | None = None) -> Iterator[None]:
    """Hold the lock file `path` while a block runs; `what` says in the message what another run is doing.

    Raises EnvironmentProblem, with the holder's process number, after `seconds`, by default `lock_seconds`.
    """
    import filelock

    holder, lock = (
        path.with_suffix(".pid"),
        filelock.FileLock(path, timeout=lock_seconds() if seconds is None else seconds),
    )
    try:
        lock.acquire()
    except filelock.Timeout:
        number = holder.read_text() if holder.exists() else "unknown"
        raise EnvironmentProblem(
            f"another run (process {number}) holds {path} for {what}; wait for it or end it, then rerun"
        ) from None
    except OSError as error:
        raise from_os_error(error, "lock", path) from None
    try:
        with contextlib.suppress(OSError):  # only there to name the holder
            holder.write_text(str(os.getpid()))
        yield
    finally:
        with contextlib.suppress(OSError):
            holder.unlink()
        lock.release()


@contextlib.contextmanager
def folder_locked(folder: Path, what: str) -> Iterator[None]:
    """Hold a lock on a folder itself, leaving nothing behind in it; on systems that cannot, do without.

    Raises EnvironmentProblem after `lock_seconds`.
    """
    try:
        import fcntl
    except ImportError:  # Windows
        yield
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        deadline = time.monotonic() + lock_seconds()
        while True:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise EnvironmentProblem(
                        f"another run{holder_of(folder)} holds {folder}, {what}; wait for it or end it, then rerun"
                    ) from None
                time.sleep(0.1)
            except OSError:  # a file system without locks
                break
        yield
    finally:
        os.close(handle)
