"""What was said of the pictures that a model was judged on, kept beside its record.

Where a model was judged in folds no part is left that it has not learnt from, so what the folds said can be had only while
they are there.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from retrain.storage import Layout, own_folder, write_atomically

FILE = "judged.safetensors"
_MODEL = "model"  # the key of its manifest's sha256


@dataclass(frozen=True)
class Predictions:
    """Scores of pictures by heads that never saw them.

    `hashes`: sha256 in hex; `scores`, `uncalibrated`: float32 (n, classes), after and before calibration.
    """

    hashes: tuple[str, ...]
    scores: np.ndarray
    uncalibrated: np.ndarray


def save(layout: Layout, model: str, hashes: Sequence[str], scores: np.ndarray, uncalibrated: np.ndarray) -> None:
    """Write `reports/judged.safetensors`. `model`: the sha256 of the manifest that they belong to."""
    from safetensors.numpy import save as tensors

    keys = np.array([list(bytes.fromhex(sha256)) for sha256 in hashes], np.uint8)
    arrays: dict[str, np.ndarray] = {
        "hashes": keys,
        "scores": scores.astype(np.float32),
        "uncalibrated": uncalibrated.astype(np.float32),
    }
    write_atomically(own_folder(layout.reports) / FILE, tensors(arrays, {_MODEL: model}))


def load(layout: Layout, model: str, classes: int) -> Predictions | None:
    """Return what was written for a model, by the sha256 of its manifest; None where there is nothing that can be used."""
    from safetensors import SafetensorError, safe_open

    path = layout.reports / FILE
    if not path.is_file():
        return None
    try:
        with safe_open(str(path), "numpy") as file:
            if (file.metadata() or {}).get(_MODEL) != model:
                return None
            keys, scores, before = (file.get_tensor(name) for name in ("hashes", "scores", "uncalibrated"))
    except (OSError, SafetensorError):
        return None
    if keys.shape[1:] != (32,) or scores.shape != (len(keys), classes) or before.shape != scores.shape:
        return None
    return Predictions(tuple(row.tobytes().hex() for row in keys), scores, before)
