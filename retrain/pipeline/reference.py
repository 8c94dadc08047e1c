"""What a model keeps of the pictures that it learnt from."""

import numpy as np

from retrain import artifact, nearest
from retrain.pipeline.examples import Examples
from retrain.pipeline.judged import Judged, unit_numbers


def reference_of(examples: Examples, judged: Judged) -> artifact.Reference:
    """Return a sample of the features that were learnt from, and how far from it pictures of the same classes lie.

    The latter is found of the sample itself: each picture is compared with those of other units, and by a head that has not
    learnt from it.
    """
    learnt, logits = judged.learnt, judged.fitted.logits
    sample = artifact.reference_sample([examples.hashes[row] for row in learnt], examples.classes[learnt])
    kept, units = learnt[sample], unit_numbers(judged.parts)[learnt[sample]]
    features = examples.features[kept].astype(np.float16)
    hashes = np.array([list(bytes.fromhex(examples.hashes[row])) for row in kept], np.uint8)
    labels = examples.classes[kept].astype(np.int32)
    if logits is None:
        return artifact.Reference(features, hashes, labels)
    return artifact.Reference(features, hashes, labels, nearest.held_out(features, units, logits[sample]))
