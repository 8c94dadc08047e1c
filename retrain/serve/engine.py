"""A model on every core, behind a bounded queue, and a new one in its place when its folder changes.

One interpreter with one thread for each core, each fed by a thread of its own, is as fast as LiteRT gets; batches are
slower. So a request is one task, and what cannot be begun soon is turned away rather than kept waiting.
"""

import asyncio
import itertools
import os
import queue
import threading
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from retrain import artifact, label
from retrain.artifact import MANIFEST, Artifact
from retrain.errors import BadImage
from retrain.label import Labeller
from retrain.serve.thumbnails import Thumbnails
from retrain.storage import Layout

Found = TypeVar("Found")
_BEGUN_WITHIN = 10.0  # seconds; whoever waits longer is told to come again
_LOOKED_EVERY = 1.0  # seconds between two looks at the model's folder
_TRIED_EVERY = 10.0  # seconds until a model that could not be loaded is tried again


class Busy(Exception):
    """More requests wait than may, or one has waited for long."""


class Gone(Exception):
    """Nobody waits for the answer any more."""


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
        self.under_way, self._counting = 0, threading.Lock()
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

    async def run(
        self, task: Callable[[Labeller, Serving], Found], gone: Callable[[], Awaitable[object]]
    ) -> tuple[Found, Timed]:
        """Run a task on the next core that is free, and return what it returns, or raise what it raises.

        `gone`: what it gives ends when nobody waits for the answer any more; what has not begun by then is dropped. Raises
        Gone for that, and Busy where too many wait, or the task was not begun within ten seconds.
        """
        if self.under_way >= self._most:
            raise Busy
        self._count(1)
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

        future = self._pool.submit(work)
        future.add_done_callback(lambda _: self._count(-1))  # also where nobody waits: a core is taken as long as it works
        answer, left = asyncio.wrap_future(future), asyncio.ensure_future(gone())
        both: set[asyncio.Future[Any]] = {answer, left}
        answer.add_done_callback(lambda one: one.cancelled() or one.exception())  # or asyncio tells that nobody asked
        try:
            done, _ = await asyncio.wait(both, timeout=_BEGUN_WITHIN, return_when=asyncio.FIRST_COMPLETED)
            if not done and future.cancel():
                raise Busy
            if not done:
                done, _ = await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
            if answer in done:
                return answer.result()
            future.cancel()
            raise Gone
        finally:
            left.cancel()

    def _count(self, step: int) -> None:
        with self._counting:
            self.under_way += step

    async def watch(self, told: Callable[[str], None], *, every: float = _LOOKED_EVERY) -> None:
        """Load the model anew whenever its manifest changes, for as long as it is not cancelled.

        Requests go on with the model before until the new one is ready, and where the new one is refused. `told` gets a
        line for each.
        """
        tried, complaint, missing = 0.0, "", False
        seen = self._stamp
        while True:
            await asyncio.sleep(every)
            now = await asyncio.to_thread(_stamp, self._source.folder)
            again = now != self._stamp and time.monotonic() - tried >= _TRIED_EVERY
            if now is None and not missing:
                told("the model is not there any more; the one that was loaded is served on")
            missing = now is None
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


def _stamp(model: Path) -> tuple[int, int, int] | None:
    """What tells one manifest, or zip, from the next without reading it; None where there is none at the moment."""
    with suppress(OSError):
        status = (model / MANIFEST if model.is_dir() else model).stat()
        return status.st_ino, status.st_mtime_ns, status.st_size
    return None
