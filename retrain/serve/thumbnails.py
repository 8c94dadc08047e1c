"""Small copies of training pictures, for the page: of the model's own reference only, by their sha256, kept once made."""

from functools import lru_cache

from retrain.report import thumbnails
from retrain.storage import Layout
from retrain.whereabouts import Whereabouts

_KEPT = 2000  # as many as a reference has rows; of 9 KB each


class Thumbnails:
    """Thumbnails of training pictures as far as they still lie where they did. Threads may share it."""

    def __init__(self, layout: Layout, shown: bool) -> None:
        """Prepare. `shown`: whether there are to be any."""
        self._files, self.shown = Whereabouts(layout), shown
        self._made = lru_cache(_KEPT)(self._make)

    def of(self, sha256: str) -> str | None:
        """Return a thumbnail as a data URI; None where the picture is not there, or is not to be shown."""
        return self._made(sha256) if self.shown else None

    def _make(self, sha256: str) -> str | None:
        path = self._files.path(sha256)
        return (thumbnails.make(path).uri or None) if path else None
