"""The mistakes on the page of an evaluation: the pairs most often confused, and the pictures."""

from collections.abc import Mapping

from retrain.evaluation.drawn import hottest, map_shown
from retrain.evaluation.drawn import of_picture as drawn_over
from retrain.evaluation.evaluated import Evaluated, Mistake, Neighbour
from retrain.evaluation.figures import Pair
from retrain.evaluation.heat import Heat
from retrain.progress import Progress
from retrain.report.cards import Card, Heard, Shown, grid, in_turns, located, relative
from retrain.report.html import Markup, bar_cell, join, name, percent, tag
from retrain.report.sections import Section, about
from retrain.report.sorting import number, sortable
from retrain.report.thumbnails import Thumbnail, make_all

MAX_PAIRS = 20  # with a table row and pictures of their own
MAX_CARDS = 60  # of one pair
MAX_THUMBNAILS = 400  # on the page: it stays below 5 MB
RECORD = "the JSON file beside this page"  # what has the rest
_COMPARED = 3  # pictures beside the one that was labelled wrongly
_HEARD = Heard("the picture", "near it in training", "labelled")
_FIRST = (
    "Of each pair, the mistakes that the model was surest of come first. They are worth a look: the label may be "
    "wrong, or the picture may show both."
)
_NEAR = "Framed is the picture; those beside it are what the model learnt from and finds most like it."
_MAPS = (
    "Next to the first ones lie two maps: what in the picture speaks for the label that it got, and what for its own. The "
    "redder a place, the more; both have one scale."
)
_REST = ("", "")  # what stands for all other pairs


def pairs(found: Evaluated) -> Section:
    """Return the table of the pairs most often confused, each with a link to its pictures."""
    rows = found.figures.pairs[:MAX_PAIRS]
    links = pair_ids(found)
    cells = [
        (name(pair.label), _taken_for(pair, links), number(f"{pair.count:,}", pair.count),
         bar_cell(percent(pair.share), pair.share, pair.share))
        for pair in rows
    ]  # fmt: skip
    head = ("class", "taken for", "pictures", "of the class")
    text = "Which classes were taken for which. Each pair leads to its pictures."
    table = sortable("Pairs of classes by number of mistakes", head, cells, wide=True, kind="pairs")
    body = join((about(text), table, rest(len(found.figures.pairs) - len(rows), "pairs")))
    return Section("pairs", "What is confused", body, len(found.figures.pairs))


def _taken_for(pair: Pair, links: Mapping[tuple[str, str], str]) -> Markup:
    link = links.get((pair.label, pair.predicted))
    return tag("td", tag("a", name(pair.predicted), href=f"#{link}") if link else name(pair.predicted))


def pair_ids(found: Evaluated) -> dict[tuple[str, str], str]:
    """Return the id on the page of the mistakes of each pair that has one, by true and predicted class."""
    made = {(mistake.label, mistake.predicted) for mistake in found.mistakes}
    shown = [(pair.label, pair.predicted) for pair in found.figures.pairs[:MAX_PAIRS]]
    return {pair: f"pair-{place}" for place, pair in enumerate(shown, 1) if pair in made}


def rest(more: int, what: str) -> Markup:
    """Return a line that says how many were left out, empty for none."""
    return tag("p", f"and {more:,} more {what}, all in {RECORD}", class_="soft") if more > 0 else Markup()


def first(found: Evaluated, most: int) -> list[Mistake]:
    """Return the mistakes that are shown first: of each pair the surest one, then the next."""
    chosen = in_turns(_groups(found), lambda one: [one.path], MAX_CARDS, most)
    return [mistake for row in chosen.values() for mistake in row]


def _groups(found: Evaluated) -> dict[tuple[str, str], list[Mistake]]:
    """Return the mistakes of each pair that has its own heading, and of all others together."""
    links = pair_ids(found)
    groups: dict[tuple[str, str], list[Mistake]] = {pair: [] for pair in (*links, _REST)}
    for mistake in found.mistakes:
        pair = mistake.label, mistake.predicted
        groups[pair if pair in links else _REST].append(mistake)
    return groups


