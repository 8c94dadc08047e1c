"""Fetch TF Hub modules: once on a machine, whole or not at all.

tensorflow-hub turns a handle into an address and unpacks what comes; it has no timeout, no retry and no check of the
length, and keeps modules in the system's temporary folder. So the transfer is ours, behind its resolver: to a file that
a later try goes on with, under a lock that ends with its process, into the user's cache folder.
"""

import contextlib
import hashlib
import http.client
import io
import os
import shutil
import socket
import time
import urllib.error
import urllib.request
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from retrain.devices import start
from retrain.errors import EnvironmentProblem, UsageError, from_os_error
from retrain.progress import Progress
from retrain.storage import find_cached, locked, sync_folder, user_cache

_TRIES, _PAUSE_SECONDS, _TIMEOUT_SECONDS, _BLOCK = 4, 0.5, 30.0, 1 << 18
_WORTH_ANOTHER_TRY = {408, 425, 429, 500, 502, 503, 504}
_MB = 10**6
_WAIT_SECONDS = 3600.0  # for another run that downloads the same: large modules, slow lines


def cached(handle: str) -> Path | None:
    """Return the folder of a handle that was fetched before; None where it was not."""
    graph = find_cached(f"{_name(handle)}/saved_model.pb")
    return graph.parent if graph else None


def fetch(handle: str, progress: Progress) -> Path:
    """Return the folder of a TF Hub handle (http or https), downloading it unless it is there already.

    Raises EnvironmentProblem where the network, the server or the disk stands in the way, UsageError for what is no
    module.
    """
    folder = user_cache() / _name(handle)
    with locked(folder.with_suffix(".lock"), f"downloading {handle}", _WAIT_SECONDS):
        if cached(handle):
            return folder
        return _into_place(folder, handle, lambda temporary: _download(handle, temporary, progress))


def unpack(archive: Path) -> Path:
    """Return the folder of a module that lies on this machine as .tar or .tar.gz, unpacking it once.

    Raises UsageError for what is no archive, or holds links or paths that lead out of it.
    """
    try:
        with archive.open("rb") as file:
            sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise from_os_error(error, "read", archive) from None
    folder = user_cache() / _name(f"sha256:{sha256}")
    with locked(folder.with_suffix(".lock"), f"unpacking {archive}"):
        if (folder / "saved_model.pb").is_file():
            return folder

        def extract(temporary: Path) -> None:
            with archive.open("rb") as file:
                _extract(file, temporary, str(archive))

        return _into_place(folder, str(archive), extract)


def _name(handle: str) -> str:
    """Return where a module lies within the cache folder."""
    return "hub/" + hashlib.sha256(handle.encode("utf-8", "surrogateescape")).hexdigest()[:32]


@contextlib.contextmanager
def _emptied(folder: Path) -> Iterator[Path]:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _into_place(folder: Path, handle: str, fill: Any) -> Path:
    """Fill a temporary folder and rename it; nothing is left behind where that fails."""
    try:
        with _emptied(folder.with_suffix(".tmp")) as temporary:
            fill(temporary)
            if not (temporary / "saved_model.pb").is_file():
                raise UsageError(f"{handle} is no TF Hub module: it has no saved_model.pb at its top; check the address")
            for path in temporary.rglob("*"):
                if path.is_file():
                    with path.open("rb") as file:
                        os.fsync(file.fileno())
            shutil.rmtree(folder, ignore_errors=True)
            temporary.rename(folder)
            sync_folder(folder.parent)
    except OSError as error:
        raise from_os_error(error, "keep the module in", folder) from None
    return folder


def _extract(file: IO[bytes], folder: Path, handle: str) -> None:
    import tarfile

    hub = _tensorflow_hub()
    try:
        with tarfile.open(fileobj=file, mode="r|*") as archive:
            for member in archive:
                # Refuses what leads out; the rest of its unpacking fails where files come without their folders.
                target = Path(hub.file_utils.merge_relative_path(str(folder), member.name))
                if member.isdir():
                    target.mkdir(parents=True, exist_ok=True)
                elif (data := archive.extractfile(member) if member.isfile() else None) is not None:
                    target.parent.mkdir(parents=True, exist_ok=True)
                    with target.open("wb") as out:
                        shutil.copyfileobj(data, out)
                else:
                    raise ValueError(f"{member.name} is neither a file nor a folder")
    except (tarfile.TarError, EOFError, ValueError, OSError) as error:
        if isinstance(error, OSError) and error.errno:
            raise
        words = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UsageError(f"{handle} is no archive that is safe to unpack ({words}); check the address") from None


