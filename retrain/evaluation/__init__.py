"""How good a model is, as figures and as a report.

metrics      accuracy and its interval, from predictions and labels; numpy only
calibration  how far scores are from meaning what they say; numpy only
splits       what a random split flatters by
figures      all that is measured of one set of predictions
heat         what speaks for labels, and what each class rests on
evaluated    what an evaluation found
"""

from retrain.evaluation.metrics import Accuracy, accuracy, wilson_interval

__all__ = ["Accuracy", "accuracy", "wilson_interval"]
