"""Label one picture: image -> scores. No TensorFlow."""

import os
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import numpy as np

from retrain import artifact, views
from retrain.errors import BadImage, ModelRefused
from retrain.images import read_bytes
from retrain.runner import Runner, open_network
from retrain.settings import SCORE_DECIMALS


class Score(NamedTuple):
    """A label, exactly as its class folder was named, and its score in [0, 1]."""

    label: str
    score: float

    def __str__(self) -> str:
        return f"{self.label} (score = {self.score:.{SCORE_DECIMALS}f})"


@dataclass(frozen=True)
class Labelled:
    """What a model says of one picture: `scores` of all labels, highest first, and the picture's real extension."""

    scores: tuple[Score, ...]
    extension: str
    notes: tuple[str, ...] = ()


class Labeller:
    """A loaded model that labels pictures. Not thread-safe: make one for each thread with `copy`."""

    def __init__(self, model: artifact.Artifact, threads: int = 1) -> None:
        """Prepare a model; raises ModelRefused where it needs a newer version of this program."""
        self.model = model
        self._threads = threads
        for member in model.members:
            if member.preprocessing != views.preprocessing_id(member.view, member.image_size):
                raise ModelRefused(
                    f"the model wants its pictures prepared as '{member.preprocessing}', which this version cannot do;"
                    " train again"
                )

    @cached_property
    def _runners(self) -> list[Runner]:
        runners = [open_network(member.network, self._threads) for member in self.model.members]
        for runner, member in zip(runners, self.model.members, strict=True):
            if runner.image_size != member.image_size:
                raise ModelRefused(f"the backbone takes {runner.image_size} pixels, not {member.image_size}; train again")
        return runners

    def copy(self) -> "Labeller":
        """Return a labeller of the same model for another thread."""
        return Labeller(self.model, self._threads)

    def label_bytes(self, data: bytes) -> Labelled:
        """Label a picture given as the bytes of its file; raises BadImage for one that cannot be used."""
        picture = views.decode_for(data, self.model.members[0].image_size)
        total = np.zeros(len(self.model.labels))
        for member, runner in zip(self.model.members, self._runners, strict=True):
            if member.image_size != self.model.members[0].image_size:
                picture = views.decode_for(data, member.image_size)
            pixels = views.render(picture, member.view, member.image_size)
            with np.errstate(over="ignore", invalid="ignore"):  # what comes of it is looked at
                logits = runner.features(pixels[np.newaxis])[0] @ member.kernel + member.bias
                logits = logits / self.model.temperature["none"]
            if not np.isfinite(logits).all():
                raise BadImage("bad-features")
            total += softmax(logits)
        scores = total / len(self.model.members)
        order = np.argsort(-scores, kind="stable")
        ranked = tuple(Score(self.model.labels[index], float(scores[index])) for index in order)
        return Labelled(ranked, picture.extension, picture.notes)

    def label(self, image: str | os.PathLike[str]) -> Labelled:
        """Label a picture file; raises BadImage for one that cannot be used."""
        return self.label_bytes(read_bytes(Path(image)))


def softmax(logits: np.ndarray) -> np.ndarray:
    """Return the probabilities, float64, of logits of shape (classes,)."""
    powers = np.exp(logits.astype(np.float64) - logits.max())
    return powers / powers.sum()


def load(model: str | os.PathLike[str], threads: int = 1) -> Labeller:
    """Load and verify a model folder; raises ModelRefused."""
    return Labeller(artifact.load(Path(model)).artifact, threads)
