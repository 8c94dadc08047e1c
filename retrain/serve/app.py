"""The routes: what is asked for, and which answer it gets."""

import asyncio
import importlib.resources
import json
import threading
from collections.abc import AsyncIterator, Callable, Collection
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any

from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route, Router
from starlette.types import ASGIApp

from retrain.errors import BadImage, UsageError
from retrain.explain.explained import ACTIVATION, OCCLUSION
from retrain.label import Labelled, Labeller
from retrain.serve import answers, metrics, openapi, predict
from retrain.serve.bodies import Bodies, Limits, picture
from retrain.serve.engine import Busy, Engine, Gone, Serving, Timed
from retrain.serve.guard import Guard, Told
from retrain.serve.refused import Refused, busy, of_picture

JSON = "application/json"
# Nothing else of the package is served, and no name from a request is ever looked up in a folder.
_PAGE = {
    "/": ("index.html", "text/html; charset=utf-8"),
    "/page.js": ("page.js", "text/javascript; charset=utf-8"),
    "/page.css": ("page.css", "text/css; charset=utf-8"),
    "/icon.svg": ("icon.svg", "image/svg+xml"),
}
_YES = {"yes": True, "no": False}
Task = Callable[[Labeller, Serving], Any]


@dataclass(frozen=True)
class Options:
    """How to serve. `name`: of the model, in TensorFlow Serving's addresses; `version`: of this program; the rest as in
    `guard.Guard` and `bodies.Bodies`.
    """

    name: str
    version: str
    hosts: Collection[str] = ()
    root_path: str = ""
    limits: Limits = field(default_factory=Limits)


@dataclass
class Life:
    """What the server tells the routes of itself. `closing`: it takes no new connections, and ends soon."""

    closing: bool = False


def create_app(engine: Engine, options: Options, told: Told, life: Life) -> ASGIApp:
    """Return the service of an engine, ready to be run by an ASGI server. `told` gets lines for the log."""
    service = _Service(engine, options, life)

    @asynccontextmanager
    async def lifespan(_app: object) -> AsyncIterator[None]:
        watching = asyncio.create_task(engine.watch(told))
        yield
        watching.cancel()
        with suppress(asyncio.CancelledError):
            await watching
        engine.close()

    app = Router(
        [
            *(Route(path, _page(*about), methods=["GET"]) for path, about in _PAGE.items()),
            *(Route(path, endpoint, methods=[method]) for path, method, endpoint in service.routes()),
        ],
        redirect_slashes=False,
        lifespan=lifespan,
    )
    return Guard(app, options.hosts, options.root_path, told, service.metrics.request, lambda: life.closing)


def _page(name: str, content_type: str) -> Callable[[Request], Any]:
    """Return the endpoint of a file of the page, which is read once."""
    data = (importlib.resources.files("retrain.serve") / "page" / name).read_bytes()
    headers = {"content-type": content_type, "cache-control": "no-cache"}

    async def page(_request: Request) -> Response:
        return Response(data, headers=headers)

    return page


