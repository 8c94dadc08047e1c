"""How long work tells what it is doing. The library calls it; only the command line draws anything."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Protocol


class Progress(Protocol):
    """Passed to long-running functions. `retrain.cli.console` has the one that people see."""

    def note(self, line: str) -> None:
        """Tell one fact, such as a decision that was taken or something odd in the data."""

    def bar(self, what: str, total: int | None) -> AbstractContextManager[Callable[[], None]]:
        """Open a progress bar over `total` steps (None: not known); call what it gives once a step."""


class Silent:
    """Says nothing: the default when called from Python."""

    def note(self, line: str) -> None:
        """Drop the line."""

    def bar(self, what: str, total: int | None) -> AbstractContextManager[Callable[[], None]]:
        """Return a bar that draws nothing."""
        return nullcontext(lambda: None)


SILENT = Silent()
