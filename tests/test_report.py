"""What reports share: HTML that nothing can be smuggled into, thumbnails, charts."""

import base64
import html
import io
import math
import re
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from retrain.cli import console
from retrain.report import chart, overview, style
from retrain.report.html import (
    Markup,
    bar_cell,
    count,
    escape,
    join,
    name,
    page,
    percent,
    points,
    printable,
    short,
    table,
    tag,
)
from retrain.report.thumbnails import SIDE, make, make_all
from tests.drawing import draw


def test_what_is_no_markup_is_escaped_between_tags_and_in_attributes() -> None:
    hostile = "\"><script>alert('1')</script>&"
    for made in (
        tag("p", hostile),
        tag("p", title=hostile),
        name(hostile),
        bar_cell(hostile, 0.5),
        table(hostile, [hostile], []),
    ):
        assert "<script" not in made and html.escape(hostile, quote=True) in made
    assert tag("p", tag("b", "x"), class_="y", id=None) == '<p class="y"><b>x</b></p>'


def test_markup_is_not_escaped_twice_and_text_always_once() -> None:
    assert escape(escape("<")) == "&lt;" and join(["<", Markup("<br>"), 3]) == "&lt;<br>3"


@given(st.text(st.characters()))
def test_any_text_can_be_put_into_a_page(text: str) -> None:
    made = page(text, tag("h1", text), Markup(), tag("p", text), text)
    made.encode("utf-8")
    assert html.unescape(escape(text)) == html.unescape(html.escape(printable(text)))


def test_pages_hide_the_characters_that_a_terminal_is_not_shown_either() -> None:
    everything = "".join(map(chr, range(sys.maxunicode + 1)))
    assert printable(everything) == console.printable(everything)


def test_the_middle_of_a_very_long_text_is_left_out() -> None:
    assert short("x" * 300) == "x" * 300
    assert short("a" * 4000 + "z.png") == "a" * 150 + " … " + "a" * 145 + "z.png"


def test_numbers_are_written_as_people_do() -> None:
    assert (percent(0.934), points(0.025), points(-0.1)) == ("93.4 %", "+2.5", "−10.0")
    assert (count(1, "picture"), count(2000, "picture"), count(0, "class", "classes")) == (
        "1 picture",
        "2,000 pictures",
        "0 classes",
    )


def contrast(one: str, other: str) -> float:
    """The contrast of two colours as WCAG 2 defines it."""

    def light(colour: str) -> float:
        digits = colour[1:] if len(colour) == 7 else "".join(2 * digit for digit in colour[1:])
        parts = [int(digits[at : at + 2], 16) / 255 for at in (0, 2, 4)]
        linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    low, high = sorted((light(one), light(other)))
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("scheme", [0, 1], ids=["light", "dark"])
def test_text_stands_out_from_what_is_behind_it(scheme: int) -> None:
    roots = re.findall(r":root \{([^}]*)\}", style.CSS)
    colours = dict(re.findall(r"--([a-z-]+): (#[0-9a-f]+)", roots[scheme]))
    pairs = [(text, back) for text in ("text", "soft", "accent") for back in ("back", "card")]
    pairs += [("text", "share-back"), ("warn", "warn-back")]
    assert [pair for pair in pairs if contrast(colours[pair[0]], colours[pair[1]]) < 4.5] == []


def test_the_looks_load_nothing_and_close_every_brace() -> None:
    assert not re.search(r"url\(|@import|@font-face|</", style.CSS)
    assert style.CSS.count("{") == style.CSS.count("}")


def opened(uri: str) -> Image.Image:
    assert uri.startswith("data:image/jpeg;base64,")
    return Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2])))


@pytest.mark.parametrize(("size", "expected"), [((600, 300), (128, 64)), ((30, 20), (30, 20)), ((3, 4000), (1, 128))])
def test_a_thumbnail_is_a_small_jpeg_that_is_never_enlarged(tmp_path: Path, size: tuple, expected: tuple) -> None:
    Image.new("RGB", size, "red").save(tmp_path / "a.png")
    made = make(tmp_path / "a.png")
    assert (made.width, made.height) == expected == opened(made.uri).size
    assert opened(made.uri).format == "JPEG" and not made.reason


