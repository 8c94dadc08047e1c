"""Shortcuts: what tells a label without looking at what is shown.

Each group of facts (how large a picture is, how bright ...) predicts the label on its own, always for pictures whose unit
was not learnt from. No fact knows what a picture shows, so what it gets right, a network may learn in place of the motif.
Time grows with pictures times classes: seconds for 100,000 pictures in a dozen classes.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

from retrain.checks.findings import Finding
from retrain.evaluation import Accuracy, accuracy
from retrain.facts import Facts
from retrain.images import FORMATS

# Facts tell classes in honest data, too: flags are wide, road signs have wide margins. These limits of the AUC's lower
# bound lie above all that 28 classes of clip art and game figures gave, and below what a frame or another file type gives.
SUSPICIOUS = 0.86
_VERY_SUSPICIOUS = {"picture size": 0.9, "border width": 0.9}  # shapes of motifs show in these
_Z = NormalDist().inv_cdf(0.95)  # one-sided: only the lower bound counts
_FEW_UNITS = 10
_FOLDS = 5
_LEVELS = 6  # of halving
_BINS = 2**_LEVELS
_PRIOR = 5.0  # pictures that the coarser bin counts for where a bin is halved
_BORDERS = ("border colour", "border width")
_LIGHT = ("brightness", "contrast", "darkest", "brightest")
GROUPS = {
    "picture size": ("width", "height", "aspect"),
    "file size": ("bytes",),
    "file type": ("format", "turned"),
    "brightness": _LIGHT,
    "colourfulness": ("colourfulness",),
    "sharpness": ("sharpness",),
    "border colour": ("border_red", "border_green", "border_blue"),
    "border width": ("left", "top", "right", "bottom"),
}
_WORDS = {  # fact -> what it is called, how a value of it is written, its unit, how many of those make 1
    "width": ("width", "{:.0f}", " pixels", 1), "height": ("height", "{:.0f}", " pixels", 1),
    "aspect": ("width divided by height", "{:.2f}", "", 1), "bytes": ("size", "{:.1f}", " kB", 1e-3),
    "brightness": ("mean brightness", "{:.0f}", " %", 100), "contrast": ("contrast", "{:.0f}", " %", 100),
    "darkest": ("dark parts", "{:.0f}", " %", 100), "brightest": ("bright parts", "{:.0f}", " %", 100),
    "colourfulness": ("colourfulness", "{:.1f}", " %", 100), "sharpness": ("sharpness", "{:.2f}", "", 1),
    "border_red": ("red of the border", "{:.0f}", " %", 100), "border_green": ("green of the border", "{:.0f}", " %", 100),
    "border_blue": ("blue of the border", "{:.0f}", " %", 100),
    "left": ("left border", "{:.1f}", " % of the width", 100), "right": ("right border", "{:.1f}", " % of the width", 100),
    "top": ("upper border", "{:.1f}", " % of the height", 100),
    "bottom": ("lower border", "{:.1f}", " % of the height", 100),
}  # fmt: skip
_USUAL = (10, 50, 90)  # percentiles that say what is typical
_EXPLAINS = 0.4  # how far apart those of two classes must lie to explain anything, see _apart


@dataclass(frozen=True)
class ShortcutRow:
    """How well a group of facts, `fact`, tells the classes.

    `accuracy`: of labels predicted by it alone; `largest`: the share of the largest class, which is what always saying that
    one would reach; `aucs`: by class, how often a picture of it gets a higher score for it than one of the others, 0.5 by
    chance; `lows`: their lower bounds, of 95 %. Both are nan for a class that is alone or has no pictures.
    """

    fact: str
    accuracy: Accuracy
    largest: float
    aucs: tuple[float, ...]
    lows: tuple[float, ...]


def shortcuts(
    facts: Sequence[Facts] | np.ndarray, labels: np.ndarray, label_names: Sequence[str], units: np.ndarray, seed: int = 0
) -> tuple[list[ShortcutRow], list[Finding]]:
    """Judge each group of facts.

    `facts`: one a picture, or rows float32 (n, at least as many as there are facts); `labels`: int64 (n,), indices into
    `label_names`; `units`: int64 (n,), rows of one unit are predicted together; `seed`: of the folds.
    Returns the rows in the order of GROUPS, and for each class at most one finding of kind "shortcut" and one of "border".
    """
    columns, classes = _columns(facts), len(label_names)
    folds = _folds(labels, units, seed)
    shares = np.bincount(labels, minlength=classes) / len(labels)
    priors = np.log(np.maximum(shares, 1e-12))
    rows = []
    for name, members in GROUPS.items():
        scores = _scores([columns[member] for member in members], labels, classes, folds)
        if members == _LIGHT:
            scores = (scores + _bell_scores([columns[member] for member in members], labels, classes, folds)) / 2
        aucs = _aucs(scores, labels, classes)
        reached = accuracy((scores + priors).argmax(axis=1), labels)
        rows.append(ShortcutRow(name, reached, float(shares.max()), tuple(aucs), tuple(_lows(aucs, labels, units))))
    return rows, _findings(rows, columns, labels, label_names, units)


def _columns(facts: Sequence[Facts] | np.ndarray) -> dict[str, np.ndarray]:
    """Each fact and the aspect as float64 (n,); colours are -1 where there is no border that has one."""
    table = np.asarray(facts, np.float64)
    columns = {name: table[:, number].copy() for number, name in enumerate(Facts._fields)}
    bare = np.max([columns[side] for side in GROUPS["border width"]], axis=0) == 0
    for colour in GROUPS["border colour"]:
        columns[colour][bare] = -1
    return {**columns, "aspect": columns["width"] / columns["height"]}


def _folds(labels: np.ndarray, units: np.ndarray, seed: int) -> np.ndarray:
    """Deal the units of each class out over the folds, int64 (n,)."""
    _, first, unit_of = np.unique(units, return_index=True, return_inverse=True)
    order = np.lexsort((np.random.default_rng(seed).permutation(len(first)), labels[first]))
    folds = np.empty(len(first), np.int64)
    folds[order] = np.arange(len(first)) % _FOLDS
    return folds[unit_of]


def _scores(columns: list[np.ndarray], labels: np.ndarray, classes: int, folds: np.ndarray) -> np.ndarray:
    """How much each picture's facts speak for each class, float32 (n, classes): naive Bayes, log of density ratios."""
    scores = np.zeros((len(labels), classes), np.float32)
    for values in columns:
        bins = _bins(values)
        cells = np.bincount((folds * classes + labels) * _BINS + bins, minlength=_FOLDS * classes * _BINS)
        counts = cells.reshape(_FOLDS, classes, _BINS).astype(np.float64)
        for fold in range(_FOLDS):
            rows = np.flatnonzero(folds == fold)
            scores[rows] += _log_ratios(counts.sum(axis=0) - counts[fold])[:, bins[rows]].T
    return scores


