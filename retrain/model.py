"""A trained model as a Python object: what `retrain.load` returns. No TensorFlow."""

import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from retrain import artifact
from retrain.classify import Outcome
from retrain.classify import classify as classify_folder
from retrain.images import read_bytes
from retrain.label import Labelled, Score
from retrain.label import of as labelling
from retrain.progress import SILENT, Progress
from retrain.runner import cores
from retrain.settings import AUTO, UNKNOWN_RATE
from retrain.storage import DEFAULT_MODEL

if TYPE_CHECKING:
    from retrain.explain import Explained


class Model:
    """A verified model. Not thread-safe; loading is cheap, so load one for each thread."""

    def __init__(self, loaded: artifact.Loaded, unknown: float = UNKNOWN_RATE, tta: str = AUTO) -> None:
        self._loaded, self._unknown, self._tta = loaded, unknown, tta
        self._labeller = labelling(loaded, cores(), unknown, tta)

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

    def label_bytes(self, data: bytes, neighbours: int = 0) -> Labelled:
        """Label a picture given as the bytes of its file, and tell all that is known of it; raises BadImage.

        `unknown` of what is returned says whether it is unlike all that the model learnt from; `neighbours` are as many
        of the nearest training pictures as were asked for.
        """
        return self._labeller.label_bytes(data, neighbours)

    def explain(self, image: str | os.PathLike[str], *labels: str) -> "Explained":
        """Return where in a picture file lies what speaks for its top label, or for those that are named.

        Raises BadImage for a file that cannot be used, and UsageError for a label that the model does not have.
        """
        return self.explain_bytes(read_bytes(Path(image)), labels)

    def explain_bytes(self, data: bytes, labels: Sequence[str] = ()) -> "Explained":
        """Explain a picture given as the bytes of its file, otherwise as `explain`."""
        from retrain.explain import Explainer

        return Explainer(self._labeller).explain(data, labels)

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
        single = labelling(self._loaded, unknown=self._unknown, tta=self._tta)
        return classify_folder(single, Path(images), Path(out), sort=sort, dry_run=dry_run, progress=progress)

    def split(self) -> Iterable[artifact.Placed]:
        """Return which training picture was in which part."""
        return self._loaded.split()


def load(model: str | os.PathLike[str] = DEFAULT_MODEL, *, unknown: float = UNKNOWN_RATE, tta: str = AUTO) -> Model:
    """Load a model folder and verify every file of it.

    `unknown`: the share of pictures of the known classes that may be called unknown by mistake; 0: none is called so.
    `tta`: whether several views of a picture are looked at: `auto`: where that was found to help in training; `on`; `off`.

    Raises ModelRefused where there is none, or a file is missing, changed or not ours.
    """
    return Model(artifact.load(Path(model)), unknown, tta)
