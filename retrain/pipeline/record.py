"""The run record, `reports/train.json`: what went in, what came out, what it was made with. Written whatever happens."""

import contextlib
import hashlib
import importlib.metadata
import json
import platform
import sys
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from types import MappingProxyType, TracebackType
from typing import Any

import numpy as np

from retrain.backbones import Backbone
from retrain.bottlenecks import Bottlenecks
from retrain.dataset import Listing, Skipped, Split
from retrain.errors import Exit, RetrainError, Terminated
from retrain.evaluation.splits import Gap
from retrain.runner import cores
from retrain.settings import HeadSettings, SplitSettings, as_plain
from retrain.storage import Layout, is_own, own_folder, write_atomically

_PACKAGES = ("retrain", "tensorflow", "keras", "ai-edge-litert", "pillow", "numpy", "safetensors")
RECORD = "train.json"


class Record:
    """Gathers facts while a run goes on; as a context manager, writes them at its end, good or bad."""

    def __init__(
        self,
        layout: Layout,
        backbone: str,
        split: SplitSettings,
        head: HeadSettings,
        crop_borders: bool = False,
        further: Mapping[str, Any] = MappingProxyType({}),
    ) -> None:
        """`further`: names and values of settings beside those of split and head."""
        self.name = RECORD
        self._crop_borders, self._further = crop_borders, dict(further)
        self.split_settings, self._head, self._backbone, self._layout = split, head, backbone, layout
        self.skipped: list[Skipped] = []
        self.versions = {"python": platform.python_version(), **{name: _version(name) for name in _PACKAGES}}
        self.used = self.computed = self.cached = 0
        self._views = {"computed": 0, "cached": 0}
        self.listed = False
        self._facts: dict[str, Any] = {"status": "failed", "error": None, "exit_code": int(Exit.CHECK_FAILED)}
        self._seconds: dict[str, float] = {}
        self._started, self._clock = datetime.now(UTC), time.perf_counter()

    @contextlib.contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Time a stage of the run."""
        began = time.perf_counter()
        try:
            yield
        finally:
            self._seconds[name] = round(time.perf_counter() - began, 3)

    @property
    def backbone(self) -> str:
        """The name of the backbone, or the names."""
        return self._backbone

    def chosen(self, backbones: Sequence[tuple[Backbone, str, str]]) -> None:
        """Note the backbones, by the names that the model gets: each with its weights' hash and what it runs in."""
        self._backbone = ",".join(backbone.name for backbone, _, _ in backbones)
        rows = [
            {
                "name": backbone.name, "origin": backbone.origin, "licence": backbone.licence,
                "image_size": backbone.image_size, "weights": weights, "engine": engine,
            }
            for backbone, weights, engine in backbones
        ]  # fmt: skip
        self._facts.update({"backbone": rows[0]} if len(rows) == 1 else {"backbones": rows})

    def viewed(self, computed: int, cached: int) -> None:
        """Note that features of further views were computed, or were in the cache."""
        self._views["computed"] += computed
        self._views["cached"] += cached

    def skip(self, path: str, reason: str, detail: str = "") -> None:
        """Note a picture that was counted as used so far and turns out not to be."""
        self.skipped.append(Skipped(path, reason, detail))
        self.used -= 1

    def extracted(self, listing: Listing, found: Bottlenecks, others: Sequence[Bottlenecks] = ()) -> None:
        """Note what was found and what could not be read. `others`: of the same pictures, under further backbones."""
        self.skipped += listing.skipped
        self.skipped += [
            Skipped(listing.examples[row].path, problem.reason, problem.detail)
            for row, problem in sorted(found.problems.items())
        ]
        self.used, self.computed = len(found.rows), found.computed + sum(other.computed for other in others)
        self.cached = max(0, (1 + len(others)) * len(found.rows) - self.computed)
        rows = sorted(
            f"{listing.examples[row].label}\0{sha256}" for row, sha256 in zip(found.rows, found.hashes, strict=True)
        )
        self._facts["data"] = {
            "folder": str(listing.root),
            "sha256": hashlib.sha256("\n".join(rows).encode("utf-8", "surrogateescape")).hexdigest(),
            "read_as": dict(Counter(note for notes in found.notes.values() for note in notes)),
        }

    def grouped(self, grouping: str | None, found: Sequence[Gap]) -> None:
        """Note what `--groups auto` stands for, and why."""
        self.split_settings = replace(self.split_settings, groups=grouping)
        self._facts["groups_found"] = {"groups": grouping, "gaps": [gap.as_json() for gap in found]}

    def divided(self, labels: tuple[str, ...], classes: np.ndarray, parts: Split, pairs: int) -> None:
        """Note the split: pictures of each class in each part."""
        counts: dict[str, Counter[str]] = {label: Counter() for label in labels}
        for index, part in zip(classes, parts.parts, strict=True):
            counts[labels[index]][part] += 1
        self._facts["split"] = {
            "kind": f"{parts.folds} folds" if parts.folds else "parts",
            "units": len(set(parts.units)),
            "near_duplicate_links": pairs,
            "classes": {label: dict(sorted(count.items())) for label, count in counts.items()},
        }

    def judged(self, figures: dict[str, Any]) -> None:
        """Note what was measured."""
        self._facts.update(figures)

    def saved(self, folder: Path, sha256: str) -> None:
        """Note the model that came out, by the sha256 of its manifest."""
        self._facts["model"] = {"folder": str(folder), "sha256": sha256}

    def settings_for_model(self) -> dict[str, Any]:
        """Return the settings without paths: the model must not depend on where things lay."""
        return self._settings(paths=False)

    def _settings(self, paths: bool) -> dict[str, Any]:
        of_pictures = {"backbone": self._backbone, "crop_borders": self._crop_borders}
        return {**of_pictures, **as_plain(self.split_settings, paths), **as_plain(self._head), **self._further}

    def as_json(self) -> dict[str, Any]:
        """Return the record as JSON values."""
        return {
            "format": "retrain-train-record",
            "version": 1,
            **self._facts,
            "settings": self._settings(paths=True),
            "versions": self.versions,
            "machine": {"system": platform.platform(), "cores": cores()},
            "started": self._started.isoformat(timespec="seconds"),
            "seconds": {**self._seconds, "total": round(time.perf_counter() - self._clock, 3)},
            "peak_memory_mib": _peak_memory_mib(),
            "counts": {
                "used": self.used,
                "skipped": len(self.skipped),
                "computed": self.computed,
                "cached": self.cached,
                "views_computed": self._views["computed"],
                "views_cached": self._views["cached"],
            },
            "skipped": [{"path": item.path, "reason": item.reason, "detail": item.detail} for item in self.skipped],
        }

    def __enter__(self) -> "Record":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if error is None:
            self._facts.update(status="finished", exit_code=int(Exit.SKIPPED if self.skipped else Exit.OK))
        else:
            status = "failed" if isinstance(error, Exception) else "interrupted"
            self._facts.update(status=status, error=str(error) or type(error).__name__, exit_code=int(_exit_code(error)))
        try:
            # Without class folders this may be any folder, given by mistake: leave nothing in it.
            meant = self.listed or (self._layout.root / "data").is_dir() or is_own(self._layout.reports)
            if not (meant and self._layout.root.is_dir()):
                return
            text = json.dumps(self.as_json(), indent=1, ensure_ascii=True) + "\n"
            write_atomically(own_folder(self._layout.reports) / self.name, text.encode())
        except (RetrainError, OSError):
            if error is None:
                raise
            # The run failed already, most likely for the same reason; its error is the one to show.


def _exit_code(error: BaseException) -> Exit:
    if isinstance(error, RetrainError):
        return error.exit_code
    return {KeyboardInterrupt: Exit.INTERRUPTED, Terminated: Exit.TERMINATED}.get(type(error), Exit.CHECK_FAILED)


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def _peak_memory_mib() -> int | None:
    try:
        import resource
    except ImportError:  # Windows
        return None
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // (2**20 if sys.platform == "darwin" else 2**10)
