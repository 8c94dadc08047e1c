"""What the pages of the documentation say to type is run, from top to bottom, and prints what they show."""

import math
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import pytest

from retrain.backbones import BACKBONES
from tests.hub_modules import packed, tiny_net, write_tf2
from tests.test_backbones import weights_drawn_for
from tests.tfhub_stand_in import HOST, StandIn, standing_in

ROOT = Path(__file__).resolve().parent.parent
# Generated from the command line itself; no page to type from; run by tests/test_containers.py; asks a server, see below.
ELSEWHERE = {"commands.md", "design.md", "docker.md", "serve.md"}
PAGES = [ROOT / "README.md", *(path for path in sorted((ROOT / "docs").glob("*.md")) if path.name not in ELSEWHERE)]

# What other tests, or CI, type.
RUN_ELSEWHERE = {
    r"(docker/|docker run |ls classified)": "tests/test_containers.py",
    r"curl -s .*127\.0\.0\.1:8000/": "below, with a server",
    r"make (demo|test|images|install)$": ".ci/run",
    r"sudo apt install [a-z0-9 -]+$": ".ci/run installs these",
    r"pip install (--no-deps )?dist/retrain-\*\.whl$": "tests/test_release.py",
    r"pip install (ai-edge-litert|starlette) ": "tests/test_release.py",
    r"(python3 -m venv ~/retrain|~/retrain/bin/pip install \.)$": "tests/test_release.py",
    r"\. \.venv/bin/activate$": "tests/test_release.py, in another folder",
    r"pip install 'tensorflow\[and-cuda\]'$": "tests/test_release.py, with --dry-run",
}

BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
ASKED = re.compile(r"^curl |^echo .*\| curl ")
TYPED = re.compile(r"(?:^|\| *)retrain |^(?:cat|cp|cut|echo|ls|mkdir) ")
# Ends with 3 where it found something, and that is what the pages show.
MAY_FIND = re.compile(r"retrain check (?!.*--(?:apply|undo))")
REMARK = re.compile(r"^ *print\(.*\)  # (.+)$", re.MULTILINE)
CHOSEN = re.compile(r"(?:--backbone|backbones fetch) (\S+)")
DECIMAL = re.compile(r"\d+\.\d+")
# Where no bar can be drawn, slow work says now and then how far it is.
PROGRESS = re.compile(r"(?:bottlenecks|classify|faces|folds|listing|maps|pictures to compare): \d+(?: of \d+)?")
TOLERANCE = 0.01
CACHE = ".cache/retrain"


# --- what a page says


@dataclass(frozen=True)
class Step:
    """A block of a page: lines for the shell, or a piece of Python, and what the page shows right below it."""

    typed: tuple[str, ...]
    python: bool
    shown: tuple[str, ...] | None


def steps(page: str, typed: re.Pattern[str] = TYPED) -> list[Step]:
    """Return what a page says to type, in its order, of the shell's lines those that `typed` finds."""
    found = []
    for block, following in pairwise([*BLOCK.finditer(page), None]):
        assert block
        shown = None
        if following and following[1] == "text" and not page[block.end() : following.start()].strip():
            shown = tuple(following[2].splitlines())
        if block[1] == "python":
            found.append(Step((block[2],), True, shown))
        elif block[1] == "sh":
            lines = block[2].replace("\\\n", "").splitlines()
            chosen = tuple(line for line in lines if typed.search(line))
            found += [Step(chosen, False, shown)] if chosen else []
    return found


def agree(shown: tuple[str, ...], printed: tuple[str, ...]) -> bool:
    """Whether what a page shows is what came out; a line of three dots stands for any lines."""
    if not shown:
        return not printed
    if shown[0] == "...":
        return any(agree(shown[1:], printed[count:]) for count in range(len(printed) + 1))
    return bool(printed) and same(shown[0], printed[0]) and agree(shown[1:], printed[1:])


def same(shown: str, printed: str) -> bool:
    """Whether two lines are equal but for late digits, which depend on the processor."""
    pairs = zip(DECIMAL.findall(shown), DECIMAL.findall(printed), strict=False)
    close = all(math.isclose(float(one), float(other), rel_tol=0, abs_tol=TOLERANCE) for one, other in pairs)
    return close and DECIMAL.split(shown) == DECIMAL.split(printed)


def unprinted(python: str, printed: tuple[str, ...]) -> list[str]:
    """Return the remarks after print(...) that no line agrees with."""
    return [remark for remark in REMARK.findall(python) if not any(same(remark, line) for line in printed)]


