"""Asks a service in this process, without a socket: what a server would have parsed is given to it as it is."""

import asyncio
import io
import json
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import unquote

from PIL import Image
from starlette.types import ASGIApp, Message

from retrain.serve.app import Life, Options, create_app
from retrain.serve.bodies import Limits
from retrain.serve.engine import Engine, Source
from retrain.settings import UNKNOWN_RATE

HOST = ("host", "127.0.0.1:8000")
Headers = Iterable[tuple[str, str]]


class Answer(NamedTuple):
    """What came back."""

    status: int
    headers: list[tuple[str, str]]
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)

    def header(self, name: str) -> str:
        """The one header of that name; empty where there is none."""
        found = [value for key, value in self.headers if key == name]
        assert len(found) < 2, self.headers
        return found[0] if found else ""

    def refused(self, status: int, reason: str) -> str:
        """Hold it to a refusal, and return the sentence: an id that scripts know, and nothing that is not asked for."""
        assert (self.status, self.header("content-type")) == (status, "application/json"), self
        told = self.json()
        assert set(told) == {"error", "id"} and told["id"] == reason and told["error"].startswith(f"{reason}: "), told
        return str(told["error"])


class Service:
    """A service with its engine, and what it has written into its log."""

    def __init__(
        self,
        model: Path,
        *,
        cores: int = 2,
        waiting: int = 64,
        pictures: bool = True,
        name: str = "retrain",
        hosts: Collection[str] = (),
        root_path: str = "",
        limits: Limits = Limits(),
    ) -> None:
        self.log: list[str] = []
        self.life = Life()
        self.engine = Engine(Source(model, UNKNOWN_RATE, "auto", pictures), cores, waiting)
        options = Options(name, "1.2.3", hosts, root_path, limits)
        self.app: ASGIApp = create_app(self.engine, options, self.log.append, self.life)

    def ask(self, method: str, target: str, body: bytes | Iterable[bytes] = b"", headers: Headers = (HOST,)) -> Answer:
        """Send a request and wait for the answer; several pieces of a body come one after the other."""
        return asyncio.run(self.asked(method, target, body, headers))

    async def asked(
        self, method: str, target: str, body: bytes | Iterable[bytes] = b"", headers: Headers = (HOST,)
    ) -> Answer:
        pieces = [body] if isinstance(body, bytes) else list(body)
        messages: list[Message] = [{"type": "http.request", "body": piece, "more_body": True} for piece in pieces]
        messages[-1]["more_body"] = False
        return await self.sent(method, target, headers, messages)

    async def sent(self, method: str, target: str, headers: Headers, messages: list[Any]) -> Answer:
        """Send a request as a server passes it on; when the messages are used up, nothing comes any more.

        A message that is a function is awaited when it is its turn.
        """
        came: list[Message] = []
        coming = iter(messages)

        async def receive() -> Message:
            message = next(coming, None)
            if message is None:
                await asyncio.Event().wait()
            assert message is not None
            return await message() if callable(message) else message

        async def send(message: Message) -> None:
            came.append(message)

        path, _, query = target.partition("?")
        await self.app(
            {
                "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": method, "scheme": "http",
                "path": unquote(path), "raw_path": path.encode(), "query_string": query.encode(), "root_path": "",
                "headers": [(name.encode(), value.encode("latin-1")) for name, value in headers],
                "client": ("127.0.0.1", 4), "server": ("127.0.0.1", 8000),
            },
            receive,
            send,
        )  # fmt: skip
        if not came:
            return Answer(0, [], b"")
        start = came[0]
        assert start["type"] == "http.response.start" and not came[-1].get("more_body")
        assert all(name == name.lower() for name, _ in start["headers"])  # what ASGI demands
        whole = b"".join(message["body"] for message in came[1:])
        return Answer(start["status"], [(name.decode(), value.decode()) for name, value in start["headers"]], whole)

    def label(self, body: bytes, kind: str | None = "image/png", query: str = "") -> Answer:
        return self.ask("POST", f"/label{query}", body, typed(kind))

    def explain(self, body: bytes, query: str = "") -> Answer:
        return self.ask("POST", f"/explain{query}", body, typed("image/png"))

    def predict(self, asked: Any, target: str = "/v1/models/retrain:predict") -> Answer:
        """Ask as a client of TensorFlow Serving does, with what `curl -d` says that it sends."""
        body = asked if isinstance(asked, bytes) else json.dumps(asked).encode()
        return self.ask("POST", target, body, typed("application/x-www-form-urlencoded"))


def typed(kind: str | None) -> Headers:
    """Headers with a content type, or with none."""
    return [HOST] if kind is None else [HOST, ("content-type", kind)]


def form(*parts: tuple[str, str | None, bytes], boundary: str = "xYx") -> tuple[bytes, str]:
    """A form of parts (name, file name, content), and its content type."""
    lines = []
    for name, file, content in parts:
        named = f'; filename="{file}"' if file is not None else ""
        lines.append(
            f'--{boundary}\r\nContent-Disposition: form-data; name="{name}"{named}\r\n\r\n'.encode() + content + b"\r\n"
        )
    return b"".join(lines) + f"--{boundary}--\r\n".encode(), f"multipart/form-data; boundary={boundary}"


def png(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    data = io.BytesIO()
    image.save(data, kind, **options)
    return data.getvalue()
