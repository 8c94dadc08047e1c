"""Findings about single pictures: files that cannot be used, and what little can be seen on."""

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from retrain.checks.findings import Finding
from retrain.dataset import Skipped
from retrain.facts import Facts, oddities
from retrain.images import FORMATS

# The last extension in use for each format, and others that name the same.
_OTHER_EXTENSIONS = {
    "JPEG": ("jpeg", "jpe", "jfif", "mpo"),
    "TIFF": ("tiff",),
    "PNG": ("apng",),
    "BMP": ("dib",),
    "AVIF": ("avifs",),
}


def unreadable(skipped: Iterable[Skipped], label_of: Callable[[str], str]) -> list[Finding]:
    """Return a finding for each path that cannot be used as a picture."""
    return [
        Finding(
            "unreadable",
            f"{item.reason}{f': {item.detail}' if item.detail else ''}",
            (item.path,),
            (label_of(item.path),),
            reason=item.reason,
        )
        for item in skipped
    ]


def strange(paths: Sequence[str], labels: Sequence[str], facts: Sequence[Facts]) -> list[Finding]:
    """Return what is to be said of each picture by itself, from its facts. A blank picture is not called dark as well."""
    found = []
    for path, label, of_picture in zip(paths, labels, facts, strict=True):
        for kind, detail, score in _about(path, of_picture):
            # Neither changes what the network sees.
            found.append(Finding(kind, detail, (path,), (label,), score, matters=kind not in ("turned", "wrong-extension")))
    return found


def _about(path: str, facts: Facts) -> Iterable[tuple[str, str, float]]:
    name, size = Path(path).name, f"{facts.width:.0f}x{facts.height:.0f} pixels"
    extension = Path(path).suffix[1:].lower()
    usual = FORMATS[facts.kind][0]
    if extension != usual and extension not in _OTHER_EXTENSIONS.get(facts.kind, ()):
        yield "wrong-extension", f"{facts.kind}, though it is called {name}", 1.0
    if facts.turned:
        yield "turned", f"{size} when upright", 1.0
    yield from oddities(facts)
