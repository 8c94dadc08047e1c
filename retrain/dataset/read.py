"""Walk a folder of class folders. No picture is opened here."""

import os
import re
import stat
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

from retrain.errors import BadImage, NothingUsable, UsageError, did_you_mean
from retrain.images import find, is_ignored, leads_back
from retrain.settings import AUTO, FOLDER, GROUPS, NAME
from retrain.storage import Layout, is_own

_NUMBER = re.compile(r"(?:[\W_]*\d)+[\W_]*")  # and what parts it from the words around it
_HASH = re.compile(r"(?=.*\d)(?![a-f-]+[\d-]+$)[0-9a-f-]{8,}", re.IGNORECASE)  # a word and a number is none: face0001
_SHOWN = 10  # sources in an error


@dataclass(frozen=True, slots=True)
class Example:
    """One picture file that has a label.

    `source` is the folder name below the class that half of the classes have (frames, fanart), else empty; `group`
    names pictures that must stay on one side of the split, empty for a picture on its own; `part` is set for pictures
    from a validation or test folder of their own, or from the source that is tested on.
    """

    path: str
    label: str
    source: str = ""
    group: str = ""
    part: str = ""


@dataclass(frozen=True, slots=True)
class Skipped:
    """A path that was not used, and why: `reason` is a key of `errors.REASONS`, `detail` a few words or empty."""

    path: str
    reason: str
    detail: str = ""


@dataclass(frozen=True)
class Listing:
    """What lies below a data folder: examples sorted by path within their class, and paths that cannot be examples.

    `apart`: for a part that has a folder of its own, that folder; all other examples lie below `root`.
    """

    root: Path
    labels: tuple[str, ...]
    examples: tuple[Example, ...]
    skipped: tuple[Skipped, ...]
    apart: Mapping[str, Path] = field(default_factory=dict)


def read(
    layout: Layout,
    groups: str | None = None,
    validation_dir: Path | None = None,
    test_dir: Path | None = None,
    test_source: str | None = None,
    what: str = "the folder to train on",
) -> Listing:
    """List the examples of a working folder, and of the folders set apart for validation and test.

    A label is the exact name of a class folder. Folders that we write, and folders and files that start with a dot,
    are no classes. Links to folders are followed unless they lead back.

    Pictures of `test_source` are to be tested on. `what`: the working folder in words, for errors.

    Raises UsageError for a path that is missing or no folder, groups that match nothing, or an unknown source;
    NothingUsable where there are no class folders.
    """
    _must_be_folder(layout.root, what)
    _must_be_folder(layout.data, what)
    listing = _read_classes(layout.data)
    if not listing.labels:
        raise NothingUsable(
            f"{layout.data} has no class folders; put pictures into {layout.root / 'data'}/<class>/, one folder a class"
        )
    examples = _with_sources(list(listing.examples), layout.data)
    if test_source is not None:
        examples = _tested_on(examples, test_source)
    skipped = list(listing.skipped)
    apart = {part: folder for part, folder in (("validation", validation_dir), ("test", test_dir)) if folder is not None}
    for part, folder in apart.items():
        _must_be_folder(folder, f"--{part}-dir")
        other = _read_classes(folder)
        if not set(other.labels) & set(listing.labels):
            raise UsageError(
                f"--{part}-dir {folder} has none of the class folders of {layout.data}; it needs the same names"
            )
        skipped += other.skipped
        for example in _with_sources(list(other.examples), folder):
            if example.label not in listing.labels:
                skipped.append(Skipped(example.path, "left-out", f"class '{example.label}' is not in {layout.data}"))
            elif test_source is not None and example.source == test_source:
                skipped.append(Skipped(example.path, "left-out", f"source '{test_source}' is only tested on"))
            else:
                examples.append(replace(example, part=part))
    return grouped(Listing(layout.data, listing.labels, tuple(examples), tuple(skipped), apart), groups)


def _must_be_folder(path: Path, what: str) -> None:
    try:
        if not path.exists():
            siblings = [item.name for item in path.parent.iterdir()] if path.parent.is_dir() else []
            raise UsageError(f"{what}, {path}, does not exist{did_you_mean(path.name, siblings) or '; check the path'}")
        if not path.is_dir():
            raise UsageError(f"{what}, {path}, is a file; give a folder that holds one folder a class")
        if not os.access(path, os.R_OK | os.X_OK):
            raise UsageError(f"{what}, {path}, cannot be read: permission denied; fix its permissions")
    except OSError as error:  # of a folder above it
        raise UsageError(
            f"{what}, {path}, cannot be read: {(error.strerror or str(error)).lower()}; fix permissions on the way to it"
        ) from None


def _class_folders(root: Path) -> Iterator[Path]:
    for name in sorted(os.listdir(root), key=os.fsencode):
        folder = root / name
        try:
            is_folder = stat.S_ISDIR(folder.stat().st_mode)
        except OSError:
            is_folder = False  # a dangling link: no input, like all files directly in data/
        if is_folder and not is_ignored(name) and not is_own(folder):
            yield folder


