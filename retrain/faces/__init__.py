"""Faces in photos: found, cut out with a margin, labelled, drawn on a copy.

detect      where the faces of a picture are, and how sure the detector is
crop        the box with its margin, cut out of the picture
found       one picture in, its faces and their labels out
draw        a copy of the picture with boxes, labels and scores on it
run         a folder of photos in, a folder of faces out
cuttings    which face came from which photo

The detector needs TensorFlow, which else nothing that labels does: it is imported where a detector is opened.
"""

from retrain.faces.crop import MARGIN
from retrain.faces.cuttings import MANIFEST, Cutting
from retrain.faces.detect import Box, Detector, Face, check_installed, open_detector
from retrain.faces.draw import FORMATS, as_file, drawn
from retrain.faces.found import LabelledFace, Seen, look
from retrain.faces.run import Outcome, cut_faces

__all__ = [
    "FORMATS", "MANIFEST", "MARGIN", "Box", "Cutting", "Detector", "Face", "LabelledFace", "Outcome", "Seen", "as_file",
    "check_installed", "cut_faces", "drawn", "look", "open_detector",
]  # fmt: skip
