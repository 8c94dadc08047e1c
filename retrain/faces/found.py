"""One picture in, its faces and their labels out."""

from collections.abc import Callable
from dataclasses import dataclass

from retrain.errors import BadImage
from retrain.faces.crop import cut
from retrain.faces.detect import Detector, Face, find_faces
from retrain.images import OUT_OF_MEMORY, Picture, decode
from retrain.label import Labelled


@dataclass(frozen=True)
class LabelledFace:
    """A face, and what a model says of it and its margin."""

    face: Face
    labelled: Labelled


@dataclass(frozen=True)
class Seen:
    """What is to be seen on one picture: its faces, or where there is none, what a model says of the whole of it."""

    picture: Picture
    faces: tuple[LabelledFace, ...]
    whole: Labelled | None = None


def look(data: bytes, detector: Detector, label: Callable[[bytes], Labelled]) -> Seen:
    """Find and label the faces of a picture given as the bytes of its file; without a face, label the whole picture.

    `label`: what labels the bytes of a picture. Boxes are in pixels of the upright picture. Raises BadImage for a
    picture that cannot be used.
    """
    picture = decode(data)
    try:
        faces = find_faces(detector, picture.image)
        labelled = tuple(LabelledFace(face, label(cut(picture.image, face.box))) for face in faces)
    except MemoryError:
        raise BadImage("too-large", OUT_OF_MEMORY) from None
    return Seen(picture, labelled, None if labelled else label(data))
