"""The page of an evaluation in a real browser: what its script does, what its policy stops, how it looks where."""

import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Locator, Page, sync_playwright

from retrain.checks import sheet
from retrain.evaluation.page import render
from retrain.report import html
from retrain.report.sorting import SCRIPT, number, sortable
from tests.drawing import draw
from tests.test_check_sheet import HOSTILE, TAGS, of_kind
from tests.test_check_sheet import whole as summary
from tests.test_evaluation_page import FOUR, evaluated, with_maps

pytestmark = pytest.mark.browser

DESKTOP, PHONE = 1280, 360
NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
TELL = "addEventListener('securitypolicyviolation', (event) => console.error('policy: ' + event.violatedDirective))"


@dataclass
class Visit:
    """A page in a browser, with what it complained of and what it asked for."""

    page: Page
    complaints: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)


Visitor = Callable[..., Visit]


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """The browser of this system: none is downloaded."""
    program = next(filter(None, map(shutil.which, NAMES)), None)
    assert program, "no Chromium is installed; run: apt install chromium"
    with sync_playwright() as playwright:
        # Its sandbox does not work for root.
        arguments = ["--no-sandbox"] if os.geteuid() == 0 else []
        browser = playwright.chromium.launch(executable_path=program, args=arguments)
        yield browser
        browser.close()


@pytest.fixture
def visit(browser: Browser) -> Iterator[Visitor]:
    """Open a file at a width; more arguments are those of a browser context."""
    contexts = []

    def opened(path: Path, width: int = DESKTOP, **options: object) -> Visit:
        context = browser.new_context(viewport={"width": width, "height": 800}, **options)  # type: ignore[arg-type]
        contexts.append(context)
        seen = Visit(context.new_page())
        seen.page.add_init_script(TELL)
        seen.page.on("console", lambda message: seen.complaints.append(message.text))
        seen.page.on("pageerror", lambda error: seen.complaints.append(str(error)))
        seen.page.on("dialog", lambda dialog: (seen.complaints.append(dialog.message), dialog.dismiss()))
        seen.page.on("request", lambda request: seen.requests.append(request.url))
        seen.page.goto(path.as_uri())
        return seen

    yield opened
    for context in contexts:
        context.close()


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A page with every section and with pictures."""
    folder = tmp_path_factory.mktemp("whole")
    for at in range(80):
        draw(folder / "data" / FOUR[at % 4] / f"{at}.png", (200, 50, 40), at, (90, 70))
    draw(folder / "data" / "red" / "1.png", (1, 2, 3), 1, (70, 90))
    path = folder / "evaluate.html"
    path.write_text(render(with_maps(evaluated(folder / "data"))), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A page of classes, and of pictures that are gone, whose names would like to be more than names."""
    path = tmp_path_factory.mktemp("hostile") / "evaluate.html"
    labels = (*HOSTILE, "<svg onload=alert(1)>", "W" * 250)
    found = evaluated(path.parent, labels, 200, when=HOSTILE[0], split=tuple(HOSTILE), model=Path(HOSTILE[1]))
    path.write_text(render(found), encoding="utf-8")
    return path


@pytest.fixture(params=["whole", "hostile"])
def either(request: pytest.FixtureRequest) -> Path:
    return request.getfixturevalue(request.param)


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [DESKTOP, PHONE])
def test_the_page_opens_without_a_complaint_asks_for_nothing_and_fits(
    either: Path, width: int, scheme: str, visit: Visitor
) -> None:
    seen = visit(either, width, color_scheme=scheme)
    for folded in seen.page.locator("summary").all():
        folded.click()
    assert seen.complaints == []
    assert {url for url in seen.requests if not url.startswith("data:")} == {either.as_uri()}
    assert seen.page.evaluate("document.documentElement.scrollWidth") <= width
    assert seen.page.evaluate("[...document.images].every((image) => image.complete && image.naturalWidth > 0)")


def test_pictures_are_there(whole: Path, visit: Visitor) -> None:
    assert visit(whole).page.locator("img").count() > 50


def test_every_link_leads_to_something_on_the_page(either: Path, visit: Visitor) -> None:
    page = visit(either).page
    dead = page.evaluate(
        "[...document.querySelectorAll('a')].filter((a) => !document.getElementById(a.getAttribute('href').slice(1))).length"
    )
    assert dead == 0 and page.locator("a").count() > 20
    page.locator("#pairs td a").first.click()
    heading = page.locator("#pair-1")
    assert page.url.endswith("#pair-1") and 0 <= heading.bounding_box()["y"] < 200  # type: ignore[index]


def column(table: Locator, at: int) -> list[float | str]:
    """What a column is sorted by, without what is unknown, in the order of the rows."""
    cells: list[list[str | None]] = table.locator(f"tbody tr > :nth-child({at + 1})").evaluate_all(
        "(cells) => cells.map((cell) => [cell.getAttribute('data-value'), cell.textContent])"
    )
    return [str(text) if value is None else float(value) for value, text in cells if value != ""]


