"""A grid of cards: pictures side by side, with their names, and what is to be said of them."""

import os
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, TypeVar

from retrain.report.html import Markup, escape, join, name, short, tag, unheard
from retrain.report.thumbnails import Thumbnail

Group = TypeVar("Group", bound=Hashable)
Item = TypeVar("Item")


@dataclass(frozen=True)
class Shown:
    """A picture on a card: the path that people read, its class, and, where another is suggested, that; small print.

    `of`: words before the class; `alt`: what those hear of it who do not see it, in place of its part on the card.
    """

    thumbnail: Thumbnail
    path: str
    label: str
    to: str = ""
    note: str = ""
    of: str = ""
    alt: str = ""


@dataclass(frozen=True)
class Card:
    """The picture that something is said of first, those that it is compared with after it; small print in `notes`."""

    pictures: Sequence[Shown]
    text: str
    notes: tuple[str, ...] = ()


class Heard(NamedTuple):
    """What those who hear the page are told of pictures: what the first is, what the others are, what `to` means."""

    first: str = "the picture found"
    other: str = "compared with it"
    to: str = "suggested"


def grid(cards: Sequence[Card], heard: Heard = Heard()) -> Markup:
    """Return cards as a list. All have the room that the one with the most pictures needs."""
    most = max(len(card.pictures) for card in cards)
    room = "one" if most == 1 else "two" if most == 2 else "four" if most <= 4 else "six"
    return tag("ol", *(_card(card, heard) for card in cards), class_=f"cards {room}")


def _card(card: Card, heard: Heard) -> Markup:
    notes = (part for note in card.notes for part in (" · ", tag("span", note, class_="note")))
    say = tag("p", short(card.text), *notes, class_="say")
    first, *others = card.pictures
    if not others:
        return tag("li", _figure(first, say, heard.first, heard), class_="card")
    figures = (
        _figure(first, join(()), heard.first, heard, "about-this"),
        *(_figure(other, join(()), heard.other, heard) for other in others),
    )
    return tag("li", tag("div", *figures, class_="pictures"), say, class_="card")


def _figure(shown: Shown, text: Markup, part: str, heard: Heard, kind: str | None = None) -> Markup:
    label: Markup = name(shown.label)
    if shown.to:
        label = join((label, " →", unheard(f" {heard.to}:"), " ", tag("span", name(shown.to), class_="to")))
    of = tag("span", f"{shown.of} ", class_="of") if shown.of else escape("")
    words = tag("b", of, label) if shown.label or shown.to else escape("")
    note = tag("span", f" {shown.note}", class_="note") if shown.note else ""
    path = tag("span", name(short(shown.path)), class_="path") if shown.path else escape("")
    caption = tag("figcaption", words, path, note, text)
    alt = shown.alt or (f"{part}, in class {shown.label}" if shown.label else part)
    return tag("figure", _thumb(shown.thumbnail, alt), caption, class_=kind)


def _thumb(thumbnail: Thumbnail, alt: str) -> Markup:
    if thumbnail.uri:
        image = tag("img", src=thumbnail.uri, width=thumbnail.width, height=thumbnail.height, alt=alt)
        return tag("div", image, class_="thumb")
    why = tag("span", thumbnail.detail) if thumbnail.detail else escape("")
    return tag("div", unheard(f"{alt}: "), tag("b", thumbnail.reason), " ", why, class_="thumb broken")


def in_turns(
    groups: Mapping[Group, Sequence[Item]], pictures: Callable[[Item], Sequence[str]], most_cards: int, most_pictures: int
) -> dict[Group, list[Item]]:
    """Return what gets a card: of every group the first, then of every group the next, so that none takes all the room.

    `pictures`: those of an item; `most_cards`: of one group; `most_pictures`: of all.
    """
    chosen: dict[Group, list[Item]] = {group: [] for group in groups}
    room = most_pictures
    for rank in range(most_cards):
        for group, items in groups.items():
            if rank < len(items):
                room -= len(pictures(items[rank]))
                if room < 0:
                    return chosen
                chosen[group].append(items[rank])
    return chosen


def located(data: Path, path: str) -> str:
    """Return where a path can be opened: below the data folder, or as it is."""
    joined = os.path.join(data, path)  # an absolute path stays as it is
    return path if Path(path).is_relative_to(data) or not os.path.lexists(joined) else joined


def relative(data: Path, path: str) -> str:
    """Return a path as it is shown: relative to the data folder, or as it is where it lies elsewhere."""
    return str(Path(path).relative_to(data)) if Path(path).is_relative_to(data) else path
