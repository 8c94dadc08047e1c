"""The documentation says what is there: commands, options, links, the tree of the code."""

import importlib.util
import json
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import click
import pytest

import retrain
from retrain.backbones import BACKBONES
from retrain.cli import cli
from retrain.errors import REASONS, Exit
from retrain.exports.formats import FORMATS

ROOT = Path(__file__).resolve().parent.parent
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md"), *ROOT.glob("t*_*/*.md")])
SCRIPT = ROOT / "docs" / "make_reference.py"
REFERENCE = ROOT / "docs" / "commands.md"
TREE_TITLE = "## The code, in the order in which data flows"

page = pytest.mark.parametrize("page", PAGES, ids=lambda path: path.relative_to(ROOT).as_posix())


def script(name: str) -> ModuleType:
    """A script that writes a page, as a module."""
    spec = importlib.util.spec_from_file_location(name, ROOT / "docs" / f"{name}.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def make_reference() -> ModuleType:
    """The script that writes docs/commands.md, as a module."""
    return script("make_reference")


def blocks(text: str, *languages: str) -> Iterator[str]:
    """Yield the fenced code blocks in one of these languages."""
    for language, block in re.findall(r"^```(\w*)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL):
        if language in languages:
            yield block


def prose(text: str) -> str:
    """A page without its fenced code blocks."""
    return re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL)


def all_commands(group: click.Group, words: tuple[str, ...] = ("retrain",)) -> Iterator[tuple[str, click.Command]]:
    yield " ".join(words), group
    for name, command in group.commands.items():
        if isinstance(command, click.Group):
            yield from all_commands(command, (*words, name))
        else:
            yield " ".join((*words, name)), command


# The generated reference


@pytest.mark.parametrize(
    ("words", "command"), list(all_commands(cli)), ids=lambda value: value if isinstance(value, str) else ""
)
def test_every_command_and_option_is_in_the_reference(words: str, command: click.Command) -> None:
    assert command.help
    section = REFERENCE.read_text().partition(f"\n## {words}\n")[2].partition("\n## ")[0]
    for option in (parameter for parameter in command.params if isinstance(parameter, click.Option)):
        assert option.help, f"{words} {option.opts[0]} has no help"
        assert f"`{option.opts[0]}" in section, f"{words} {option.opts[0]} is not in {REFERENCE.name}; run: make docs"


def test_every_exit_code_and_reason_is_in_the_reference() -> None:
    text = REFERENCE.read_text()
    assert [code for code in Exit if f"\n| {int(code)} | " not in text] == []
    assert [reason for reason in REASONS if f"\n| `{reason}` | " not in text] == []


@pytest.mark.parametrize("columns", ["20", "400"])
def test_the_reference_is_up_to_date_however_wide_the_terminal(columns: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    done = subprocess.run([sys.executable, SCRIPT, "--check"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_reference_that_is_out_of_date_is_named(
    make_reference: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "commands.md"
    assert make_reference.main(["--check"], file) == 1
    assert capsys.readouterr().err == f"{file} is out of date; run: make docs\n"
    assert make_reference.main([], file) == 0
    assert make_reference.main(["--check"], file) == 0
    file.write_text(file.read_text().replace("--folds", "--parts"))
    assert make_reference.main(["--check"], file) == 1


def test_the_page_of_backbones_has_every_row_and_is_noticed_when_out_of_date(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make_backbones, file = script("make_backbones"), tmp_path / "backbones.md"
    assert make_backbones.main(["--check"], file) == 1
    assert capsys.readouterr().err == f"{file} is out of date; run: make docs\n"
    assert make_backbones.main([], file) == make_backbones.main(["--check"], file) == 0
    text = file.read_text()
    assert [row.name for row in BACKBONES.values() if f"| `{row.name}`" not in text] == []
    file.write_text(text.replace("mobilenet-v2", "mobilenet-v1"))
    assert make_backbones.main(["--check"], file) == 1


def test_the_table_of_exports_has_every_format_and_is_noticed_when_out_of_date(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make_exports, file = script("make_exports"), tmp_path / "exports.md"
    text = (ROOT / "docs" / "exports.md").read_text()
    assert [name for name in FORMATS if f"| `{name}` | " not in text] == []
    file.write_text(text)
    assert make_exports.main(["--check"], file) == 0
    file.write_text(text.replace("| `onnx` | ", "| `onyx` | "))
    assert make_exports.main(["--check"], file) == 1
    assert capsys.readouterr().err == f"{file} is out of date; run: make docs\n"
    assert make_exports.main([], file) == 0 and file.read_text() == text


def test_an_exit_code_that_the_help_leaves_out_is_an_error(
    make_reference: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cli, "help", "Exit codes: 0 all inputs used; 2 usage.")
    with pytest.raises(ValueError, match="CHECK_FAILED, SKIPPED, NOTHING_USABLE"):
        make_reference.meanings_of_exit_codes()


# Links


def anchors(text: str) -> set[str]:
    """The anchors that headings get."""
    titles = re.findall(r"^#+ (.*)$", prose(text), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


@page
def test_every_link_and_picture_is_there(page: Path) -> None:
    missing = []
    for target in re.findall(r"\]\(([^)\s]+)\)", prose(page.read_text())):
        path, _, anchor = target.partition("#")
        if ":" in path:
            continue
        file = page.parent / path if path else page
        if not file.exists() or (anchor and anchor not in anchors(file.read_text())):
            missing.append(target)
    assert missing == []


def test_the_picture_is_small() -> None:
    assert (ROOT / "docs" / "images" / "classified.png").stat().st_size < 300_000


# Commands and code on the pages


def command_lines(text: str) -> Iterator[str]:
    """Yield each line of a code block that calls retrain, without what comes after it."""
    for block in blocks(text, "sh", "text", ""):
        for line in block.splitlines():
            call = re.search(r"(?:^|\| )\s*(?:\$ )?(retrain .*)", line)
            if call and "[OPTIONS]" not in line:
                # Two spaces begin a remark. Redirections and pipes are the shell's.
                yield re.split(r"\s{2,}|\s[<>|#]\s?", call[1])[0]


def parse(line: str, whole: bool) -> None:
    """Parse a command line; raises click.UsageError. `whole`: arguments may not be missing."""
    context = click.Context(cli, info_name="retrain", **cli.context_settings)
    words = shlex.split(line)[1:]
    while words and any(words[0] in option.opts for option in cli.get_params(context)):
        words.pop(0)
    if not words:
        return
    name, command, rest = cli.resolve_command(context, words)
    assert name and command
    try:
        command.make_context(name, rest, context)
    except (click.MissingParameter, click.BadOptionUsage):  # the latter: an option is named without a value
        if whole:
            raise
    except click.exceptions.Exit:  # --help
        pass


@page
def test_every_command_line_parses(page: Path) -> None:
    for line in command_lines(page.read_text()):
        parse(line, whole=True)


@page
def test_every_command_in_a_sentence_is_known(page: Path) -> None:
    for words in re.findall(r"`(retrain [^`]*)`", prose(page.read_text())):
        parse(words, whole=False)


def test_a_wrong_command_line_is_found() -> None:
    lines = list(command_lines("```sh\nretrain trian tf_files/\n$ retrain train tf_files/ --fold-count 5  # five\n```\n"))
    assert lines == ["retrain trian tf_files/", "retrain train tf_files/ --fold-count 5"]
    for line in [*lines, "retrain label", "retrain train a b", "retrain train tf_files/ --folds many"]:
        with pytest.raises(click.UsageError):
            parse(line, whole=True)
    assert list(command_lines("```sh\ncat x.jpg | retrain label - --top 1 < y\n```\n")) == ["retrain label - --top 1"]


@page
def test_every_example_in_python_uses_names_that_exist(page: Path) -> None:
    for block in blocks(page.read_text(), "python"):
        compile(block, str(page), "exec")
        for name in re.findall(r"\bretrain\.(\w+)", block):
            assert hasattr(retrain, name), f"{page.name}: retrain.{name}"


def scores(text: str) -> dict[str, float]:
    """Label -> score of what `retrain label` prints."""
    return {label: float(score) for label, score in re.findall(r"^(.+) \(score = ([\d.]+)\)$", text, re.MULTILINE)}


@pytest.mark.weights
def test_what_the_readme_shows_is_what_comes_out(
    command: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path
) -> None:
    shown = (ROOT / "README.md").read_text()
    shutil.copytree(ROOT / "tf_files" / "data", tmp_path / "tf_files" / "data")
    trained = command("train", "tf_files/", cwd=tmp_path)
    assert [line for line in trained.stdout.splitlines() if line not in shown.splitlines()] == []
    labelled = command("label", ROOT / "test_data" / "ladybug.jpg", cwd=tmp_path)
    # Late digits depend on the processor.
    assert scores(shown) == pytest.approx(scores(labelled.stdout), abs=0.01)


def test_the_figures_were_taken_with_commands_that_work_elsewhere() -> None:
    results = sorted((ROOT / "benchmarks" / "results").glob("*.json"))
    commands = {path.name: json.loads(path.read_text())["command"] for path in results}
    assert len(commands) >= 6
    assert {name: line for name, line in commands.items() if re.search(r"(^|[ =])[/~]", line)} == {}


# The tree in the README


def tree() -> dict[str, str]:
    """Path -> gloss of each line of the tree in the README."""
    (block,) = blocks((ROOT / "README.md").read_text().partition(TREE_TITLE)[2].partition("\n## ")[0], "text")
    found, above = {}, [""]
    for line in block.splitlines():
        indent, name, gloss = re.fullmatch(r"( *)(\S+) +(.*)", line).groups()  # type: ignore[union-attr]
        above[len(indent) // 2 + 1 :] = [above[len(indent) // 2] + name]
        found[above[-1]] = gloss
    return found


def test_the_tree_shows_what_is_there() -> None:
    paths = tree()
    assert [path for path in paths if not (ROOT / path).exists()] == []
    modules = {path.relative_to(ROOT).as_posix() for path in (ROOT / "retrain").rglob("*.py")}
    assert {path for path in modules if not path.endswith(("__init__.py", "__main__.py"))} - set(paths) == set()


def test_the_tree_says_a_few_words_of_each() -> None:
    assert {path: gloss for path, gloss in tree().items() if not 2 <= len(gloss.split()) <= 10} == {}
