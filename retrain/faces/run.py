"""A folder of photos in, a folder of faces out, to train on."""

import contextlib
import hashlib
import os
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from retrain.errors import BadImage, EnvironmentProblem, NothingUsable, UsageError, from_os_error
from retrain.faces.crop import cut
from retrain.faces.cuttings import Cut, Cutting, Cuttings
from retrain.faces.detect import Detector, find_faces
from retrain.images import OUT_OF_MEMORY, Found, decode, find, read_bytes
from retrain.progress import SILENT, Progress
from retrain.storage import check_apart, check_folder, folder_locked, write_new


@dataclass
class Outcome:
    """What a run did: how many photos it cut, how many faces are in them, which photos have none; skipped by reason.

    `present`: photos that an earlier run had cut, counted in nothing but `faceless` and `known`, the faces that it found.
    """

    photos: int = 0
    faces: int = 0
    present: int = 0
    known: int = 0
    faceless: list[str] = field(default_factory=list)
    skipped: Counter[str] = field(default_factory=Counter)


def cut_faces(
    photos: Path,
    out: Path,
    open_detector: Callable[[], Detector],
    *,
    progress: Progress = SILENT,
    told: Callable[[Cutting], None] = lambda row: None,
) -> Outcome:
    """Cut each face out of each photo below `photos`, with its margin, to `out/<folders>/<photo's name>/<number>.png`.

    So the faces of a photo have a folder of their own, and `--groups folder` keeps them together. A photo that an
    earlier run cut, by its path and bytes, is left alone, also where its faces were deleted since. Nothing is overwritten:
    numbers go on after those that are taken. `told` hears of every photo that was cut, or could not be.

    Raises UsageError where the folders cannot be used together, NothingUsable where no photo has a face,
    EnvironmentProblem where faces cannot be written. `open_detector` is called once all that was looked at.
    """
    try:
        _check_folders(photos, out)
    except OSError as error:  # of a folder on the way to one of them
        raise UsageError(
            f"{error.filename} cannot be read: {(error.strerror or str(error)).lower()}; check the path"
        ) from None
    with progress.bar("listing", None) as advance:
        total = sum(1 for _ in find(photos) if advance() is None)
    if not total:
        raise NothingUsable(f"{photos} holds no files; give a folder of photos")
    outcome = Outcome()
    with _prepared(out) as cuttings:
        detector = open_detector()
        with progress.bar("faces", total) as advance:
            for found in find(photos):
                told(_take(found, photos, out, detector, cuttings, outcome))
                advance()
    if not outcome.faces + outcome.known:
        bad = outcome.skipped.total()
        raise NothingUsable(
            f"no face was found in {photos} (pictures: {total - bad}, skipped: {bad}); give photos that show faces"
        )
    return outcome


def _check_folders(photos: Path, out: Path) -> None:
    check_folder(photos, "the folder of photos")
    if not photos.is_dir():
        raise UsageError(f"{photos} is a file; for the faces of single pictures: retrain label {photos} --faces")
    if out.exists() and not out.is_dir():
        raise UsageError(f"{out} is a file; give a folder for the faces")
    check_apart(photos, out, "faces would be read as photos")


@contextlib.contextmanager
def _prepared(out: Path) -> Iterator[Cuttings]:
    """Make the output folder; whatever happens, what was done so far ends up in the manifest."""
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise from_os_error(error, "make the output folder", out) from None
    if not os.access(out, os.R_OK | os.W_OK | os.X_OK):  # read, to lock it
        raise EnvironmentProblem(f"cannot write to {out}: permission denied; fix it or choose another output folder")
    with folder_locked(out, "cutting faces into it"):
        cuttings = Cuttings(out)
        try:
            yield cuttings
        except BaseException:
            with contextlib.suppress(EnvironmentProblem):  # what went wrong is told, not what comes of it
                cuttings.finish()
            raise
        cuttings.finish()


def _take(found: Found, photos: Path, out: Path, detector: Detector, cuttings: Cuttings, outcome: Outcome) -> Cutting:
    photo = found.path.relative_to(photos).as_posix()
    try:
        if found.problem is not None:
            raise found.problem
        data = read_bytes(found.path)
        digest = hashlib.sha256(data).hexdigest()
        row = cuttings.earlier(photo, digest)
        if row is None:
            row = Cutting(photo, digest, tuple(_cut_out(data, photo, out, detector)))
            cuttings.add(row)
            outcome.photos += 1
            outcome.faces += len(row.faces)
        else:
            outcome.present += 1
            outcome.known += len(row.faces)
    except BadImage as problem:
        row = Cutting(photo, reason=problem.reason, detail=problem.detail)
        cuttings.add(row)
        outcome.skipped[row.reason] += 1
    else:
        outcome.faceless += [] if row.faces else [photo]
    return row


def _cut_out(data: bytes, photo: str, out: Path, detector: Detector) -> Iterator[Cut]:
    image = decode(data).image
    number = 0
    for face in find_faces(detector, image):
        try:
            png = cut(image, face.box)
        except MemoryError:
            raise BadImage("too-large", OUT_OF_MEMORY) from None
        file, number = _place(out, photo, number, png)
        yield Cut(file, face.box, face.confidence)


def _place(out: Path, photo: str, number: int, png: bytes) -> tuple[str, int]:
    """Write a face under the first number after `number` that is free, or that a killed run gave the same face."""
    folder = out / photo
    try:
        folder.mkdir(parents=True, exist_ok=True)
        while True:
            number += 1
            path = folder / f"{number}.png"
            if not os.path.lexists(path):
                write_new(path, png)
            elif not (path.is_file() and path.read_bytes() == png):
                continue
            return path.relative_to(out).as_posix(), number
    except OSError as error:
        raise from_os_error(error, "write the face", folder) from None
