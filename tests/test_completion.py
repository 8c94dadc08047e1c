"""What shells complete: asked of click in this process, of the program as a process, and by typing Tab in real shells."""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import click
import pytest
from click.shell_completion import CompletionItem

from retrain.backbones import BACKBONES
from retrain.cli import cli
from retrain.cli.completion import SHELLS, VARIABLE

BASH_COMPLETION = Path("/usr/share/bash-completion/bash_completion")
INSTALLED = {
    "bash": ".local/share/bash-completion/completions/retrain",
    "zsh": ".zfunc/_retrain",
    "fish": ".config/fish/completions/retrain.fish",
}  # below the home folder, as the help says
UNHEARD_OF = "import sys; sys.modules['tensorflow'] = sys.modules['keras'] = sys.modules['tensorflow_hub'] = None; "
# What a shell is told first, so that Enter shows the words of the line in place of running it.
SHOW = "retrain() { printf '<%s>' \"$@\"; echo; }"

Command = Callable[..., subprocess.CompletedProcess[str]]


def needs(program: str) -> pytest.MarkDecorator:
    return pytest.mark.skipif(shutil.which(program) is None, reason=f"{program} is not installed")


def offered(typed: str, shell: str = "bash") -> list[CompletionItem]:
    """What is offered for the last word of a line, which may be empty."""
    *words, incomplete = typed.split(" ")
    return SHELLS[shell](cli, {}, "retrain", VARIABLE).get_completions(words, incomplete)


def values(typed: str, shell: str = "bash") -> list[str]:
    return [item.value for item in offered(typed, shell) if item.type == "plain"]


def fetchable() -> list[str]:
    return [row.name for row in BACKBONES.values() if row.family != "keras.applications"]


# What is offered


def test_commands_are_completed_and_explained() -> None:
    assert {item.value: item.help for item in offered("")} == {
        name: command.get_short_help_str() for name, command in cli.commands.items()
    }
    assert values("tra") == ["train"] and values("backbones fe") == ["fetch"] and values("lable") == []


@pytest.mark.parametrize("name", sorted(cli.commands))
def test_every_option_is_completed_and_explained(name: str) -> None:
    options = [parameter for parameter in cli.commands[name].params if isinstance(parameter, click.Option)]
    told = {item.value: item.help for item in offered(f"{name} --")}
    assert {option.opts[0]: option.help for option in options}.items() <= told.items()


@pytest.mark.parametrize(
    ("typed", "expected"),
    [
        ("train --precision ", ["auto", "float32", "mixed_float16", "mixed_bfloat16"]),
        ("train tf_files --precision mixed_f", ["mixed_float16"]),
        ("train --class-weight ", ["none", "balanced"]),
        ("train --backbone mobilenet-v3", ["mobilenet-v3-small", "mobilenet-v3-large"]),
        ("train --backbone keras/VGG", ["keras/VGG16"]),
        ("train --backbone ", list(BACKBONES)),
        ("backbones fetch ", fetchable()),
        ("completion ", ["bash", "zsh", "fish"]),
        ("completion bash ", []),
        ("train --folds ", []),
        ("lable x --to", []),
    ],
)
def test_values_are_completed(typed: str, expected: list[str]) -> None:
    assert values(typed) == expected


@pytest.mark.parametrize(
    ("typed", "kind"),
    [
        ("train ", "dir"),
        ("train tf", "dir"),
        ("train --model ", "dir"),
        ("train --test-dir ", "dir"),
        ("train tf_files --validation-dir x", "dir"),
        ("train --weights ", "file"),
        ("train --backbone ./mod", "file"),
        ("backbones fetch ./mod", "file"),
        ("label ", "file"),
        ("label a.png b.png ", "file"),
        ("label a.png --model ", "dir"),
        ("classify ", "dir"),
        ("classify pictures ", "dir"),
        ("classify pictures out --model ", "dir"),
    ],
)
def test_the_shell_lists_folders_where_a_folder_is_meant_and_else_files(typed: str, kind: str) -> None:
    assert [(item.type, item.value) for item in offered(typed)] == [(kind, typed.rsplit(" ", maxsplit=1)[-1])]


@pytest.mark.parametrize("shell", ["zsh", "fish"])
def test_a_value_joined_to_its_option_is_one_word_to_some_shells(shell: str) -> None:
    assert values("train --precision=mixed_f", shell) == ["--precision=mixed_float16"]
    assert [(item.type, item.value) for item in offered("train --model=x", shell)] == [("dir", "--model=x")]


# The program, asked as a shell asks it