def _read_classes(root: Path) -> Listing:
    labels, examples, skipped = [], [], []
    here, known = {Path(os.path.realpath(root))}, _Folders()
    for folder in _class_folders(root):
        if folder.is_symlink() and leads_back(folder, here):
            skipped.append(Skipped(str(folder), "link-loop"))
            continue
        labels.append(folder.name)
        for path, problem in find(folder, within=root):
            again = known.read_again(path.parent)
            if again is not None:
                skipped += again
            elif problem is None:
                examples.append(Example(str(path), folder.name))
            else:
                skipped.append(_skip(path, problem))
    return Listing(root, tuple(labels), tuple(examples), tuple(skipped))


class _Folders:
    """The folders that pictures were found in: links in two classes may lead to one, which only the first may have."""

    def __init__(self) -> None:
        self._first: dict[str, Path] = {}  # real path -> the path that it is read by
        self._again: dict[Path, bool] = {}

    def read_again(self, folder: Path) -> list[Skipped] | None:
        """Return None for a folder whose files count; for another, what to say of it, which is nothing the second time."""
        if folder in self._again:
            return [] if self._again[folder] else None
        self._again[folder] = self._first.setdefault(os.path.realpath(folder), folder) != folder
        return [Skipped(str(folder), "link-loop")] if self._again[folder] else None


def _skip(path: Path, problem: BadImage) -> Skipped:
    return Skipped(str(path), problem.reason, problem.detail)


def _with_sources(examples: list[Example], root: Path) -> list[Example]:
    """Set `source` where the first folder below the class goes by a name that at least half of the classes have.

    A name in two of twelve classes is a coincidence: two kinds of warrior, say.
    """
    classes_with: dict[str, set[str]] = defaultdict(set)
    least = max(2, len({example.label for example in examples}) / 2)
    below = []
    for example in examples:
        parts = Path(example.path).relative_to(root).parts
        below.append(parts[1] if len(parts) > 2 else "")
        classes_with[below[-1]].add(example.label)
    return [
        replace(example, source=name) if name and len(classes_with[name]) >= least else example
        for example, name in zip(examples, below, strict=True)
    ]


def _tested_on(examples: list[Example], source: str) -> list[Example]:
    """Set the part of the pictures that come from a source; raises UsageError where there is none of that name."""
    known = sorted({example.source for example in examples} - {""})
    if not known:
        raise UsageError(
            f"--test-source '{source}': there are no sources; a source is a folder name that half of the class folders have"
            " below them"
        )
    if source not in known:
        names = ", ".join(known[:_SHOWN]) + (", ..." if len(known) > _SHOWN else "")
        raise UsageError(f"--test-source '{source}' is none of the sources ({names}){did_you_mean(source, known)}")
    return [replace(example, part="test") if example.source == source else example for example in examples]


def grouped(listing: Listing, groups: str | None) -> Listing:
    """Return the listing with other groups, as `read` gives it for the same `groups`; no folder is looked at again.

    Groups are named by the path below the data folder: the same name in a test folder is the same group. 'auto' leaves
    every picture on its own here: what it stands for, the pictures themselves decide.

    Raises UsageError for groups that tie no pictures together.
    """
    name = _namer(groups)
    examples = tuple(replace(example, group=name(_below(listing, example))) for example in listing.examples)
    if groups not in (None, AUTO) and examples:
        _must_match(str(groups), [example.group for example in examples if listing.root == _folder_of(listing, example)])
    return replace(listing, examples=examples)


def _folder_of(listing: Listing, example: Example) -> Path:
    return listing.apart.get(example.part, listing.root)


def _below(listing: Listing, example: Example) -> Path:
    return Path(example.path).relative_to(_folder_of(listing, example))


def _must_match(groups: str, named: list[str]) -> None:
    hint = ""
    if groups == FOLDER:
        found, what = any(named), "no picture lies in a folder below its class folder"
    elif groups == NAME:
        found, what = max(Counter(filter(None, named)).values(), default=0) > 1, "no two names differ only in numbers"
    else:
        found, what, hint = any(named), "the expression matches no path", did_you_mean(groups, GROUPS)
    if not found:
        raise UsageError(f"--groups '{groups}' finds no groups: {what}{hint or '; check it against the paths'}")


def _namer(groups: str | None) -> Callable[[Path], str]:
    """Return what names the group of a path that is relative to the data folder; empty: on its own."""
    if groups in (None, AUTO):
        return lambda path: ""
    if groups == FOLDER:
        return lambda path: path.parent.as_posix() if len(path.parts) > 2 else ""
    if groups == NAME:
        return _by_name
    return partial(_by_expression, re.compile(str(groups)))


def _by_name(path: Path) -> str:
    if _HASH.fullmatch(path.stem):
        return ""
    words = _NUMBER.sub("_", path.stem).strip("_")
    return (path.parent / words).as_posix() if words else ""


def _by_expression(pattern: re.Pattern[str], path: Path) -> str:
    match = pattern.search(path.as_posix())
    return "" if match is None else (match.group(1) if pattern.groups else match.group(0)) or ""