class _Service:
    """The endpoints. Their names are those under which `metrics` counts."""

    def __init__(self, engine: Engine, options: Options, life: Life) -> None:
        self._engine, self._options, self._life = engine, options, life
        self._bodies = Bodies(options.limits)
        self.metrics = metrics.Metrics(engine, self._bodies)

    def routes(self) -> list[tuple[str, str, Callable[[Request], Any]]]:
        """Return paths, methods and endpoints. `openapi` describes each."""
        model = "/v1/models/{name:str}"
        return [
            ("/about", "GET", self.about),
            ("/label", "POST", self.label),
            ("/explain", "POST", self.explain),
            (model, "GET", self.status),
            (model + "/metadata", "GET", self.metadata),
            (model + ":predict", "POST", self.predict),
            (model + "/versions/{version:str}", "GET", self.status),
            (model + "/versions/{version:str}/metadata", "GET", self.metadata),
            (model + "/versions/{version:str}:predict", "POST", self.predict),
            ("/healthz", "GET", self.health),
            ("/metrics", "GET", self.counts),
            ("/openapi.json", "GET", self.openapi),
        ]

    async def about(self, _request: Request) -> Response:
        """Say what is served: for the page."""
        serving = self._engine.serving
        return _json(
            {
                "name": self._options.name,
                "version": self._options.version,
                "labels": serving.model.labels,
                "accuracy": answers.accuracy(serving.model.metrics),
                "way": ACTIVATION if serving.has_maps else OCCLUSION,
                "unknown": serving.can_tell_unknown,
                "bytes": self._options.limits.body,
                "pictures": serving.thumbnails.shown,
            }
        )

    async def label(self, request: Request) -> Response:
        """Label a picture."""
        top = _whole_number(request, "top")

        def task(data: bytes, labeller: Labeller, _serving: Serving) -> tuple[bytes, bool]:
            labelled = labeller.label_bytes(data)
            self._count(labelled)
            return json.dumps(answers.labels(labelled, top)).encode(), labelled.unknown

        (body, unknown), _ = await self._of_picture(request, task)
        return Response(body, headers={"content-type": JSON, "retrain-unknown": "true" if unknown else "false"})

    async def explain(self, request: Request) -> Response:
        """Tell all that is known of a picture."""
        wanted, maps = request.query_params.getlist("label"), _switch(request, "map")

        def task(data: bytes, labeller: Labeller, serving: Serving) -> dict[str, Any]:
            found = answers.explained(data, labeller, serving, wanted, maps)
            self.metrics.labelled(found["labels"][0]["label"], found["unknown"])
            return {**found, "version": serving.version}

        found, timed = await self._of_picture(request, task)
        return _json({**found, "milliseconds": answers.milliseconds(timed)})

    async def predict(self, request: Request) -> Response:
        """Answer a client of TensorFlow Serving."""
        self._check_model(request)

        done = threading.Event()

        def task(labeller: Labeller, serving: Serving) -> bytes:
            return json.dumps(predict.predict(body, labeller, serving, self._count, done.is_set)).encode()

        try:
            async with self._bodies.of(request) as body:
                found, _ = await self._run(request, task)
        finally:
            done.set()  # of many pictures, those that are left need not be looked at
        return Response(found, media_type=JSON)

    def _count(self, labelled: Labelled) -> None:
        self.metrics.labelled(labelled.scores[0].label, labelled.unknown)

    async def status(self, request: Request) -> Response:
        """Say whether the model is served."""
        self._check_model(request)
        return _json(predict.status(self._engine.serving.version))

    async def metadata(self, request: Request) -> Response:
        """Say what the model takes and gives."""
        self._check_model(request)
        return _json(predict.metadata(self._options.name, self._engine.serving))

    async def health(self, _request: Request) -> Response:
        """Say whether requests are welcome."""
        return _json({"status": "closing"}, 503) if self._life.closing else _json({"status": "ok"})

    async def counts(self, _request: Request) -> Response:
        """Give what was counted, for Prometheus."""
        return Response(self.metrics.text(), headers={"content-type": metrics.CONTENT_TYPE})

    async def openapi(self, _request: Request) -> Response:
        """Describe the service."""
        return _json(openapi.description(self._options.version, self._options.root_path))

    async def _of_picture(self, request: Request, task: Callable[[bytes, Labeller, Serving], Any]) -> tuple[Any, Timed]:
        kind = request.headers.get("content-type", "")
        async with self._bodies.of(request) as body:
            return await self._run(request, lambda labeller, serving: task(picture(body, kind), labeller, serving))

    async def _run(self, request: Request, task: Task) -> tuple[Any, Timed]:
        try:
            return await self._engine.run(task, lambda: _gone(request))
        except Busy:
            raise busy() from None
        except Gone:
            raise ClientDisconnect from None
        except BadImage as bad:
            raise of_picture(bad) from None
        except UsageError as error:  # a label that the model does not have
            raise Refused(HTTPStatus.BAD_REQUEST, "bad-request", str(error)) from None

    def _check_model(self, request: Request) -> None:
        known = request.path_params["name"] == self._options.name
        if not known or request.path_params.get("version") not in (None, str(self._engine.serving.version)):
            raise Refused(HTTPStatus.NOT_FOUND, "not-found", "no such model is served, or not in that version")


async def _gone(request: Request) -> None:
    """End when the client has closed its connection. All of the body has been read."""
    while (await request.receive())["type"] != "http.disconnect":
        pass


def _json(value: Any, status: int = 200) -> Response:
    return Response(json.dumps(value).encode(), status, media_type=JSON)


def _whole_number(request: Request, name: str) -> int | None:
    value = request.query_params.get(name)
    if value is None:
        return None
    if not (value.isascii() and value.isdecimal() and len(value) < 10 and int(value)):
        raise Refused(HTTPStatus.BAD_REQUEST, "bad-request", f"{name} is no whole number above 0")
    return int(value)


def _switch(request: Request, name: str) -> bool:
    value = request.query_params.get(name, "yes")
    if value not in _YES:
        raise Refused(HTTPStatus.BAD_REQUEST, "bad-request", f"{name} is neither yes nor no")
    return _YES[value]
