"""Turn a folder of labelled pictures into an image classifier, and label the rest with it.

A frozen, pretrained backbone gives each picture's features once (its bottleneck); they are kept in a cache; a small
softmax head is trained on them and judged on pictures it never saw; the model folder that comes out labels pictures
without TensorFlow. In the order in which data flows:

    images -> views -> runner -> (backbones) -> bottlenecks -> head -> artifact -> label -> classify | evaluate

    import retrain
    report = retrain.check("tf_files")
    result = retrain.train("tf_files")
    found = retrain.evaluate("tf_files")
    model = retrain.load("tf_files/model")
    model.label("image.jpg")[0]     # Score(label='elsa', score=0.99621)

Importing this package loads nothing else; each name below is fetched when it is first used.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from retrain.checks.run import check as check
    from retrain.errors import BadImage as BadImage
    from retrain.errors import RetrainError as RetrainError
    from retrain.evaluation.evaluated import Evaluated as Evaluated
    from retrain.evaluation.run import evaluate as evaluate
    from retrain.exports.run import export as export
    from retrain.model import Model as Model
    from retrain.model import load as load
    from retrain.pipeline import Result as Result
    from retrain.pipeline import train as train  # type: ignore[no-redef]
    from retrain.settings import HeadSettings as HeadSettings
    from retrain.settings import SplitSettings as SplitSettings

__version__ = "0.1.0"

_WHERE = {
    "BadImage": "retrain.errors",
    "Evaluated": "retrain.evaluation.evaluated",
    "check": "retrain.checks.run",
    "evaluate": "retrain.evaluation.run",
    "export": "retrain.exports.run",
    "HeadSettings": "retrain.settings",
    "Model": "retrain.model",
    "Result": "retrain.pipeline",
    "RetrainError": "retrain.errors",
    "SplitSettings": "retrain.settings",
    "load": "retrain.model",
    "train": "retrain.pipeline",
}
__all__ = ["__version__", *_WHERE]  # noqa: PLE0604


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module 'retrain' has no attribute '{name}'")
    value = getattr(importlib.import_module(_WHERE[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
