"""What a report says of a data set in figures: its classes and sources, what flatters, what more pictures would bring."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from retrain.report import chart
from retrain.report.html import Markup, bar_cell, folded, join, name, percent, points, table, tag, unheard
from retrain.report.sections import Section, about

MAX_ROWS = 200  # of a table, and charts of classes
MAX_COLUMNS = 40


@dataclass(frozen=True)
class ClassRow:
    """A class. `accuracy`: of models that never saw the picture in question; None: not measured."""

    label: str
    pictures: int
    skipped: int = 0
    sources: int | None = None
    accuracy: float | None = None


@dataclass(frozen=True)
class Leak:
    """Accuracy when pictures are split at random, and when those of a group stay together; `gap` with its interval."""

    grouping: str
    groups: int
    random: float
    grouped: float
    gap: float
    low: float
    high: float


@dataclass(frozen=True)
class Shortcut:
    """How well one fact alone tells the label.

    `chance`: what naming the largest class each time would give. `label`: the class that it tells best, with the AUC and
    its lower bound; empty where it tells none.
    """

    fact: str
    accuracy: float
    chance: float
    label: str = ""
    auc: float = 0.5
    low: float = 0.0


@dataclass(frozen=True)
class Point:
    """Accuracy, with its interval, after training on so many pictures."""

    pictures: int
    accuracy: float
    low: float
    high: float


@dataclass(frozen=True)
class ClassCurve:
    """The recall of a class at each point of the curve (None: not measured), and what twice the pictures bring.

    `gain`: of its recall; `overall`: of the accuracy over all classes; None: too few pictures to tell. `worth_saying`: or
    else it is too little, or may be chance.
    """

    label: str
    recalls: tuple[float | None, ...]
    gain: float | None = None
    overall: float = 0.0
    worth_saying: bool = True


@dataclass(frozen=True)
class Curve:
    """The learning curve, the fewest pictures first."""

    points: tuple[Point, ...]
    classes: tuple[ClassCurve, ...] = ()


@dataclass(frozen=True)
class Source:
    """A source: its pictures by class, the classes that it has too few of, the accuracy on its pictures."""

    name: str
    counts: Mapping[str, int]
    thin: tuple[str, ...] = ()
    accuracy: float | None = None


def classes(rows: Sequence[ClassRow], accuracy: float | None = None, kept_together: str = "") -> Section:
    """Return the table of classes; columns that say nothing are left out. `accuracy`: of all, with what `kept_together`."""
    most = max(row.pictures for row in rows)
    columns = {"pictures": [bar_cell(f"{row.pictures:,}", row.pictures / max(most, 1)) for row in rows]}
    if any(row.skipped for row in rows):
        columns["skipped"] = [tag("td", f"{row.skipped:,}") for row in rows]
    if any(row.sources is not None for row in rows):
        columns["sources"] = [tag("td", _or_dash(row.sources)) for row in rows]
    if any(row.accuracy is not None for row in rows):
        columns["accuracy"] = [_share_cell(row.accuracy) for row in rows]
    text = "Accuracy is the share of the pictures of a class that models which never saw them label right"
    text += "." if accuracy is None else f"; of all pictures it is {percent(accuracy)}, with {kept_together} kept together."
    if any(row.accuracy is None for row in rows):
        text += " A dash: too few to be judged."
    cells = [(name(row.label), *values) for row, *values in zip(rows, *columns.values(), strict=True)]
    body = _capped("Pictures by class", ("class", *columns), cells)
    return Section("classes", "Classes", join((about(text) if "accuracy" in columns else "", body)), len(rows))


def leaks(rows: Sequence[Leak]) -> Section:
    """Return the table of what a random split flatters by."""
    head = ("grouping", "groups", "split at random", "kept together", "gap, in points")
    cells = [
        (name(row.grouping), f"{row.groups:,}", percent(row.random), percent(row.grouped),
         _gap(row))
        for row in rows
    ]  # fmt: skip
    text = (
        "Pictures that belong together, such as frames of one scene, are easy to tell when others of their group were "
        "learnt from. The gap, with its interval, says by how much a random split flatters. Both accuracies are of models "
        "that are trained with fewer steps and only to be compared with each other, so they differ a little from those by "
        "class."
    )
    return Section(
        "leaks",
        "Does a random split flatter?",
        join((about(text), _capped("Accuracy by how pictures are split", head, cells))),
    )


def _gap(row: Leak) -> Markup:
    interval = tag("span", f"{points(row.low)} to {points(row.high)}", class_="soft")
    return tag("span", tag("b", points(row.gap)), " ", interval, class_="lines")


def shortcuts(rows: Sequence[Shortcut]) -> Section:
    """Return the table of facts that tell the label without a look at what is shown."""
    head = ("fact", "told right by it alone", "by guessing", "class told best", "its AUC")
    cells = [
        (name(row.fact), bar_cell(percent(row.accuracy), row.accuracy), percent(row.chance),
         name(row.label) if row.label else "–", _auc(row) if row.label else "–")
        for row in rows
    ]  # fmt: skip
    text = (
        "How well labels can be told from one fact about the picture alone, without a look at what it shows; guessing is to "
        "name the largest class. What is far above that may be learnt in place of the motif. The AUC: of a picture "
        "of the class and one of another class, how often the fact alone picks the right one; 0.50 is guessing, 1.00 is "
        "certain. So many pictures can only prove that it is at least the figure behind it, which is what findings go by."
    )
    return Section("shortcuts", "Shortcuts", join((about(text), _capped("What facts alone tell", head, cells))))


def _auc(row: Shortcut) -> Markup:
    low = tag("span", f"at least {max(row.low, 0.0):.2f}", class_="soft")
    return tag("span", tag("b", f"{row.auc:.2f}"), " ", low, class_="lines")


def curve(of: Curve) -> Section:
    """Return the learning curve of the set and of each class, as charts and, folded away, as figures."""
    dots = [chart.Dot(point.pictures, point.accuracy, point.low, point.high) for point in of.points]
    head = ("training pictures", "accuracy", "interval")
    cells = [(f"{dot.at:,}", percent(dot.share), f"{percent(dot.low)} to {percent(dot.high)}") for dot in dots]
    parts = [
        about(
            "Accuracy after training on a part of the pictures, measured on others. The band is the interval. Models are "
            "trained with fewer steps here, too."
        ),
        chart.curve("Learning curve", "training pictures", "accuracy", dots),
        _folded(table("Accuracy by number of training pictures", head, cells)),
    ]
    if of.classes:
        parts += _by_class(of)
    return Section("curve", "Would more pictures help?", join(parts))


def _by_class(of: Curve) -> list[Markup]:
    """The classes that more pictures would help most come first."""
    rows = sorted(of.classes, key=lambda row: (*_rank(row), row.label))
    sizes = [point.pictures for point in of.points]
    floor = chart.scale_floor([recall for row in rows for recall in row.recalls if recall is not None])
    text = (
        f"The share of each class that is found, with the same numbers of training pictures; from {100 * floor:.0f} % to "
        "100 %. First the classes where twice as many pictures should help most: by what they add to the accuracy over all. "
        "About the same: less than a point, or no more than chance."
    )
    shown = rows[:MAX_ROWS]
    head = ("class", *(f"{size:,}" for size in sizes), "doubling, in points", "over all")
    cells = [
        (name(row.label), *(_or_dash(None if recall is None else percent(recall)) for recall in row.recalls),
         _doubling(row), points(row.overall) if _helps(row) else "–")
        for row in shown
    ]  # fmt: skip
    charts = tag("ul", *(_multiple(row, sizes, floor) for row in shown), class_="multiples")
    figures = _folded(table("Recall by number of training pictures", head, cells, wide=True))
    return [tag("h3", "By class"), about(text), charts, _rest(len(rows)), figures]


def _helps(row: ClassCurve) -> bool:
    return row.gain is not None and row.worth_saying


def _rank(row: ClassCurve) -> tuple[bool, bool, float]:
    return not _helps(row), row.gain is None, -row.overall if _helps(row) else 0.0


def _doubling(row: ClassCurve) -> str:
    if row.gain is None:
        return "too few to tell"
    return points(row.gain) if row.worth_saying else "about the same"


def _multiple(row: ClassCurve, sizes: Sequence[int], floor: float) -> Markup:
    measured = [(size, recall) for size, recall in zip(sizes, row.recalls, strict=True) if recall is not None]
    words = percent(measured[-1][1]) if measured else "not measured"
    gain = f", doubling: {_doubling(row)}"
    drawn = chart.small(row.label, "recall", measured, floor) if measured else ""
    return tag("li", tag("b", name(row.label)), drawn, tag("span", words, gain, class_="soft"))


def sources(rows: Sequence[Source], labels: Sequence[str]) -> Section:
    """Return pictures by source and class. Of sources and classes, the fewer are the columns."""
    cells = [[_count_cell(row.counts.get(label, 0), label in row.thin) for label in labels] for row in rows]
    names, others = [name(row.name) for row in rows], [name(label) for label in labels]
    measured = any(row.accuracy is not None for row in rows)
    accuracies = [_share_cell(row.accuracy) for row in rows]
    if len(labels) <= len(rows):
        head = ["source", *others[:MAX_COLUMNS], *["accuracy"] * measured]
        body: list[list[object]] = [
            [title, *line[:MAX_COLUMNS], *[accuracy] * measured]
            for title, line, accuracy in zip(names, cells, accuracies, strict=True)
        ]
    else:
        head = ["class", *names[:MAX_COLUMNS]]
        body = [[title, *line[:MAX_COLUMNS]] for title, line in zip(others, zip(*cells, strict=True), strict=True)]
        if measured:
            body.insert(0, ["accuracy", *accuracies[:MAX_COLUMNS]])
    text = "Pictures of each class and source. Marked: next to none, though the source has other classes."
    wide = _capped("Pictures by source and class", head, body, wide=True)
    left_out = _rest(min(len(labels), len(rows)), MAX_COLUMNS, "columns")
    return Section("sources", "Sources", join((about(text), wide, left_out)), len(rows))


def _count_cell(pictures: int, thin: bool) -> Markup:
    return tag("td", f"! {pictures:,}", unheard(" thin"), class_="thin") if thin else tag("td", f"{pictures:,}")


def _share_cell(share: float | None) -> Markup:
    return tag("td", "–") if share is None else bar_cell(percent(share), share)


def _or_dash(value: object) -> object:
    return "–" if value is None else value


def _folded(content: Markup) -> Markup:
    return folded("The figures", content)


def _capped(caption: str, head: Sequence[object], rows: Sequence[Sequence[object]], wide: bool = False) -> Markup:
    return join((table(caption, head, rows[:MAX_ROWS], wide), _rest(len(rows))))


def _rest(of: int, most: int = MAX_ROWS, what: str = "") -> Markup:
    more = of - most
    return tag("p", f"and {more:,} more {what}".rstrip() + ", all in check.json", class_="soft") if more > 0 else Markup()
