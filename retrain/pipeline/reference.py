"""What a model keeps of the pictures that it learnt from."""

import numpy as np

from retrain import artifact, nearest
from retrain.pipeline.examples import Examples
from retrain.pipeline.judged import Judged, unit_numbers


def reference_of(examples: Examples, judged: Judged, features: np.ndarray) -> artifact.Reference:
    """Return a sample of the features that were learnt from, and how far from it pictures of the same classes lie.

    `features`: float32 (n, feature_size), of all examples under the first member. How far is found of the sample itself:
    each picture is compared with those of other units, and by a head that has not learnt from it.
    """
    learnt, first = judged.learnt, judged.fitted
    sample = artifact.reference_sample([examples.hashes[row] for row in learnt], examples.classes[learnt])
    kept, units = learnt[sample], unit_numbers(judged.parts)[learnt[sample]]
    hashes = np.array([list(bytes.fromhex(examples.hashes[row])) for row in kept], np.uint8)
    labels = examples.classes[kept].astype(np.int32)
    halved = features[kept].astype(np.float16)
    if first.held_out is None:
        return artifact.Reference(halved, hashes, labels)
    logits = first.said(features[learnt])[sample]
    return artifact.Reference(halved, hashes, labels, nearest.held_out(halved, units, logits))
