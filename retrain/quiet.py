"""Keep native libraries from writing to stderr what no user can act on.

TensorFlow and LiteRT announce CPU features and missing GPUs from C++ before any setting can stop them; there is no
switch upstream. Failures still come as Python exceptions.
"""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from threading import RLock

_LOCK = RLock()  # blocks may nest: loading a network starts TensorFlow


@contextmanager
def native_chatter_dropped() -> Iterator[None]:
    """Point file descriptor 2 at nothing while a block runs. RETRAIN_DEBUG in the environment leaves it alone."""
    if os.environ.get("RETRAIN_DEBUG"):
        yield
        return
    with _LOCK:
        if sys.stderr is not None:  # started with it closed
            sys.stderr.flush()
        try:
            kept = os.dup(2)
        except OSError:  # started with stderr closed
            kept = None
        if kept is None:
            yield
            return
        nowhere = os.open(os.devnull, os.O_WRONLY)
        try:
            os.dup2(nowhere, 2)
            yield
        finally:
            os.dup2(kept, 2)
            os.close(kept)
            os.close(nowhere)