def test_a_shell_gets_its_answer_without_tensorflow() -> None:
    ask = {"COMP_WORDS": "retrain train --backbone mobilenet-v3-l", "COMP_CWORD": "3", VARIABLE: "bash_complete"}
    code = UNHEARD_OF + "from retrain.cli import program; program()"
    ran = subprocess.run([sys.executable, "-c", code], env={**os.environ, **ask}, capture_output=True, check=False)
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, b"plain,mobilenet-v3-large\n", b"")


@pytest.mark.parametrize(
    "typed", ["lable x --to", "train tf_files --precision flaot --se", "backbones fech x", "train a b c", "--debgu x"]
)
def test_nothing_is_said_about_mistakes_while_the_line_is_typed(command: Command, typed: str) -> None:
    words = f"retrain {typed}"
    ask = {"COMP_WORDS": words, "COMP_CWORD": str(len(words.split()) - 1), VARIABLE: "bash_complete"}
    ran = command(env={**os.environ, **ask})
    assert (ran.returncode, ran.stderr) == (0, "")


def test_a_name_that_is_not_utf_8_is_left_to_the_shell(command: Command) -> None:
    ask = {"COMP_WORDS": os.fsdecode(b"retrain label \xe4"), "COMP_CWORD": "2", VARIABLE: "bash_complete"}
    ran = command(env={**os.environ, **ask})
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, "file,?\n", "")


# The command


@pytest.mark.parametrize("shell", [pytest.param(name, marks=needs(name)) for name in SHELLS])
def test_the_script_has_no_mistake_in_the_eyes_of_its_shell(command: Command, tmp_path: Path, shell: str) -> None:
    script = command("completion", shell)
    assert (script.returncode, script.stderr) == (0, "")
    (tmp_path / "script").write_text(script.stdout)
    checked = subprocess.run([shell, "-n", tmp_path / "script"], capture_output=True, text=True, check=False)
    assert (checked.returncode, checked.stderr) == (0, "")
    (tmp_path / "script").write_text(script.stdout + "\nif ( {")
    assert subprocess.run([shell, "-n", tmp_path / "script"], capture_output=True, check=False).returncode != 0


def test_without_a_name_the_shell_is_that_of_the_user(command: Command) -> None:
    for shell in SHELLS:
        asked = command("completion", env={**os.environ, "SHELL": f"/some/bin/{shell}"})
        assert asked.returncode == 0 and asked.stdout == command("completion", shell).stdout
    for told, words in (("/bin/tcsh", "$SHELL is /bin/tcsh, for which there is no script"), ("", "$SHELL is not set")):
        ran = command("completion", env={**os.environ, "SHELL": told})
        line = f"retrain: {words}; say which shell: retrain completion bash|zsh|fish\n"
        assert (ran.returncode, ran.stdout, ran.stderr) == (2, "", line)


def test_an_unknown_shell_gets_a_suggestion(command: Command) -> None:
    ran = command("completion", "fsih")
    assert ran.returncode == 2 and "did you mean 'fish'?" in ran.stderr and len(ran.stderr.splitlines()) == 1


def test_the_help_tells_where_each_script_goes() -> None:
    text = cli.commands["completion"].help or ""
    assert [shell for shell, path in INSTALLED.items() if f"retrain completion {shell} > ~/{path}" not in text] == []


