"""The command line: one thin file a command. The only place that imports click, prints or exits."""

import contextlib
import os
import signal
import sys
import threading
import traceback
from collections.abc import Sequence
from typing import NoReturn

import click

from retrain import __version__
from retrain.cli.backbones import backbones
from retrain.cli.check import check
from retrain.cli.classify import classify
from retrain.cli.completion import completion
from retrain.cli.console import printable
from retrain.cli.evaluate import evaluate
from retrain.cli.explain import explain
from retrain.cli.export import export
from retrain.cli.faces import faces
from retrain.cli.label import label
from retrain.cli.options import Group
from retrain.cli.serve import serve
from retrain.cli.train import train
from retrain.errors import EnvironmentProblem, Exit, RetrainError, Terminated

_DEBUG = "RETRAIN_DEBUG"
_LEAST_MEMORY = 512 * 2**20  # bytes of address space; labelling one picture was seen to take 275 MiB
_MEMORY_A_CORE = 16 * 2**20  # for the stacks of threads
_OUT_OF_MEMORY = "out of memory; close other programs or use fewer pictures at once"


class _ReaderGone(Exception):
    """Whoever read our output, `head` for one, has seen enough."""


class _Interrupted(BaseException):
    """Ctrl-C."""


class Commands(Group):
    """All commands."""

    def invoke(self, ctx: click.Context) -> object:
        """Run a command; click would end with 1 where the reader of our output is gone."""
        _refuse_little_memory()
        try:
            result = super().invoke(ctx)
            _flush()
            return result
        except BrokenPipeError:
            raise _ReaderGone from None
        except KeyboardInterrupt:  # click would print an empty line first
            raise _Interrupted from None


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="retrain")
@click.option("--debug", is_flag=True, help="Show the Python traceback of an error.")
def cli(debug: bool) -> None:
    """Turn a folder of labelled pictures into an image classifier, and label the rest with it.

    \b
      retrain train tf_files/                    learn from tf_files/data/<class>/...
      retrain check tf_files/                    find pictures that are wrong, double or in the wrong class
      retrain evaluate tf_files/                 say how good the model is, and show where it errs
      retrain label image.jpg                    say what is on a picture
      retrain classify pictures/ classified/     copy each picture to <label>-<score>.jpg
      retrain serve                              offer all that as a web page and a REST service

    \b
    Exit codes: 0 all inputs used; 1 a check that was asked for failed, or an internal error; 2 usage;
    3 finished, some inputs skipped, or check found something; 4 nothing usable; 5 model refused;
    6 environment (disk, permissions, locks); 130 interrupted; 143 terminated.
    """
    if debug:
        os.environ[_DEBUG] = "1"


for _command in (train, check, evaluate, label, explain, classify, faces, serve, export, backbones, completion):
    cli.add_command(_command)


def least_memory() -> int:
    """Return the bytes of address space below which no command is begun."""
    return _LEAST_MEMORY + _MEMORY_A_CORE * (os.cpu_count() or 1)


def _refuse_little_memory() -> None:
    """Raise EnvironmentProblem under a limit (`ulimit -v`) so low that OpenBLAS, say, would end the process itself."""
    try:
        import resource
    except ImportError:  # Windows
        return
    allowed, _ = resource.getrlimit(resource.RLIMIT_AS)
    needed = least_memory()
    if allowed != resource.RLIM_INFINITY and allowed < needed:
        raise EnvironmentProblem(
            f"memory is limited to {allowed // 2**20} MiB and {needed // 2**20} MiB are needed; raise the limit (ulimit -v)"
        )


class _Asked:
    """Which signal asked for an end: a library in C may lose what its handler raised, and raise something of its own."""

    number: int | None = None


def _stop(number: int, _frame: object) -> NoReturn:
    _Asked.number = number
    raise KeyboardInterrupt if number == signal.SIGINT else Terminated


def _unraisable(lost: "sys.UnraisableHookArgs") -> None:
    """Ask once more for an end that was asked for while Python cleared something up, where nothing can be raised."""
    if _Asked.number and isinstance(lost.exc_value, KeyboardInterrupt | Terminated):
        threading.Timer(0.2, os.kill, (os.getpid(), _Asked.number)).start()
    else:
        sys.__unraisablehook__(lost)


