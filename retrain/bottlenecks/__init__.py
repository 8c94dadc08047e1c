"""Features of views of pictures under a backbone, computed once and kept.

store       the SQLite file
extract     fill it for a list of files and read it back
"""

from retrain.bottlenecks.extract import Bottlenecks, Measure, extract, extract_views, measured, stacked
from retrain.bottlenecks.store import Space, Store

__all__ = ["Bottlenecks", "Measure", "Space", "Store", "extract", "extract_views", "measured", "stacked"]