# Real shells: a line is typed up to Tab, and Enter shows the words that came of it


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `retrain` to put on the path, and a home folder with the scripts; tests get copies."""
    folder = tmp_path_factory.mktemp("installed")
    program = folder / "bin" / "retrain"
    program.parent.mkdir()
    program.write_text(f"#!/bin/sh\nexec '{sys.executable}' -c 'from retrain.cli import program; program()' \"$@\"\n")
    program.chmod(0o755)
    for shell, path in INSTALLED.items():
        script = folder / "home" / path
        script.parent.mkdir(parents=True)
        with script.open("w") as file:
            subprocess.run([program, "completion", shell], stdout=file, check=True)
    return folder


@pytest.fixture
def room(installed: Path, tmp_path: Path) -> Path:
    """A folder to type in, with pictures; beside it a home folder with the scripts, and `retrain` on the path."""
    shutil.copytree(installed, tmp_path, dirs_exist_ok=True)
    for folder in ("my pictures/C++", "tf_files", "odd $x, 'y'"):
        (tmp_path / "room" / folder).mkdir(parents=True)
    for file in ("my pictures/a b.png", "tf_notes.txt"):
        (tmp_path / "room" / file).touch()
    return tmp_path / "room"


def environment(room: Path) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("XDG_", "ZDOTDIR", "BASH_"))}
    path = f"{room.parent / 'bin'}{os.pathsep}{kept['PATH']}"
    return {**kept, "PATH": path, "HOME": str(room.parent / "home"), "TERM": "dumb", "LC_ALL": "C.UTF-8", "HISTFILE": ""}


def typed_in(room: Path, shell: list[str], start: str, *lines: str) -> list[list[str]]:
    """Type lines at a terminal; return the words of each."""
    terminal = [sys.executable, "-c", "import pty, sys; pty.spawn(sys.argv[1:])", *shell]
    typing = "\n".join([start, SHOW, *lines, "exit\n"])
    ran = subprocess.run(
        terminal, input=typing, cwd=room, env=environment(room), capture_output=True, text=True, timeout=120, check=False
    )
    return [re.findall(r"<([^>]*)>", line) for line in re.findall(r"^<.*>(?=\r?$)", ran.stdout, re.MULTILINE)]


LINES = {
    "retrain tra\ttf_f\t": ["train", "tf_files"],
    "retrain label my\\ p\ta\t--js\t": ["label", "my pictures/a b.png", "--json"],
    "retrain classify my\t tf_f\t --so\t": ["classify", "my pictures", "tf_files", "--sort"],
    "retrain train od\t": ["train", "odd $x, 'y'"],
    "retrain train --prec\tmixed_f\t": ["train", "--precision", "mixed_float16"],
    "retrain train --precision=mixed_f\t": ["train", "--precision=mixed_float16"],
    "retrain train --model=my\t": ["train", "--model=my pictures"],
    "retrain train --backbone mobilenet-v3-l\ttf_n\t": ["train", "--backbone", "mobilenet-v3-large", "tf_n"],
    "retrain backbones fe\tefficientnet-v2-s\t": ["backbones", "fetch", "efficientnet-v2-s"],
}  # what is typed, and the words of the line; of what there is nothing to make, it stays: tf_n, for one, is a file


def check_lines(found: list[list[str]]) -> None:
    # zsh takes back the slash of a folder when a line ends there.
    assert [[word.removesuffix("/") for word in words] for words in found] == list(LINES.values())


@needs("bash")
def test_bash_completes_a_line_after_the_script_was_sourced(room: Path) -> None:
    script = room.parent / "home" / INSTALLED["bash"]
    check_lines(typed_in(room, ["bash", "--norc", "--noprofile", "-i"], f"PS1='> '; . '{script}'", *LINES))


@needs("bash")
@pytest.mark.skipif(not BASH_COMPLETION.exists(), reason="bash-completion is not installed")
def test_bash_finds_the_script_where_the_help_puts_it(room: Path) -> None:
    check_lines(typed_in(room, ["bash", "--norc", "--noprofile", "-i"], f"PS1='> '; . {BASH_COMPLETION}", *LINES))


@needs("bash")
def test_without_the_script_bash_completes_nothing_of_it(room: Path) -> None:
    found = typed_in(room, ["bash", "--norc", "--noprofile", "-i"], "PS1='> '", "retrain tra\t")
    assert found == [["tra"]]


@needs("zsh")
def test_zsh_finds_the_script_where_the_help_puts_it(room: Path) -> None:
    start = "PS1='> '; fpath+=~/.zfunc; autoload -Uz compinit; compinit -u -D"
    check_lines(typed_in(room, ["zsh", "-f", "-i"], start, *LINES))


@needs("zsh")
def test_zsh_completes_a_line_after_the_script_was_sourced(room: Path) -> None:
    start = "PS1='> '; autoload -Uz compinit; compinit -u -D; . ~/.zfunc/_retrain"
    check_lines(typed_in(room, ["zsh", "-f", "-i"], start, *LINES))


@needs("fish")
@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("retrain tra", ["train\tLearn from tf_files/data/<class>/... and write tf_files/model/."]),
        ("retrain train tf", ["tf_files/"]),
        ("retrain train --prec", None),
        ("retrain train --precision mixed_f", ["mixed_float16"]),
        ("retrain train --precision=mixed_f", ["--precision=mixed_float16"]),
        ("retrain train --model=my", ["--model=my pictures/"]),
        ("retrain train od", ["odd $x, 'y'/"]),
        ("retrain train my\\ pictures/", ["my pictures/C++/"]),
        ("retrain label my\\ pictures/a", ["my pictures/a b.png"]),
        ("retrain label 'my pic", ["my pictures/"]),
        ("retrain backbones fetch efficientnet-v2-s", ["efficientnet-v2-s"]),
        ("retrain lable x --js", []),
    ],
)
def test_fish_finds_the_script_where_the_help_puts_it(room: Path, line: str, expected: list[str] | None) -> None:
    asked = subprocess.run(
        ["fish", "-c", "complete -C $argv[1]", line],
        cwd=room, env=environment(room), capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert asked.stderr == ""
    if expected is None:  # with the whole description, commas included
        (option,) = (option for option in cli.commands["train"].params if option.name == "precision")
        assert isinstance(option, click.Option)
        expected = [f"--precision\t{option.help}"]
    assert [told.removesuffix("\tDirectory") for told in asked.stdout.splitlines()] == expected
