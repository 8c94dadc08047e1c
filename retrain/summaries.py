"""Figures that TensorBoard draws, of whatever is trained."""

import importlib.util
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from retrain.devices import start
from retrain.errors import EnvironmentProblem, UsageError


def check(folder: Path) -> None:
    """Make a folder for figures, before anything is trained that they are of.

    Raises EnvironmentProblem where tensorboard is not installed, without which TensorFlow writes no figures, and UsageError
    where no folder can be made.
    """
    if importlib.util.find_spec("tensorboard") is None:
        raise EnvironmentProblem("tensorboard is not installed; run: pip install retrain[tensorboard]")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"{folder} cannot be a folder for summaries ({error.strerror}); choose another") from None


class Summaries:
    """One curve of each figure, in a folder that TensorBoard shows as a run; does nothing where there is no folder."""

    def __init__(self, folder: Path | None, run: str) -> None:
        """`run`: the name of what is trained, that of a folder within `folder`. Raises what `check` raises."""
        self._writer: Any = None
        if folder is None:
            return
        check(folder)
        self._tf, self._folder = start(), folder
        with self._told():
            self._writer = self._tf.summary.create_file_writer(str(folder / run))

    def add(self, step: int, figures: Mapping[str, float | None]) -> None:
        """Write figures after a step; None is left out. Raises EnvironmentProblem where there is no room for them."""
        if self._writer is None:
            return
        with self._told(), self._writer.as_default():
            for name, value in figures.items():
                if value is not None:
                    self._tf.summary.scalar(name, value, step=step)
            self._writer.flush()

    @contextmanager
    def _told(self) -> Iterator[None]:
        try:
            yield
        except (OSError, self._tf.errors.OpError) as error:
            said = " ".join(str(error).split())
            raise EnvironmentProblem(f"cannot write summaries to {self._folder}: {said}; choose another folder") from None
