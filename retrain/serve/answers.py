"""What is found in a picture, as JSON values."""

from collections.abc import Mapping
from typing import Any

from retrain import facts
from retrain.explain import Explainer, words
from retrain.heat.region import WHOLE
from retrain.images import decode
from retrain.label import Labelled, Labeller
from retrain.serve.engine import Serving, Timed

NEIGHBOURS = 3


def labels(labelled: Labelled, top: int | None = None) -> list[dict[str, Any]]:
    """Return labels and their scores, highest first."""
    return [{"label": score.label, "score": score.score} for score in labelled.scores[:top]]


def explained(data: bytes, labeller: Labeller, serving: Serving, wanted: list[str], maps: bool) -> dict[str, Any]:
    """Return all that is known of a picture given as the bytes of its file; raises BadImage.

    `wanted`: the labels to explain, the top one where there are none; raises UsageError for one that the model does not
    have. `maps`: whether to find out where what speaks for them lies.
    """
    whole = decode(data)
    of, size = facts.of_picture(whole, len(data)), {"width": whole.width, "height": whole.height}
    del whole  # it is decoded again, for the network, and one of 64 megapixels takes hundreds of megabytes
    sentence, seen = None, {"way": None, "maps": [], "seen": list(WHOLE)}
    if maps:
        found = Explainer(labeller).explain(data, wanted, NEIGHBOURS)
        said = words.as_json(found, words.remarks(found, of))
        sentence, labelled = str(found.maps[0].region), found.labelled
    else:
        labelled = labeller.label_bytes(data, NEIGHBOURS)
        said = words.labelled_as_json(labelled, words.remarks_without_map(labelled, of)) | seen
    return {**said, "said": sentence, "neighbours": _neighbours(labelled, serving), **size}


def _neighbours(labelled: Labelled, serving: Serving) -> list[dict[str, Any]]:
    # No path: a client is told nothing of this machine.
    return [
        {"label": near.label, "similarity": near.similarity, "sha256": near.sha256,
         "picture": serving.thumbnails.of(near.sha256)}
        for near in labelled.neighbours
    ]  # fmt: skip


def milliseconds(timed: Timed) -> dict[str, float]:
    """Return how long a request waited for a core, and was worked on."""
    return {"waited": round(1000 * timed.waited, 2), "worked": round(1000 * timed.worked, 2)}


def accuracy(metrics: Mapping[str, Any]) -> str | None:
    """Say how good the model was when it was trained; None where that was not measured."""
    if not metrics.get("test_count"):
        return None
    low, high = metrics["test_accuracy_interval"]
    return (
        f"{_percent(metrics['test_accuracy'])} (95 % interval {_percent(low)} to {_percent(high)};"
        f" {metrics['test_correct']} of {metrics['test_count']} pictures, {metrics['judged_on']})"
    )


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"
