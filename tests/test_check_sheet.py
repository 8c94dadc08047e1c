"""The contact sheet: everything found is on it, and nothing that was in a name gets out of its place."""

import re
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from retrain.checks.findings import KINDS, Finding
from retrain.checks.sheet import (
    MAX_CARDS,
    MAX_THUMBNAILS,
    ClassCurve,
    ClassRow,
    Curve,
    Leak,
    Point,
    Shortcut,
    Source,
    Summary,
    render,
)
from tests.drawing import draw

ATTRIBUTES = {
    "aria-label", "aria-labelledby", "alt", "charset", "class", "content", "cx", "cy", "d", "height", "href", "http-equiv",
    "id", "lang", "name", "points", "r", "rel", "role", "scope", "src", "style", "tabindex", "text-anchor", "viewbox",
    "width", "x", "y",
}  # fmt: skip
TAGS = {
    "a", "b", "bdi", "body", "caption", "circle", "dd", "details", "div", "dl", "dt", "figcaption", "figure", "footer", "g",
    "h1", "h2", "h3", "head", "header", "html", "img", "li", "link", "main", "meta", "nav", "ol", "p", "path", "polygon",
    "polyline", "section", "span", "style", "summary", "svg", "table", "tbody", "td", "text", "th", "thead", "title", "tr",
    "ul",
}  # fmt: skip
VOID = {"meta", "link", "img", "br"}
HOSTILE = [
    "<script>alert(1)</script>", '"><img src=x onerror=alert(1)>', "' onload='x", "&lt;b&gt;", "a\u202egnp.exe",
    "\x1b[2J\n\r", "caf\udce9", "</style></title><h1>", "{{7*7}}", "שלום", "\ufffe\x00", "javascript:alert(1)",
    "http://example.org/x.png",
]  # fmt: skip


