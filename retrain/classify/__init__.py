"""A folder of pictures -> copies named `<label>-<score>.<ext>`, and a manifest. No TensorFlow.

names       labels made safe for file names
manifest    what was copied where: kept in order, merged, readable after a kill
copy        the walk over the pictures
"""

from retrain.classify.copy import Outcome, classify
from retrain.classify.manifest import MANIFEST_CSV, MANIFEST_JSONL, Row
from retrain.classify.names import safe_names

__all__ = ["MANIFEST_CSV", "MANIFEST_JSONL", "Outcome", "Row", "classify", "safe_names"]
