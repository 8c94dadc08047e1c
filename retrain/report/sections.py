"""The parts of a report, and the contents that lead to them."""

from collections.abc import Sequence
from dataclasses import dataclass

from retrain.report.html import Markup, join, tag


@dataclass(frozen=True)
class Section:
    """A part of a page. `count`: how many there are, behind the title and in the contents; `note`: a word beside it."""

    id: str
    title: str
    body: Markup
    count: int | None = None
    note: str = ""

    @property
    def html(self) -> Markup:
        """The part as it stands on the page."""
        title = [self.title]
        if self.count is not None:
            title += [" ", tag("span", f"({self.count:,})", class_="count")]
        if self.note:
            title += [" ", tag("span", self.note, class_="tag")]
        heading = tag("h2", *title, id=f"{self.id}-title")
        back = tag("p", tag("a", "Back to contents", href="#contents"), class_="back")
        return tag("section", heading, self.body, back, id=self.id, aria_labelledby=f"{self.id}-title")


def contents(parts: Sequence[tuple[str, Sequence[Section]]]) -> Markup:
    """Return links to sections, under a title for each part; a part without sections is left out."""
    lists = (
        tag("div", tag("h3", title), tag("ul", *map(_entry, sections))) for title, sections in parts if sections
    )  # fmt: skip
    return join((tag("h2", "Contents", id="contents-title"), *lists))


def _entry(section: Section) -> Markup:
    count = [] if section.count is None else [" ", tag("span", f"{section.count:,}")]
    return tag("li", tag("a", tag("span", section.title), *count, href=f"#{section.id}"))


def about(text: str) -> Markup:
    """Return the line below a title that says what the section shows."""
    return tag("p", text, class_="about")
