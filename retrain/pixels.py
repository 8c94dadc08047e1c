"""Decoded pictures for fine-tuning, kept in one file that is gone when the run ends: no epoch decodes a picture again."""

import errno
import hashlib
import math
import os
import tempfile
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import IO

import numpy as np

from retrain import views
from retrain.errors import BadImage, from_os_error
from retrain.images import read_bytes
from retrain.progress import SILENT, Progress
from retrain.runner import Run, run_locally

ROOM = 1.15  # times the side that the network sees: so much is left to be cropped and turned without getting blurred
_STEP = 8  # pixels; sides are multiples of it
_CHUNK = 2**24  # bytes written at a time where the system cannot set room aside


class Pixels:
    """Pictures as squares: `squares`, uint8 (n, side, side, 3), RGB. A context manager, which gives the room back.

    `problems`: row -> why that picture could not be used, in which case its square is black and must not be learnt from.
    """

    def __init__(self, count: int, side: int, folder: Path) -> None:
        """Set room aside for `count` pictures in a file in `folder`, which has no name, so that no kill leaves it behind.

        Raises EnvironmentProblem, naming the folder, where there is not room enough.
        """
        self.side = side
        self.problems: dict[int, BadImage] = {}
        shape = (count, side, side, 3)
        # Where the system knows no files without a name, it is removed as soon as it is open, or else when it is closed.
        try:
            self._file: IO[bytes] = tempfile.TemporaryFile(dir=folder, prefix=".pixels-")  # noqa: SIM115  see close
            try:
                _set_aside(self._file, math.prod(shape))
                # A mapped file of no bytes is refused.
                self.squares = np.memmap(self._file, np.uint8, "r+", shape=shape) if count else np.empty(shape, np.uint8)
            except BaseException:
                self._file.close()
                raise
        except OSError as error:
            size = f"{math.prod(shape) / 2**20:,.0f} MiB of pixels"
            raise from_os_error(error, f"set aside {size} in", folder) from None

    def __enter__(self) -> "Pixels":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Give the room back. The pictures are gone, except for those who still hold `squares` or a part of it."""
        self.squares = np.empty((0, self.side, self.side, 3), np.uint8)
        self._file.close()


def side_for(image_sizes: Sequence[int]) -> int:
    """Return the side to keep pictures at for training at these sizes: 256 for 224."""
    return round(ROOM * max(image_sizes) / _STEP) * _STEP


def read(
    paths: Sequence[str],
    side: int,
    folder: Path,
    *,
    hashes: Sequence[str] | None = None,
    view: str = views.DEFAULT_VIEW,
    run: Run = run_locally,
    progress: Progress = SILENT,
) -> Pixels:
    """Decode pictures to squares with sides of `side` pixels.

    `hashes`: sha256 of each file, in hex; a file that does not have it any more is not the picture that was labelled and
    split, and becomes a problem, as does one that cannot be read: nothing is raised for it. `view`: 'squash' or
    'crop-borders'. `folder`: where the pixels are kept.

    Raises EnvironmentProblem where there is not room enough.
    """
    views.get(view)
    pixels = Pixels(len(paths), side, folder)
    try:
        tasks = list(zip(paths, hashes or [""] * len(paths), strict=True))
        if tasks:
            with progress.bar("pictures", len(tasks)) as advance:
                for row, square in enumerate(run(partial(_make_worker, view, side), tasks)):
                    advance()
                    if isinstance(square, BadImage):
                        pixels.problems[row] = square
                    else:
                        pixels.squares[row] = square
    except BaseException:
        pixels.close()
        raise
    return pixels


def _make_worker(view: str, side: int) -> Callable[[tuple[str, str]], np.ndarray | BadImage]:
    def square(task: tuple[str, str]) -> np.ndarray | BadImage:
        path, sha256 = task
        try:
            data = read_bytes(Path(path))
            if sha256 and hashlib.sha256(data).hexdigest() != sha256:
                return BadImage("changed", "since its features were computed")
            return views.render(views.decode_for(data, side), view, side)
        except BadImage as problem:
            return problem

    return square


def _set_aside(file: IO[bytes], size: int) -> None:
    """Take the room now: in a file with holes, a full disk would end the process with a signal while pixels are copied."""
    if not size:
        return
    if hasattr(os, "posix_fallocate"):
        try:
            os.posix_fallocate(file.fileno(), 0, size)
            return
        except OSError as error:
            if error.errno not in (errno.EINVAL, errno.EOPNOTSUPP, errno.ENOSYS):  # a file system that cannot
                raise
    for at in range(0, size, _CHUNK):
        file.write(bytes(min(_CHUNK, size - at)))
    file.flush()
