"""What each class rests on, on the page of an evaluation; and which classes their border carries."""

import math
from collections.abc import Iterator, Mapping, Sequence

from retrain.evaluation.drawn import hottest, map_shown, of_class, of_picture
from retrain.evaluation.evaluated import Evaluated
from retrain.evaluation.heat import Rests
from retrain.heat.cover import BORDER
from retrain.report.cards import Card, Heard, Shown, grid, located, relative
from retrain.report.html import Markup, bar_cell, count, join, name, percent, tag
from retrain.report.sections import Section, about
from retrain.report.sorting import number, sortable

ID = "rests"
_HEARD = Heard("mean map", "map of one of the pictures")
_LARGEST = 1000  # times: odds that change by more are not told apart


def section(found: Evaluated) -> Section:
    """Return, for each class that was looked at, where its evidence lies and what is lost without the border."""
    maps = found.maps
    text = (
        "A sample of pictures that got their label: where in them lies what speaks for it, on average, and in a few of them."
        " The redder a place, the more speaks for the label; the mean map lies over the mean of the pictures."
    )
    parts_of = (
        f"Each was also looked at without its border, the outermost {100 * BORDER:.0f} % along each edge: what lies just"
        " within stood there instead; and, where a class has a background of one colour that is not that of the others, on"
        " theirs. A border or a background carries a class where the odds of the label fall twentyfold without it, and by a"
        " third of their logarithm, and grow twentyfold in pictures of other classes that are given it."
    )
    parts = [about(text) if maps.mapped else about("The network of this model has no spatial map, so none are drawn.")]
    parts += [about(parts_of), flags(maps.flagged), _table(maps.rests)]
    if maps.left:
        parts.append(tag("p", f"and {maps.left:,} more classes, for which there was no time", class_="soft"))
    # Those that are flagged first.
    shown = sorted((one for one in maps.rests if one.grid is not None), key=lambda one: not one.flagged)
    if shown:
        parts.append(grid([_card(one, found) for one in shown], _HEARD))
    return Section(ID, "What each class rests on", join(parts), len(maps.rests))


def flags(flagged: Mapping[str, Sequence[str]], link: bool = False) -> Markup:
    """Return the warning that a part of the pictures carries classes, empty where none does.

    `flagged`: part -> classes; `link`: with one to this section, for elsewhere.
    """
    more = join((" ", tag("a", "What each class rests on", href=f"#{ID}"))) if link else Markup()
    return join(tag("p", _flag(part, labels), more, class_="flag") for part, labels in flagged.items())


def _flag(part: str, labels: Sequence[str]) -> Markup:
    first, *others = (tag("b", name(label)) for label in labels)
    words = f"This class is known by its {part}: " if not others else f"These classes are known by their {part}: "
    return join((words, first, *(join((", ", other)) for other in others), "."))


def _table(rests: Sequence[Rests]) -> Markup:
    head = ("class", "pictures", "odds without border", "right without border", "heat in the border")
    cells = [
        (name(one.label), number(f"{one.pictures:,}", one.pictures), *_figures(one))
        for one in sorted(rests, key=lambda one: -one.border.fall if one.border else math.inf)
    ]
    return sortable("What is left of each class without the border", head, cells, wide=True)


def _figures(of: Rests) -> list[Markup]:
    if of.border is None:
        return [number("–", None)] * 3
    share = of.border.right / of.pictures
    heat = number("–", None) if of.in_border is None else bar_cell(percent(of.in_border), of.in_border, of.in_border)
    right = bar_cell(f"{of.border.right:,} of {of.pictures:,}", share, share)
    return [number(times(-of.border.fall), -of.border.fall), right, heat]


def times(logarithm: float) -> str:
    """Write by what the odds are multiplied: `× 3.2`, `÷ 20`."""
    factor = math.exp(min(abs(logarithm), 50.0))
    if factor > _LARGEST:
        text = f"more than {_LARGEST:,}"
    else:
        text = f"{factor:.1f}" if factor < 9.95 else f"{factor:.0f}"
    return f"{'÷' if logarithm < 0 and text != '1.0' else '×'} {text}"


def _card(of: Rests, found: Evaluated) -> Card:
    assert of.grid is not None and of.seen is not None
    where = str(of.region)
    alt = f"mean map of what speaks for {of.label}: {where}"
    shown = [Shown(of_class(of.grid, of.seen), "", of.label, note=f"mean of {of.pictures}", alt=alt)]
    maps = {path: found.maps.heat[path] for path in of.examples if path in found.maps.heat}
    most = hottest(maps.values())
    for path, heat in maps.items():
        drawn = of_picture(located(found.data, path), heat, most)
        shown += [_example(map_shown(made, label, heat), relative(found.data, path)) for label, made in drawn.items()]
    text = " ".join([f"{where[0].upper()}{where[1:]}.", *_carried(of)])
    learnt = f"{of.learnt:,} of {count(of.pictures, 'picture')} learnt from" if of.learnt else ""
    return Card(shown, text, (*(f"rests on its {part}" for part in of.flagged), *([learnt] if learnt else [])))


def _carried(of: Rests) -> Iterator[str]:
    for change, what, part in (
        ("Without border", "this border", of.border),
        ("On the background of the others", "its", of.background),
    ):
        if part is not None:
            more = "" if part.rise is None else f"; in pictures of other classes {what} makes them {times(part.rise)}"
            yield f"{change} the odds are {times(-part.fall)}{more}."


def _example(shown: Shown, path: str) -> Shown:
    return Shown(shown.thumbnail, path, "", alt=shown.alt)
