"""A grid of cards: pictures side by side, with their names, and what is to be said of them."""

from collections.abc import Sequence
from dataclasses import dataclass

from retrain.report.html import Markup, escape, join, name, short, tag, unheard
from retrain.report.thumbnails import Thumbnail


@dataclass(frozen=True)
class Shown:
    """A picture on a card: the path that people read, its class, and, where another is suggested, that."""

    thumbnail: Thumbnail
    path: str
    label: str
    to: str = ""


@dataclass(frozen=True)
class Card:
    """The picture that something is said of first, those that it is compared with after it; small print in `notes`."""

    pictures: Sequence[Shown]
    text: str
    notes: tuple[str, ...] = ()


def grid(cards: Sequence[Card]) -> Markup:
    """Return cards as a list. All have the room that the one with the most pictures needs."""
    most = max(len(card.pictures) for card in cards)
    room = "one" if most == 1 else "two" if most == 2 else "four"
    return tag("ol", *map(_card, cards), class_=f"cards {room}")


def _card(card: Card) -> Markup:
    notes = (part for note in card.notes for part in (" · ", tag("span", note, class_="note")))
    say = tag("p", short(card.text), *notes, class_="say")
    first, *others = card.pictures
    if not others:
        return tag("li", _figure(first, say, "the picture found"), class_="card")
    figures = (
        _figure(first, join(()), "the picture found", "about-this"),
        *(_figure(other, join(()), "compared with it") for other in others),
    )
    return tag("li", tag("div", *figures, class_="pictures"), say, class_="card")


def _figure(shown: Shown, text: Markup, part: str, kind: str | None = None) -> Markup:
    label: Markup = name(shown.label)
    if shown.to:
        label = join((label, " →", unheard(" suggested:"), " ", tag("span", name(shown.to), class_="to")))
    words = tag("b", label) if shown.label or shown.to else escape("")
    caption = tag("figcaption", words, tag("span", name(short(shown.path)), class_="path"), text)
    alt = f"{part}, in class {shown.label}" if shown.label else part
    return tag("figure", _thumb(shown.thumbnail, alt), caption, class_=kind)


def _thumb(thumbnail: Thumbnail, alt: str) -> Markup:
    if thumbnail.uri:
        image = tag("img", src=thumbnail.uri, width=thumbnail.width, height=thumbnail.height, alt=alt)
        return tag("div", image, class_="thumb")
    why = tag("span", thumbnail.detail) if thumbnail.detail else escape("")
    return tag("div", unheard(f"{alt}: "), tag("b", thumbnail.reason), " ", why, class_="thumb broken")
