"""A folder of class folders -> labelled examples, what belongs together, and the split.

read        walk the folders: labels, sources, groups, and what cannot be an example
duplicates  near-duplicates, found among the features
split       training, validation and test parts, or folds, from content hashes
"""

from retrain.dataset.duplicates import near_duplicates
from retrain.dataset.read import Example, Listing, Skipped, grouped, read
from retrain.dataset.split import PARTS, TEST, TRAIN, VALIDATION, Item, Split, SplitError, divide

__all__ = [
    "PARTS", "TEST", "TRAIN", "VALIDATION", "Example", "Item", "Listing", "Skipped", "Split", "SplitError", "divide",
    "grouped", "near_duplicates", "read",
]  # fmt: skip
