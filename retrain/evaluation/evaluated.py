"""What `evaluate` found, as its report shows it."""

from dataclasses import dataclass, field
from pathlib import Path

from retrain.dataset import Skipped
from retrain.evaluation.figures import Figures
from retrain.evaluation.heat import Found
from retrain.head import History


@dataclass(frozen=True)
class Neighbour:
    """A training picture near another one. `path` is empty where it is not known where that picture lies now."""

    label: str
    similarity: float  # cosine of the features, at most 1
    path: str = ""


@dataclass(frozen=True)
class Mistake:
    """A picture that was labelled wrongly. `score`: of what was said; `own_score`: of its label, both in [0, 1].

    `unknown`: it was also found to be unlike the training pictures. `neighbours`: the nearest of those.
    """

    path: str
    label: str
    predicted: str
    score: float
    own_score: float
    unknown: bool = False
    neighbours: tuple[Neighbour, ...] = ()


@dataclass(frozen=True)
class Unknown:
    """How pictures fared that may be unlike all training pictures. Counts of pictures.

    `rate`: the share of pictures of known classes that may be called unknown by mistake; `refused` of `known` were, of
    which `refused_wrong` would have got a wrong label; of `foreign` ones, of classes that the model has not, `found` were.
    """

    rate: float
    known: int
    refused: int
    refused_wrong: int
    foreign: int = 0
    found: int = 0


@dataclass(frozen=True)
class Evaluated:
    """Everything about one evaluation.

    `model`: its folder; `data`: the folder of class folders that the pictures lie in; `judged_on`: what they are, in a few
    words; `split`: sentences on how pictures were divided, and on what was left out; `backbone`, `temperature`: of the
    model; `mistakes`: the surest first, all of them; `curve`: of its head's training; `maps`: what speaks for labels.
    """

    model: Path
    data: Path
    when: str
    judged_on: str
    split: tuple[str, ...]
    backbone: str
    temperature: float
    labels: tuple[str, ...]
    figures: Figures
    mistakes: tuple[Mistake, ...]
    unknown: Unknown | None = None
    curve: History | None = None
    skipped: tuple[Skipped, ...] = ()
    maps: Found = field(default_factory=Found)
