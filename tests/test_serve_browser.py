"""The page of `retrain serve` in a real browser, before a real server: what it does, says and looks like."""

import base64
import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from axe_playwright_python.sync_playwright import Axe
from PIL import Image
from playwright.sync_api import Browser, Locator, Page, Route, expect, sync_playwright

from retrain.heat import colours, maps
from tests.drawing import COLOURS, draw
from tests.test_check_sheet import HOSTILE

pytestmark = pytest.mark.browser

DESKTOP, PHONE, NARROW = 1280, 360, 320
NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
FAKE_CAMERA = ("--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream")
TELL = "addEventListener('securitypolicyviolation', (event) => console.error('policy: ' + event.violatedDirective))"
REFUSED = "Failed to load resource"  # the browser's own line for an answer above 400
ANSWER: dict[str, Any] = {
    "labels": [{"label": "cats", "score": 0.9}, {"label": "dogs", "score": 0.1}], "runner_up": "dogs", "unknown": False,
    "typicality": 0.4, "way": "class activation map", "said": "half of the evidence lies on 5 % of the picture: upper left",
    "maps": [{"label": "cats", "score": 0.9, "evidence": True, "share": 0.05, "where": "left", "edges": [], "map": [[1.0]]}],
    "seen": [0, 0, 1, 1], "remarks": [], "notes": [], "neighbours": [], "width": 60, "height": 60,
    "milliseconds": {"waited": 0.1, "worked": 5},
}  # fmt: skip
ABOUT: dict[str, Any] = {
    "name": "retrain", "version": "9", "labels": ["cats", "dogs"], "accuracy": None, "way": "class activation map",
    "unknown": True, "bytes": 2**25, "pictures": True,
}  # fmt: skip


@dataclass
class Server:
    """`retrain serve` as a process."""

    process: subprocess.Popen[str]
    address: str

    def end(self) -> None:
        self.process.send_signal(signal.SIGTERM)
        self.process.communicate(timeout=30)


def serve(model: Path, port: int = 0) -> Server:
    line = [sys.executable, "-m", "retrain", "serve", "--model", str(model), "--port", str(port)]
    process = subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    assert process.stdout
    found = re.search(r"http://\S+/", process.stdout.readline())
    assert found, "the server did not start"
    return Server(process, found[0])


@pytest.fixture(scope="module")
def server(trained: Path) -> Iterator[Server]:
    started = serve(trained / "model")
    yield started
    started.end()


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """The browser of this system: none is downloaded."""
    program = next(filter(None, map(shutil.which, NAMES)), None)
    assert program, "no Chromium is installed; run: apt install chromium"
    with sync_playwright() as playwright:
        # Its sandbox does not work for root.
        arguments = ["--no-sandbox"] if os.geteuid() == 0 else []
        browser = playwright.chromium.launch(executable_path=program, args=[*arguments, *FAKE_CAMERA])
        yield browser
        browser.close()


@dataclass
class Visit:
    """The page, with what it complained of and whom it asked."""

    page: Page
    address: str
    complaints: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)

    def answers(self, explain: Callable[[Route], object] | dict[str, Any], about: dict[str, Any] | None = None) -> None:
        """Have something else than the server answer."""
        reply = explain if callable(explain) else lambda route: route.fulfill(json={**ANSWER, **explain})
        self.page.route("**/explain*", reply)
        if about is not None:
            self.page.route("**/about", lambda route: route.fulfill(json={**ABOUT, **about}))
            self.page.reload()

    def give(self, *files: Path | str) -> None:
        self.page.set_input_files("#files", list(files))

    def card(self, name: str) -> Locator:
        return self.page.locator("#cards > li").filter(has=self.page.locator(".file", has_text=name))

    def state(self, name: str, state: str) -> None:
        expect(self.card(name)).to_have_attribute("data-state", state, timeout=20_000)


Visitor = Callable[..., Visit]