def pictures(found: Evaluated, progress: Progress) -> Section:
    """Return the mistakes as cards, by pair; the surest of a pair come first."""
    links, groups, heat = pair_ids(found), _groups(found), found.maps.heat
    chosen = in_turns(groups, lambda one: [*_paths(one), *_mapped(one, heat)], MAX_CARDS, MAX_THUMBNAILS)
    shots = {path: located(found.data, path) for row in chosen.values() for one in row for path in _paths(one)}
    made = make_all(shots.values(), "report", progress)
    thumbnails = {path: made[where] for path, where in shots.items()}
    drawn = {
        one.path: drawn_over(shots[one.path], heat[one.path], hottest([heat[one.path]]))
        for row in chosen.values()
        for one in row
        if one.path in heat
    }
    near = any(neighbour.path for row in chosen.values() for one in row for neighbour in one.neighbours)
    parts = [about(text) for text in (_FIRST, *([_NEAR] if near else []), *([_MAPS] if any(drawn.values()) else []))]
    for pair, row in chosen.items():
        if row:
            parts.append(_heading(pair, len(groups[pair]), links))
            mapped = [_card(one, found, thumbnails, drawn[one.path]) for one in row if drawn.get(one.path)]
            bare = [_card(one, found, thumbnails, {}) for one in row if not drawn.get(one.path)]
            parts += [grid(cards, _HEARD) for cards in (mapped, bare) if cards]  # apart: these need less room
            parts.append(rest(len(groups[pair]) - len(row), "mistakes"))
    return Section("mistakes", "Pictures labelled wrongly", join(parts), len(found.mistakes))


def _heading(pair: tuple[str, str], mistakes: int, links: Mapping[tuple[str, str], str]) -> Markup:
    if pair == _REST:
        return tag("h3", "Other pairs" if links else "All pairs", " ", _count(mistakes), id="pair-others")
    return tag("h3", name(pair[0]), " taken for ", name(pair[1]), " ", _count(mistakes), id=links[pair])


def _count(mistakes: int) -> Markup:
    return tag("span", f"({mistakes:,})", class_="count")


def _near(mistake: Mistake) -> list[Neighbour]:
    """The neighbours that can be shown."""
    return [neighbour for neighbour in mistake.neighbours if neighbour.path][:_COMPARED]


def _paths(mistake: Mistake) -> list[str]:
    return [mistake.path, *(neighbour.path for neighbour in _near(mistake))]


def _mapped(mistake: Mistake, heat: Mapping[str, Heat]) -> list[str]:
    """Name the maps of a mistake, for each takes room."""
    return [f"{label} in {mistake.path}" for label in heat[mistake.path].grids] if mistake.path in heat else []


def _card(
    mistake: Mistake, found: Evaluated, thumbnails: Mapping[str, Thumbnail], drawn: Mapping[str, Thumbnail]
) -> Card:  # fmt: skip
    near = _near(mistake)
    shown = [Shown(thumbnails[mistake.path], relative(found.data, mistake.path), mistake.label, mistake.predicted)]
    shown += [map_shown(made, label, found.maps.heat[mistake.path]) for label, made in drawn.items()]
    shown += [Shown(thumbnails[one.path], relative(found.data, one.path), one.label, note=_similarity(one)) for one in near]
    text = f"Score {percent(mistake.score)}, that of its own label {percent(mistake.own_score)}."
    if mistake.neighbours and not near:
        words = ", ".join(f"{one.label} ({_similarity(one)})" for one in mistake.neighbours[:_COMPARED])
        text += f" Most like it in training: {words}."
    return Card(shown, text, ("called unknown",) if mistake.unknown else ())


def _similarity(neighbour: Neighbour) -> str:
    return f"similarity {neighbour.similarity:.2f}"
