"""The contact sheet: what `check` found, as one page that shows the pictures."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from retrain.checks.findings import KINDS, Finding
from retrain.progress import SILENT, Progress
from retrain.report import overview
from retrain.report.cards import Card, Shown, grid, in_turns, located
from retrain.report.html import Markup, count, join, name, page, short, tag
from retrain.report.overview import ClassCurve, ClassRow, Curve, Leak, Point, Shortcut, Source
from retrain.report.sections import Section, about, contents
from retrain.report.thumbnails import Thumbnail, make_all

__all__ = [
    "MAX_CARDS", "MAX_THUMBNAILS", "ClassCurve", "ClassRow", "Curve", "Leak", "Point", "Shortcut", "Source", "Summary",
    "render",
]  # fmt: skip
MAX_CARDS = 60  # of one kind
MAX_THUMBNAILS = 400  # on the page: it stays below 5 MB
_CHANCE_SAID = ("mislabelled",)  # the score stands in the detail already
_COMPARED = 3  # pictures beside the one that a finding is about
_FOOTER = "Written by retrain check. The page is a single file with small copies of the pictures in it; it loads nothing."


@dataclass(frozen=True)
class Summary:
    """What the page shows beside the findings; what is empty is left out.

    `name`: the folder that was checked; `when`: a line with the date; `data`: the folder of class folders, that paths
    are shown relative to; `accuracy`: of models that never saw the picture in question, and `kept_together`: what they
    learnt from all of or nothing of.
    """

    name: str
    when: str
    data: Path
    pictures: int
    classes: int
    skipped: int = 0
    of_classes: tuple[ClassRow, ...] = ()
    accuracy: float | None = None
    kept_together: str = ""
    leaks: tuple[Leak, ...] = ()
    shortcuts: tuple[Shortcut, ...] = ()
    curve: Curve | None = None
    sources: tuple[Source, ...] = ()


def render(summary: Summary, findings: Sequence[Finding], progress: Progress = SILENT) -> str:
    """Return the page: the same for the same input. A picture that cannot be read is shown as such.

    Paths of findings are as they can be opened, or relative to the data folder.
    """
    by_kind = _by_kind(findings)
    pictured = {kind: [finding for finding in rows if finding.paths] for kind, rows in by_kind.items()}
    chosen = in_turns(pictured, _pictures, MAX_CARDS, MAX_THUMBNAILS)
    shots = {path: located(summary.data, path) for row in chosen.values() for finding in row for path in _pictures(finding)}
    made = make_all(shots.values(), "contact sheet", progress)
    thumbnails = {path: made[where] for path, where in shots.items()}
    of_set = _of_set(summary)
    found = [_of_kind(kind, rows, chosen[kind], summary.data, thumbnails) for kind, rows in by_kind.items()]
    found = found or [Section("nothing", "Nothing was found", _nothing(summary))]
    body = [section.html for section in (*of_set, *found)]
    links = contents([("The set", of_set), ("Findings", found)])
    return page(f"Check of {summary.name}", _header(summary, findings), links, join(body), _FOOTER)


def _by_kind(findings: Sequence[Finding]) -> dict[str, list[Finding]]:
    """Findings in the order of KINDS, the surest of a kind first, whatever order they came in."""
    order = list(KINDS)
    rows: dict[str, list[Finding]] = {}
    for finding in sorted(
        findings, key=lambda one: (order.index(one.kind), -one.score, one.paths, one.labels, one.to, one.detail)
    ):
        rows.setdefault(finding.kind, []).append(finding)
    return rows


def _pictures(finding: Finding) -> tuple[str, ...]:
    return finding.paths[: 1 + _COMPARED]


def _header(summary: Summary, findings: Sequence[Finding]) -> Markup:
    figures = {
        "pictures": summary.pictures,
        "classes": summary.classes,
        "skipped": summary.skipped,
        "findings": len(findings),
    }
    tiles = (tag("div", tag("dt", what), tag("dd", f"{number:,}")) for what, number in figures.items())
    title = tag("h1", "Check of ", name(summary.name))
    return join((title, tag("p", summary.when, class_="soft"), tag("dl", *tiles, class_="tiles")))


def _nothing(summary: Summary) -> Markup:
    text = f"Nothing stood out in {count(summary.pictures, 'picture')} of {count(summary.classes, 'class', 'classes')}."
    return tag("p", text, class_="none")


def _of_set(summary: Summary) -> list[Section]:
    """Return the sections with figures of the whole set."""
    sections = []
    if summary.of_classes:
        sections.append(overview.classes(summary.of_classes, summary.accuracy, summary.kept_together))
    if summary.leaks:
        sections.append(overview.leaks(summary.leaks))
    if summary.shortcuts:
        sections.append(overview.shortcuts(summary.shortcuts))
    if summary.curve and summary.curve.points:
        sections.append(overview.curve(summary.curve))
    if summary.sources:
        labels = [row.label for row in summary.of_classes] or sorted({one for row in summary.sources for one in row.counts})
        sections.append(overview.sources(summary.sources, labels))
    return sections


def _of_kind(
    kind: str, rows: Sequence[Finding], chosen: Sequence[Finding], data: Path, thumbnails: Mapping[str, Thumbnail]
) -> Section:
    """Return the section of a kind: what it means, cards for what has pictures, a list for what has none."""
    row = KINDS[kind]
    scored = kind not in _CHANCE_SAID and any(finding.score != 1 for finding in rows)  # else it says nothing new
    parts = [about(f"{_sentence(row.meaning)} {_sentence(row.advice)}")]
    if any(len(finding.paths) > 1 for finding in chosen):
        parts.append(about("Framed is the picture that was found; those beside it are what it was compared with."))
    cards = [_card(finding, data, thumbnails, scored) for finding in chosen]
    if cards:
        parts.append(grid(cards))
    bare = [finding for finding in rows if not finding.paths][:MAX_CARDS]
    if bare:
        parts.append(tag("ul", *(_line(finding, scored) for finding in bare), class_="plain"))
    if len(rows) > len(cards) + len(bare):
        more = len(rows) - len(cards) - len(bare)
        parts.append(tag("p", f"and {more:,} more, all in check.json", class_="soft"))
    note = "" if any(finding.matters for finding in rows) else "for information"
    return Section(f"kind-{kind}", row.title, join(parts), len(rows), note)


def _card(finding: Finding, data: Path, thumbnails: Mapping[str, Thumbnail], scored: bool) -> Card:
    shown = []
    for place, path in enumerate(_pictures(finding)):
        relative, label = _names(data, path)
        label = label or (finding.labels[0] if finding.labels else "")
        shown.append(Shown(thumbnails[path], relative, label, finding.to if place == 0 else ""))
    more = len(finding.paths) - len(shown)
    notes = (f"and {count(more, 'more picture', 'more pictures')}" if more else "", _score(finding) if scored else "")
    return Card(shown, finding.detail, tuple(filter(None, notes)))


def _names(data: Path, path: str) -> tuple[str, str]:
    """Return a path relative to the data folder, and the class folder that it begins with; empty for another place."""
    found = Path(path)
    relative = found.relative_to(data) if found.is_relative_to(data) else found
    is_below = len(relative.parts) > 1 and not relative.is_absolute()
    return str(relative), relative.parts[0] if is_below else ""


def _line(finding: Finding, scored: bool) -> Markup:
    labels = [part for label in finding.labels for part in (", ", tag("b", name(label)))][1:]
    score = [" · ", tag("span", _score(finding), class_="soft")] if scored else []
    return tag("li", *labels, ": " if labels else "", short(finding.detail), *score)


def _score(finding: Finding) -> str:
    return f"score {finding.score:.2f}"


def _sentence(text: str) -> str:
    return f"{text[:1].upper()}{text[1:]}."