def _bins(values: np.ndarray) -> np.ndarray:
    """The bin of each value, int64 (n,), below _BINS: equally full, as far as equal values can be parted, which stay."""
    distinct, number, counts = np.unique(values, return_inverse=True, return_counts=True)
    if len(distinct) <= _BINS:
        return number
    return ((np.cumsum(counts) - counts / 2) / len(values) * _BINS).astype(np.int64)[number]


def _log_ratios(counts: np.ndarray) -> np.ndarray:
    """Log of each class's density, divided by that of all classes, in each bin: float64 (classes, _BINS).

    A Polya tree (M. Lavine, Annals of Statistics 20, 1992): bins are halved level by level, and each half of a class gets
    what was counted, plus _PRIOR pictures spread as those of all classes are. Small classes are so judged by coarse bins and
    large ones by fine bins, without a bandwidth to choose.
    """
    ratios, total = np.zeros((len(counts), 1)), counts.sum(axis=0)
    for level in range(_LEVELS):
        own = counts.reshape(len(counts), 2**level, 2, -1).sum(axis=3)
        of_all = total.reshape(2**level, 2, -1).sum(axis=2)
        share = of_all / np.maximum(of_all.sum(axis=1, keepdims=True), 1)
        gain = (own / np.maximum(share, 1e-12) + _PRIOR) / (own.sum(axis=2, keepdims=True) + _PRIOR)
        ratios = (ratios[:, :, np.newaxis] + np.log(np.where(share > 0, gain, 1))).reshape(len(counts), -1)
    return ratios


def _bell_scores(columns: list[np.ndarray], labels: np.ndarray, classes: int, folds: np.ndarray) -> np.ndarray:
    """As `_scores`, by a normal distribution of each class and of the rest: it sees how facts go together.

    A picture that was made brighter may be no brighter than others, but too bright for its contrast. Facts are replaced by
    the normal quantiles of their ranks first; covariances lean on that of all pictures by _PRIOR pictures.
    """
    x = np.stack([_normal_ranks(values) for values in columns], axis=1)
    size = x.shape[1]
    cells = folds * classes + labels
    products = (x[:, :, np.newaxis] * x[:, np.newaxis]).reshape(len(x), -1)
    addends = np.concatenate([np.ones((len(x), 1)), x, products], axis=1)
    sums = np.stack([np.bincount(cells, column, _FOLDS * classes) for column in addends.T], axis=1)
    sums = sums.reshape(_FOLDS, classes, -1)
    scores = np.zeros((len(x), classes), np.float32)
    for fold in range(_FOLDS):
        rows = np.flatnonzero(folds == fold)
        known = sums.sum(axis=0) - sums[fold]
        everything = known.sum(axis=0)
        if everything[0] < 2:
            continue
        common = _bell(everything, np.zeros((size, size)))[1]
        for label in range(classes):
            mine, rest = known[label], everything - known[label]
            if mine[0] >= 2 and rest[0] >= 2:
                own, others = (_log_density(x[rows], *_bell(part, common)) for part in (mine, rest))
                scores[rows, label] = own - others
    return scores


