"""A confusion matrix as a table: the stronger the colour of a cell, the larger its share of the row."""

from collections.abc import Mapping, Sequence

from retrain.report.html import Markup, join, name, tag, unheard

MAX_CLASSES = 30


def matrix(
    caption: str, labels: Sequence[str], counts: Sequence[Sequence[int]], links: Mapping[tuple[int, int], str]
) -> Markup:
    """Return pictures by true class (row) and predicted class (column); of more than MAX_CLASSES, what `chosen` names.

    `links`: for some cells, as (row, column), the id on this page of what is behind them. Rows have ids: `row_id`.
    """
    shown = chosen(counts)
    more = ["others"] if len(shown) < len(labels) else []
    names = [*(labels[at] for at in shown), *more]
    heads = (tag("th", tag("span", name(text), class_="up", title=text), scope="col") for text in names)
    corner = tag("th", unheard("true class \\ "), "taken for →", scope="col")
    rows = (_row(at, shown, labels[at], counts[at], links, bool(more)) for at in shown)
    made = tag(
        "table", tag("caption", caption), tag("thead", tag("tr", corner, *heads)), tag("tbody", *rows), class_="matrix"
    )
    return tag("div", made, class_="scroll wide", role="region", aria_label=caption, tabindex=0)


def chosen(counts: Sequence[Sequence[int]]) -> list[int]:
    """Return which classes are shown, in their order: of many those with the most mistakes, made or suffered."""
    places = range(len(counts))
    if len(counts) <= MAX_CLASSES:
        return list(places)
    wrong = [sum(counts[at]) + sum(row[at] for row in counts) - 2 * counts[at][at] for at in places]
    return sorted(sorted(places, key=lambda at: (-wrong[at], at))[:MAX_CLASSES])


def row_id(at: int) -> str:
    """Return the id of the row of a class."""
    return f"row-{at + 1}"


def _row(
    at: int, shown: Sequence[int], label: str, counts: Sequence[int], links: Mapping[tuple[int, int], str], more: bool
) -> Markup:
    total = sum(counts)
    cells = [_cell(counts[other], total, other == at, links.get((at, other))) for other in shown]
    if more:
        cells.append(_cell(total - sum(counts[other] for other in shown), total, False, None))
    return tag("tr", tag("th", tag("span", name(label), title=label), scope="row"), join(cells), id=row_id(at))


def _cell(pictures: int, total: int, is_right: bool, link: str | None) -> Markup:
    """A cell. Mistakes are few: by the square root of the share they can be seen as well."""
    if not pictures:
        return tag("td")
    text = tag("a", f"{pictures:,}", href=f"#{link}") if link else f"{pictures:,}"
    return tag("td", text, class_="right" if is_right else "wrong", style=f"--heat: {100 * (pictures / total) ** 0.5:.0f}%")
