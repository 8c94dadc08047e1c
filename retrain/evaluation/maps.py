"""The maps of an evaluation: of mistakes, and of a sample of each class, with what its border carries."""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain, zip_longest

import numpy as np

from retrain.artifact import Artifact
from retrain.borders import TOLERANCE
from retrain.evaluation.evaluated import Mistake
from retrain.evaluation.heat import FEWEST, Carried, Found, Rests
from retrain.evaluation.look import File, Looked, Task, worker
from retrain.heat.cover import BORDER, Colour
from retrain.heat.region import border_share
from retrain.progress import Progress
from retrain.runner import Run, Runner

# Each picture of a class is run twice: 280 runs of the network in all, so that an evaluation stays quick, and two more for
# each picture of a class that its border may carry, four of one whose background is unlike that of the others.
MISTAKES = 40
OF_CLASS, OF_ALL = 20, 120
_EXAMPLES = 3
_UNLIKE = 2 * TOLERANCE  # levels of 255 in a channel


@dataclass(frozen=True)
class Candidates:
    """Pictures that got their label: `tested` were not learnt from, and `learnt` were, to fill up what is too little.

    Of a model that was judged in folds, all were learnt from.
    """

    tested: Sequence[File]
    learnt: Sequence[File]


def look(
    model: Artifact, mistakes: Sequence[tuple[File, Mistake]], candidates: Candidates, run: Run, progress: Progress
) -> Found:
    """Look at the first mistakes, and at a sample of each class.

    A picture that is gone, or another one now, is passed over. Of a network without a spatial map there are no maps:
    to cover part after part, as `explain` does, would take a hundred runs a picture. One that needs TensorFlow is not run
    at all: an evaluation is quick, and works where there is none.
    """
    if any(member.network.engine != Runner.engine for member in model.members):
        return Found()
    chosen, left = sampled(candidates, model.labels)
    tasks = [Task(file, (one.predicted, one.label)) for file, one in mistakes[:MISTAKES]]
    tasks += [Task(file, (file.label,), bare=True) for row in chosen.values() for file in row]
    looked = {task.file.path: one for task, one in _looked(model, tasks, run, progress)}
    learnt = {file.path for file in candidates.learnt}
    # What the folds labelled rightly, and the model does not, says nothing of what the model rests on.
    right = {
        label: [file for file in row if file.path in looked and 0 < looked[file.path].lead < np.inf]
        for label, row in chosen.items()
    }
    rests = [_rests(label, row, looked, learnt) for label, row in right.items()]
    rests = _with_parts(model, rests, right, looked, run, progress)
    shown = {path for one in rests for path in one.examples} | {file.path for file, _ in mistakes}
    heat = {path: one.heat for path, one in looked.items() if path in shown and one.heat is not None}
    return Found(heat, tuple(rests), left, mapped=all(one.heat is not None for one in looked.values()))