def main(argv: Sequence[str] | None = None) -> NoReturn:
    """Run the command line and exit with its code; every error of a user is one line on stderr."""
    # A terminal that was closed; as process 1 of a container it would else go on unseen. `nohup` has it ignored.
    if hasattr(signal, "SIGHUP") and signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
        signal.signal(signal.SIGHUP, _stop)
    signal.signal(signal.SIGTERM, _stop)
    sys.unraisablehook = _unraisable
    _speak_apart()
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # file names may hold what the terminal cannot show
            stream.reconfigure(errors="backslashreplace")
    sys.exit(_run(argv))


def _speak_apart() -> None:
    """Write messages past descriptor 2: while one thread drops native chatter there, a line of another would be lost."""
    try:
        if sys.stderr is None or sys.stderr.fileno() != 2:  # closed, or somebody else's
            return
        sys.stderr.flush()
        apart = os.dup(2)
    except (OSError, ValueError):
        return
    sys.stderr = open(apart, "w", buffering=1, encoding=sys.stderr.encoding, errors="backslashreplace")  # noqa: SIM115


def program() -> NoReturn:
    """Run as a process of its own: as `main`, without the second that TensorFlow takes to clear up before it ends."""
    try:
        main()
    except SystemExit as end:
        _flush()
        os._exit(end.code if isinstance(end.code, int) else int(Exit.CHECK_FAILED))


def _flush() -> None:
    if sys.stdout is not None:  # started with it closed
        sys.stdout.flush()
    if sys.stderr is not None:
        with contextlib.suppress(OSError):
            sys.stderr.flush()


def _run(argv: Sequence[str] | None) -> int:
    _Asked.number = None
    try:
        if signal.getsignal(signal.SIGINT) in (signal.default_int_handler, signal.SIG_DFL):  # Python's, or __main__'s
            signal.signal(signal.SIGINT, _stop)
        result = cli.main(args=None if argv is None else list(argv), prog_name="retrain", standalone_mode=False)
        _flush()
        return int(result or Exit.OK)
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.ctx.get_help() if error.ctx else "")
        return Exit.USAGE
    except click.ClickException as error:
        return _tell(_one_line(error.format_message()), Exit.USAGE)
    except RetrainError as error:
        return _tell_stop(_Asked.number) if _Asked.number else _tell(str(error), error.exit_code)
    except Terminated:
        return _tell_stop(signal.SIGTERM)
    except (_Interrupted, KeyboardInterrupt, click.Abort):
        return _tell_stop(signal.SIGINT)
    except (_ReaderGone, BrokenPipeError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return Exit.OK
    except Exception as error:  # noqa: BLE001
        return _tell_stop(_Asked.number) if _Asked.number else _tell_unexpected(error)


def _tell_stop(number: int) -> Exit:
    word, code = ("interrupted", Exit.INTERRUPTED) if number == signal.SIGINT else ("terminated", Exit.TERMINATED)
    return _tell(f"{word}; what was done so far is kept, run again to go on", code)


def _tell_unexpected(error: Exception) -> Exit:
    if isinstance(error, MemoryError):
        return _tell(_OUT_OF_MEMORY, Exit.ENVIRONMENT)
    if isinstance(error, OSError | ImportError):
        if "failed to map segment" in str(error) or "cannot allocate memory" in str(error).lower():
            return _tell(_OUT_OF_MEMORY, Exit.ENVIRONMENT)
        if isinstance(error, ImportError):
            return _tell(
                f"a package is damaged or missing: {_one_line(str(error))}; install retrain again", Exit.ENVIRONMENT
            )
        return _tell(
            f"{error.strerror or error}: {error.filename or 'standard input or output'}; fix this and run again",
            Exit.ENVIRONMENT,
        )
    # A defect of ours: one line as well, and how to get the rest.
    words = _one_line(f"internal error, {type(error).__name__}: {error}")
    return _tell(f"{words}; run with --debug and report it", Exit.CHECK_FAILED)


def _one_line(text: str) -> str:
    """For words that are not ours; in ours, line ends and spaces belong to the name of something."""
    return " ".join(text.split())


def _tell(message: str, code: Exit) -> Exit:
    if os.environ.get(_DEBUG):
        traceback.print_exc()
    with contextlib.suppress(OSError):  # where it cannot be told, the exit code still says it
        click.echo(f"retrain: {printable(message)}", err=True)
    return code
