"""What a report says of a data set in figures: its classes and sources, what flatters, what more pictures would bring."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from retrain.report import chart
from retrain.report.html import Markup, bar_cell, join, name, percent, points, table, tag, unheard
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
    """How well one fact alone tells the label, or with `label` that class. `chance`: what guessing would give."""

    fact: str
    value: float
    measure: str = "accuracy"  # or AUC
    label: str = ""
    chance: float | None = None


@dataclass(frozen=True)
class Point:
    """Accuracy, with its interval, after training on so many pictures."""

    pictures: int
    accuracy: float
    low: float
    high: float


@dataclass(frozen=True)
class ClassCurve:
    """The recall of a class at each point of the curve (None: not measured), and what twice the pictures bring."""

    label: str
    recalls: tuple[float | None, ...]
    gain: float | None = None


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


def classes(rows: Sequence[ClassRow]) -> Section:
    """Return the table of classes; columns that say nothing are left out."""
    most = max(row.pictures for row in rows)
    columns = {"pictures": [bar_cell(f"{row.pictures:,}", row.pictures / max(most, 1)) for row in rows]}
    if any(row.skipped for row in rows):
        columns["skipped"] = [tag("td", f"{row.skipped:,}") for row in rows]
    if any(row.sources is not None for row in rows):
        columns["sources"] = [tag("td", _or_dash(row.sources)) for row in rows]
    if any(row.accuracy is not None for row in rows):
        columns["accuracy"] = [_share_cell(row.accuracy) for row in rows]
    text = "Accuracy is the share of the pictures of a class that models which never saw them label right."
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
        "learnt from. The gap, with its interval, says by how much a random split flatters."
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
    head = ["fact", "told right by it alone", *["by guessing"] * any(row.chance is not None for row in rows)]
    cells = [
        [
            join((name(row.fact), *[" of ", name(row.label)] * bool(row.label))),
            bar_cell(_measured(row.value, row.measure), row.value),
            *[_or_dash(None if row.chance is None else _measured(row.chance, row.measure))] * (len(head) - 2),
        ]
        for row in rows
    ]
    text = (
        "How well a label can be told from one fact about the picture alone, without a look at what it shows. What is "
        "far above guessing may be learnt in place of the motif. An AUC of 0.50 is guessing, 1.00 is certain."
    )
    return Section("shortcuts", "Shortcuts", join((about(text), _capped("What facts alone tell", head, cells))))


def _measured(value: float, measure: str) -> str:
    return percent(value) if measure == "accuracy" else f"{measure} {value:.2f}"


def curve(of: Curve) -> Section:
    """Return the learning curve of the set and of each class, as charts and, folded away, as figures."""
    dots = [chart.Dot(point.pictures, point.accuracy, point.low, point.high) for point in of.points]
    head = ("training pictures", "accuracy", "interval")
    cells = [(f"{dot.at:,}", percent(dot.share), f"{percent(dot.low)} to {percent(dot.high)}") for dot in dots]
    parts = [
        about("Accuracy after training on a part of the pictures, measured on others. The band is the interval."),
        chart.curve("Learning curve", "training pictures", "accuracy", dots),
        _folded(table("Accuracy by number of training pictures", head, cells)),
    ]
    if of.classes:
        parts += _by_class(of)
    return Section("curve", "Would more pictures help?", join(parts))


def _by_class(of: Curve) -> list[Markup]:
    """The classes that gain most come first."""
    rows = sorted(of.classes, key=lambda row: (-(row.gain if row.gain is not None else -1.0), row.label))
    sizes = [point.pictures for point in of.points]
    floor = chart.scale_floor([recall for row in rows for recall in row.recalls if recall is not None])
    text = (
        f"The share of each class that is found, with the same numbers of training pictures; from {100 * floor:.0f} % to "
        "100 %. First the classes that should gain most from twice as many pictures."
    )
    shown = rows[:MAX_ROWS]
    head = ("class", *(f"{size:,}" for size in sizes), "gain, in points")
    cells = [
        (name(row.label), *(_or_dash(None if recall is None else percent(recall)) for recall in row.recalls),
         _or_dash(None if row.gain is None else points(row.gain)))
        for row in shown
    ]  # fmt: skip
    charts = tag("ul", *(_multiple(row, sizes, floor) for row in shown), class_="multiples")
    figures = _folded(table("Recall by number of training pictures", head, cells, wide=True))
    return [tag("h3", "By class"), about(text), charts, _rest(len(rows)), figures]


def _multiple(row: ClassCurve, sizes: Sequence[int], floor: float) -> Markup:
    measured = [(size, recall) for size, recall in zip(sizes, row.recalls, strict=True) if recall is not None]
    words = percent(measured[-1][1]) if measured else "not measured"
    gain = "" if row.gain is None else f", doubling {points(row.gain)}"
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
    return tag("details", tag("summary", "The figures"), content)


def _capped(caption: str, head: Sequence[object], rows: Sequence[Sequence[object]], wide: bool = False) -> Markup:
    return join((table(caption, head, rows[:MAX_ROWS], wide), _rest(len(rows))))


def _rest(of: int, most: int = MAX_ROWS, what: str = "") -> Markup:
    more = of - most
    return tag("p", f"and {more:,} more {what}".rstrip() + ", all in check.json", class_="soft") if more > 0 else Markup()
