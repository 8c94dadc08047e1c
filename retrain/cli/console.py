"""What people see while work goes on, and text that is safe to show on a terminal."""

import re
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import click

from retrain.errors import REASONS

_SECONDS_BETWEEN_LINES = 5.0
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


def printable(text: str) -> str:
    """Return text with control characters, direction marks and undecodable bytes written as escapes.

    File and class names come from anywhere; shown raw they could move the cursor or reorder a line.
    """
    return _CONTROL.sub(lambda match: match[0].encode("unicode_escape", "surrogatepass").decode(), text)


class Console:
    """Progress on stderr: a bar on a terminal, a plain line now and then elsewhere."""

    def note(self, line: str) -> None:
        """Print one line."""
        click.echo(printable(line), err=True)

    @contextmanager
    def bar(self, what: str, total: int | None) -> Iterator[Callable[[], None]]:
        """Show how far a piece of work is."""
        if sys.stderr.isatty():
            from tqdm import tqdm

            with tqdm(total=total, desc=what, unit="", dynamic_ncols=True, leave=False, file=sys.stderr) as bar:

                def advance() -> None:
                    bar.update()

                yield advance
            return
        with _lines(what, total) as count:
            yield count


@contextmanager
def _lines(what: str, total: int | None) -> Iterator[Callable[[], None]]:
    done, last = 0, time.monotonic()

    def advance() -> None:
        nonlocal done, last
        done += 1
        if time.monotonic() - last >= _SECONDS_BETWEEN_LINES:
            last = time.monotonic()
            click.echo(f"{what}: {done}{f' of {total}' if total else ''}", err=True)

    yield advance


def percent(share: float) -> str:
    """Write a share in [0, 1] as people do: `93.4 %`."""
    return f"{100 * share:.1f} %"


def skipped_line(path: str, reason: str, detail: str) -> str:
    """Say in one line why a picture was skipped."""
    return printable(f"skipped {path}: {reason} ({detail or REASONS.get(reason, reason)})")


def is_below(least: float | None, accuracy: float) -> bool:
    """Whether an accuracy is not what was asked for, and say so."""
    if least is None or accuracy >= least:  # not `<`: NaN, from a variable that went wrong, is no success
        return False
    click.echo(f"retrain: the accuracy, {accuracy:.4f}, is not at least {least:g}", err=True)
    return True
