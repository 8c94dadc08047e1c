"""Write docs/commands.md from the commands themselves, or with --check say whether it is up to date.

    python docs/make_reference.py
    python docs/make_reference.py --check      exit code 1, naming the file, when it is not

Nothing here says what a command does: texts, options and defaults come from the click commands, exit codes from
`errors.Exit` and the help of `retrain`, reasons and formats from their tables.
"""

import inspect
import re
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import click

from retrain import errors
from retrain.cli import cli
from retrain.errors import REASONS, Exit, RetrainError
from retrain.images import FORMATS

REFERENCE = Path(__file__).resolve().parent / "commands.md"
_HEADER = """\
# Commands

Every command with its options, the exit codes, and the words that reports use. To learn by task, start at
[index.md](index.md). This file is written by `docs/make_reference.py`; do not edit it.
"""
_DEFAULT_IN_HELP = re.compile(r"\s*\[default: (.*)]$")


def reference() -> str:
    """Return the text of docs/commands.md."""
    sections = [
        _HEADER,
        *map(_command, _contexts(click.Context(cli, info_name="retrain", **cli.context_settings))),
        _section("Exit codes", "How every command ends.", _exit_codes()),
        _section("Why a picture is skipped", "The reasons in reports, manifests and messages.", _reasons()),
        _section("Formats", "What is read, told by content; a copy gets the extension of its real format.", _formats()),
    ]
    return "\n".join(sections)


def _contexts(context: click.Context) -> Iterator[click.Context]:
    """A command and all below it, each in the context that its name and options come from."""
    yield context
    if isinstance(context.command, click.Group):
        for name, below in context.command.commands.items():
            yield from _contexts(click.Context(below, parent=context, info_name=name, **below.context_settings))


def _command(context: click.Context) -> str:
    command = context.command
    usage = " ".join([context.command_path, *command.collect_usage_pieces(context)])
    lines = [f"## {context.command_path}\n", f"```text\n{usage}\n```\n", _prose(command.help or "")]
    options = [parameter for parameter in command.get_params(context) if isinstance(parameter, click.Option)]
    lines.append(_table(("option", "meaning", "default"), (_option(option, context) for option in options)))
    return "\n".join(lines)


def _prose(text: str) -> str:
    """The help of a command as Markdown: paragraphs after \\b are kept as they stand."""
    paragraphs = []
    for paragraph in inspect.cleandoc(text).split("\n\n"):
        first, _, rest = paragraph.partition("\n")
        if first.strip() != "\b":
            paragraphs.append(" ".join(paragraph.split()))
        elif rest.startswith(" "):
            paragraphs.append(f"```text\n{inspect.cleandoc(rest)}\n```")
        else:
            paragraphs.append(" ".join(rest.split()))
    return "\n\n".join(map(_outside_code, paragraphs)) + "\n"


def _outside_code(paragraph: str) -> str:
    """Keep `<label>` from being taken for HTML."""
    return paragraph if paragraph.startswith("```") else paragraph.replace("<", "&lt;").replace(">", "&gt;")


def _option(option: click.Option, context: click.Context) -> tuple[str, str, str]:
    value = "" if option.is_flag else f" {_value(option, context)}"
    names = ", ".join(f"`{name}{value}`" for name in (*option.opts, *option.secondary_opts))
    meaning, default = option.help or "", ""
    told = _DEFAULT_IN_HELP.search(meaning)
    if told:
        meaning, default = _DEFAULT_IN_HELP.sub("", meaning), f"`{told[1]}`"
    elif option.show_default and not option.is_flag:
        default = f"`{option.get_default(context)}`"
    limits = _limits(option.type)
    return names, _outside_code(f"{meaning}{f' {limits}.' if limits else ''}"), default


def _value(option: click.Option, context: click.Context) -> str:
    if isinstance(option.type, click.Choice):
        return "NAME"
    return option.make_metavar(context).removesuffix(" RANGE")


def _limits(kind: click.ParamType) -> str:
    if isinstance(kind, click.Choice):
        return "One of " + ", ".join(f"`{choice}`" for choice in kind.choices)
    if isinstance(kind, click.IntRange | click.FloatRange):
        if kind.max is None:
            return f"At least {_number(kind.min)}"
        return f"From {_number(kind.min)} to {_number(kind.max)}"
    return ""


def _number(value: float | None) -> str:
    return f"{value:,}" if isinstance(value, int) else f"{value:g}"


def _exit_codes() -> str:
    raised = {error.exit_code: name for name, error in _errors()}
    rows = (
        (str(int(code)), meaning, f"`{raised[code]}`" if code in raised else "")
        for code, meaning in meanings_of_exit_codes().items()
    )
    return _table(("code", "meaning", "in Python"), rows)


def _errors() -> Iterator[tuple[str, type[RetrainError]]]:
    for name, value in vars(errors).items():
        if isinstance(value, type) and issubclass(value, RetrainError) and value is not RetrainError:
            yield name, value


def meanings_of_exit_codes() -> dict[Exit, str]:
    """Return what the help of `retrain` says of each exit code; ValueError where it leaves one out."""
    text = " ".join((cli.help or "").partition("Exit codes:")[2].split()).removesuffix(".")
    told = dict(re.findall(r"(\d+) ([^;]+)", text))
    silent = [code.name for code in Exit if str(int(code)) not in told]
    if silent:
        raise ValueError(f"the help of `retrain` does not say what exit code {', '.join(silent)} means")
    return {code: told[str(int(code))] for code in Exit}


def _reasons() -> str:
    return _table(("reason", "meaning"), ((f"`{reason}`", meaning) for reason, meaning in REASONS.items()))


def _formats() -> str:
    return _table(("format", "extension of a copy"), ((name, f"`.{row[0]}`") for name, row in FORMATS.items()))


def _section(title: str, sentence: str, table: str) -> str:
    return f"## {title}\n\n{sentence}\n\n{table}"


def _table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |\n" for line in lines)


def main(arguments: Sequence[str], file: Path = REFERENCE) -> int:
    """Write or check the file; returns the exit code."""
    text = reference()
    if "--check" not in arguments:
        file.write_text(text, encoding="utf-8")
        return 0
    if file.is_file() and file.read_text(encoding="utf-8") == text:
        return 0
    print(f"{file} is out of date; run: make docs", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