class Page(HTMLParser):
    """A page taken apart; fails where tags are not balanced."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str]]] = []
        self.words: list[str] = []
        self.headings: list[int] = []
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        assert len(dict(attributes)) == len(attributes)
        self.tags.append((tag, {key: value or "" for key, value in attributes}))
        if re.fullmatch("h[1-6]", tag):
            self.headings.append(int(tag[1]))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] != "style":
            self.words.append(data)

    def all(self, tag: str, kind: str = "") -> list[dict[str, str]]:
        found = [attributes for name, attributes in self.tags if name == tag]
        return [one for one in found if not kind or kind in one.get("class", "").split()]

    @property
    def text(self) -> str:
        return "".join(self.words)


def summary(data: Path, **more: object) -> Summary:
    return Summary("tf_files", "checked on 1 May 2026", data, 100, 2, **more)  # type: ignore[arg-type]


def whole(data: Path, label: str = "red") -> Summary:
    """A summary with every section."""
    curve = Curve(
        (Point(10, 0.5, 0.4, 0.6), Point(20, 0.7, 0.65, 0.75)),
        (ClassCurve(label, (0.5, 0.75), 0.05, 0.035), ClassCurve("x", (None, 0.5))),
    )
    return summary(
        data,
        skipped=3,
        of_classes=(ClassRow(label, 70, 1, 2, 0.875), ClassRow("x", 30)),
        leaks=(Leak(label, 12, 0.9, 0.8, 0.1, 0.05, 0.15),),
        accuracy=0.8125,
        kept_together=f"each {label}",
        shortcuts=(Shortcut(label, 0.43, 0.5), Shortcut("size", 0.9, 0.5, label, 0.93, 0.88)),
        curve=curve,
        sources=(Source(label, {label: 1, "x": 9}, (label,), 0.5), Source("scans", {label: 20})),
    )


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pictures") / "data"
    for number in range(4):
        draw(folder / "red" / f"{number}.png", (200, 50, 40), number, (20, 20))
    return folder


def of_kind(kind: str, number: int = 1, paths: tuple[str, ...] = ("red/0.png",), **more: object) -> list[Finding]:
    return [Finding(kind, f"{kind} {n}", paths, ("red",), 1 - n / 1000, **more) for n in range(number)]  # type: ignore[arg-type]


def cards(page: Page) -> int:
    return len(page.all("li", "card"))


def nothing_got_in(
    page: Page, made: str, tags: set[str], attributes: set[str], anchor: str = "[a-z-]+", style: str = "share"
) -> None:
    """Hold a page full of hostile names to what it may consist of."""
    assert {tag for tag, _ in page.tags} <= tags
    assert {key for _, found in page.tags for key in found} <= attributes
    links = [found[key] for _, found in page.tags for key in ("href", "src") if key in found]
    assert all(re.match(rf"#{anchor}$|data:,$|data:image/jpeg;base64,[A-Za-z0-9+/=]+$", link) for link in links)
    assert all(re.fullmatch(rf"--({style}): [\d.]+%", found["style"]) for _, found in page.tags if "style" in found)
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u202a-\u202e\ud800-\udfff]", made)


def test_every_kind_has_its_section_in_order_with_what_it_means_and_what_to_do(data: Path) -> None:
    findings = [one for kind in reversed(KINDS) for one in of_kind(kind, 2)]
    page = Page(render(summary(data), findings))
    ids = [found["id"] for found in page.all("section")]
    assert ids == [f"kind-{kind}" for kind in KINDS]
    for row in KINDS.values():
        assert row.title in page.text and row.meaning[1:] in page.text and row.advice[1:] in page.text
    assert cards(page) == 2 * len(KINDS)
    assert [found["href"] for found in page.all("a") if "kind" in found["href"]] == [f"#{name}" for name in ids]


def test_what_has_no_picture_is_listed(data: Path) -> None:
    page = Page(render(summary(data), [Finding("tiny-class", "3 pictures", (), ("red", "blue"), 0.5), *of_kind("dark")]))
    assert "red, blue: 3 pictures · score 0.50" in page.text and cards(page) == 1


def test_a_suggested_label_stands_beside_the_one_it_has_now(data: Path) -> None:
    findings = [Finding("mislabelled", "models say blue", ("red/0.png", "red/1.png"), (), 0.93, to="blue")]
    page = Page(render(summary(data), findings))
    assert "red → suggested: blue" in page.text and "models say blue" in page.text
    assert "score" not in page.text  # it is the chance, which the finding gives in words
    assert [found["alt"] for found in page.all("img")] == [
        "the picture found, in class red",
        "compared with it, in class red",
    ]


def test_at_most_three_pictures_stand_beside_the_one_that_was_found(data: Path) -> None:
    page = Page(render(summary(data), of_kind("near-duplicate", 1, ("red/0.png",) * 7)))
    assert len(page.all("img")) == 4 and "and 3 more pictures" in page.text


@pytest.mark.parametrize("below", [True, False])
def test_paths_are_shown_relative_to_the_data_folder(data: Path, below: bool) -> None:
    path = str(data / "red" / "0.png") if below else "red/0.png"
    page = Page(render(summary(data), of_kind("dark", 1, (path,))))
    assert "red/0.png" in page.text and str(data) not in page.text and len(page.all("img")) == 1


def test_a_picture_from_another_place_keeps_its_path_and_takes_the_label_of_the_finding(data: Path, tmp_path: Path) -> None:
    path = str(draw(tmp_path / "test" / "a.png", (1, 2, 3), 1))
    page = Page(render(summary(data), of_kind("dark", 1, (path,))))
    assert path in page.text and page.all("img")[0]["alt"].endswith("in class red")


def test_of_many_the_surest_are_shown_and_the_rest_is_counted(data: Path) -> None:
    findings = of_kind("dark", MAX_CARDS + 40) + of_kind("leak", MAX_CARDS + 5, ())
    page = Page(render(summary(data), findings[::-1]))
    assert cards(page) == MAX_CARDS and len(page.all("ul", "plain")) == 1
    assert f"dark {MAX_CARDS - 1} ·" in page.text and f"dark {MAX_CARDS} ·" not in page.text
    assert page.text.count("and 40 more, all in check.json") == 1 and "and 5 more, all in check.json" in page.text


def test_a_page_has_so_many_thumbnails_at_most_and_every_kind_gets_its_share(data: Path) -> None:
    four = tuple(f"red/{number}.png" for number in range(4))
    findings = [one for kind in KINDS for one in of_kind(kind, MAX_CARDS, four)]
    page = Page(render(summary(data), findings))
    images = len(page.all("img"))
    assert MAX_THUMBNAILS - 4 < images <= MAX_THUMBNAILS
    shown = Counter(re.findall(rf"png({'|'.join(KINDS)}) \d+", page.text))
    assert set(shown) == set(KINDS) and max(shown.values()) - min(shown.values()) <= 1
    hidden = sum(int(number) for number in re.findall(r"and (\d+) more, all", page.text))
    assert cards(page) + hidden == len(findings)


def test_a_page_of_noise_and_of_endless_names_stays_below_5_mb(tmp_path: Path) -> None:
    folder = tmp_path / ("&" * 200)
    folder.mkdir()
    noise = np.random.default_rng(1).integers(0, 256, (128, 128, 3), dtype=np.uint8)
    Image.fromarray(noise).save(folder / "a.png")
    path = f"{folder}{'/.' * 1500}/a.png"
    findings = [one for kind in KINDS for one in of_kind(kind, MAX_CARDS, (str(folder / "a.png"), path, path, path))]
    assert 3_000_000 < len(render(summary(tmp_path / "data"), findings)) < 5_000_000


def test_counts_add_up(data: Path) -> None:
    findings = of_kind("dark", 5) + of_kind("blank", 70) + of_kind("leak", 2, ())
    made = render(summary(data, skipped=3), findings)
    tiles = re.findall(r"<dt>(\w+)</dt><dd>([\d,]+)", made)
    assert dict(tiles) == {"pictures": "100", "classes": "2", "skipped": "3", "findings": "77"}
    page = Page(made)
    assert all(f"({number})" in page.text for number in (5, 70, 2))
    assert re.findall(r"and (\d+) more, all", page.text) == ["10"] and cards(page) == 65


def test_findings_that_need_no_action_are_marked_as_such(data: Path) -> None:
    assert "for information" in Page(render(summary(data), of_kind("turned", matters=False))).text
    assert "for information" not in Page(render(summary(data), of_kind("turned"))).text


def test_nothing_found_is_said_plainly(data: Path) -> None:
    page = Page(render(summary(data), []))
    assert "Nothing was found" in page.text and "100 pictures of 2 classes" in page.text
    assert not page.all("img") and page.headings == [1, 2, 3, 2]


def test_sections_of_the_set_are_there_only_where_there_is_something_to_say(data: Path) -> None:
    ids = [found["id"] for found in Page(render(whole(data), of_kind("dark"))).all("section")]
    assert ids == ["classes", "leaks", "shortcuts", "curve", "sources", "kind-dark"]
    page = Page(render(whole(data), []))
    for words in (
        "87.5 %",
        "+10.0",
        "+5.0 to +15.0",
        "43.0 %",
        "of all pictures it is 81.2 %, with each red kept together",
        "0.93 at least 0.88",
        "accuracy 50.0 % at 10",
        "doubling: +5.0",
        "! 1 thin",
    ):
        assert words in page.text + " ".join(found.get("aria-label", "") for _, found in page.tags), words


@pytest.mark.parametrize("hostile", HOSTILE)
def test_names_and_labels_stay_text(data: Path, hostile: str) -> None:
    findings = [
        Finding(kind, hostile, (f"{hostile}/{hostile}", "red/0.png", hostile), (hostile,), 0.5, to=hostile) for kind in KINDS
    ]
    findings += [Finding(kind, hostile, (), (hostile,)) for kind in KINDS]
    base = whole(data, hostile)
    made = render(Summary(**{**vars(base), "name": hostile, "when": hostile}), findings)
    page = Page(made)
    made.encode("utf-8")
    nothing_got_in(page, made, TAGS, ATTRIBUTES)


def test_the_page_reaches_out_to_nothing_and_runs_nothing(data: Path) -> None:
    page = Page(render(whole(data), of_kind("dark", 3)))
    policy = next(found["content"] for found in page.all("meta") if found.get("http-equiv") == "Content-Security-Policy")
    assert policy.startswith("default-src 'none'; img-src data:; style-src 'unsafe-inline'")
    assert not page.all("script") and not page.all("iframe")


def test_the_page_can_be_read_with_a_keyboard_and_aloud(data: Path) -> None:
    page = Page(render(whole(data), [one for kind in KINDS for one in of_kind(kind)]))
    assert [len(page.all(landmark)) for landmark in ("header", "nav", "main", "footer", "h1")] == [1] * 5
    assert all(after <= before + 1 for before, after in zip(page.headings, page.headings[1:], strict=False))
    assert all(found["alt"] and found["width"] and found["height"] for found in page.all("img"))
    assert all(found["aria-label"] and found["role"] == "img" for found in page.all("svg"))
    ids = [found["id"] for _, found in page.tags if "id" in found]
    named = {found[key].lstrip("#") for _, found in page.tags for key in ("href", "aria-labelledby") if key in found}
    assert len(set(ids)) == len(ids) and named - {"data:,"} <= set(ids)
    assert all("scope" in found for found in page.all("th")) and len(page.all("caption")) == len(page.all("table"))


def test_pictures_that_are_missing_or_broken_leave_a_box_with_the_reason(data: Path, tmp_path: Path) -> None:
    (tmp_path / "page.jpg").write_text("<html>not found")
    (tmp_path / "half.png").write_bytes((data / "red" / "0.png").read_bytes()[:200])
    findings = [of_kind("unreadable", 1, (str(path),))[0] for path in (tmp_path / "page.jpg", tmp_path / "half.png")]
    findings += of_kind("near-duplicate", 1, ("red/0.png", "red/gone.png", "red/a\0b.png"))
    page = Page(render(summary(data), findings))
    assert len(page.all("div", "broken")) == 4 and len(page.all("img")) == 1
    assert all(words in page.text for words in ("not-an-image an HTML page", "truncated the file ends too early", "missing"))


def test_the_same_input_gives_the_same_bytes_in_whatever_order_it_comes(data: Path) -> None:
    findings = [one for kind in KINDS for one in of_kind(kind, 3)]
    assert render(whole(data), findings) == render(whole(data), findings[::-1])


def test_progress_counts_each_picture_once(data: Path) -> None:
    told: list[object] = []

    class Told:
        def note(self, line: str) -> None:
            raise AssertionError(line)

        @contextmanager
        def bar(self, what: str, total: int | None) -> Iterator[Callable[[], None]]:
            told.append((what, total))
            yield lambda: told.append("step")

    render(summary(data), of_kind("dark", 3) + of_kind("blank", 3, ("red/0.png", "red/1.png")), Told())
    assert told == [("contact sheet", 2), "step", "step"]
