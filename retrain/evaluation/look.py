"""Looks at a picture once more: maps of labels, and what becomes of its label with another border."""

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from retrain import views
from retrain.artifact import Artifact
from retrain.errors import BadImage
from retrain.evaluation.heat import Heat
from retrain.heat.cover import Colour, ground, on_ground, with_border_of, without_border
from retrain.heat.maps import activation, mean
from retrain.images import Picture, read_bytes
from retrain.label import Labeller, Sight
from retrain.scores import softmax
from retrain.settings import OFF

_SIDE = 64  # pixels of the mean picture


class File(NamedTuple):
    """A picture: its path, its class, and the sha256 in hex that it had when it was labelled."""

    path: str
    label: str
    sha256: str


class Task(NamedTuple):
    """A picture to look at, for the maps of `labels`. The first of them is looked at again with a change: `bare`, without
    the border; `frame`, with that of another picture; `ground`, on a background of that colour."""

    file: File
    labels: tuple[str, ...]
    bare: bool = False
    frame: File | None = None
    ground: Colour | None = None


class Looked(NamedTuple):
    """`lead`: of the first label, as the picture is; `changed`: with the change that was asked for.

    A lead is the logarithm of the odds against the likeliest other label. `seen`: uint8 (64, 64, 3), the picture; `ground`:
    the colour of its background, None where it has not one.
    """

    heat: Heat | None
    lead: float
    changed: float
    seen: np.ndarray
    ground: Colour | None


def worker(model: Artifact) -> Callable[[Task], Looked | None]:
    """Return what looks at pictures: None for one that is gone, or is another one now."""
    labeller = Labeller(model, tta=OFF)

    def work(task: Task) -> Looked | None:
        try:
            return _look(labeller, task)
        except BadImage:
            return None

    return work


def _look(labeller: Labeller, task: Task) -> Looked:
    model = labeller.model
    _, sights = labeller.look(_bytes_of(task.file), maps=True)
    places = [model.labels.index(label) for label in task.labels]
    lead = _lead(model, [one.logits for one in sights], places[0])
    pixels = _changed(model, sights, task)
    changed = [labeller.logits(at, one[np.newaxis])[0] for at, one in enumerate(pixels)]
    first = sights[0].pixels
    seen = np.asarray(Image.fromarray(first).resize((_SIDE, _SIDE), Image.Resampling.BOX))
    after = _lead(model, changed, places[0]) if changed else lead
    return Looked(_heat(model, sights, places, task), lead, after, seen, ground(first))


def _changed(model: Artifact, sights: Sequence[Sight], task: Task) -> list[np.ndarray]:
    """Return the pixels that each member is to see with the change; none without a change."""
    if task.bare:
        return [without_border(one.pixels) for one in sights]
    if task.frame:
        return _framed(model, sights, _bytes_of(task.frame))
    if task.ground is None:
        return []
    before = [(one.pixels, ground(one.pixels)) for one in sights]
    return [pixels if colour is None else on_ground(pixels, colour, task.ground) for pixels, colour in before]


def _bytes_of(file: File) -> bytes:
    data = read_bytes(Path(file.path))
    if hashlib.sha256(data).hexdigest() != file.sha256:
        raise BadImage("missing")
    return data


def _framed(model: Artifact, sights: Sequence[Sight], frame: bytes) -> list[np.ndarray]:
    """Return what each member saw, inside the border of another picture."""
    others: dict[int, Picture] = {}
    made = []
    for sight, member in zip(sights, model.members, strict=True):
        size = member.image_size
        other = others[size] = others.get(size) or views.decode_for(frame, size)
        made.append(with_border_of(sight.pixels, views.render(other, member.view, size)))
    return made


def _heat(model: Artifact, sights: Sequence[Sight], places: Sequence[int], task: Task) -> Heat | None:
    """Return the maps of labels, by their numbers; of several networks the mean, None where one has no spatial map."""
    grids = [
        activation(sight.spatial, member.kernel[:, places])
        for sight, member in zip(sights, model.members, strict=True)
        if sight.spatial is not None
    ]
    if len(grids) < len(sights):
        return None
    image = sights[0].picture.image
    left, top, right, bottom = views.inside(model.members[0].view, image)
    box = left / image.width, top / image.height, right / image.width, bottom / image.height
    return Heat(task.file.sha256, dict(zip(task.labels, mean(grids).astype(np.float32), strict=True)), box)


def _lead(model: Artifact, logits: Sequence[np.ndarray], place: int) -> float:
    """Return the logarithm of the odds of a label against the likeliest other one, infinite for a model of one label."""
    scores = np.mean([softmax(its, model.temperature[views.PLAIN]) for its in logits], axis=0)
    logs = np.log(np.maximum(scores, np.finfo(np.float64).tiny))
    return float(logs[place] - np.delete(logs, place).max(initial=-np.inf))