def test_a_thumbnail_has_white_behind_what_is_transparent(tmp_path: Path) -> None:
    Image.new("RGBA", (50, 50), (0, 0, 0, 0)).save(tmp_path / "a.png")
    assert opened(make(tmp_path / "a.png").uri).getextrema() == ((255, 255),) * 3


def test_a_thumbnail_of_noise_is_small_as_well(tmp_path: Path) -> None:
    noise = np.random.default_rng(1).integers(0, 256, (300, 300, 3), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "a.png")
    made = make(tmp_path / "a.png")
    assert made.width == SIDE and len(made.uri) < 10_000


def test_a_thumbnail_that_cannot_be_made_says_why(tmp_path: Path) -> None:
    (tmp_path / "page.jpg").write_text("<html>not found")
    (tmp_path / "empty.jpg").write_bytes(b"")
    reasons = {path: make(path) for path in (tmp_path / "page.jpg", tmp_path / "empty.jpg", tmp_path / "gone", tmp_path)}
    assert [one.reason for one in reasons.values()] == ["not-an-image", "empty", "missing", "not-a-file"]
    assert all(one.detail and not one.uri for one in reasons.values())
    assert [make(path).reason for path in ("a\0b", "a\ud800b")] == ["missing", "missing"]


def test_each_picture_is_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from retrain.report import thumbnails

    path, read = str(draw(tmp_path / "a.png", (9, 9, 9), 1)), []
    kept = thumbnails.read_bytes
    monkeypatch.setattr(thumbnails, "read_bytes", lambda path: read.append(path) or kept(path))
    assert list(make_all([path, str(tmp_path / "b"), path], "pictures")) == [path, str(tmp_path / "b")]
    assert read == [path, str(tmp_path / "b")]


def numbers_in(svg: str) -> list[float]:
    return [
        float(number) for found in re.findall(r' (?:points|cx|cy|x|y)="([^"]*)"', svg) for number in re.split("[ ,]", found)
    ]


@given(
    st.lists(
        st.tuples(st.integers(0, 10**7), *[st.floats(0, 1)] * 3).map(lambda row: chart.Dot(row[0], *row[1:])),
        min_size=1,
        max_size=8,
    )
)
def test_a_chart_of_any_figures_stays_in_its_frame(dots: list[chart.Dot]) -> None:
    drawn = chart.curve("Learning curve", "training pictures", "accuracy", dots)
    values = numbers_in(drawn)
    assert all(math.isfinite(value) and 0 <= value <= 360 for value in values)
    assert drawn.count("<circle") == len(dots) and "training pictures</text>" in drawn and ">accuracy</text>" in drawn


@given(st.lists(st.tuples(st.integers(1, 10**6), st.floats(0, 1)), min_size=1, max_size=6))
def test_a_small_chart_of_any_figures_stays_in_its_frame(measured: list[tuple[int, float]]) -> None:
    drawn = chart.small("birds", "recall", measured, chart.scale_floor([share for _, share in measured]))
    assert all(0 <= value <= 120 for value in numbers_in(drawn))
    assert f"{percent(measured[0][1])} at {measured[0][0]:,}" in drawn


def test_numbers_below_a_chart_do_not_overlap() -> None:
    dots = [chart.Dot(at, 0.5, 0.4, 0.6) for at in (1000, 1010, 1020, 4000)]
    drawn = chart.curve("Learning curve", "training pictures", "accuracy", dots)
    assert re.findall(r">([0-9,]+)</text>", drawn) == ["1,020", "4,000"]


def test_a_long_table_says_how_many_rows_it_leaves_out() -> None:
    rows = [overview.ClassRow(f"class {number}", number) for number in range(overview.MAX_ROWS + 7)]
    body = overview.classes(rows).body
    assert body.count("<tr>") == overview.MAX_ROWS + 1 and "and 7 more, all in check.json" in body


