"""A web page and a REST service for a model. No TensorFlow.

    connection -> guard -> routes -> body -> engine -> answer

server      listens: deadlines for slow clients, a cap on connections, an end that loses no request
guard       which requests are let in, what every answer carries, what a client learns of an error
app         the routes
bodies      a request's body, within limits, and the picture in it
engine      a model on every core behind a bounded queue; a new one takes its place when the folder changes
answers     what is found in a picture, as JSON
predict     TensorFlow Serving's REST interface
openapi     the service in OpenAPI's words
metrics     counts and times for Prometheus
health      asks a server on this machine whether it is well, for containers
page/       the page: one HTML file, one script, one style sheet

It needs the extra `serve`: Starlette, uvicorn, python-multipart and prometheus-client.
"""

import importlib.util

from retrain.errors import EnvironmentProblem

_NEEDED = ("starlette", "uvicorn", "python_multipart", "prometheus_client")


def check_installed() -> None:
    """Raise EnvironmentProblem where a package is missing that serving needs."""
    missing = [name for name in _NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        raise EnvironmentProblem(f"serving needs {', '.join(missing)}; run: pip install 'retrain[serve]'")