def downloaded(todo: list[Step]) -> list[str]:
    """Return the addresses of the modules that steps ask for, by name or address; a second time, they are there."""
    chosen = [name for step in todo for line in step.typed for name in CHOSEN.findall(line)]
    addresses = [BACKBONES[name].origin if name in BACKBONES else name for name in chosen]
    return list(dict.fromkeys(address for address in addresses if address.startswith(f"https://{HOST}/")))


# --- where it is run


def run(
    line: list[str], folder: Path, commands: Path | None = None, variables: dict[str, str] | None = None
) -> tuple[str, ...]:
    """Run something in a folder, which must go well, and return the lines that a terminal would show."""
    path = f"{commands}{os.pathsep}{os.environ['PATH']}" if commands else os.environ["PATH"]
    # What a page puts into the home folder must not go into that of the user. The pages show what comes out without a GPU.
    own = {"PATH": path, "HOME": str(folder), "CUDA_VISIBLE_DEVICES": "-1"}
    environment = {**os.environ, **own, **(variables or {})}
    done = subprocess.run(
        line, cwd=folder, env=environment, text=True, timeout=180,
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False,
    )  # fmt: skip
    allowed = (0, 3) if MAY_FIND.search(line[-1]) else (0,)
    assert done.returncode in allowed, f"{line[-1]}\nended with {done.returncode}:\n{done.stdout}"
    return tuple(text for text in done.stdout.splitlines() if not PROGRESS.fullmatch(text))


def cache_in(folder: Path) -> dict[str, str]:
    """What a page downloads is as tiny as its tests need: it must not go into a cache that others take networks from."""
    return {"RETRAIN_CACHE_DIR": str(folder / CACHE)}


def in_shell(line: str) -> list[str]:
    return ["bash", "-c", f"set -o pipefail\n{line}"]


