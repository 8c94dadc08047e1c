"""Ask a server on this machine whether it is well: `python -m retrain.serve.health [PORT]` ends with 0 where it is."""

import http.client
import sys

DEFAULT_PORT = 8000
_SECONDS = 3.0


def is_well(port: int) -> bool:
    """Whether the server that listens on a port of this machine says that requests are welcome."""
    asking = http.client.HTTPConnection("127.0.0.1", port, timeout=_SECONDS)
    try:
        asking.request("GET", "/healthz")
        return asking.getresponse().status == http.HTTPStatus.OK
    except (OSError, http.client.HTTPException):
        return False
    finally:
        asking.close()


if __name__ == "__main__":
    sys.exit(0 if is_well(int(sys.argv[1]) if len(sys.argv) > 1 else DEFAULT_PORT) else 1)
