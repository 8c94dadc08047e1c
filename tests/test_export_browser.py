"""The page of docs/browser in a real browser: the exported model, run by ONNX Runtime Web, labels as `retrain` does."""

import contextlib
import functools
import http.server
import io
import json
import os
import shutil
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from PIL import Image
from playwright.sync_api import FileChooser, Page, sync_playwright
from playwright.sync_api import TimeoutError as PlaywrightTimeout

from retrain import label
from retrain.exports import export
from retrain.pipeline import train
from tests.test_docs import blocks
from tests.test_evaluation_browser import NAMES, TELL

pytestmark = pytest.mark.browser

ROOT = Path(__file__).resolve().parent.parent
GUIDE = ROOT / "docs" / "export-browser.md"
NEAR = 0.01  # of scores: browsers decode JPEG a little otherwise


@pytest.fixture(scope="module")
def working(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of the real network, trained on the sample set, as ONNX."""
    folder = tmp_path_factory.mktemp("browser") / "tf_files"
    shutil.copytree(ROOT / "tf_files" / "data", folder / "data")
    train(folder)
    (one,) = export(folder, ["onnx"])
    assert not one.problem
    return folder


@pytest.fixture(scope="module")
def site(working: Path) -> Path:
    """The folder that the guide says to make, made as it says."""
    assert shutil.which("npm"), "npm is not installed; run: apt install npm"
    shutil.copytree(ROOT / "docs" / "browser", working.parent / "docs" / "browser")
    (typed,) = (block for block in blocks(GUIDE.read_text(), "text") if "npm pack" in block)
    *lines, last = typed.splitlines()
    assert last.startswith("python3 -m http.server ")
    own = {**os.environ, "NPM_CONFIG_CACHE": str(working.parent / "npm")}
    for line in lines:
        subprocess.run(line, shell=True, cwd=working.parent, env=own, check=True, capture_output=True, timeout=300)
    return working.parent / "site"


@pytest.fixture(scope="module")
def address(site: Path) -> Iterator[str]:
    """The folder, served as `python -m http.server` serves it, on loopback."""

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

    handler = functools.partial(Quiet, directory=str(site))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()
        thread.join()


class Visit:
    """A page, what it complained of, and what it asked for with what types came."""

    def __init__(self, page: Page) -> None:
        self.page = page
        self.complaints: list[str] = []
        self.requests: list[str] = []
        self.types: dict[str, str] = {}
        page.add_init_script(TELL)
        page.on("console", lambda message: self.complaints.append(message.text))
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        page.on("request", lambda request: self.requests.append(request.url))
        page.on("response", lambda answer: self.types.update({answer.url: answer.headers.get("content-type", "")}))

    def opened(self, address: str, says: str = "Ready.") -> "Visit":
        """Open the page and wait for what it says."""
        self.page.goto(address)
        self.page.locator("#state").filter(has_text=says).wait_for(timeout=60_000)
        return self

    def scores(self, path: Path) -> dict[str, float]:
        """Choose a picture and wait for its labels."""
        self.page.locator("#file").set_input_files(str(path))
        return self.shown(path.name)

    def shown(self, name: str) -> dict[str, float]:
        """What is shown of the picture of that name."""
        self.page.locator("#state").filter(has_text=f"{name}: ").wait_for(timeout=60_000)
        rows = [row.locator("span").all_text_contents() for row in self.page.locator("#labels li").all()]
        return {name: float(score) for name, score in rows}


@pytest.fixture
def visit() -> Iterator[Visit]:
    """A new page in the browser of this system: none is downloaded."""
    program = next(filter(None, map(shutil.which, NAMES)), None)
    assert program, "no Chromium is installed; run: apt install chromium"
    with sync_playwright() as playwright:
        arguments = ["--no-sandbox"] if os.geteuid() == 0 else []  # it does not work for root
        browser = playwright.chromium.launch(executable_path=program, args=arguments)
        yield Visit(browser.new_page())
        browser.close()


def test_pictures_get_the_labels_of_the_model(address: str, working: Path, visit: Visit) -> None:
    model = label.load(working / "model")
    pictures = sorted((ROOT / "test_data").glob("*.jpg"))
    assert len(pictures) > 8
    visit.opened(address)
    furthest = 0.0
    for path in pictures:
        expected = dict(model.label(path).scores)
        found = visit.scores(path)
        assert list(found) == sorted(found, key=lambda name: -found[name]) and set(found) == set(expected)
        assert next(iter(found)) == max(expected, key=lambda name: expected[name]), path.name
        furthest = max(furthest, *(abs(found[name] - expected[name]) for name in expected))
    print(f"scores differ by at most {furthest:.4f}")
    assert furthest < NEAR
    assert visit.complaints == []
    assert {urlsplit(url).hostname for url in visit.requests if url.startswith("http")} == {"127.0.0.1"}
    assert {urlsplit(url).scheme for url in visit.requests} <= {"http", "blob", "data"}
    (wasm,) = (kind for url, kind in visit.types.items() if url.endswith(".wasm"))
    assert wasm == "application/wasm"


def saved(path: Path, image: Image.Image, **options: object) -> Path:
    data = io.BytesIO()
    image.save(data, path.suffix[1:], **options)
    path.write_bytes(data.getvalue())
    return path


def test_photos_are_upright_and_what_is_transparent_is_white(
    address: str, working: Path, visit: Visit, tmp_path: Path
) -> None:
    """At the size of the network, where nothing is scaled, scores are those of the model but for rounding."""
    image = Image.open(ROOT / "test_data" / "ladybug.jpg").convert("RGB").resize((224, 224))
    lying = image.transpose(Image.Transpose.ROTATE_90)
    notes = Image.Exif()
    notes[0x0112] = 6  # turn it to the right
    clear = image.convert("RGBA")
    clear.putalpha(Image.linear_gradient("L").resize((224, 224)).point(lambda value: 255 if value > 128 else 0))
    model, visit = label.load(working / "model"), visit.opened(address)
    for path in (saved(tmp_path / "turned.png", lying, exif=notes), saved(tmp_path / "clear.png", clear)):
        expected = dict(model.label(path).scores)
        assert visit.scores(path) == pytest.approx(expected, abs=1e-4)
    lying_down = dict(model.label(saved(tmp_path / "lying.png", lying)).scores)
    assert dict(model.label(tmp_path / "turned.png").scores) != pytest.approx(lying_down, abs=1e-3)


def test_a_picture_can_be_dropped_and_the_keyboard_is_enough(address: str, visit: Visit) -> None:
    visit.opened(address)
    bytes_of = list((ROOT / "test_data" / "banana.jpg").read_bytes())
    moved = visit.page.evaluate_handle(
        """(bytes) => {
          const moved = new DataTransfer();
          moved.items.add(new File([new Uint8Array(bytes)], "dropped.jpg", {type: "image/jpeg"}));
          return moved;
        }""",
        bytes_of,
    )
    visit.page.dispatch_event("#drop", "drop", {"dataTransfer": moved})
    assert next(iter(visit.shown("dropped.jpg"))) == "fruit"
    visit.page.keyboard.press("Tab")
    assert visit.page.evaluate("document.activeElement.id") == "file"
    asked = choosing_by(visit.page, "Enter")
    asked.set_files(str(ROOT / "test_data" / "ladybug.jpg"))
    assert next(iter(visit.shown("ladybug.jpg"))) == "bugs"


def choosing_by(page: Page, key: str) -> FileChooser:
    """Press a key until the browser asks for a file: while it is busy, Chromium was seen to swallow one."""
    for patience in (5_000, 10_000, 30_000):
        with contextlib.suppress(PlaywrightTimeout):
            with page.expect_file_chooser(timeout=patience) as choosing:
                page.keyboard.press(key)
            return choosing.value
    raise AssertionError(f"{key} does not ask for a file")


def test_what_is_no_picture_is_said_and_the_next_one_goes_on(address: str, visit: Visit, tmp_path: Path) -> None:
    (tmp_path / "page.jpg").write_text("<html>")
    visit.opened(address).page.locator("#file").set_input_files(str(tmp_path / "page.jpg"))
    visit.page.locator("#state.bad").filter(has_text="page.jpg cannot be used").wait_for()
    assert next(iter(visit.scores(ROOT / "test_data" / "banana.jpg"))) == "fruit"
    assert visit.page.locator("#state.bad").count() == 0


def test_a_model_that_is_not_there_is_said(address: str, site: Path, visit: Visit) -> None:
    (site / "model.onnx").rename(site / "away")
    try:
        visit.opened(address, "The model cannot be loaded: model.onnx: 404")
    finally:
        (site / "away").rename(site / "model.onnx")
    assert visit.page.locator("#file").is_disabled()


def test_a_hostile_label_stays_text(address: str, site: Path, visit: Visit) -> None:
    whole = (site / "metadata.json").read_text()
    hostile = json.loads(whole)
    hostile["labels"][0] = "<img src=x onerror=document.title='ran'>"
    (site / "metadata.json").write_text(json.dumps(hostile))
    try:
        found = visit.opened(address).scores(ROOT / "test_data" / "ladybug.jpg")
    finally:
        (site / "metadata.json").write_text(whole)
    assert hostile["labels"][0] in found and visit.page.title() == "Label a picture" and visit.complaints == []


@pytest.mark.parametrize("width", [1280, 320])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_fits_and_is_dark_where_the_system_is(address: str, visit: Visit, width: int, scheme: str) -> None:
    visit.page.emulate_media(color_scheme=scheme)  # type: ignore[arg-type]
    visit.page.set_viewport_size({"width": width, "height": 700})
    visit.opened(address).scores(ROOT / "test_data" / "ladybug.jpg")
    assert visit.page.evaluate("document.documentElement.scrollWidth") <= width
    back = visit.page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert back == {"light": "rgb(246, 247, 248)", "dark": "rgb(18, 21, 24)"}[scheme]
