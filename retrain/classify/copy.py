"""Walk a folder of pictures and copy each under the name of its label."""

import contextlib
import os
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import NamedTuple

from retrain.classify.manifest import MANIFEST_CSV, Manifest, Row
from retrain.classify.names import safe_names
from retrain.errors import BadImage, EnvironmentProblem, NothingUsable, UsageError, from_os_error
from retrain.images import Found, find, read_bytes
from retrain.label import Labelled, Labeller
from retrain.progress import SILENT, Progress
from retrain.runner import Run, run_locally
from retrain.settings import SCORE_DECIMALS, UNKNOWN
from retrain.storage import check_apart, check_folder, folder_locked

_WINDOW = 8  # pictures under way per core; each holds its file's bytes, so fewer than where only features are kept
_TEMPORARY = ".copy.tmp"


@dataclass
class Outcome:
    """What a run did.

    `copied`, `present`: copies made, and there from an earlier run. `unlisted`: pictures of which an earlier run, with
    another model or `sort`, left a copy that the manifest no longer names. `skipped`: by reason. `labels`: as given.
    """

    copied: int = 0
    present: int = 0
    unlisted: int = 0
    skipped: Counter[str] = field(default_factory=Counter)
    labels: Counter[str] = field(default_factory=Counter)

    @property
    def pictures(self) -> int:
        """Return how many pictures were labelled."""
        return self.copied + self.present


class _Answer(NamedTuple):
    path: Path
    data: bytes
    labelled: Labelled | None
    problem: BadImage | None


def classify(
    labeller: Labeller,
    images: Path,
    out: Path,
    *,
    sort: bool = False,
    dry_run: bool = False,
    run: Run = partial(run_locally, window=_WINDOW),
    progress: Progress = SILENT,
    told: Callable[[Row], None] = lambda row: None,
) -> Outcome:
    """Copy each picture below `images`, bytes unchanged, to `out/<label>-<score>.<real extension>`.

    One that is unlike all that the model learnt from goes to `out/unknown-<score>...`, with the score of its nearest label.
    Names that clash get `-2`, `-3` ... in the order of the sources; nothing is overwritten, and a picture that an
    earlier run copied under the same name is not copied again. `sort`: one folder a label. `dry_run`: nothing is written.
    `told` hears of every row. Memory does not grow with the number of pictures.

    Raises UsageError where the folders cannot be used together, NothingUsable where no picture could be labelled,
    EnvironmentProblem where copies cannot be written.
    """
    try:
        _check_folders(images, out, sort)
    except OSError as error:  # of a folder on the way to one of them
        raise UsageError(
            f"{error.filename} cannot be read: {(error.strerror or str(error)).lower()}; check the path"
        ) from None
    # In the manifest a source goes by its absolute path: `pictures` means another folder from another place.
    images = Path(os.path.abspath(images))
    with progress.bar("listing", None) as advance:
        total = sum(1 for _ in find(images) if advance() is None)
    if not total:
        raise NothingUsable(f"{images} holds no files; give a folder of pictures")
    outcome = Outcome()
    with _prepared(out, dry_run) as manifest, progress.bar("classify", total) as advance:
        # A class called unknown and what is unlike all classes go by one name: to people they are the same.
        names = safe_names(dict.fromkeys([*labeller.model.labels, UNKNOWN]))
        copier = _Copier(out, names, sort, manifest, outcome, dry_run)
        for answer in run(partial(_make_worker, labeller), find(images)):
            told(copier.take(answer))
            advance()
    if not outcome.pictures:
        raise NothingUsable(
            f"none of the {total} files in {images} is a usable picture{'' if dry_run else f'; see {out / MANIFEST_CSV}'}"
        )
    return outcome


def _check_folders(images: Path, out: Path, sort: bool) -> None:
    check_folder(images, "the folder to classify")
    if not images.is_dir():
        raise UsageError(f"{images} is a file; to label single pictures: retrain label {images}")
    if out.exists() and not out.is_dir():
        raise UsageError(f"{out} is a file; give a folder for the copies")
    check_apart(images, out, "copies would be read as pictures", above=sort)


@contextlib.contextmanager
def _prepared(out: Path, dry_run: bool) -> Iterator[Manifest]:
    """Make the output folder; whatever happens, what was done so far ends up in the manifest."""
    if dry_run:
        yield Manifest(out, read_only=True)
        return
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise from_os_error(error, "make the output folder", out) from None
    if not os.access(out, os.R_OK | os.W_OK | os.X_OK):  # read, to lock it
        raise EnvironmentProblem(f"cannot write to {out}: permission denied; fix it or choose another output folder")
    with folder_locked(out, "copying into it"):
        manifest = Manifest(out)
        (out / _TEMPORARY).unlink(missing_ok=True)
        try:
            yield manifest
        except EnvironmentProblem:
            with contextlib.suppress(EnvironmentProblem):  # a disk that is full for copies is full for the manifest too
                manifest.finish()
            raise
        except BaseException:
            manifest.finish()
            raise
        manifest.finish()


