"""Counts and times for Prometheus."""

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from retrain.serve.bodies import Bodies
from retrain.serve.engine import Engine

_SECONDS = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10)
CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


class Metrics:
    """What a server counts. One object a server, so that two in a process do not count for each other."""

    def __init__(self, engine: Engine, bodies: Bodies) -> None:
        self._registry = own = CollectorRegistry()
        self._requests = Counter("retrain_requests", "Requests, by route and status", ["route", "status"], registry=own)
        self._seconds = Histogram(
            "retrain_request_seconds",
            "Seconds from a request's head to its answer",
            ["route"],
            buckets=_SECONDS,
            registry=own,
        )
        self._labels = Counter("retrain_labels", "Pictures, by their top label", ["label"], registry=own)
        self._unknown = Counter("retrain_unknown", "Pictures that were called unknown", registry=own)
        gauges: dict[str, tuple[str, Callable[[], float]]] = {
            "retrain_under_way": ("Requests that wait for a core or are worked on", lambda: engine.under_way),
            "retrain_body_bytes": ("Bytes of the bodies that are held", lambda: bodies.held),
            "retrain_model_version": (
                "Which model is served: 1 for the first of this process",
                lambda: engine.serving.version,
            ),
            "retrain_model_refused": ("Whether the folder holds a newer model that cannot be used", lambda: engine.refused),
        }
        for name, (words, read) in gauges.items():
            Gauge(name, words, registry=own).set_function(read)

    def request(self, route: str, status: int, seconds: float) -> None:
        """Count a request that was answered, or refused."""
        self._requests.labels(route, str(status)).inc()
        self._seconds.labels(route).observe(seconds)

    def labelled(self, label: str, unknown: bool) -> None:
        """Count a picture."""
        # A label may hold what is no UTF-8.
        self._labels.labels(label.encode(errors="backslashreplace").decode()).inc()
        if unknown:
            self._unknown.inc()

    def text(self) -> bytes:
        """Return all of it as Prometheus reads it."""
        return generate_latest(self._registry)
