"""The whole line: a folder of pictures in, a model folder and a run record out.

train       one call a stage
examples    listing and features -> usable examples
judged      split, head, figure
record      reports/train.json
"""

from retrain.pipeline.train import Result, train

__all__ = ["Result", "train"]
