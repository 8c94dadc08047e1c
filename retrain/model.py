"""A trained model as a Python object: what `retrain.load` returns. No TensorFlow."""

import os
from collections.abc import Iterable
from pathlib import Path

from retrain import artifact
from retrain.classify import Outcome
from retrain.classify import classify as classify_folder
from retrain.label import Labelled, Labeller, Score
from retrain.progress import SILENT, Progress
from retrain.runner import cores
from retrain.storage import DEFAULT_MODEL


class Model:
    """A verified model. Not thread-safe; loading is cheap, so load one for each thread."""

    def __init__(self, loaded: artifact.Loaded) -> None:
        self._loaded = loaded
        self._labeller = Labeller(loaded.artifact, threads=cores())

    @property
    def labels(self) -> tuple[str, ...]:
        """The labels, exactly as the class folders were named, sorted."""
        return self._loaded.artifact.labels

    @property
    def metrics(self) -> dict[str, object]:
        """What was measured when it was trained, `test_accuracy` and its interval among them."""
        return dict(self._loaded.artifact.metrics)

    def label(self, image: str | os.PathLike[str]) -> list[Score]:
        """Return (label, score) pairs for one picture file, highest score first; scores are in [0, 1] and add up to 1.

        Raises BadImage, with its reason, for a file that cannot be used.
        """
        return list(self._labeller.label(image).scores)

    def label_bytes(self, data: bytes) -> Labelled:
        """Label a picture given as the bytes of its file, and tell how it was read; raises BadImage."""
        return self._labeller.label_bytes(data)

    def classify(
        self,
        images: str | os.PathLike[str],
        out: str | os.PathLike[str],
        *,
        sort: bool = False,
        dry_run: bool = False,
        progress: Progress = SILENT,
    ) -> Outcome:
        """Copy each picture below `images` to `out/<label>-<score>.<ext>`, as `retrain classify` does.

        Pictures that cannot be used are counted in the outcome and named in the manifest. Raises UsageError,
        NothingUsable and EnvironmentProblem as `retrain.classify.classify` says.
        """
        single = Labeller(self._loaded.artifact)
        return classify_folder(single, Path(images), Path(out), sort=sort, dry_run=dry_run, progress=progress)

    def split(self) -> Iterable[artifact.Placed]:
        """Return which training picture was in which part."""
        return self._loaded.split()


def load(model: str | os.PathLike[str] = DEFAULT_MODEL) -> Model:
    """Load a model folder and verify every file of it.

    Raises ModelRefused where there is none, or a file is missing, changed or not ours.
    """
    return Model(artifact.load(Path(model)))
