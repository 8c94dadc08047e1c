"""HTML from parts: all text is escaped, every element is closed, the page loads nothing.

Labels and file names come from anywhere. What is put into an element is text, and escaped, unless it is Markup, and
Markup is made here alone.
"""

import base64
import hashlib
import html
import re
from collections.abc import Iterable, Sequence

from retrain.report.style import CSS

# A page may be opened years later, from disk, or be mailed: nothing in it may reach out, or run; but a script of ours.
_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"
_LONG = 300  # characters
_VOID = {"br", "img", "link", "meta"}
# The characters that `cli.console` does not show on a terminal either: they could reorder a line, or cannot be written.
_UNSEEN = re.compile(r"[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


class Markup(str):
    """HTML that may be put into a page as it is."""

    __slots__ = ()


def printable(text: str) -> str:
    """Return text with control characters, direction marks and undecodable bytes written as escapes."""
    return _UNSEEN.sub(lambda match: match[0].encode("unicode_escape", "surrogatepass").decode(), text)


def escape(content: object) -> Markup:
    """Return what stands for `content` in a page, between tags as well as in a quoted attribute."""
    return content if isinstance(content, Markup) else Markup(html.escape(printable(str(content))))


def join(parts: Iterable[object]) -> Markup:
    """Put parts one after the other."""
    return Markup("".join(map(escape, parts)))


def tag(element: str, *contents: object, **attributes: object) -> Markup:
    """Return an element. Attributes are written as in Python: `class_`, `aria_label`; those that are None are left out."""
    written = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{escape(value)}"' for key, value in attributes.items() if value is not None
    )
    if element in _VOID:
        return Markup(f"<{element}{written}>")
    return Markup(f"<{element}{written}>{join(contents)}</{element}>")


def short(text: str) -> str:
    """Return text without its middle where it is longer than a caption can be: a path may have thousands of characters."""
    return text if len(text) <= _LONG else f"{text[: _LONG // 2]} … {text[-_LONG // 2 :]}"


def name(text: str) -> Markup:
    """Return a class or file name: on its own as to direction, so that one from right to left leaves the rest in order."""
    return tag("bdi", text)


def unheard(text: str) -> Markup:
    """Return words for those who hear the page: they say what the others see by place or colour."""
    return tag("span", text, class_="unheard")


def table(
    caption: str, head: Sequence[object], rows: Iterable[Sequence[object]], wide: bool = False, kind: str | None = None
) -> Markup:
    """Return a table whose first column names the rows. A `wide` one is sure to scroll sideways in its
    box on a phone, so that it can be reached with the keyboard. `kind`: a class for its looks.

    A cell may be a `td` made with `tag`, where it needs attributes.
    """
    header = tag("tr", *(tag("th", cell, scope="col") for cell in head))
    body = (tag("tr", tag("th", first, scope="row"), *map(_cell, cells)) for first, *cells in rows)
    made = tag("table", tag("caption", caption), tag("thead", header), tag("tbody", *body), class_=kind)
    if not wide:
        return tag("div", made, class_="scroll")
    return tag("div", made, class_="scroll wide", role="region", aria_label=caption, tabindex=0)


def _cell(content: object) -> Markup:
    return content if isinstance(content, Markup) and content.startswith("<td") else tag("td", content)


def bar_cell(text: str, share: float, value: float | None = None) -> Markup:
    """Return a cell of a table with a bar behind its figure: `share` of the cell, 0 to 1. `value`: to sort it by."""
    return tag("td", text, class_="bar", style=f"--share: {100 * min(max(share, 0.0), 1.0):.1f}%", data_value=value)


def folded(title: str, *contents: object) -> Markup:
    """Return what is shown only when its title is clicked."""
    return tag("details", tag("summary", title), *contents)


def percent(share: float) -> str:
    """Write a share as people do: `93.4 %`."""
    return f"{100 * share:.1f} %"


def points(difference: float) -> str:
    """Write a difference of two shares in percentage points, with its sign: `+2.5`."""
    return f"{100 * difference:+.1f}".replace("-", "−")


def count(number: int, noun: str, plural: str = "") -> str:
    """Write a number of things: `1 picture`, `2,000 pictures`."""
    return f"{number:,} {noun if number == 1 else plural or noun + 's'}"


def page(title: str, header: Markup, contents: Markup, main: Markup, footer: str, looks: str = "", script: str = "") -> str:
    """Return a whole page, in four landmarks. It can be encoded as UTF-8 whatever was put into it.

    `looks`: more CSS; `script`: the one that may run. Both are put in as they are, so they must be constants.
    """
    head = tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", http_equiv="Content-Security-Policy", content=_policy(script)),
        tag("meta", name_="viewport", content="width=device-width, initial-scale=1"),
        tag("meta", name_="color-scheme", content="light dark"),
        tag("link", rel="icon", href="data:,"),  # else a browser asks the server, where there is one, for an icon
        tag("title", title),
        tag("style", Markup(CSS + looks)),
    )
    nav = tag("nav", contents, id="contents", aria_labelledby="contents-title")
    body = tag(
        "body", tag("header", header), tag("div", nav, tag("main", main), class_="columns"), tag("footer", tag("p", footer)),
        tag("script", Markup(script)) if script else "",
    )  # fmt: skip
    return f"<!DOCTYPE html>\n{tag('html', head, body, lang='en')}\n"


def _policy(script: str) -> str:
    """Return what the page may do: of all scripts run the one whose text is this, to the byte."""
    if not script:
        return _POLICY
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return f"{_POLICY}; script-src 'sha256-{digest}'"