def _tensorflow_hub() -> Any:
    """Import tensorflow-hub, which warns of a module that setuptools is about to drop."""
    start()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import tensorflow_hub
        from tensorflow_hub import compressed_module_resolver, file_utils  # noqa: F401
    return tensorflow_hub


def _download(handle: str, folder: Path, progress: Progress) -> None:
    hub = _tensorflow_hub()
    resolver = hub.compressed_module_resolver.HttpCompressedFileResolver()
    try:
        address = resolver._append_compressed_format_query(handle)
        address.encode("ascii")
    except ValueError as error:
        raise UsageError(f"{handle} is no address ({error}); check it") from None
    part = folder.with_suffix(".part")
    _transfer(address, part, handle, progress)
    try:
        with part.open("rb") as file:
            _extract(file, folder, handle)
    finally:
        part.unlink(missing_ok=True)


def _transfer(address: str, part: Path, handle: str, progress: Progress) -> None:
    """Download to a file, going on where an earlier try stopped."""
    problem = ""
    for attempt in range(_TRIES):
        if attempt:
            progress.note(f"download of {handle} broke off ({problem}): trying again")
            time.sleep(_PAUSE_SECONDS * 2**attempt)
        try:
            _transfer_once(address, part, handle, progress)
            return
        except urllib.error.HTTPError as error:
            error.close()
            problem = f"the server answers {error.code} {error.reason}"
            if error.code == 416:  # what we have does not fit what is there now
                part.unlink(missing_ok=True)
            elif error.code not in _WORTH_ANOTHER_TRY:
                raise EnvironmentProblem(f"cannot download {handle}: {problem}; check the address") from None
        except http.client.InvalidURL as error:
            raise UsageError(f"{handle} is no address ({error}); check it") from None
        except (TimeoutError, urllib.error.URLError, http.client.HTTPException, ConnectionError, _Short) as error:
            reason = getattr(error, "reason", None) or error
            problem = getattr(reason, "strerror", None) or str(reason) or type(error).__name__
            if isinstance(reason, socket.gaierror):
                break  # no name service: no network, which another try in a second does not bring back
    raise EnvironmentProblem(
        f"cannot download {handle}: {problem}; check the network, or give a folder or .tar.gz that you fetched elsewhere"
    )


class _Short(Exception):
    """The connection ended before all was there."""


def _transfer_once(address: str, part: Path, handle: str, progress: Progress) -> None:
    have = part.stat().st_size if part.exists() else 0
    tag = part.with_suffix(".etag")
    # A part without a tag may be of another version of the file: begin anew.
    known = tag.read_text() if have and tag.exists() else ""
    headers = {"User-Agent": "retrain"} | ({"Range": f"bytes={have}-", "If-Range": known} if known else {})
    request = urllib.request.Request(address, headers=headers)
    try:
        with urllib.request.urlopen(request, timeout=_TIMEOUT_SECONDS) as response:
            goes_on = response.status == 206
            have = have if goes_on else 0
            length = response.headers.get("Content-Length")
            total = have + int(length) if length and length.isdigit() else None
            if goes_on and not response.headers.get("Content-Range", "").startswith(f"bytes {have}-"):
                part.unlink()
                raise _Short("the server went on at another place")
            if not goes_on:
                tag.unlink(missing_ok=True)
                if response.headers.get("ETag"):
                    tag.write_text(response.headers["ETag"])
            with part.open("ab" if goes_on else "wb") as file:
                if not have:
                    size = f"{total / _MB:.1f} MB" if total else "size unknown"
                    progress.note(f"downloading {handle} ({size}) to the cache folder {part.parent}")
                _copy(response, file, have, total, progress)
    finally:
        if not part.exists():
            tag.unlink(missing_ok=True)
    tag.unlink(missing_ok=True)


def _read(response: Any, file: IO[bytes], otherwise: str) -> bytes:
    """Read a block; whatever the network does in the middle is worth another try."""
    try:
        return bytes(response.read(_BLOCK))
    except http.client.IncompleteRead as error:
        file.write(error.partial)
        raise _Short(otherwise) from None
    except OSError as error:
        raise _Short(f"{error.strerror or error}, {otherwise}") from None


def _copy(response: Any, file: IO[bytes], have: int, total: int | None, progress: Progress) -> None:
    """Copy a response block by block; the bar counts megabytes."""
    done, shown = have, 0
    with progress.bar("download, MB", -(-total // _MB) if total else None) as advance:
        while block := _read(response, file, f"{done} of {total} bytes came"):
            file.write(block)
            done += len(block)
            while shown < done // _MB:
                shown += 1
                advance()
    if total is not None and done < total:
        raise _Short(f"{done} of {total} bytes came")
    file.flush()
    with contextlib.suppress(io.UnsupportedOperation):
        os.fsync(file.fileno())