@pytest.fixture
def visit(browser: Browser, server: Server) -> Iterator[Visitor]:
    """Open the page at a width; more arguments are those of a browser context. At the end nothing may have gone astray."""
    visits: list[Visit] = []

    def opened(width: int = DESKTOP, address: str = server.address, **options: object) -> Visit:
        context = browser.new_context(viewport={"width": width, "height": 800}, **options)  # type: ignore[arg-type]
        seen = Visit(context.new_page(), address)
        visits.append(seen)
        seen.page.add_init_script(TELL)
        seen.page.on("console", lambda message: seen.complaints.append(message.text))
        seen.page.on("pageerror", lambda error: seen.complaints.append(str(error)))
        seen.page.on("dialog", lambda dialog: (seen.complaints.append(dialog.message), dialog.dismiss()))
        seen.page.on("filechooser", lambda chooser: None)  # from now on none opens a window of its own
        seen.page.on("request", lambda request: seen.requests.append(request.url))
        seen.page.goto(address)
        return seen

    yield opened
    for seen in visits:
        seen.page.context.close()
    for seen in visits:
        assert [one for one in seen.complaints if REFUSED not in one] == []
        astray = [url for url in seen.requests if not url.startswith((seen.address, f"blob:{seen.address}", "data:"))]
        assert astray == []


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pictures, and what is none: broken.png, notes.txt; plain.tiff is a picture that browsers do not show."""
    folder = tmp_path_factory.mktemp("files")
    for at, name in enumerate(("one", "two", "three")):
        draw(folder / f"{name}.png", list(COLOURS.values())[at], 90 + at, (60, 60))
    noise = np.random.default_rng(1).integers(0, 255, (700, 700, 3), np.uint8)
    Image.fromarray(noise).save(folder / "large.png")
    Image.fromarray(noise[:60, :60]).save(folder / "plain.tiff")
    (folder / "broken.png").write_bytes((folder / "one.png").read_bytes()[:200])
    (folder / "notes.txt").write_text("Not a picture.")
    return folder


def transfer(page: Page, paths: list[Path], kind: str = "image/png") -> Any:
    """Return what a drop or paste brings along."""
    content = [[path.name, kind, base64.b64encode(path.read_bytes()).decode()] for path in paths]
    return page.evaluate_handle(
        """(files) => files.reduce((all, [name, type, data]) => {
          all.items.add(new File([Uint8Array.from(atob(data), (one) => one.charCodeAt(0))], name, { type }));
          return all;
        }, new DataTransfer())""",
        content,
    )


def came(held: list[Route], count: int, page: Page) -> Route:
    """Return a request that is held back, the first or a later one, once it has come."""
    for _ in range(3000):
        if len(held) >= count:
            return held[count - 1]
        page.evaluate("0")  # gives the handler of routes its turn
    raise AssertionError(f"request {count} never came")


def test_the_page_says_what_the_model_knows_and_each_file_is_small(visit: Visitor) -> None:
    seen = visit()
    expect(seen.page.locator("#labels")).to_have_text("bluegreenred")
    expect(seen.page.locator("#accuracy")).to_contain_text("95 % interval")
    sizes = [len(seen.page.request.get(seen.address + name).body()) for name in ("", "page.js", "page.css", "icon.svg")]
    assert min(sizes) > 0 and sum(sizes) < 40 * 1024


def test_several_pictures_are_dropped_and_each_is_answered(visit: Visitor, files: Path) -> None:
    seen = visit()
    given = transfer(seen.page, [files / "one.png", files / "two.png", files / "three.png"])
    seen.page.dispatch_event("h1", "dragenter", {"dataTransfer": given})
    expect(seen.page.locator(".hover")).to_be_visible()
    seen.page.dispatch_event("h1", "drop", {"dataTransfer": given})
    expect(seen.page.locator(".hover")).to_be_hidden()
    for name in ("one", "two", "three"):
        expect(seen.card(name).locator(".verdict, .why").first).to_contain_text(re.compile("%|unknown"), timeout=20_000)
        expect(seen.card(name).locator(".scores li")).to_have_count(3)
        expect(seen.card(name).locator(".near img")).to_have_count(3)
        expect(seen.card(name).locator(".foot")).to_contain_text("60 × 60")
    expect(seen.page.locator("#count")).to_have_text("3")


def test_what_is_no_file_is_told(visit: Visitor) -> None:
    seen = visit()
    text = seen.page.evaluate_handle("() => { const it = new DataTransfer(); it.setData('text/plain', 'x'); return it; }")
    seen.page.dispatch_event("h1", "drop", {"dataTransfer": text})
    expect(seen.page.get_by_role("alert")).to_contain_text("No file was dropped")
    folder = "{ kind: 'file', getAsFile: () => null, webkitGetAsEntry: () => ({ isDirectory: true }) }"
    seen.page.evaluate(f"dropped({{ items: [{folder}] }})")
    expect(seen.page.get_by_role("alert")).to_contain_text("A folder cannot be dropped")
    expect(seen.page.locator("#results")).to_be_hidden()


def test_a_picture_is_pasted(visit: Visitor, files: Path) -> None:
    seen = visit(permissions=["clipboard-read", "clipboard-write"])
    seen.page.evaluate(
        "async (given) => navigator.clipboard.write([new ClipboardItem({ 'image/png': given.files[0] })])",
        transfer(seen.page, [files / "one.png"]),
    )
    seen.page.keyboard.press("Control+V")
    expect(seen.page.locator("#cards .scores li")).to_have_count(3, timeout=20_000)
    seen.page.evaluate("navigator.clipboard.writeText('no picture')")
    seen.page.keyboard.press("Control+V")
    expect(seen.page.get_by_role("alert")).to_contain_text("no picture")


def test_a_photo_is_taken_with_the_camera_which_is_then_off(visit: Visitor) -> None:
    seen = visit()
    seen.page.get_by_role("button", name="Take a photo").click()
    shutter = seen.page.get_by_role("button", name="Take it")
    expect(shutter).to_be_enabled(timeout=20_000)
    assert clean(seen) == []
    tracks = seen.page.evaluate_handle("document.querySelector('#video').srcObject.getTracks()")
    shutter.click()
    expect(seen.card("photo 1.jpg").locator(".scores li")).to_have_count(3, timeout=20_000)
    assert tracks.evaluate("(tracks) => tracks.map((track) => track.readyState)") == ["ended"]
    expect(seen.page.get_by_role("dialog")).to_be_hidden()


def test_a_camera_that_is_refused_is_told_and_without_one_there_is_no_button(visit: Visitor) -> None:
    seen = visit()
    no = "() => { navigator.mediaDevices.getUserMedia = () => Promise.reject(new DOMException('', 'NotAllowedError')); }"
    seen.page.evaluate(no)
    seen.page.get_by_role("button", name="Take a photo").click()
    expect(seen.page.locator("#camera-says")).to_contain_text("not allowed")
    seen.page.keyboard.press("Escape")
    seen.page.add_init_script("delete Navigator.prototype.mediaDevices")  # as over http from another machine
    seen.page.reload()
    expect(seen.page.locator("#labels li")).to_have_count(3)
    expect(seen.page.get_by_role("button", name="Take a photo")).to_be_hidden()


def test_a_phone_takes_photos_with_its_own_program(visit: Visitor, files: Path) -> None:
    seen = visit(PHONE, has_touch=True, is_mobile=True)
    with seen.page.expect_file_chooser() as chooser:
        seen.page.get_by_role("button", name="Take a photo").tap()
    assert chooser.value.element.get_attribute("capture") == "environment"
    chooser.value.set_files(files / "one.png")
    expect(seen.card("one").locator(".scores li")).to_have_count(3, timeout=20_000)


def test_a_bad_file_is_told_and_leaves_the_others_alone(visit: Visitor, files: Path) -> None:
    seen = visit()
    seen.give(*(files / name for name in ("one.png", "broken.png", "notes.txt", "plain.tiff")))
    for name, reason in (("broken.png", "truncated"), ("notes.txt", "not-an-image")):
        seen.state(name, "failed")
        expect(seen.card(name).locator(".why")).to_contain_text(reason)
        expect(seen.card(name).get_by_role("button", name="Try again")).to_be_hidden()
    for name in ("one.png", "plain.tiff"):
        expect(seen.card(name).locator(".scores li")).to_have_count(3, timeout=20_000)
    seen.card("plain.tiff").scroll_into_view_if_needed()
    expect(seen.card("plain.tiff").locator(".blind")).to_be_visible()
    expect(seen.card("one.png").locator(".blind")).to_be_hidden()


def test_what_is_too_large_is_not_sent(visit: Visitor, files: Path) -> None:
    seen = visit()
    seen.answers({}, {"bytes": 1000})
    seen.give(files / "one.png")
    seen.state("one.png", "failed")
    expect(seen.card("one.png").locator(".why")).to_contain_text("the server takes 1 KiB at most")
    assert not any("explain" in url for url in seen.requests)


def test_on_a_slow_network_the_progress_is_seen(visit: Visitor, files: Path) -> None:
    seen = visit()
    network = seen.page.context.new_cdp_session(seen.page)
    network.send("Network.enable")
    slow = {"offline": False, "latency": 0, "downloadThroughput": -1, "uploadThroughput": 600_000}
    network.send("Network.emulateNetworkConditions", slow)
    seen.give(files / "large.png")
    seen.state("large.png", "sending")
    expect(seen.page.get_by_role("progressbar", name="Sending large.png")).to_be_visible()
    expect(seen.card("large.png").locator(".verdict")).to_have_text(re.compile(r"sending, \d+ %"))
    expect(seen.card("large.png").locator(".scores li")).to_have_count(3, timeout=30_000)
    expect(seen.page.get_by_role("progressbar")).to_be_hidden()


def test_a_busy_server_is_asked_again_and_no_more_than_two_pictures_at_a_time(visit: Visitor, files: Path) -> None:
    seen = visit()
    seen.page.clock.install()
    held: list[Route] = []
    seen.answers(lambda route: held.append(route))  # noqa: PLW0108  playwright wants a function of Python
    seen.give(*(files / f"{name}.png" for name in ("one", "two", "three")))
    expect(seen.page.locator("[data-state=looking]")).to_have_count(2)
    seen.state("three.png", "waiting")
    came(held, 2, seen.page)
    held[0].fulfill(status=503, headers={"Retry-After": "7"}, body="busy")
    expect(seen.card("one.png").locator(".why")).to_have_text(re.compile("busy.* again in 7 s, try 2 of 8"))
    assert len(held) == 2
    seen.page.clock.fast_forward(7000)
    came(held, 3, seen.page)
    seen.state("three.png", "waiting")
    for number, name in ((3, "one.png"), (2, "two.png"), (4, "three.png")):
        came(held, number, seen.page).fulfill(json=ANSWER)
        seen.state(name, "done")
        seen.state("three.png", "done" if number == 4 else "looking")
    assert len(held) == 4


@pytest.mark.parametrize(
    "answer",
    [
        {"status": 502, "body": "<html>bad gateway</html>"},
        {"status": 500, "json": {"error": "internal error; the server's log has it as 3f2a9c", "id": "internal"}},
        {"status": 200, "body": "<html>Log in first</html>"},
        {"status": 200, "json": {"labels": []}},
        {"status": 200, "json": {"labels": [{"label": None}], "neighbours": 7}},
    ],
)
def test_an_answer_that_is_none_is_survived_and_can_be_asked_for_again(
    answer: dict[str, Any], visit: Visitor, files: Path
) -> None:
    seen = visit()
    answers = iter([answer, {"json": ANSWER}])
    seen.answers(lambda route: route.fulfill(**next(answers)))
    seen.give(files / "one.png")
    seen.state("one.png", "failed")
    expect(seen.card("one.png").locator(".why")).to_contain_text(re.compile("502|3f2a9c|cannot be understood"))
    seen.card("one.png").get_by_role("button", name="Try again").click()
    seen.state("one.png", "done")


def test_a_server_that_is_gone_or_silent_is_told_and_found_again(trained: Path, visit: Visitor, files: Path) -> None:
    own = serve(trained / "model")
    seen = visit(address=own.address)
    expect(seen.page.locator("#labels li")).to_have_count(3)
    own.end()
    seen.give(files / "one.png")
    seen.state("one.png", "failed")
    expect(seen.card("one.png").locator(".why")).to_contain_text("cannot be reached")
    own = serve(trained / "model", int(own.address.split(":")[-1].strip("/")))
    try:
        seen.card("one.png").get_by_role("button", name="Try again").press("Enter")
        expect(seen.card("one.png").locator(".scores li")).to_have_count(3, timeout=20_000)
        seen.page.clock.install()
        seen.answers(lambda route: None)
        seen.give(files / "two.png")
        seen.state("two.png", "looking")
        seen.page.clock.fast_forward(121_000)
        expect(seen.card("two.png").locator(".why")).to_contain_text("No answer for 120 seconds")
    finally:
        own.end()


def test_unknown_is_said_first_and_heard(visit: Visitor, files: Path) -> None:
    seen = visit()
    seen.answers({"unknown": True, "typicality": 0.04, "remarks": [{"kind": "unknown", "words": "unlike all"}]})
    seen.give(files / "one.png")
    seen.state("one.png", "unknown")
    card = seen.card("one.png")
    expect(card.get_by_role("heading", level=3)).to_have_text(re.compile(r"one\.png\s+unknown"))
    expect(card.locator(".why")).to_contain_text("Unlike all that the model has learnt from")
    expect(card.locator(".scores li")).to_have_text(["cats90.0\u00a0%", "dogs10.0\u00a0%"])
    expect(card.locator(".remarks li")).to_have_text(["Of pictures of the known labels, 4 in 100 are as unusual, or more."])
    expect(seen.page.get_by_role("status").first).to_have_text(re.compile("one.png: unknown"))


def test_answers_are_heard_many_together(visit: Visitor, files: Path) -> None:
    seen = visit()
    seen.page.clock.install()
    seen.answers({})
    heard = seen.page.locator("#heard")
    seen.give(files / "one.png", files / "two.png")
    seen.state("two.png", "done")
    seen.page.clock.fast_forward(1000)
    expect(heard).to_have_text("2 pictures added; one.png: cats, 90.0\u00a0%; two.png: cats, 90.0\u00a0%")
    seen.give(*[files / "one.png"] * 5)
    expect(seen.page.locator("[data-state=done]")).to_have_count(7)
    seen.page.clock.fast_forward(1000)
    expect(heard).to_have_text(re.compile("^6 messages, the last: one.png: cats"))


def test_names_stay_text(visit: Visitor, files: Path) -> None:
    names = [*HOSTILE, "<img src=x onerror=alert(1)>", "W" * 250, "\U0001f98b", "\ud83d"]
    near = [{"label": name, "similarity": 0.5, "sha256": "0", "picture": None} for name in names]
    scores = [{"label": name, "score": 1 / len(names)} for name in names]
    seen = visit(NARROW)
    # Not `json=`: a lone surrogate can only be written as an escape.
    body = json.dumps({**ANSWER, "labels": scores, "neighbours": near, "remarks": [{"kind": "x", "words": names[0]}]})
    seen.answers(lambda route: route.fulfill(body=body, content_type="application/json"))
    about = json.dumps({**ABOUT, "labels": names})
    seen.page.route("**/about", lambda route: route.fulfill(body=about, content_type="application/json"))
    seen.page.reload()
    seen.page.set_input_files(
        "#files", {"name": "<b>x.png", "mimeType": "image/png", "buffer": (files / "one.png").read_bytes()}
    )
    seen.state("<b>x.png", "done")
    seen.page.get_by_role("button", name=f"Show all {len(names)}").click()
    shown = [name.replace("\ud83d", "\ufffd").replace("\udce9", "\ufffd").replace("\x00", "\x00") for name in names]
    for place in (".scores bdi", ".near bdi", ".labels bdi"):
        texts = seen.page.locator(place).evaluate_all("(all) => all.map((one) => one.textContent.toWellFormed())")
        assert texts == shown
    assert (
        seen.page.evaluate("document.querySelectorAll('#cards img:not([data-part]), #cards script, #cards b').length") == 0
    )
    assert seen.page.evaluate("document.documentElement.scrollWidth") <= NARROW


def test_the_map_is_that_of_the_project(visit: Visitor, files: Path) -> None:
    grid = np.random.default_rng(4).normal(0.5, 1, (5, 7))
    grid[0, 6] = 9.0  # the upper right corner is hot
    seen = visit()
    seen.answers({"maps": [{**ANSWER["maps"][0], "map": grid.tolist()}]})
    seen.give(files / "one.png")
    seen.state("one.png", "done")
    card = seen.card("one.png")
    expect(card.locator("canvas")).to_be_hidden()
    card.get_by_role("button", name="Where does it look?").click()
    expect(card.get_by_role("img", name="Map of what speaks for cats")).to_be_visible()
    expect(card.locator(".said")).to_have_text("Half of the evidence lies on 5\u00a0% of the picture: upper left.")
    url = card.locator("canvas").evaluate("(canvas) => canvas.toDataURL()")
    drawn = np.asarray(Image.open(io.BytesIO(base64.b64decode(url.split(",")[1]))).convert("RGBA")).astype(int)
    levels = maps.resized(np.maximum(grid, 0) * (255 / grid.max()), *drawn.shape[:2])
    heat, mask = colours.layer(np.clip(levels, 0, 255).astype(np.uint8))
    assert np.abs(drawn[..., 3] - np.asarray(mask)).max() <= 2
    clear = drawn[..., 3] < 64  # a browser keeps colours times opacity: little of a colour is left there
    assert np.abs(drawn[..., :3] - np.asarray(heat))[~clear].max() <= 5
    hot = np.unravel_index(drawn[..., 3].argmax(), clear.shape)
    assert hot[0] < 40 and hot[1] > 215 and clear.mean() > 0.5


def test_the_map_lies_on_the_part_of_the_picture_that_was_seen(visit: Visitor, files: Path) -> None:
    seen = visit()
    seen.answers({"seen": [0.25, 0, 0.75, 1]})
    seen.give(files / "one.png")
    seen.state("one.png", "done")
    seen.card("one.png").locator(".toggle").click()
    picture, box = (seen.card("one.png").locator(what).bounding_box() for what in ("img[data-part]", "canvas"))
    assert picture and box
    assert box["x"] - picture["x"] == pytest.approx(picture["width"] / 4, abs=1)
    assert (box["width"], box["height"]) == pytest.approx((picture["width"] / 2, picture["height"]), abs=1)


def test_the_map_of_another_label_comes_from_the_server(visit: Visitor, files: Path) -> None:
    seen = visit()
    seen.give(files / "one.png")
    card = seen.card("one.png")
    card.locator(".toggle").click()
    first = card.locator("canvas").evaluate("(canvas) => canvas.toDataURL()")
    other = card.locator(".scores bdi").nth(1).inner_text()
    card.get_by_role("combobox").select_option(other)
    expect(card.get_by_role("img", name=f"Map of what speaks for {other}")).to_be_visible(timeout=20_000)
    assert card.locator("canvas").evaluate("(canvas) => canvas.toDataURL()") != first
    assert seen.requests[-1].endswith(f"explain?label={other}")


def test_a_map_that_is_slow_to_find_is_asked_for_by_a_button(visit: Visitor, files: Path) -> None:
    seen = visit()
    wanted = lambda route: route.fulfill(json=ANSWER if "map=no" not in route.request.url else {**ANSWER, "maps": []})  # noqa: E731
    seen.answers(wanted, {"way": "occlusion"})
    seen.give(files / "one.png")
    seen.state("one.png", "done")
    assert seen.requests[-1].endswith("explain?map=no")
    toggle = seen.card("one.png").get_by_role("button", name="Where does it look?", pressed=False)
    toggle.click()
    expect(seen.card("one.png").get_by_role("button", pressed=True)).to_be_visible()
    expect(seen.card("one.png").locator("canvas")).to_be_visible()
    assert seen.requests[-1].endswith("explain")


def test_all_can_be_done_with_the_keyboard(visit: Visitor, files: Path) -> None:
    seen = visit()
    page = seen.page
    expect(page.locator("#labels li")).to_have_count(3)
    focused = page.locator(":focus")

    def tab_to(name: str) -> None:
        for _ in range(12):
            page.keyboard.press("Tab")
            if focused.count() and name in (focused.get_attribute("aria-label") or focused.inner_text()):
                assert focused.evaluate("(one) => getComputedStyle(one).outlineStyle") == "solid"
                return
        raise AssertionError(f"Tab does not lead to {name}")

    tab_to("Choose pictures")
    with page.expect_file_chooser() as chooser:
        page.keyboard.press("Enter")
    chooser.value.set_files([files / "one.png", files / "two.png"])
    for name in ("one", "two"):
        expect(seen.card(name).locator(".scores li")).to_have_count(3, timeout=20_000)
    tab_to("Where does it look?")
    page.keyboard.press("Space")
    expect(seen.card("one").locator("canvas")).to_be_visible()
    page.keyboard.press("Space")
    expect(seen.card("one").locator("canvas")).to_be_hidden()
    tab_to("Remove one.png")
    page.keyboard.press("Enter")
    expect(page.get_by_role("button", name="Remove two.png")).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.get_by_role("button", name="Choose pictures")).to_be_focused()
    expect(page.locator("#results")).to_be_hidden()


def test_what_is_removed_is_let_go(visit: Visitor, files: Path) -> None:
    seen = visit()
    held: list[Route] = []
    seen.answers(lambda route: held.append(route))  # noqa: PLW0108  playwright wants a function of Python
    seen.page.evaluate(
        "() => { window.gone = 0; const kept = URL.revokeObjectURL; URL.revokeObjectURL = (url) => kept(url, gone += 1); }"
    )
    seen.give(*[files / "one.png"] * 200)
    expect(seen.page.locator("#count")).to_have_text("0 of 200 done")
    seen.page.get_by_role("button", name="Remove one.png").first.click()
    expect(seen.page.locator("#count")).to_have_text("0 of 199 done")
    seen.page.get_by_role("button", name="Clear all").click()
    expect(seen.page.locator("#results")).to_be_hidden()
    assert seen.page.evaluate("gone") == 200
    seen.give(files / "two.png")  # places in line are free again
    seen.state("two.png", "looking")
    assert len(held) <= 4


def clean(seen: Visit) -> list[str]:
    """What axe finds wrong. What still moves is put to its end first: colours that fade are none to judge."""
    seen.page.evaluate("document.getAnimations().forEach((one) => one.effect.getTiming().iterations < 9 && one.finish())")
    found = Axe().run(seen.page).response["violations"]
    return [f"{one['id']}: {node['html']}" for one in found for node in one["nodes"]]


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [DESKTOP, NARROW])
def test_no_state_is_a_barrier_and_all_fits(width: int, scheme: str, visit: Visitor, files: Path) -> None:
    seen = visit(width, color_scheme=scheme)
    expect(seen.page.locator("#labels li")).to_have_count(3)
    assert clean(seen) == []
    replies: dict[int, dict[str, Any]] = {
        0: {"json": {**ANSWER, "unknown": True}},
        1: {"json": {**ANSWER, "remarks": [{"kind": "dark", "words": "dark: very"}], "notes": ["turned"]}},
        2: {"status": 500, "body": "x"},
        3: {"status": 503, "headers": {"Retry-After": "30"}, "body": "x"},
    }
    seen.answers(lambda route: route.fulfill(**replies.pop(min(replies))) if replies else None)
    given = [files / name for name in ("one.png", "two.png", "three.png", "large.png", "plain.tiff", "broken.png")]
    seen.give(*given)
    for name, state in (("one", "unknown"), ("two", "done"), ("three", "failed"), ("large", "busy"), ("plain", "looking")):
        seen.state(name, state)
    seen.state("broken", "waiting")
    seen.card("two").locator(".toggle").click()
    seen.page.evaluate("tell('A notice.')")
    for card in seen.page.locator("#cards > li").all():
        card.scroll_into_view_if_needed()
    assert clean(seen) == []
    assert seen.page.evaluate("document.documentElement.scrollWidth") <= width
    colour = seen.page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert colour == {"light": "rgb(246, 247, 248)", "dark": "rgb(18, 21, 24)"}[scheme]


def test_nothing_moves_where_that_is_not_wanted(visit: Visitor, files: Path) -> None:
    for motion, moves in (("no-preference", True), ("reduce", False)):
        seen = visit(reduced_motion=motion)
        seen.answers(lambda route: None)
        seen.give(files / "one.png")
        seen.state("one.png", "looking")
        assert (seen.page.evaluate("document.getAnimations().length") > 0) is moves


def test_without_scripts_the_page_says_how_to_ask(visit: Visitor) -> None:
    page = visit(java_script_enabled=False).page
    expect(page.locator("noscript p")).to_contain_text("curl --data-binary @picture.jpg")
    expect(page.locator("main")).to_be_hidden()
