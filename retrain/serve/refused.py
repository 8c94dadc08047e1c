"""What a client is told when its request is not answered: an HTTP status, a stable id, and words that give nothing away."""

import json
from collections.abc import Mapping
from http import HTTPStatus

from retrain.errors import REASONS, BadImage

# Everything else about a picture is 422: the request was understood, and its picture is no good.
_TOO_LARGE = "too-large"


class Refused(Exception):
    """A request that gets no answer but this.

    `status`: of HTTP; `id`: stable, for scripts; `words`: one line for people, which holds no path, no address and nothing
    that only the server knows.
    """

    def __init__(self, status: HTTPStatus, id: str, words: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(f"{id}: {words}")
        self.status, self.id, self.words, self.headers = status, id, words, dict(headers or {})

    @property
    def body(self) -> bytes:
        """The answer as JSON. `error` is one string, as TensorFlow Serving's clients expect."""
        return json.dumps({"error": f"{self.id}: {self.words}", "id": self.id}).encode()


def of_picture(bad: BadImage) -> Refused:
    """Return the refusal for a picture that cannot be used. Its detail is left out: it may hold words of the system."""
    status = HTTPStatus.REQUEST_ENTITY_TOO_LARGE if bad.reason == _TOO_LARGE else HTTPStatus.UNPROCESSABLE_ENTITY
    return Refused(status, bad.reason, REASONS.get(bad.reason, "the picture cannot be used"))


def busy() -> Refused:
    """Return the refusal for a request that would have to wait too long."""
    return Refused(HTTPStatus.SERVICE_UNAVAILABLE, "busy", "too many requests wait; try again", {"retry-after": "1"})
