"""How far an export and the model agree, found by running the export in its own runtime."""

import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from retrain import artifact
from retrain.errors import EnvironmentProblem, RetrainError
from retrain.exports import formats
from retrain.exports.pictures import Compared
from retrain.label import Labeller
from retrain.settings import OFF

_LINES = 3  # of what a runtime said last
_FROM_BYTES = "savedmodel-bytes"


@dataclass(frozen=True)
class Agreement:
    """`agreement`: the share of pictures with the same top label; `difference`: the largest of any score, 0 to 1."""

    pictures: int
    agreement: float
    difference: float


@dataclass(frozen=True)
class Proof:
    """What was found. `least`: the agreement that was demanded.

    `from_bytes`: of a SavedModel, of the same files decoded in TensorFlow, as far as it can decode them; it is told and not
    demanded, since another decoder gives other pixels. `unread`: files that it cannot.
    """

    same: Agreement
    least: float
    from_bytes: Agreement | None = None
    unread: int = 0

    @property
    def holds(self) -> bool:
        """Whether the export may be kept."""
        return self.same.agreement >= self.least

    def as_json(self) -> dict[str, Any]:
        """Return it as JSON values."""
        return {**asdict(self), "holds": self.holds}


def prove(one: formats.Format, path: Path, pictures: Compared, least: float, squashed: bool) -> Proof:
    """Run an export on pictures. Raises RetrainError where it does not run, or gives no scores."""
    if one.name == formats.ZIP:
        labeller = Labeller(artifact.load(path).artifact, tta=OFF)
        by_label = [dict(labeller.label_bytes(file).scores) for file in pictures.files]
        found = np.array([[row[label] for label in labeller.model.labels] for row in by_label])
        return Proof(_compare(found, pictures.scores), least)
    found = run(one.name, path, pictures.pixels)
    same = _compare(found, pictures.scores)
    if one.name != formats.SAVED_MODEL or not squashed:
        return Proof(same, least)
    files = {f"{number:06}": np.frombuffer(file, np.uint8) for number, file in enumerate(pictures.files)}
    found = run(_FROM_BYTES, path, files)
    read = np.isfinite(found).all(axis=1)
    from_bytes = _compare(found[read], pictures.scores[read]) if read.any() else None
    return Proof(same, least, from_bytes, int((~read).sum()))


def run(name: str, path: Path, arrays: Mapping[str, np.ndarray]) -> np.ndarray:
    """Run an export in a process of its own; returns scores, float32 (n, classes). Raises RetrainError."""
    with tempfile.TemporaryDirectory(prefix="retrain-export-") as folder:
        entry, output = Path(folder) / "input.npz", Path(folder) / "output.npy"
        np.savez(entry, **arrays)  # type: ignore[arg-type]
        command = [sys.executable, "-m", "retrain.exports.runtimes", name, str(path), str(entry), str(output)]
        try:
            done = subprocess.run(command, capture_output=True, text=True, check=False, errors="replace")
        except OSError as error:
            raise EnvironmentProblem(f"the runtime of {name} cannot be started: {error.strerror}; run again") from None
        if done.returncode or not output.is_file():
            said = " ".join(done.stderr.strip().splitlines()[-_LINES:])
            raise RetrainError(f"the export as {name} does not run: {said}; choose another format")
        found: np.ndarray = np.load(output, allow_pickle=False)
    return found


def _compare(found: np.ndarray, expected: np.ndarray) -> Agreement:
    if found.shape != expected.shape:
        return Agreement(len(expected), 0.0, 1.0)
    finite = np.isfinite(found).all(axis=1)  # NaN is no label
    same = (found.argmax(axis=1) == expected.argmax(axis=1)) & finite
    difference = np.abs(np.where(np.isfinite(found), found, np.inf) - expected).max()
    return Agreement(len(expected), float(same.mean()), float(min(difference, 1.0)))