@pytest.mark.parametrize("hand", ["mouse", "Enter", "Space"])
def test_every_table_that_sorts_does_so_both_ways(whole: Path, hand: str, visit: Visitor) -> None:
    page = visit(whole).page

    def press(button: Locator) -> None:
        button.click() if hand == "mouse" else button.press(hand)

    tables = page.locator("table.sortable").all()
    assert len(tables) == 4
    for table in tables:
        names = sorted(table.locator("tbody tr").all_text_contents())
        for at, head in enumerate(table.locator("thead th").all()):
            button = head.get_by_role("button")
            press(button)
            assert head.get_attribute("aria-sort") == "ascending"
            assert column(table, at) == sorted(column(table, at))
            press(button)
            assert head.get_attribute("aria-sort") == "descending"
            assert column(table, at) == sorted(column(table, at), reverse=True)
            assert table.locator("[aria-sort]").count() == 1
        assert sorted(table.locator("tbody tr").all_text_contents()) == names  # none is lost, none is there twice


def written(folder: Path, main: html.Markup) -> Path:
    path = folder / "small.html"
    made = html.page("Small", html.tag("h1", "Small"), html.Markup(), main, "end", script=SCRIPT)
    path.write_text(made, encoding="utf-8")
    return path


def test_equal_rows_keep_their_order_and_what_is_unknown_comes_last(tmp_path: Path, visit: Visitor) -> None:
    rows = [("b 10", 2.0), ("a", None), ("B 9", -1.5), ("c", 2.0), ("d", 10.0)]
    table = sortable("Small", ("name", "value"), [(name, number("?", value)) for name, value in rows])
    page = visit(written(tmp_path, table)).page
    orders = []
    for head in ("name", "value"):
        for _ in range(2):
            page.get_by_role("button", name=head).click()
            orders.append(page.locator("tbody th").all_text_contents())
    assert orders == [
        ["a", "B 9", "b 10", "c", "d"],
        ["d", "c", "b 10", "B 9", "a"],
        ["B 9", "c", "b 10", "d", "a"],
        ["d", "c", "b 10", "B 9", "a"],
    ]


def test_names_stay_text_before_and_after_sorting(hostile: Path, visit: Visitor) -> None:
    seen = visit(hostile)
    before = set(seen.page.locator("#classes tbody th").all_text_contents())
    for button in seen.page.get_by_role("button").all():
        button.click()
    assert set(seen.page.locator("#classes tbody th").all_text_contents()) == before and HOSTILE[0] in before
    tags = seen.page.evaluate("[...new Set([...document.querySelectorAll('*')].map((one) => one.localName))]")
    assert set(tags) <= TAGS | {"button", "rect", "script"} and seen.page.locator("script").count() == 1
    handlers = (
        "[...document.querySelectorAll('*')].flatMap((one) => one.getAttributeNames()).filter((its) => /^on/.test(its))"
    )
    assert seen.page.evaluate(handlers) == [] and seen.complaints == []


@pytest.mark.parametrize(
    "smuggled", ["<script>document.title = 'ran'</script>", "<img src='data:,' onerror=\"document.title = 'ran'\">"]
)
def test_the_policy_stops_every_other_script(tmp_path: Path, smuggled: str, visit: Visitor) -> None:
    seen = visit(written(tmp_path, html.Markup(smuggled)))
    seen.page.wait_for_timeout(200)
    assert seen.page.title() == "Small" and any("policy: script-src" in complaint for complaint in seen.complaints)


def test_without_scripts_the_tables_are_there_and_nothing_looks_like_a_button(whole: Path, visit: Visitor) -> None:
    page = visit(whole, java_script_enabled=False).page
    assert page.locator("table.sortable").count() == 4 and page.locator("button").count() == 0
    assert page.locator("#classes thead th").first.inner_text() == "class"


def test_the_page_is_dark_where_the_system_is(whole: Path, visit: Visitor) -> None:
    colours = "[getComputedStyle(document.body).backgroundColor, getComputedStyle(document.body).color]"
    light = visit(whole, color_scheme="light").page.evaluate(colours)
    assert visit(whole, color_scheme="dark").page.evaluate(colours) == ["rgb(18, 21, 24)", "rgb(231, 234, 237)"]
    assert light == ["rgb(246, 247, 248)", "rgb(26, 31, 36)"]


def test_cells_of_the_matrix_are_coloured_by_their_share(whole: Path, visit: Visitor) -> None:
    page = visit(whole).page
    for kind in ("right", "wrong"):
        cells = page.locator(f".matrix td.{kind}")
        colours = cells.evaluate_all("(cells) => cells.map((cell) => getComputedStyle(cell).backgroundColor)")
        shares = cells.evaluate_all("(cells) => cells.map((cell) => cell.style.getPropertyValue('--heat'))")
        pairs = set(zip(colours, shares, strict=True))
        assert len(pairs) == len(set(colours)) == len(set(shares)) > 1 and "rgba(0, 0, 0, 0)" not in colours


@pytest.mark.parametrize("width", [DESKTOP, PHONE])
def test_the_contact_sheet_opens_without_a_complaint_and_fits_as_well(tmp_path: Path, width: int, visit: Visitor) -> None:
    draw(tmp_path / "red" / "0.png", (200, 50, 40), 1, (90, 70))
    path = tmp_path / "check.html"
    findings = of_kind("dark", 3) + of_kind("near-duplicate", 2, ("red/0.png",) * 4)
    path.write_text(sheet.render(summary(tmp_path, HOSTILE[0]), findings), encoding="utf-8")
    seen = visit(path, width)
    assert seen.complaints == [] and seen.page.evaluate("document.documentElement.scrollWidth") <= width
    assert {url for url in seen.requests if not url.startswith("data:")} == {path.as_uri()}


def test_the_page_prints(either: Path, visit: Visitor) -> None:
    printed = visit(either).page.pdf(format="A4")
    assert printed.startswith(b"%PDF") and len(printed) > 20_000
