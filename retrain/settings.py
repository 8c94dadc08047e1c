"""Every option, once: its default, its meaning and its limits.

The command line takes option names, help and defaults from these fields, the documentation is generated from the
command line, and the model folder and the run record store the values.
"""

import dataclasses
import os
import re
import warnings
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_args

from retrain.errors import UsageError, did_you_mean

SCHEDULES = ("cosine", "one-cycle")
PRECISIONS = ("auto", "float32", "mixed_float16", "mixed_bfloat16")
CLASS_WEIGHTS = ("none", "balanced")
SCORE_DECIMALS = 5
UNKNOWN = "unknown"  # what a picture is called that is unlike the training pictures
UNKNOWN_RATE = 0.05  # of pictures of the known classes: so many may be called unknown by mistake
AUTO, ON, OFF = SWITCH = ("auto", "on", "off")  # values of --tta where pictures are labelled
FOLDER, NAME, _ = GROUPS = ("folder", "name", "auto")  # values of --groups that are no expressions


def _setting(
    default: Any, help: str, *, low: float | None = None, high: float | None = None, choices: tuple[str, ...] = ()
) -> Any:
    return field(default=default, metadata={"help": help, "low": low, "high": high, "choices": choices})


class Checked:
    """Base of the settings classes: refuses a value outside the limits that its field states."""

    def __post_init__(self) -> None:
        for item in dataclasses.fields(self):  # type: ignore[arg-type]
            value = getattr(self, item.name)
            option = "--" + item.name.replace("_", "-")
            if value is None:
                continue
            value = self._converted(item, option, value)
            choices, low, high = (item.metadata[key] for key in ("choices", "low", "high"))
            if choices and value not in choices:
                hint = did_you_mean(str(value), choices) or "; one of " + ", ".join(choices)
                raise UsageError(f"{option} '{value}' is not known{hint}")
            if (low is not None and not value >= low) or (high is not None and not value <= high):
                raise UsageError(f"{option} {value} is out of range; it goes from {low} to {high}")

    def _converted(self, item: dataclasses.Field, option: str, value: Any) -> Any:
        """Return the value in the type that the field states: from Python, paths may be text and numbers may not."""
        kind = next((kind for kind in get_args(item.type) if kind is not type(None)), item.type)
        if kind is Path:
            if not isinstance(value, str | os.PathLike):
                raise UsageError(f"{option} {value!r} is no path")
            object.__setattr__(self, item.name, Path(value))
        elif kind is bool:
            if not isinstance(value, bool):
                raise UsageError(f"{option} {value!r} is neither True nor False")
        elif kind is str and not isinstance(value, str):
            raise UsageError(f"{option} {value!r} is no text")
        elif kind in (int, float) and (isinstance(value, bool) or not isinstance(value, int | kind)):
            raise UsageError(f"{option} {value!r} is no {'whole number' if kind is int else 'number'}")
        return getattr(self, item.name)


