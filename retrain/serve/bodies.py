"""A request's body, within limits of size, time and memory, and the picture in it. Nothing is written to a disk."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from email.message import Message
from http import HTTPStatus

from python_multipart import create_form_parser
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import File
from starlette.requests import Request

from retrain.serve.refused import Refused, busy

MIB = 2**20
# What a picture may be sent as. A form's type is what curl names where it is told nothing.
_AS_BYTES = ("application/octet-stream", "application/x-www-form-urlencoded", "")
_FORM = "multipart/form-data"
_MOST_FIELDS = 16
_LONGEST_BOUNDARY = 70  # RFC 2046
_AT_ONCE = 65536  # bytes of a form read at a time, so that one with too many parts is noticed early
_TOO_LARGE = HTTPStatus.REQUEST_ENTITY_TOO_LARGE


@dataclass(frozen=True)
class Limits:
    """What a request may take: `body` bytes, `seconds` to be sent in; `bodies`: bytes of all that are read or worked on."""

    body: int = 32 * MIB
    bodies: int = 256 * MIB
    seconds: float = 60.0


class Bodies:
    """Reads bodies, as long as all of them together stay within the limit."""

    def __init__(self, limits: Limits) -> None:
        self._limits, self.held = limits, 0

    @asynccontextmanager
    async def of(self, request: Request) -> AsyncIterator[bytes]:
        """Give a request's body, which counts as held until the block ends.

        Raises Refused: 413 for one that is too large, as soon as that is known; 408 for one that came too slowly; 503 where
        all bodies together are too large; starlette's ClientDisconnect where the rest will never come.
        """
        data, held = bytearray(), 0
        try:
            self._refuse_long(request)
            try:
                async with asyncio.timeout(self._limits.seconds):
                    async for piece in request.stream():
                        # What has come counts, not what was promised: else promises alone would keep others out.
                        held += len(piece)
                        self.held += len(piece)
                        self._refuse_large(held)
                        data += piece
            except TimeoutError:
                raise Refused(
                    HTTPStatus.REQUEST_TIMEOUT, "too-slow",
                    f"the request was not sent within {self._limits.seconds:g} s", {"connection": "close"},
                ) from None  # fmt: skip
            whole = bytes(data)
            data.clear()
            yield whole
        finally:
            self.held -= held

    def _refuse_long(self, request: Request) -> None:
        length = request.headers.get("content-length", "0")
        if not length.isascii() or not length.isdecimal() or int(length[:20]) > self._limits.body:
            raise self._too_large()

    def _refuse_large(self, held: int) -> None:
        if held > self._limits.body:
            raise self._too_large()
        if self.held > self._limits.bodies:
            raise busy()

    def _too_large(self) -> Refused:
        words = f"the request has more than {self._limits.body / MIB:g} MiB"
        return Refused(_TOO_LARGE, "too-large", words, {"connection": "close"})


def picture(body: bytes, content_type: str) -> bytes:
    """Return the bytes of the one picture in a body: the whole of it, or the one file of a form.

    Raises Refused: 415 for another type, 400 for a form that is damaged or has no file, or several.
    """
    kind, boundary = _parsed(content_type)
    if kind == _FORM:
        return _of_form(body, boundary)
    if kind in _AS_BYTES or kind.startswith("image/"):
        return body
    raise Refused(
        HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "wrong-type",
        f"send the bytes of a picture as image/*, application/octet-stream or {_FORM}",
    )  # fmt: skip


def _parsed(content_type: str) -> tuple[str, str]:
    message = Message()
    message["content-type"] = content_type
    try:
        boundary = message.get_param("boundary", "") if content_type else ""
    except ValueError:  # it counts its parts with a number of thousands of digits
        boundary = ""
    return (message.get_content_type() if content_type.strip() else ""), boundary if isinstance(boundary, str) else ""


def _of_form(body: bytes, boundary: str) -> bytes:
    if not 0 < len(boundary) <= _LONGEST_BOUNDARY or not boundary.isascii():
        raise _bad_form("it has no boundary, or none of at most 70 characters")
    files: list[File] = []
    fields = 0

    def on_file(file: File) -> None:
        files.append(file)
        if len(files) > 1:
            raise _bad_form("it has several files; send one picture a request")

    def on_field(_field: object) -> None:
        nonlocal fields
        fields += 1
        if fields > _MOST_FIELDS:
            raise _bad_form(f"it has more than {_MOST_FIELDS} fields")

    try:
        headers = {"Content-Type": f'{_FORM}; boundary="{boundary}"'.encode()}
        # As large as the body: nothing of it goes to a file.
        parser = create_form_parser(headers, on_field, on_file, config={"MAX_MEMORY_FILE_SIZE": len(body) + 1})
        for at in range(0, len(body), _AT_ONCE):
            parser.write(body[at : at + _AT_ONCE])
        parser.finalize()
    except (FormParserError, ValueError, LookupError):
        raise _bad_form("it is damaged") from None
    if not files:
        raise _bad_form("it has no file")
    file = files[0].file_object
    file.seek(0)
    return bytes(file.read())


def _bad_form(words: str) -> Refused:
    return Refused(HTTPStatus.BAD_REQUEST, "bad-form", f"the form cannot be used: {words}")
