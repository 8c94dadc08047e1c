"""The whole line: a folder of pictures in, a model folder and a run record out.

train       one call a stage
examples    listing and features -> usable examples
look, seen  what each backbone sees of them, in all views
judged      split, head, figure
learnt      what is learnt from some rows, and every choice that goes with it
tuned       the backbone trained, too
record      reports/train.json
"""

from retrain.pipeline.train import Result, find_rate, train

__all__ = ["Result", "find_rate", "train"]