@pytest.fixture(scope="session")
def commands(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for PATH, with a `retrain` that is the one under test."""
    script = tmp_path_factory.mktemp("bin") / "retrain"
    script.write_text(f"#!/bin/sh\nexec '{sys.executable}' -m retrain \"$@\"\n")
    script.chmod(0o755)
    return script.parent


@pytest.fixture(scope="session")
def fresh(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a reader has to begin with: the folders of a clone that pages speak of. Copy it before use."""
    folder = tmp_path_factory.mktemp("fresh")
    for name in ("tf_files/data", "test_data"):
        shutil.copytree(ROOT / name, folder / name)
    (folder / "classified").mkdir()
    shutil.copy(ROOT / "classified" / "README.md", folder / "classified")
    return folder


@pytest.fixture(scope="session")
def with_model(fresh: Path, commands: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same after training; the backbone is then converted for this machine. Copy it before use."""
    folder = tmp_path_factory.mktemp("with_model")
    shutil.copytree(fresh, folder, dirs_exist_ok=True)
    run(in_shell("retrain train tf_files/"), folder, commands, cache_in(folder))
    return folder


@pytest.fixture
def tfhub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StandIn]:
    """The only host that pages reach; it has no modules yet."""
    with standing_in(tmp_path_factory.mktemp("tfhub")) as stand_in:
        yield stand_in


def tiny_module(folder: Path, address: str) -> bytes:
    """A module in place of the one that has this address, with as many features."""
    features = {row.origin: row.feature_size for row in BACKBONES.values()}.get(address, 16)
    return packed(write_tf2(folder / str(features), tiny_net(features)))


def film_scenes(folder: Path) -> None:
    """Lay some of the sample out as scenes."""
    for number, picture in enumerate(sorted((folder / "tf_files" / "data").glob("*/[a-d]*.jpg"))):
        scene = folder / "films" / "data" / picture.parent.name / f"scene{number % 5}"
        scene.mkdir(parents=True, exist_ok=True)
        shutil.copy(picture, scene)


def module(folder: Path) -> None:
    """Write a tiny TF Hub module, and its archive."""
    written = write_tf2(folder / "downloads" / "my_module", tiny_net())
    written.with_suffix(".tar.gz").write_bytes(packed(written))


def keras_weights(folder: Path) -> None:
    """Write a file of weights such as Keras offers, but drawn at random."""
    weights_drawn_for("MobileNetV2", folder).rename(folder / "mobilenet_v2_notop.weights.h5")


# What a page takes for granted that its reader has.
READERS_OWN: dict[str, Callable[[Path], None]] = {
    " films/": film_scenes,
    " downloads/my_module": module,
    " mobilenet_v2_notop.weights.h5": keras_weights,
}


@pytest.mark.weights
@pytest.mark.parametrize("page", [page for page in PAGES if steps(page.read_text())], ids=lambda page: page.stem)
def test_what_a_page_says_to_type_runs_and_prints_what_it_shows(
    page: Path, fresh: Path, with_model: Path, commands: Path, tfhub: StandIn, tmp_path: Path
) -> None:
    todo = steps(page.read_text())
    begins_with_training = todo[0].typed[0].startswith("retrain train ")
    shutil.copytree(fresh if begins_with_training else with_model, tmp_path, dirs_exist_ok=True)
    shutil.copytree(with_model / CACHE, tmp_path / CACHE, dirs_exist_ok=True)
    to_ask = [tfhub.offer(address, tiny_module(tmp_path / "modules", address)) for address in downloaded(todo)]
    for name, make in READERS_OWN.items():
        if any(name in line for step in todo for line in step.typed):
            make(tmp_path)
    for step in todo:
        printed: tuple[str, ...] = ()
        for line in step.typed:
            words = [sys.executable, "-c", line] if step.python else in_shell(line)
            printed += run(words, tmp_path, commands, tfhub.environment | cache_in(tmp_path))
        told = "\n".join((*step.typed, "printed:", *printed))
        assert step.shown is None or agree(step.shown, printed), told
        assert not step.python or unprinted(step.typed[0], printed) == [], told
    # Nothing else, either: nothing is downloaded unless it was asked for.
    assert tfhub.asked == [address for addresses in to_ask for address in addresses]


@pytest.mark.weights
@pytest.mark.skipif(not shutil.which("curl"), reason="curl is not installed")
def test_what_the_page_of_the_service_says_to_ask_gets_the_answer_that_it_shows(with_model: Path, tmp_path: Path) -> None:
    shutil.copytree(with_model, tmp_path, dirs_exist_ok=True)
    shutil.copy(ROOT / "README.md", tmp_path)
    line = [sys.executable, "-m", "retrain", "serve", "--port", "0"]
    with subprocess.Popen(line, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as server:
        assert server.stdout
        said = server.stdout.readline()
        page = (ROOT / "docs" / "serve.md").read_text()
        assert re.sub(r":\d+/", ":8000/", said) in page
        (port,) = re.findall(r":(\d+)/", said)
        todo = steps(page.replace("127.0.0.1:8000", f"127.0.0.1:{port}"), ASKED)
        assert len(todo) > 8 and sum(step.python for step in todo) > 2
        try:
            for step in todo:
                printed: tuple[str, ...] = ()
                for words in ([sys.executable, "-c", line] if step.python else in_shell(line) for line in step.typed):
                    printed += run(words, tmp_path)
                told = "\n".join((*step.typed, "printed:", *printed))
                assert step.shown is None or agree(step.shown, printed), told
                assert not step.python or unprinted(step.typed[0], printed) == [], told
        finally:
            server.terminate()
            _, errors = server.communicate(timeout=30)
        assert server.returncode == 143 and errors in page, "what it says as it ends"


# --- whether all that would find a mistake


def test_what_is_typed_and_shown_is_found_on_a_page() -> None:
    page = (
        "```sh\nmake demo\nretrain train a/ \\\n  --seed 1\ncat x.jpg | retrain label -  # why\n```\n\n"
        "```text\nyes\n\nno\n```\n\n```text\nnot this\n```\n\n"
        "```sh\nls classified/\n```\nWords.\n```text\nnot this\n```\n```sh\nmake retrain\n```\n```python\nprint(1)\n```\n"
    )
    assert steps(page) == [
        Step(("retrain train a/   --seed 1", "cat x.jpg | retrain label -  # why"), False, ("yes", "", "no")),
        Step(("ls classified/",), False, None),
        Step(("print(1)\n",), True, None),
    ]


def test_no_line_on_a_page_is_overlooked() -> None:
    left = []
    for page in [ROOT / "README.md", *(path for path in sorted((ROOT / "docs").glob("*.md")) if path.name != "commands.md")]:
        blocks = [block[2] for block in BLOCK.finditer(page.read_text()) if block[1] == "sh"]
        typed = {line for step in steps(page.read_text()) for line in step.typed}
        lines = [line for block in blocks for line in block.replace("\\\n", "").splitlines() if line not in typed]
        left += [line for line in lines if not any(re.match(row, line) for row in RUN_ELSEWHERE)]
    assert left == []


def test_every_row_of_what_readers_have_is_on_a_page() -> None:
    text = "\n".join(page.read_text() for page in PAGES)
    assert [name for name in READERS_OWN if not any(name in line for step in steps(text) for line in step.typed)] == []


@pytest.mark.parametrize(
    ("shown", "printed"),
    [
        ("bugs (score = 0.92740)\n...", "bugs (score = 0.93100)\nfruit (score = 0.1)\nmammals (score = 0.1)"),
        ("...\n27 of 32\n...", "a\nb\n27 of 32"),
        ("copied/bugs-0.33772.jpg\n\n...\nend", "copied/bugs-0.33999.jpg\n\nend"),
        ("...", ""),
    ],
)
def test_what_agrees_is_let_through(shown: str, printed: str) -> None:
    assert agree(tuple(shown.splitlines()), tuple(printed.splitlines()))


@pytest.mark.parametrize(
    ("shown", "printed"),
    [
        ("bugs (score = 0.92740)", "bugs (score = 0.91639)"),
        ("bugs (score = 0.92740)", "bug (score = 0.92740)"),
        ("bugs (score = 0.92740)", "bugs (score = 1)"),
        ("27 of 32 pictures", "26 of 32 pictures"),
        ("one", "one\ntwo"),
        ("one\ntwo", "one"),
        ("...\ntwo", "one\ntwo\nthree"),
        ("one\n...\nthree", "one\ntwo"),
        ("one", ""),
    ],
)
def test_what_does_not_agree_is_found(shown: str, printed: str) -> None:
    assert not agree(tuple(shown.splitlines()), tuple(printed.splitlines()))


def test_a_remark_in_python_that_is_not_what_is_printed_is_found() -> None:
    code = "x = 0.5  # not printed\nprint(x)  # 0.501\nif x:\n    print(x, 2)  # 0.5 3\n"
    assert unprinted(code, ("0.5", "0.5 2")) == ["0.5 3"]


def test_nothing_goes_into_the_home_of_the_user(tmp_path: Path) -> None:
    assert run(in_shell("echo ~"), tmp_path) == (str(tmp_path),)


def test_the_modules_that_a_page_asks_for_are_found_each_once() -> None:
    v2, v3 = (BACKBONES[name].origin for name in ("mobilenet-v2", "mobilenet-v3-large"))
    other = f"https://{HOST}/other/1"
    lines = (
        "retrain backbones", "retrain train tf_files/", "retrain train a --backbone efficientnet-lite2 --seed 1",
        "retrain train a --backbone mobilenet-v3-large --seed 1", "retrain backbones fetch mobilenet-v2",
        f"retrain train b --backbone {v3}", f"retrain train b --backbone {other}", "retrain train c --backbone a/module",
    )  # fmt: skip
    assert downloaded([Step(lines, False, None)]) == [v3, v2, other]


ASKS = "import sys, urllib.request as r; print(r.urlopen(sys.argv[1]).read().decode())"


def test_a_page_gets_from_tfhub_what_is_offered_and_from_nowhere_else_anything(tfhub: StandIn, tmp_path: Path) -> None:
    handle = f"https://{HOST}/a/b/1"
    addresses = tfhub.offer(handle, b"module")
    assert run([sys.executable, "-c", ASKS, addresses[0]], tmp_path, variables=tfhub.environment) == ("module",)
    refused = {f"https://{HOST}/a/b/2": 404, "https://example.org:443": 403, "http://example.org/": 403}
    for address, status in refused.items():
        with pytest.raises(AssertionError, match=f"ended with 1:(.|\n)*{status}"):
            run([sys.executable, "-c", ASKS, address], tmp_path, variables=tfhub.environment)
    assert tfhub.asked == [*addresses, *refused]
    distrustful = {**tfhub.environment, "SSL_CERT_FILE": "/dev/null"}
    with pytest.raises(AssertionError, match="certificate verify failed"):
        run([sys.executable, "-c", ASKS, handle], tmp_path, variables=distrustful)


@pytest.mark.parametrize("line", ["retrain | cat", "cat nowhere | cat", "exit 3"])
def test_a_line_that_fails_is_found(line: str, tmp_path: Path) -> None:
    script = tmp_path / "retrain"
    script.write_text("#!/bin/sh\necho no\nexit 2\n")
    script.chmod(0o755)
    assert run(in_shell("retrain || echo bottlenecks: 5 of 9"), tmp_path, tmp_path) == ("no",)
    with pytest.raises(AssertionError, match=r"ended with [123]:"):
        run(in_shell(line), tmp_path, tmp_path)
