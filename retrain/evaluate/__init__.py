"""How good a model is, as figures.

metrics     accuracy and its interval, from predictions and labels; numpy only
"""

from retrain.evaluate.metrics import Accuracy, accuracy, wilson_interval

__all__ = ["Accuracy", "accuracy", "wilson_interval"]
