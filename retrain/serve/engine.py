"""A model on every core, behind a bounded queue, and a new one in its place when its folder changes.

One interpreter with one thread for each core, each fed by a thread of its own, is as fast as LiteRT gets; batches are
slower. So a request is one task, and what cannot be begun soon is turned away rather than kept waiting.
"""

import asyncio
import itertools
import os
import queue
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, TypeVar

from retrain import artifact, label
from retrain.artifact import MANIFEST, Artifact
from retrain.errors import BadImage
from retrain.label import Labeller
from retrain.serve.thumbnails import Thumbnails
from retrain.storage import Layout

Found = TypeVar("Found")
_LOOKED_EVERY = 1.0  # seconds between two looks at the model's folder
_TRIED_EVERY = 10.0  # seconds until a model that could not be loaded is tried again


class Busy(Exception):
    """More requests wait than may."""


@dataclass(frozen=True)
class Serving:
    """A loaded model. `version`: 1 for the first that this server loaded, 2 for the next; `sha256`: of its manifest.

    `labellers`: one for each core, taken for a task and put back; `thumbnails`: of its training pictures.
    """

    version: int
    sha256: str
    model: Artifact
    labellers: "queue.SimpleQueue[Labeller]"
    thumbnails: Thumbnails
    can_tell_unknown: bool
    has_maps: bool  # and need not try parts out


class Timed(NamedTuple):
    """Seconds that a task waited for a core, and worked."""

    waited: float
    worked: float


class Source(NamedTuple):
    """Where models come from, and how pictures are looked at: `unknown` and `tta` as `label.of` takes them."""

    folder: Path
    unknown: float
    tta: str
    pictures: bool  # whether training pictures may be shown


class Engine:
    """Runs tasks on the model that is served now."""

    def __init__(self, source: Source, cores: int, most_waiting: int) -> None:
        """Load the model; raises ModelRefused. `most_waiting`: tasks that may wait while every core works."""
        self._source, self.cores, self._most = source, cores, cores + most_waiting
        self._versions = itertools.count(1)
        self._stamp = _stamp(source.folder)
        self.serving = self._load()
        self.under_way = 0
        self.refused = False  # whether the folder holds a model that cannot be used
        self._pool = ThreadPoolExecutor(cores, thread_name_prefix="retrain-serve")

    def _load(self) -> Serving:
        loaded = artifact.load(self._source.folder)
        first = label.of(loaded, unknown=self._source.unknown, tta=self._source.tta)
        labellers: queue.SimpleQueue[Labeller] = queue.SimpleQueue()
        for number in range(self.cores):
            labeller = first.copy() if number else first
            labeller.warm_up()
            labellers.put(labeller)
        layout = Layout(Path(os.path.normpath(self._source.folder / os.pardir)))
        return Serving(
            next(self._versions), str(loaded.manifest["sha256"]), loaded.artifact, labellers,
            Thumbnails(layout, self._source.pictures), first.can_tell_unknown, first.has_maps(),
        )  # fmt: skip

    async def run(self, task: Callable[[Labeller, Serving], Found]) -> tuple[Found, Timed]:
        """Run a task on the next core that is free, and return what it returns; raises Busy, or what the task raises."""
        if self.under_way >= self._most:
            raise Busy
        self.under_way += 1
        asked = time.perf_counter()

        def work() -> tuple[Found, Timed]:
            begun, serving = time.perf_counter(), self.serving
            labeller = serving.labellers.get()  # there are as many as threads, so one is free
            try:
                found = task(labeller, serving)
            except MemoryError:
                raise BadImage("too-large") from None
            finally:
                serving.labellers.put(labeller)
            return found, Timed(begun - asked, time.perf_counter() - begun)

        try:
            return await asyncio.get_running_loop().run_in_executor(self._pool, work)
        finally:
            self.under_way -= 1

    async def watch(self, told: Callable[[str], None], *, every: float = _LOOKED_EVERY) -> None:
        """Load the model anew whenever its manifest changes, for as long as it is not cancelled.

        Requests go on with the model before until the new one is ready, and where the new one is refused. `told` gets a
        line for each.
        """
        tried, complaint = 0.0, ""
        seen = self._stamp
        while True:
            await asyncio.sleep(every)
            now = await asyncio.to_thread(_stamp, self._source.folder)
            again = now != self._stamp and time.monotonic() - tried >= _TRIED_EVERY
            if now is None or (now == seen and not again):
                seen = now or seen
                continue
            seen, tried = now, time.monotonic()
            try:
                serving = await asyncio.to_thread(self._load)
            except Exception as error:  # noqa: BLE001  whatever it is, the next model may be better
                self.refused, said = True, str(error) or type(error).__name__
                if said != complaint:  # once, however often it is tried
                    told(f"the model was changed and cannot be used, the one before is served on: {said}")
                complaint = said
                continue
            self._stamp, self.serving, self.refused, complaint = now, serving, False, ""
            told(f"the model was changed; version {serving.version} is served now, {len(serving.model.labels)} labels")

    def close(self) -> None:
        """End the threads; what waits is dropped."""
        self._pool.shutdown(wait=False, cancel_futures=True)


def _stamp(folder: Path) -> tuple[int, int, int] | None:
    """What tells one manifest from the next without reading it; None where there is none at the moment."""
    with suppress(OSError):
        status = (folder / MANIFEST).stat()
        return status.st_ino, status.st_mtime_ns, status.st_size
    return None
