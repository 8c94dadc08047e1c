"""What an export is compared on, and what an 8-bit network is calibrated on."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from retrain import images, views
from retrain.artifact import Artifact, Loaded
from retrain.dataset import TEST, TRAIN
from retrain.errors import BadImage, NothingUsable, UsageError
from retrain.exports.composed import inputs
from retrain.images import read_bytes
from retrain.label import Labeller
from retrain.progress import Progress
from retrain.settings import OFF
from retrain.storage import Layout, check_folder
from retrain.whereabouts import Whereabouts

# Enough to see one picture in a hundred that differs; a hundred thousand would take hours in the slower runtimes.
_MOST_COMPARED, _MOST_CALIBRATED = 500, 200
_MOST_BYTES = 256 * 2**20  # of files kept in memory


@dataclass(frozen=True)
class Compared:
    """Pictures, and what the model says of them, each looked at as it is.

    `paths`; `files`: their bytes; `pixels`: by input, uint8 (n, size, size, 3); `scores`: float64 (n, classes), in the order
    of the labels.
    """

    paths: tuple[str, ...]
    files: tuple[bytes, ...]
    pixels: dict[str, np.ndarray]
    scores: np.ndarray


def compared(loaded: Loaded, layout: Layout, data: Path | None, progress: Progress) -> Compared:
    """Read the pictures of a folder, or of the model's test part, at most 500 of them, and label them.

    Raises UsageError where the test pictures are not there any more, NothingUsable where none can be read.
    """
    paths = _below(data) if data is not None else _of_parts(loaded, layout, test=True)
    labeller = Labeller(loaded.artifact, tta=OFF)
    chosen = _evenly(paths, _MOST_COMPARED)
    kept: list[str] = []
    files: list[bytes] = []
    rows: list[list[float]] = []
    pixels: dict[str, list[np.ndarray]] = {name: [] for name in inputs(loaded.artifact)}
    with progress.bar("pictures to compare", len(chosen)) as advance:
        for path in chosen:
            advance()
            try:
                file = read_bytes(Path(path))
                scores = dict(labeller.label_bytes(file).scores)
                seen = as_seen(loaded.artifact, file)
            except BadImage:
                continue
            if sum(map(len, files)) + len(file) > _MOST_BYTES:
                break
            kept.append(path)
            files.append(file)
            rows.append([scores[label] for label in loaded.artifact.labels])
            for name, one in seen.items():
                pixels[name].append(one)
    if not kept:
        raise NothingUsable("there is no picture to compare the export on that could be read; give others with --data")
    return Compared(tuple(kept), tuple(files), {name: np.stack(ones) for name, ones in pixels.items()}, np.array(rows))


def calibration(loaded: Loaded, layout: Layout) -> Iterator[dict[str, np.ndarray]]:
    """Yield training pictures, at most 200: pixels by input, uint8 (1, size, size, 3)."""
    for path in _evenly(_of_parts(loaded, layout, test=False), _MOST_CALIBRATED):
        try:
            seen = as_seen(loaded.artifact, read_bytes(Path(path)))
        except BadImage:
            continue
        yield {name: one[np.newaxis] for name, one in seen.items()}


def as_seen(model: Artifact, file: bytes) -> dict[str, np.ndarray]:
    """Return the pixels that each input gets, uint8 (size, size, 3), of a picture given as the bytes of its file."""
    view = model.members[0].view
    return {name: views.render(views.decode_for(file, size), view, size) for name, size in inputs(model).items()}


def _of_parts(loaded: Loaded, layout: Layout, test: bool) -> list[str]:
    """Return the paths of the test part, or of what was learnt from, by their hashes; in folds, every picture was both."""
    files = Whereabouts(layout)
    wanted = [row.sha256 for row in loaded.split() if row.part == (TEST if test else TRAIN) or row.part.startswith("fold-")]
    found = [path for path in map(files.path, sorted(set(wanted))) if path]
    if not found:
        kind = "test" if test else "training"
        advice = "give a folder of pictures with --data" if test else "put them back, or choose another format"
        raise UsageError(f"the model's {kind} pictures are not where {layout.reports} says; {advice}")
    return found


def _below(folder: Path) -> list[str]:
    check_folder(folder, "the folder of --data")
    return [str(one.path) for one in images.find(folder) if one.problem is None]


def _evenly(paths: Sequence[str], most: int) -> list[str]:
    return [paths[at] for at in np.unique(np.linspace(0, len(paths) - 1, min(len(paths), most)).astype(int))]
