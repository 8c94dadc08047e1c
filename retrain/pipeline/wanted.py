"""What a training run was asked for: refused at once where it cannot be done, before anything is computed."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from retrain import finetune, summaries
from retrain.backbones import LARGEST, SMALLEST, Backbone
from retrain.errors import UsageError
from retrain.pipeline.features import Extractor, look_up
from retrain.pipeline.tuned import Tuning
from retrain.settings import AugmentSettings, FineTuneSettings, HeadSettings, SplitSettings, as_plain
from retrain.storage import Layout


@dataclass(frozen=True)
class Wanted:
    """The arguments of `train`. Raises UsageError where they do not go together, or are out of range."""

    tf_files: Path
    split: SplitSettings
    head: HeadSettings
    several: tuple[str | Backbone, ...]
    augment: AugmentSettings
    tuning: FineTuneSettings
    tta: bool = False
    search: float = 0.0
    image_size: int | Sequence[int] | None = None
    weights: str | os.PathLike[str] | None = None
    crop_borders: bool = False
    model: str | os.PathLike[str] | None = None
    devices: str | Sequence[str] = ()
    summaries: str | os.PathLike[str] | None = None

    def __post_init__(self) -> None:
        """Check what needs no look at anything."""
        if not 0 <= self.search < float("inf"):
            raise UsageError(f"--search {self.search} is no number of seconds; give 0 or more")
        sizes = [one for one in self._sizes if one is not None]
        if not all(isinstance(one, int) and SMALLEST <= one <= LARGEST for one in sizes):
            said = ", ".join(map(str, sizes))
            raise UsageError(f"--image-size {said} is out of range; give {SMALLEST} to {LARGEST} pixels")
        if self.tuning.fine_tune and len(self.several) > 1:
            raise UsageError("--fine-tune trains one backbone; name the better of these, found without --fine-tune")
        if self.search and (len(self.several) > 1 or self.tuning.fine_tune):
            raise UsageError("--search tries backbones and fine-tuning by itself; give one --backbone, and no --fine-tune")
        if self.split.folds and (self.tuning.fine_tune or self.search):
            option = "--fine-tune" if self.tuning.fine_tune else "--search"
            raise UsageError(f"{option} needs a validation and a test part, not folds; leave out --folds, or {option}")
        if self._sizes[1:] and not self.tuning.fine_tune:
            raise UsageError("--image-size takes several sizes with --fine-tune only; give one")

    @property
    def layout(self) -> Layout:
        """Where everything lies."""
        return Layout(self.tf_files)

    @property
    def target(self) -> Path:
        """The model folder."""
        return self.layout.model if self.model is None else Path(self.model)

    @property
    def _sizes(self) -> tuple[int | None, ...]:
        several = (self.image_size,) if self.image_size is None or isinstance(self.image_size, int) else self.image_size
        return tuple(several) or (None,)

    @property
    def size(self) -> int | None:
        """The image size of the model, in pixels; None for the usual one."""
        return self._sizes[-1]

    @cached_property
    def backbones(self) -> list[str | Backbone]:
        """The rows of the backbones; handles stay as they are. Raises UsageError for a name that is not known."""
        return [look_up(one, self.size, self.weights) for one in self.several]

    @property
    def for_tuning(self) -> Tuning:
        """What fine-tuning is asked for."""
        return Tuning(
            self.tuning, self.augment, self.head, tuple(size for size in self._sizes[:-1] if size is not None),
            (self.devices,) if isinstance(self.devices, str) else tuple(self.devices), self.summaries_folder,
        )  # fmt: skip

    @property
    def summaries_folder(self) -> Path | None:
        """The folder for TensorBoard."""
        return None if self.summaries is None else Path(self.summaries)

    def check(self, extractors: Sequence[Extractor]) -> None:
        """Raise what would be raised later, of what can be seen now: UsageError or EnvironmentProblem."""
        same = [(one.weights, one.preprocessing) for one in extractors]
        for number, one in enumerate(extractors):
            first = same.index(same[number])
            if first < number:
                before = extractors[first].backbone.name
                raise UsageError(f"--backbone {one.backbone.name} is the same network as {before}; name it once")
        if self.summaries_folder is not None:
            summaries.check(self.summaries_folder)
        of = self.for_tuning
        if self.tuning.fine_tune or (self.search and of.devices):
            finetune.check(extractors[0].backbone, self.tuning, self.head.precision, of.devices, of.image_sizes)

    def as_settings(self) -> dict[str, Any]:
        """Return what goes into the run record beside the settings of split and head."""
        further = {"tta": self.tta, "search": self.search, "image_sizes": list(self._sizes)}
        return {**as_plain(self.augment), **as_plain(self.tuning), **further}

    def names(self) -> str:
        """Return the names of the backbones, with commas between them."""
        return ",".join(one if isinstance(one, str) else one.name for one in self.backbones)
