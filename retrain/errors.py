"""Everything that can go wrong for a user, and the exit code that each mistake ends with.

    RetrainError
    ├── UsageError            2   an option, a path or a combination of them that cannot work
    ├── NothingUsable         4   no classes, a single class, no picture that could be read
    ├── ModelRefused          5   a model folder that is absent, incomplete, changed or not ours
    └── EnvironmentProblem    6   disk full, no permission, a lock held by another run, a package that is missing

    Terminated          143       the process was asked to end; no Exception, so that nothing catches it by accident
    BadImage                      one picture that cannot be used; caught where pictures are read, counted and reported,
                                  never the end of a run

Each message is one line that says what, where and what to do next. The command line prints it to stderr without a
traceback and ends with `exit_code`; from Python these are ordinary exceptions.
"""

import difflib
from collections.abc import Iterable
from enum import IntEnum

REASONS = {
    "empty": "the file has no bytes",
    "not-an-image": "the content is no picture, whatever the name says",
    "unsupported-format": "a picture or document in a format that is not read",
    "truncated": "the file ends too early",
    "corrupt": "the content is damaged",
    "too-large": "more than 64 megapixels or 512 MiB, or more work or memory than a picture may take",
    "unreadable": "the system refuses to read it",
    "missing": "no such file",
    "not-a-file": "a folder, pipe, socket or device",
    "link-loop": "a link to a folder that is read anyway",
    "changed": "the file changed while it was read",
    "bad-features": "the network gave values that are not finite",
    "learnt-from": "the model has learnt from it, so it says nothing of how good the model is",
    "left-out": "would have leaked between the parts, or belongs to no class",
}  # why a picture was not used: stable identifiers, and what they mean


class Exit(IntEnum):
    """The exit codes of every command; `docs/commands.md` has the same table."""

    OK = 0  # every input was used
    CHECK_FAILED = 1  # a check that was asked for failed, or an internal error
    USAGE = 2
    SKIPPED = 3  # finished, but some inputs were skipped
    NOTHING_USABLE = 4
    MODEL_REFUSED = 5
    ENVIRONMENT = 6
    INTERRUPTED = 130
    TERMINATED = 143


class RetrainError(Exception):
    """Base of all errors that are shown to the user as one line."""

    exit_code = Exit.CHECK_FAILED


class UsageError(RetrainError):
    """An option, a path or a combination of them that cannot work."""

    exit_code = Exit.USAGE


class NothingUsable(RetrainError):
    """The input was read and holds nothing to work on."""

    exit_code = Exit.NOTHING_USABLE


class ModelRefused(RetrainError):
    """The model folder is absent, incomplete, changed or not one of ours."""

    exit_code = Exit.MODEL_REFUSED


class EnvironmentProblem(RetrainError):
    """The machine stands in the way: disk, permissions, locks, a package that is not installed."""

    exit_code = Exit.ENVIRONMENT


class Terminated(BaseException):
    """SIGTERM: unwinds like Ctrl-C, so that what was done so far is kept."""


class BadImage(Exception):
    """One picture cannot be used.

    `reason` is a stable identifier for reports and scripts (a key of REASONS); `detail` is a few words for
    people and may be empty.
    """

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(f"{reason}: {detail}" if detail else reason)
        self.reason = reason
        self.detail = detail

    def __reduce__(self) -> tuple[type["BadImage"], tuple[str, str]]:
        return (type(self), (self.reason, self.detail))


def did_you_mean(received: str, known: Iterable[str]) -> str:
    """Return `; did you mean 'x'?` for the known name nearest to `received`, or an empty string."""
    lowered = {name.lower(): name for name in known}
    containing = [name for name in lowered if received and received.lower() in name]
    close = containing or difflib.get_close_matches(received.lower(), lowered, n=1, cutoff=0.5)
    return f"; did you mean '{lowered[close[0]]}'?" if close else ""


def from_os_error(error: OSError, what: str, path: object = None) -> EnvironmentProblem:
    """Put an operating system's refusal into one line: `what` was being done, the path, the cause."""
    where = path or error.filename or ""
    return EnvironmentProblem(f"cannot {what} {where}: {error.strerror or error}; free space or fix permissions, then rerun")
