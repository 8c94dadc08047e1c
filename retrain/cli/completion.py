"""`retrain completion`: lets the shell complete commands, options and values."""

import os
from pathlib import PurePath

import click
from click.shell_completion import BashComplete, CompletionItem, FishComplete, ZshComplete, add_completion_class

from retrain.cli.options import Choice
from retrain.errors import Exit

# click answers the shell where this is set; it makes the name from that of the program.
VARIABLE = "_RETRAIN_COMPLETE"
# The scripts are click's, mended where a shell stumbles. Where a later click has other words, that is undone: as good
# as click's own.


class _Bash(BashComplete):
    """As click does it, but `--option=value` is completed, too: bash makes three words of it."""

    def get_completion_args(self) -> tuple[list[str], str]:
        """Return the words before the one to complete, and that."""
        words, incomplete = super().get_completion_args()
        return [word for word in words if word != "="], incomplete


def _whole(items: list[CompletionItem], incomplete: str) -> list[CompletionItem]:
    """For shells to which `--option=value` is one word: with the option before each value."""
    option, joined, _ = incomplete.partition("=")
    if not joined or not option.startswith("--"):
        return items
    return [CompletionItem(f"{option}={item.value}", item.type, item.help) for item in items]


class _Zsh(ZshComplete):
    """As click does it, but `--option=value` keeps its option, and a file of $fpath also works the second time."""

    source_template = ZshComplete.source_template.replace(
        "_path_files ", "[[ $PREFIX == --*=* ]] && compset -P 1 '*='; _path_files "
    ).replace('    %(complete_func)s "$@"', '    compdef %(complete_func)s %(prog_name)s\n    %(complete_func)s "$@"')

    def get_completions(self, args: list[str], incomplete: str) -> list[CompletionItem]:
        """Return what may stand in place of the word to complete."""
        return _whole(super().get_completions(args, incomplete), incomplete)


class _Fish(FishComplete):
    """As click does it, but descriptions end at no comma, and `--option=value` keeps its option."""

    source_template = FishComplete.source_template.replace('string split ","', 'string split --max 1 ","')

    def get_completions(self, args: list[str], incomplete: str) -> list[CompletionItem]:
        """Return what may stand in place of the word to complete."""
        return _whole(super().get_completions(args, incomplete), incomplete)


SHELLS = {"bash": _Bash, "zsh": _Zsh, "fish": _Fish}
for _kind in SHELLS.values():
    add_completion_class(_kind)


@click.command(short_help="Print a script that lets the shell complete commands.")
@click.argument("shell", metavar="[SHELL]", type=Choice(tuple(SHELLS)), required=False)
@click.pass_context
def completion(ctx: click.Context, shell: str | None) -> int:
    """Print the script that makes SHELL complete commands, options, names and paths; SHELL is bash, zsh or fish.

    Without SHELL it is the one that $SHELL names. Write the script to where your shell looks for it, once, and open a
    new terminal. bash must be 4.4 or newer and have its package bash-completion; zsh takes any folder of $fpath that is
    there before compinit runs.

    \b
      retrain completion bash > ~/.local/share/bash-completion/completions/retrain
      retrain completion zsh > ~/.zfunc/_retrain
      retrain completion fish > ~/.config/fish/completions/retrain.fish
    """
    made_by = SHELLS[shell or _own_shell(ctx)]
    click.echo(made_by(ctx.find_root().command, {}, "retrain", VARIABLE).source(), nl=False)
    return int(Exit.OK)


def _own_shell(ctx: click.Context) -> str:
    """Return the shell that $SHELL names."""
    path = os.environ.get("SHELL", "")
    name = PurePath(path).name
    if name not in SHELLS:
        told = f"$SHELL is {path}, for which there is no script" if path else "$SHELL is not set"
        raise click.UsageError(f"{told}; say which shell: retrain completion {'|'.join(SHELLS)}", ctx)
    return name