def _make_worker(labeller: Labeller) -> Callable[[Found], _Answer]:
    own = labeller.copy()

    def answer(found: Found) -> _Answer:
        try:
            if found.problem is not None:
                raise found.problem
            data = read_bytes(found.path)
            return _Answer(found.path, data, own.label_bytes(data), None)
        except BadImage as problem:
            return _Answer(found.path, b"", None, problem)

    return answer


class _Copier:
    """Takes answers in the order of the sources, finds each a name and makes the copy."""

    def __init__(
        self, out: Path, names: dict[str, str], sort: bool, manifest: Manifest, outcome: Outcome, dry_run: bool
    ) -> None:
        self._out, self._names, self._sort, self._dry_run = out, names, sort, dry_run
        self._manifest, self._outcome = manifest, outcome
        self._numbers: Counter[tuple[str, str]] = Counter()  # the last number used for a name

    def take(self, answer: _Answer) -> Row:
        if answer.labelled is None:
            assert answer.problem is not None
            row = Row(str(answer.path), reason=answer.problem.reason, detail=answer.problem.detail)
            self._outcome.skipped[row.reason] += 1
            self._manifest.intend(row)
            return row
        nearest, score = answer.labelled.scores[0]
        label = UNKNOWN if answer.labelled.unknown else nearest
        self._outcome.labels[label] += 1
        folder = f"{self._names[label]}/" if self._sort else ""
        stem = f"{folder}{self._names[label]}-{score:.{SCORE_DECIMALS}f}"
        row = Row(str(answer.path), label=label, score=score, nearest=nearest if answer.labelled.unknown else "")
        return self._place(row, stem, answer.labelled.extension, answer.data)

    def _place(self, row: Row, stem: str, extension: str, data: bytes) -> Row:
        earlier = self._manifest.earlier(row)
        if earlier and _is_name(earlier.copy, stem, extension) and _holds(self._out / earlier.copy, data):
            row = replace(row, copy=earlier.copy)
            self._manifest.intend(row)
            self._outcome.present += 1
            return row
        if earlier and earlier.copy and not self._dry_run:
            _let_go(self._out / earlier.copy)
        if earlier and earlier.copy and os.path.lexists(self._out / earlier.copy):
            self._outcome.unlisted += 1
        while True:
            self._numbers[stem, extension] += 1
            number = self._numbers[stem, extension]
            copy = f"{stem}{f'-{number}' if number > 1 else ''}.{extension}"
            if os.path.lexists(self._out / copy):
                continue
            row = replace(row, copy=copy)
            self._manifest.intend(row)
            if not self._dry_run and not _write_new(self._out, copy, data):
                continue
            self._outcome.copied += 1
            return row


def _is_name(copy: str, stem: str, extension: str) -> bool:
    """True for `stem.extension` and `stem-<number>.extension`."""
    if not (copy.startswith(stem) and copy.endswith(f".{extension}")):
        return False
    number = copy[len(stem) : -len(extension) - 1]
    return not number or (number.startswith("-") and number[1:].isdecimal())


def _let_go(path: Path) -> None:
    """Remove a name that a killed run took and did not come to fill: no picture that is copied has no bytes."""
    with contextlib.suppress(OSError):
        if path.is_file() and not path.is_symlink() and not path.stat().st_size:
            path.unlink()


def _holds(path: Path, data: bytes) -> bool:
    try:
        return path.stat().st_size == len(data) and path.read_bytes() == data
    except OSError:
        return False


def _write_new(out: Path, copy: str, data: bytes) -> bool:
    """Write a file that must not exist yet, whole or not at all; False where somebody else made it meanwhile."""
    temporary, path = out / _TEMPORARY, out / copy
    try:
        if path.parent != out:
            path.parent.mkdir(exist_ok=True)
    except OSError as error:
        raise from_os_error(error, "make the folder", path.parent) from None
    try:
        temporary.unlink(missing_ok=True)  # never written through: a kill can leave it linked to a finished copy
        with temporary.open("xb") as file:
            file.write(data)
        try:
            os.link(temporary, path)
        except FileExistsError:
            return False
        except OSError:  # a file system without hard links: take the name, then put the whole file there
            path.open("xb").close()
            with _removed_on_error(path):
                os.replace(temporary, path)
        return True
    except FileExistsError:
        return False
    except OSError as error:
        raise from_os_error(error, "write the copy", path) from None
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()


@contextlib.contextmanager
def _removed_on_error(path: Path) -> Iterator[None]:
    try:
        yield
    except BaseException:
        path.unlink(missing_ok=True)
        raise
