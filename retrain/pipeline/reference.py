"""What a model keeps of the pictures that it learnt from."""

from typing import NamedTuple

import numpy as np

from retrain import artifact, nearest
from retrain.head import Fitted
from retrain.pipeline.examples import Examples
from retrain.pipeline.judged import Judged, unit_numbers


class HeldOut(NamedTuple):
    """A head, and the features that it works on of all examples, float32 (n, feature_size): to see how far from others those
    lie that it has not learnt from."""

    fitted: Fitted
    features: np.ndarray


def reference_of(
    examples: Examples, judged: Judged, features: np.ndarray, held_out: HeldOut | None = None
) -> artifact.Reference:
    """Return a sample of the features that were learnt from, and how far from it pictures of the same classes lie.

    `features`: float32 (n, feature_size), of all examples under the first member. How far is found of the sample itself:
    each picture is compared with those of other units, and by a head that has not learnt from it, the one that was judged
    or `held_out`.
    """
    first = held_out or HeldOut(judged.fitted, features)
    learnt = judged.learnt
    sample = artifact.reference_sample([examples.hashes[row] for row in learnt], examples.classes[learnt])
    kept, units = learnt[sample], unit_numbers(judged.parts)[learnt[sample]]
    hashes = np.array([list(bytes.fromhex(examples.hashes[row])) for row in kept], np.uint8)
    labels = examples.classes[kept].astype(np.int32)
    halved = features[kept].astype(np.float16)
    if first.fitted.held_out is None:
        return artifact.Reference(halved, hashes, labels)
    logits = first.fitted.said(first.features[learnt])[sample]
    return artifact.Reference(
        halved, hashes, labels, nearest.held_out(first.features[kept].astype(np.float16), units, logits)
    )
