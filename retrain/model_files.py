"""The files of a model by name, from its folder or from a zip of it. Nothing is ever unpacked to a disk.

A zip that somebody hands over may be made to do harm: names that lead elsewhere, links, a few bytes that become gigabytes,
a list of millions of files. So only a short list is read, every name must be one of ours, which have no slash, and no
more is read of a file than was asked for.
"""

import os
import stat
import struct
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO, Protocol

from retrain.errors import ModelRefused

_MOST_FILES, _LONGEST_LIST = 256, 64 * 2**10
_END = struct.Struct("<4sHHHHIIH")  # a zip's last record: ..., files, bytes of the list, where it lies, length of a comment
_LOCATOR = b"PK\x06\x07", 20  # what stands before the end where another record counts, for larger zips; and its length
_LONGEST_COMMENT = 65535
_BEGIN = b"PK\x03\x04"
_ENCRYPTED = 1
_ZIPPED = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)


class ModelFiles(Protocol):
    """Where a model's files are read from."""

    def path(self, name: str) -> Path:
        """Return what to call a file in a message."""

    def has(self, name: str) -> bool:
        """Whether there is a file of that name."""

    def read(self, name: str, limit: int) -> bytes:
        """Return a file; raises ModelRefused where it is missing, no plain file, or longer than `limit` bytes."""


class Folder:
    """A model folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def path(self, name: str) -> Path:
        """Return the path of a file."""
        return self._folder / name

    def has(self, name: str) -> bool:
        """Whether it is there."""
        return (self._folder / name).is_file()

    def read(self, name: str, limit: int) -> bytes:
        """Read a file, no link."""
        path = self._folder / name
        flags = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
        try:
            with os.fdopen(os.open(path, flags), "rb") as file:
                status = os.fstat(file.fileno())
                if not stat.S_ISREG(status.st_mode) or status.st_size > limit:
                    raise ModelRefused(f"{path} is not the file that was saved; train again")
                return file.read(limit + 1)
        except FileNotFoundError:
            raise ModelRefused(f"{path} is missing; train again") from None
        except OSError as error:
            raise ModelRefused(f"{path} cannot be read: {error.strerror}; fix it or train again") from None


class Zip:
    """A model folder as one file."""

    def __init__(self, path: Path, is_ours: Callable[[str], bool]) -> None:
        """Read the list of files. `is_ours`: whether a file may have that name. Raises ModelRefused."""
        self._path = path
        try:
            with self._opened() as file:
                self._check_list(file)
                with zipfile.ZipFile(file) as packed:
                    entries = packed.infolist()
            self._entries = {entry.filename: entry for entry in entries}
        except (zipfile.BadZipFile, struct.error, OSError, ValueError, NotImplementedError, RuntimeError) as error:
            raise self._refusal(f"cannot be read as a zip ({error})") from None
        odd = [entry for entry in entries if not is_ours(entry.filename) or not _is_plain(entry)]
        if odd or len(entries) != len(self._entries):
            named = f"'{odd[0].filename[:80]}'" if odd else "the same name twice"
            raise self._refusal(f"is no model of retrain: it holds {named}")

    def path(self, name: str) -> Path:
        """Return the zip and the name in it."""
        return self._path / name

    def has(self, name: str) -> bool:
        """Whether it is in the list."""
        return name in self._entries

    def read(self, name: str, limit: int) -> bytes:
        """Read a file, no further than one byte beyond the limit, whatever the list says of its length."""
        if name not in self._entries:
            raise ModelRefused(f"{self.path(name)} is missing; export it again")
        if self._entries[name].file_size > limit:
            raise ModelRefused(f"{self.path(name)} is not the file that was saved; export it again")
        try:
            with self._opened() as file, zipfile.ZipFile(file) as packed, packed.open(self._entries[name]) as one:
                return one.read(limit + 1)
        except (zipfile.BadZipFile, zlib.error, OSError, EOFError, ValueError, NotImplementedError, RuntimeError):
            raise ModelRefused(f"{self.path(name)} is damaged; export it again") from None

    def _opened(self) -> BinaryIO:
        handle = os.open(self._path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
        file = os.fdopen(handle, "rb")
        if not stat.S_ISREG(os.fstat(handle).st_mode):
            file.close()
            raise self._refusal("is no plain file")
        return file

    def _check_list(self, file: BinaryIO) -> None:
        """Refuse what is no zip, and a long list before it is read: Python would make an object of each of its entries."""
        if file.read(len(_BEGIN)) != _BEGIN:
            raise ModelRefused(
                f"{self._path} is a file, not a model folder; give the folder that retrain train wrote, or a zip that"
                " retrain export wrote"
            )
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - _LONGEST_COMMENT - _END.size))
        tail = file.read()
        at = tail.rfind(b"PK\x05\x06")
        if at < 0:
            raise zipfile.BadZipFile("it has no end")
        _, _, _, _, files, length, _, _ = _END.unpack_from(tail, at)
        sign, size = _LOCATOR
        if tail[max(0, at - size) : at].startswith(sign):  # Python believes that one, whatever the end says
            raise self._refusal("is no model of retrain: its list is that of a larger zip")
        if files > _MOST_FILES or length > _LONGEST_LIST:
            raise self._refusal(f"is no model of retrain: it holds {files} files")

    def _refusal(self, words: str) -> ModelRefused:
        return ModelRefused(f"{self._path} {words}; give a model folder, or a zip that retrain export wrote")


def _is_plain(entry: zipfile.ZipInfo) -> bool:
    kind = stat.S_IFMT(entry.external_attr >> 16)
    return kind in (0, stat.S_IFREG) and not entry.flag_bits & _ENCRYPTED and entry.compress_type in _ZIPPED


def opened(path: Path, is_ours: Callable[[str], bool]) -> ModelFiles:
    """Return the files of a model folder, or of a zip of one; `is_ours`: whether a file of a model may have that name.

    Raises ModelRefused for a file that is no such zip.
    """
    return Folder(path) if path.is_dir() else Zip(path, is_ours)
