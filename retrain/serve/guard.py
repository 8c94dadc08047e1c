"""Which requests are let in, what every answer carries, and what a client learns of an error.

A server on this machine is in reach of every web page that its user opens: a page may send requests to it, and with a name
of its own that leads to 127.0.0.1 (DNS rebinding) read the answers. So a request must name a host that is served, and
one that a browser sends for another site is refused, whatever it asks for.
"""

import asyncio
import re
import secrets
import time
import traceback
from collections.abc import Callable, Collection
from http import HTTPStatus

from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from retrain.serve.refused import Refused, busy

Told = Callable[[str], None]
Counted = Callable[[str, int, float], None]
LOOPBACK = ("127.0.0.1", "localhost", "[::1]")
_HOST = re.compile(r"(?P<name>\[[0-9a-f:.]{2,45}\]|[a-z0-9](?:[a-z0-9._-]{0,252}))(?::(?P<port>[0-9]{1,5}))?")
_PAGES = ("/",)  # what another site may link to
_PROBE = "/healthz"  # asked by address, by what keeps containers alive; it says nothing and does nothing
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; media-src 'self' blob:;"
    " connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_HEADERS = [
    (name.encode(), value.encode())
    for name, value in {
        "content-security-policy": POLICY,
        "x-content-type-options": "nosniff",
        "x-frame-options": "DENY",
        "referrer-policy": "no-referrer",
        "cross-origin-opener-policy": "same-origin",
        "cross-origin-resource-policy": "same-origin",
        "permissions-policy": "camera=(self), microphone=(), geolocation=()",
    }.items()
]
_NOT_KEPT = (b"cache-control", b"no-store")


class Guard:
    """The outermost layer of the service."""

    def __init__(
        self, app: ASGIApp, hosts: Collection[str], root_path: str, told: Told, counted: Counted, closing: Callable[[], bool]
    ) -> None:
        """Prepare.

        `hosts`: names, or names with ports, that are served beside those of this machine; `root_path`: what a proxy leaves
        in front of paths; `told` gets a line, or several, for the log; `counted` the route's name, the status and the
        seconds of each request; `closing`: whether the server is about to end.
        """
        self._app, self._root_path, self._told, self._counted, self._closing = app, root_path, told, counted, closing
        self._hosts = frozenset(name.lower() for name in hosts)
        self._names = self._hosts | set(LOOPBACK)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        if scope["type"] != "http":  # the end of the server, which the routes hear of
            await self._app(scope, receive, send)
            return
        # Where it finds an app, Starlette raises for a path or method that is not there, and says nothing of its own.
        begun, status, own = time.perf_counter(), 0, {**scope, "root_path": self._root_path, "app": self._app}

        async def answer(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = self._headers(message["headers"])
            await send(message)

        try:
            self._check({**scope, "path": self._path(scope)})
            if scope["path"] and scope["path"] == self._root_path:  # or the page would look for its files one folder higher
                raise Refused(HTTPStatus.PERMANENT_REDIRECT, "moved", "it is below", {"location": f"{self._root_path}/"})
            await self._app(own, receive, answer)
        except Refused as refused:
            if not status:
                await _refuse(refused, answer)
        except HTTPException as error:
            await _refuse(_of_http(error), answer)
        except ClientDisconnect:
            pass
        except asyncio.CancelledError:  # the server ends, and waits no longer
            if not status:
                await _refuse(busy(), answer)
            raise
        except Exception:  # noqa: BLE001  whatever it is, the client must not see it, and the server goes on
            number = secrets.token_hex(3)
            self._told(f"internal error {number}\n{traceback.format_exc()}")
            if not status:
                words = f"internal error; the server's log has it as {number}"
                await _refuse(Refused(HTTPStatus.INTERNAL_SERVER_ERROR, "internal", words), answer)
        self._counted(getattr(own.get("endpoint"), "__name__", "none"), status, time.perf_counter() - begun)

    def _path(self, scope: Scope) -> str:
        return str(scope["path"]).removeprefix(self._root_path) or "/"

    def _headers(self, headers: list[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
        own = {name for name, _ in headers}
        more = [*_HEADERS, _NOT_KEPT] if _NOT_KEPT[0] not in own else _HEADERS
        last = [(b"connection", b"close")] if self._closing() and b"connection" not in own else []
        return [*headers, *more, *last]

    def _check(self, scope: Scope) -> None:
        """Raise Refused for a request that is for another host, or from another site."""
        if _values(scope, b"transfer-encoding") and _values(scope, b"content-length"):
            # A proxy may believe the one and this server the other: what follows might pass for a request of its own.
            words = "the request gives its length in two ways"
            raise Refused(HTTPStatus.BAD_REQUEST, "bad-request", words, {"connection": "close"})
        if scope["path"] == _PROBE and scope["method"] in ("GET", "HEAD"):
            return
        host = self._host(_values(scope, b"host"))
        origins, sites = _values(scope, b"origin"), _values(scope, b"sec-fetch-site")
        if any(not self._is_own(origin, host) for origin in origins):
            raise Refused(HTTPStatus.FORBIDDEN, "foreign-origin", "the request comes from a page of another site")
        if any(site not in ("same-origin", "none") for site in sites) and not _is_followed_link(scope):
            raise Refused(HTTPStatus.FORBIDDEN, "foreign-site", "the request comes from a page of another site")

    def _host(self, values: list[str]) -> str:
        match = _HOST.fullmatch(values[0].lower()) if len(values) == 1 else None
        if match is None:
            raise Refused(HTTPStatus.BAD_REQUEST, "bad-host", "the request names no host, or not in the way it should")
        if match["name"] not in self._names and match[0] not in self._names:
            words = "this host is not served here; --allow-host adds one when the server is started"
            raise Refused(HTTPStatus.FORBIDDEN, "wrong-host", words)
        return match[0]

    def _is_own(self, origin: str, host: str) -> bool:
        """Compare whole names: what begins or ends like one of ours is another's, and `null` is anybody's."""
        scheme, _, rest = origin.lower().partition("://")
        match = _HOST.fullmatch(rest)
        if scheme not in ("http", "https") or match is None:
            return False
        # A proxy may name this server by another name than that by which the browser knows the proxy.
        return rest == host or match["name"] in self._hosts or rest in self._hosts


def _of_http(error: HTTPException) -> Refused:
    status = HTTPStatus(error.status_code)
    return Refused(status, status.phrase.lower().replace(" ", "-"), "see openapi.json for what there is", error.headers)


def _is_followed_link(scope: Scope) -> bool:
    """Whether somebody followed a link from another site to the page, in a window of its own."""
    fetched = [_values(scope, name) for name in (b"sec-fetch-mode", b"sec-fetch-dest")]
    return scope["method"] in ("GET", "HEAD") and scope["path"] in _PAGES and fetched == [["navigate"], ["document"]]


def _values(scope: Scope, name: bytes) -> list[str]:
    return [value.decode("latin-1") for key, value in scope["headers"] if key == name]


async def _refuse(refused: Refused, send: Send) -> None:
    body = refused.body
    headers = {"content-type": "application/json", "content-length": str(len(body)), **refused.headers}
    encoded = [(name.lower().encode(), value.encode()) for name, value in headers.items()]
    await send({"type": "http.response.start", "status": int(refused.status), "headers": encoded})
    await send({"type": "http.response.body", "body": body})