def _normal_ranks(values: np.ndarray) -> np.ndarray:
    _, number, counts = np.unique(values, return_inverse=True, return_counts=True)
    shares = (np.arange(1000) + 0.5) / 1000
    quantiles = [NormalDist().inv_cdf(share) for share in shares]
    return np.interp(((np.cumsum(counts) - counts / 2) / len(values))[number], shares, quantiles)


def _bell(sums: np.ndarray, common: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and covariance from count, sums and sums of products; a little more variance, as facts may be constant."""
    size, count = len(common), sums[0]
    mean = sums[1 : size + 1] / count
    scatter = sums[size + 1 :].reshape(size, size) - count * np.outer(mean, mean)
    return mean, (scatter + _PRIOR * common) / (count + _PRIOR) + 1e-3 * np.eye(size)


def _log_density(x: np.ndarray, mean: np.ndarray, covariance: np.ndarray) -> np.ndarray:
    away = x - mean
    distance = ((away @ np.linalg.inv(covariance)) * away).sum(axis=1)
    return -0.5 * (distance + np.linalg.slogdet(covariance)[1])


def _aucs(scores: np.ndarray, labels: np.ndarray, classes: int) -> list[float]:
    """Area under the ROC curve of each class against the rest, by ranks; equal scores count half."""
    found = []
    for label in range(classes):
        mine = labels == label
        own, rest = scores[mine, label], np.sort(scores[~mine, label])
        if not len(own) or not len(rest):
            found.append(math.nan)
            continue
        below = np.searchsorted(rest, own, "left") + np.searchsorted(rest, own, "right")
        found.append(float(below.mean() / 2 / len(rest)))
    return found


def _units_of(labels: np.ndarray, units: np.ndarray, classes: int) -> np.ndarray:
    return np.bincount(np.unique(np.stack([labels, units]), axis=1)[0], minlength=classes)


def _lows(aucs: list[float], labels: np.ndarray, units: np.ndarray) -> list[float]:
    """Lower bounds of AUCs, which units count for, not pictures: those of one unit are alike.

    J. A. Hanley and B. J. McNeil, "The Meaning and Use of the Area under a ROC Curve", Radiology 143 (1982). Their standard
    error is 0 for an AUC of 1; it is taken at no more than half a unit short of that, so that three units prove nothing.
    """
    counts = _units_of(labels, units, len(aucs))
    lows = []
    for auc, own in zip(aucs, counts.tolist(), strict=True):
        rest = max(1, int(counts.sum()) - own)
        at = min(max(auc, 0.5), 1 - 1 / (2 * max(own, 1)))
        both, neither = at / (2 - at), 2 * at * at / (1 + at)
        variance = at * (1 - at) + (own - 1) * (both - at * at) + (rest - 1) * (neither - at * at)
        lows.append(auc - _Z * math.sqrt(max(0.0, variance) / (max(own, 1) * rest)))
    return lows


def _findings(
    rows: list[ShortcutRow], columns: dict[str, np.ndarray], labels: np.ndarray, names: Sequence[str], units: np.ndarray
) -> list[Finding]:
    counts = _units_of(labels, units, len(names))
    findings = []
    # Of two classes, what tells one tells the other; once is enough.
    for label in range(1 if len(names) == 2 else len(names)):
        mine = labels == label
        for kind in ("border", "shortcut"):
            told = [
                row
                for row in rows
                if (row.fact in _BORDERS) == (kind == "border")
                and row.lows[label] > _VERY_SUSPICIOUS.get(row.fact, SUSPICIOUS)
            ]
            if not told:
                continue
            best, *others = sorted(told, key=lambda row: -row.lows[label])
            rest = f"'{names[1]}'" if len(names) == 2 else "the rest"
            detail = (
                f"{best.fact} alone tells '{names[label]}' from {rest} in {100 * best.aucs[label]:.0f} of 100 comparisons"
                f" (AUC {best.aucs[label]:.2f}){_typical(best.fact, columns, mine)}"
            )
            if others:
                detail += "; so does " + ", ".join(f"{row.fact} ({row.aucs[label]:.2f})" for row in others)
            if counts[label] < _FEW_UNITS <= mine.sum():
                detail += f"; it is judged by {counts[label]} groups of pictures only"
            findings.append(Finding(kind, detail, labels=(names[label],), score=best.lows[label]))
    return sorted(findings, key=lambda finding: -finding.score)


def _typical(fact: str, columns: dict[str, np.ndarray], mine: np.ndarray) -> str:
    """Say in figures how a class differs from the rest, behind a colon; nothing where they read the same.

    `mine`: bool (n,).
    """
    if fact in _BORDERS:
        said = _typical_border(fact, columns, mine)
    elif fact == "file type":
        said = _typical_type(columns, mine)
    else:
        said = _most_apart(GROUPS[fact], columns, mine, ~mine)
    return f": {said}" if said else ""


def _typical_type(columns: dict[str, np.ndarray], mine: np.ndarray) -> str:
    kinds = {f"are {kind}": columns["format"] == number for number, kind in enumerate(FORMATS)}
    kinds["are turned by EXIF"] = columns["turned"] > 0
    most = max(kinds, key=lambda kind: float(kinds[kind][mine].mean() - kinds[kind][~mine].mean()))
    inside, outside = (f"{100 * kinds[most][rows].mean():.0f} %" for rows in (mine, ~mine))
    return f"{inside} of its pictures {most}, of the others {outside}" if inside != outside else ""


def _most_apart(facts: Sequence[str], columns: dict[str, np.ndarray], mine: np.ndarray, others: np.ndarray) -> str:
    """Say how the fact differs whose values differ most, for how much they vary; `mine`, `others`: bool (n,)."""
    usual = {name: [np.percentile(columns[name][rows], _USUAL) for rows in (mine, others)] for name in facts}
    name = max(facts, key=lambda name: _apart(*usual[name]))
    inside, outside = (_range(name, percentiles) for percentiles in usual[name])
    if inside != outside and _apart(*usual[name]) >= _EXPLAINS:
        return f"{_WORDS[name][0]} typically {inside}, else {outside}"
    if len(facts) == 1:
        return ""
    *called, last = (_WORDS[name][0] for name in facts)
    return f"{', '.join(called)} and {last} differ together, not one by one"


def _apart(inside: np.ndarray, outside: np.ndarray) -> float:
    """How far apart two ranges lie, by the wider of them: 1 where they touch or one is a point in the other, 0 if equal."""
    gap = max(inside[0], outside[0]) - min(inside[-1], outside[-1])
    wider = max(inside[-1] - inside[0], outside[-1] - outside[0])
    return 1 + float(gap) / max(float(wider), 1e-6) if gap or wider else 0.0


def _range(fact: str, percentiles: np.ndarray) -> str:
    _, written, unit, times = _WORDS[fact]
    low, middle, high = (written.format(value * times) for value in percentiles)
    return f"{middle}{unit} ({low} to {high})" if low != high else f"{middle}{unit}"


def _typical_border(fact: str, columns: dict[str, np.ndarray], mine: np.ndarray) -> str:
    """Say which border a class has, or lacks, compared with the rest; or else how its border differs."""
    red, green, blue = (columns[name] for name in GROUPS["border colour"])
    low, high = np.minimum(np.minimum(red, green), blue), np.maximum(np.maximum(red, green), blue)
    # A levels' distance of 0.2 is where grey begins to look coloured.
    colours = {
        "black": (low >= 0) & (high < 0.2), "white": low > 0.95, "grey": (high >= 0.2) & (low <= 0.95) & (high - low < 0.2),
        "coloured": high - low >= 0.2,
    }  # fmt: skip
    gaps = {name: rows[mine].mean() - rows[~mine].mean() for name, rows in colours.items()}
    colour = max(gaps, key=lambda name: gaps[name])
    if gaps[colour] < 0.2:  # it has no border of its own; maybe it lacks that of the others
        colour = min(gaps, key=lambda name: gaps[name])
    if abs(gaps[colour]) < 0.2:  # all have the same: they differ in width, or in the shade
        having = low >= 0 if fact == "border colour" else np.ones(len(mine), bool)
        inside, outside = mine & having, ~mine & having
        return _most_apart(GROUPS[fact], columns, inside, outside) if inside.any() and outside.any() else ""
    across = ("width", "height") * 2
    sides = [columns[name] * columns[whole] for name, whole in zip(GROUPS["border width"], across, strict=True)]
    widths = np.sort(np.stack(sides), axis=0)
    thin = widths[np.minimum((widths <= 0).sum(axis=0), 3), np.arange(widths.shape[1])]  # narrowest side that has one
    shares, abouts = [], []
    for rows in (mine, ~mine):
        having = rows & colours[colour]
        shares.append(f"{100 * having.sum() / rows.sum():.0f} %")
        abouts.append(f" (about {np.median(thin[having]):.0f} pixels on its narrowest side)" if having.any() else "")
    other = abouts[1] if abouts[1] != abouts[0] else ""
    return f"{shares[0]} of its pictures have a {colour} border{abouts[0]}, of the others {shares[1]}{other}"
