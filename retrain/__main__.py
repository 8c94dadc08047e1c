"""The program `retrain`, and `python -m retrain`."""

import signal
from typing import NoReturn


def program() -> NoReturn:
    """Run the command line as a process of its own."""
    # Ctrl-C while the command line is still being imported would end in a traceback. `cli.main` puts this back.
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    from retrain.cli import program as run

    run()


if __name__ == "__main__":
    program()