@dataclass(frozen=True)
class SplitSettings(Checked):
    """How pictures are divided into those to learn from, to choose by and to judge by."""

    validation: int = _setting(10, "Percent of the pictures to choose settings by.", low=1, high=45)
    test: int = _setting(20, "Percent of the pictures to judge the model by; it never learns from them.", low=1, high=45)
    validation_dir: Path | None = _setting(None, "Folder of class folders to validate on, in place of a percentage.")
    test_dir: Path | None = _setting(None, "Folder of class folders to test on, in place of a percentage.")
    test_source: str | None = _setting(
        None, "Source to test on, learning from the others: a folder name that half of the class folders have below them."
    )
    groups: str | None = _setting(
        None,
        "Keep pictures that belong together on one side of the split: 'folder' (pictures of one folder below the class"
        " folder), 'name' (pictures of one folder whose names differ only in numbers), 'auto' (whichever of these a random"
        " split would flatter by), or a regular expression on the path (pictures with the same match or first group).",
    )
    folds: int = _setting(
        0,
        "Judge by cross-validation with so many folds, all pictures being tested once; 0: by the test part.",
        low=0,
        high=100,
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.folds == 1:
            raise UsageError("--folds 1 leaves nothing to learn from; use 0 (off) or at least 2")
        if self.folds and (self.test_dir or self.validation_dir):
            raise UsageError("--folds cannot be combined with --test-dir or --validation-dir; drop one of them")
        if self.test_source is not None and (self.test_dir or self.folds):
            raise UsageError("--test-source cannot be combined with --test-dir or --folds; drop one of them")
        if self.groups and self.groups not in GROUPS:
            try:
                with warnings.catch_warnings(action="ignore"):  # of what a later Python may understand otherwise
                    re.compile(self.groups)
            except (re.error, OverflowError, RecursionError) as error:
                raise UsageError(
                    f"--groups '{self.groups}' is no regular expression: {error}; or use 'folder', 'name' or 'auto'"
                ) from None


@dataclass(frozen=True)
class HeadSettings(Checked):
    """How the softmax head is trained."""

    steps: int = _setting(
        0, "Training steps; 0: enough for 40 passes over the pictures, but at least 300 and at most 5000.", low=0, high=10**7
    )
    learning_rate: float | None = _setting(
        None,
        "Highest learning rate, which falls to zero along a cosine; by default 10 divided by the steps, at most 0.02.",
        low=1e-7,
        high=10.0,
    )
    batch_size: int = _setting(128, "Pictures a step.", low=1, high=10**6)
    l2: float | None = _setting(
        None, "Strength of the L2 penalty; by default the best of a sweep, chosen on validation pictures.", low=0.0, high=1e4
    )
    class_weight: str = _setting(
        "none", "'balanced': pictures of rare classes count more, so that each class counts the same.", choices=CLASS_WEIGHTS
    )
    seed: int = _setting(0, "Seed of the order in which pictures are learnt from.", low=0, high=2**31 - 1)
    precision: str = _setting(
        "auto",
        "Number format of training: auto (mixed_float16 on a GPU that is good at it, else float32), or one by name.",
        choices=PRECISIONS,
    )


@dataclass(frozen=True)
class AugmentSettings(Checked):
    """How pictures are distorted to learn more from them. Each kind of distortion is off at 0."""

    augment: int = _setting(
        0, "Learn from so many distorted views of each picture beside the picture itself; cached as it is.", low=0, high=64
    )
    flip: bool = _setting(True, "Exchange left and right in half of the views.")
    crop: int = _setting(25, "Cut off up to so many percent of each side, at a random place.", low=0, high=90)
    scale: int = _setting(
        15, "Stretch or shrink width and height, each on its own, by up to so many percent.", low=0, high=90
    )
    brightness: int = _setting(15, "Make brighter or darker by up to so many percent.", low=0, high=90)
    colour: int = _setting(20, "Make more or less colourful by up to so many percent.", low=0, high=100)
    rotation: int = _setting(8, "Turn by up to so many degrees either way.", low=0, high=180)


@dataclass(frozen=True)
class FineTuneSettings(Checked):
    """How the layers of the backbone are trained, after the head."""

    fine_tune: bool = _setting(False, "Train the layers of the backbone, too, after the head: minutes, or hours.")
    blocks: int | None = _setting(
        None, "Fine-tune only so many of the backbone's last blocks, by default the later half; 0: all.", low=0, high=10**4
    )
    epochs: int = _setting(
        0,
        "Times that each picture is learnt from in fine-tuning; 0: enough for 320 steps, but from 5 to 15.",
        low=0,
        high=10**4,
    )
    refit: bool = _setting(True, "Fine-tune once more, on the validation part, too, once that has been used to choose by.")
    tuning_rate: float = _setting(
        3e-4, "Highest learning rate in fine-tuning: that of the last layers.", low=1e-8, high=10.0
    )
    rate_decay: float = _setting(
        0.7, "What the learning rate is multiplied by from each group of layers to the one before it.", low=0.0, high=1.0
    )
    schedule: str = _setting(
        "cosine",
        "How learning rates run in fine-tuning: a short warm-up, then down a cosine; or one cycle.",
        choices=SCHEDULES,
    )
    tuning_batch: int = _setting(32, "Pictures a step in fine-tuning.", low=1, high=10**5)
    weight_decay: float = _setting(0.1, "Weight decay in fine-tuning.", low=0.0, high=10.0)
    label_smoothing: float = _setting(
        0.1, "Share of a label that is spread over all classes in fine-tuning.", low=0.0, high=0.9
    )
    clip_norm: float = _setting(1.0, "Longest gradient in fine-tuning; 0: any.", low=0.0, high=10**6)
    dropout: float = _setting(0.0, "Share of the features that is left out at random in fine-tuning.", low=0.0, high=0.9)
    mixup: float = _setting(0.0, "Mix pictures in pairs while fine-tuning, by Beta(X, X); 0: do not.", low=0.0, high=10.0)
    patience: int = _setting(
        0,
        "Stop fine-tuning after so many epochs in which validation did not get better; 0: go on to the last, when rates"
        " have fallen. The best epoch is kept.",
        low=0,
        high=10**4,
    )


def as_plain(settings: Any, paths: bool = True) -> dict[str, Any]:
    """Return a settings object as JSON values; with `paths` off, True in place of each path."""
    return {
        name: (str(value) if paths else True) if isinstance(value, Path) else value
        for name, value in dataclasses.asdict(settings).items()
    }