def test_columns_that_say_nothing_are_left_out() -> None:
    assert re.findall(r'scope="col">([^<]*)', overview.classes([overview.ClassRow("a", 0)]).body) == ["class", "pictures"]
    full = overview.classes([overview.ClassRow("a", 3, 1, 2, 0.5), overview.ClassRow("b", 3)])
    assert re.findall(r'scope="col">([^<]*)', full.body) == ["class", "pictures", "skipped", "sources", "accuracy"]
    assert "50.0 %" in full.body and full.body.count("–") == 2


@pytest.mark.parametrize("classes", [2, 5])
def test_of_sources_and_classes_the_fewer_are_the_columns(classes: int) -> None:
    labels = [f"class {number}" for number in range(classes)]
    rows = [overview.Source(f"source {n}", dict.fromkeys(labels, 10 + n), (labels[0],) * (n == 1), 0.75) for n in range(3)]
    body = overview.sources(rows, labels).body
    head = re.findall(r'scope="col">(?:<bdi>)?([^<]*)', body)
    assert head == (["source", *labels, "accuracy"] if classes == 2 else ["class", "source 0", "source 1", "source 2"])
    assert body.count('class="thin"') == 1 and "! 11<span" in body and body.count("75.0 %") == 3


def test_classes_that_more_pictures_help_most_come_first_and_missing_figures_are_no_zeros() -> None:
    points = tuple(overview.Point(at, 0.5, 0.4, 0.6) for at in (50, 100))
    rows = (
        overview.ClassCurve("a", (None, None)),
        overview.ClassCurve("b", (0.5, 0.6), 0.3, 0.01),
        overview.ClassCurve("c", (None, 0.7), 0.2, 0.02),  # a larger class: fewer points, but of more pictures
        overview.ClassCurve("d", (0.5, 0.8), 0.024, 0.03, worth_saying=False),
    )
    body = overview.curve(overview.Curve(points, rows)).body
    assert re.findall(r"<li><b><bdi>(.)", body) == ["c", "b", "d", "a"]
    assert "recall 70.0 % at 100" in body and "not measured" in body
    assert re.findall(r"doubling: ([^<]*)<", body) == ["+20.0", "+30.0", "about the same", "too few to tell"]
    assert re.findall(r"<td>([^<]*)</td><td>([^<]*)</td></tr>", body)[-4:] == [
        ("+20.0", "+2.0"),
        ("+30.0", "+1.0"),
        ("about the same", "–"),
        ("too few to tell", "–"),
    ]
    assert "2.4" not in body  # what may be chance is not given as a figure


def test_the_table_of_classes_says_what_is_reached_over_all_and_what_a_dash_means() -> None:
    rows = [overview.ClassRow("a", 30, accuracy=0.5), overview.ClassRow("b", 3)]
    body = overview.classes(rows, 0.6125, "each folder").body
    assert "of all pictures it is 61.3 %, with each folder kept together. A dash: too few to be judged." in body
    assert "A dash" not in overview.classes(rows[:1], 0.5, "near-duplicates").body


def test_the_leak_table_says_why_its_accuracies_are_others() -> None:
    body = overview.leaks([overview.Leak("folder", 12, 0.9, 0.8, 0.1, 0.05, 0.15)]).body
    assert "trained with fewer steps and only to be compared with each other" in body


def test_shortcuts_have_an_accuracy_beside_guessing_and_an_auc_with_its_class() -> None:
    rows = [overview.Shortcut("brightness", 0.42, 0.4, "cats", 0.91, 0.87), overview.Shortcut("file type", 0.4, 0.4)]
    body = overview.shortcuts(rows).body
    head = re.findall(r'scope="col">([^<]*)', body)
    assert head == ["fact", "told right by it alone", "by guessing", "class told best", "its AUC"]
    assert "42.0 %" in body and "40.0 %" in body and "<bdi>cats</bdi>" in body and "0.91" in body and "at least 0.87" in body
    assert body.count("<td>–</td>") == 2
    assert "of a picture of the class and one of another class, how often the fact alone picks the right one" in body