def sampled(candidates: Candidates, labels: Sequence[str]) -> tuple[dict[str, list[File]], int]:
    """Return some pictures of each class, and how many classes there is no room for.

    Of many classes those with the most pictures are taken, those that were not learnt from before all others. By their
    sha256, so that the same pictures are taken again.
    """
    tested, learnt = (Counter(file.label for file in files) for files in (candidates.tested, candidates.learnt))
    kept = sorted(labels, key=lambda label: (-tested[label], -learnt[label]))[: OF_ALL // FEWEST]
    most = min(OF_ALL // max(len(kept), 1), OF_CLASS)
    groups: dict[str, list[File]] = {label: [] for label in labels if label in kept}
    for files in (candidates.tested, candidates.learnt):
        for file in sorted(files, key=lambda file: (file.sha256, file.path)):
            if file.label in groups and len(groups[file.label]) < most:
                groups[file.label].append(file)
    return groups, len(labels) - len(kept)


def _looked(model: Artifact, tasks: Sequence[Task], run: Run, progress: Progress) -> list[tuple[Task, Looked]]:
    """Return what was seen of pictures that are still there."""
    found = []
    with progress.bar("maps", len(tasks)) as advance:
        for task, one in zip(tasks, run(lambda: worker(model), tasks), strict=True):
            if one is not None:
                found.append((task, one))
            advance()
    return found


def _rests(label: str, used: Sequence[File], looked: Mapping[str, Looked], learnt: set[str]) -> Rests:
    if not used:
        return Rests(label, 0)
    of = [looked[file.path] for file in used]
    lead, without = np.array([one.lead for one in of]), np.array([one.changed for one in of])
    grids = [one.heat.grids[label] for one in of if one.heat is not None]
    return Rests(
        label,
        len(used),
        sum(file.path in learnt for file in used),
        float(np.median(lead)),
        Carried(float(np.median(lead - without)), int((without > 0).sum())),
        in_border=float(np.mean([border_share(grid, BORDER, BORDER) for grid in grids])) if grids else None,
        grid=np.asarray(np.mean(grids, axis=0), np.float64) if grids else None,
        seen=np.mean([one.seen for one in of], axis=0).round().astype(np.uint8),
        examples=tuple(file.path for file in used[:_EXAMPLES]) if grids else (),
    )


def _with_parts(
    model: Artifact, rests: Sequence[Rests], right: Mapping[str, Sequence[File]], looked: Mapping[str, Looked], run: Run,
    progress: Progress,
) -> list[Rests]:  # fmt: skip
    """Try the border of each class that loses much without it, and each background that others do not have, on others."""
    tasks: list[tuple[str, Task]] = []
    for one in rests:
        if one.pictures >= FEWEST and one.border and one.border.suspect:
            pairs = zip(_others(right, one.label), right[one.label], strict=False)
            tasks += [("border", Task(other, (one.label,), frame=frame)) for other, frame in pairs]
    for label, (own, usual) in backgrounds(right, looked).items():
        on_one = {name: [file for file in row if looked[file.path].ground] for name, row in right.items()}
        tasks += [("fall", Task(file, (label,), ground=usual)) for file in on_one[label]]
        others = _others(on_one, label)[: len(on_one[label])]
        tasks += [("rise", Task(file, (label,), ground=own)) for file in others]
    found: dict[tuple[str, str], list[Looked]] = defaultdict(list)
    seen = _looked(model, [task for _, task in tasks], run, progress) if tasks else []
    kinds = {task: kind for kind, task in tasks}
    for task, again in seen:
        found[kinds[task], task.labels[0]].append(again)
    return [replace(one, border=_border(one, found), background=_background(one.label, found)) for one in rests]


def _others(right: Mapping[str, Sequence[File]], label: str) -> list[File]:
    """Return pictures of other classes: of each the first, then of each the next."""
    ranks = zip_longest(*(row for other, row in right.items() if other != label))
    return [file for file in chain.from_iterable(ranks) if file is not None]


def backgrounds(right: Mapping[str, Sequence[File]], looked: Mapping[str, Looked]) -> dict[str, tuple[Colour, Colour]]:
    """Return the classes whose background fewer than half of the others have: label -> its colour, and the usual one."""
    colours: dict[str, np.ndarray] = {}
    for label, row in right.items():
        own = [its for file in row if (its := looked[file.path].ground)]
        if len(own) >= FEWEST:
            colours[label] = np.median(own, axis=0).round().astype(int)

    def sharing(colour: np.ndarray, label: str) -> int:
        return sum(np.abs(its - colour).max() <= _UNLIKE for other, its in colours.items() if other != label)

    found = {}
    for label, own_colour in colours.items():
        if 2 * sharing(own_colour, label) < len(colours) - 1:
            others = [its for other, its in colours.items() if other != label]
            usual = max(others, key=lambda its: sharing(its, label))
            found[label] = (_colour(own_colour), _colour(usual))
    return found


def _colour(levels: np.ndarray) -> Colour:
    red, green, blue = levels.tolist()
    return red, green, blue


def _border(of: Rests, found: Mapping[tuple[str, str], Sequence[Looked]]) -> Carried | None:
    rise = found.get(("border", of.label), ())
    return replace(of.border, rise=_median_change(rise)) if of.border and len(rise) >= FEWEST else of.border


def _background(label: str, found: Mapping[tuple[str, str], Sequence[Looked]]) -> Carried | None:
    fall, rise = found.get(("fall", label), ()), found.get(("rise", label), ())
    if min(len(fall), len(rise)) < FEWEST:
        return None
    return Carried(-_median_change(fall), sum(one.changed > 0 for one in fall), _median_change(rise))


def _median_change(of: Sequence[Looked]) -> float:
    return float(np.median([one.changed - one.lead for one in of]))
