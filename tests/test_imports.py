"""What is loaded when: help and import cost nothing, labelling needs no TensorFlow, every option is explained."""

import importlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import click
import pytest

import retrain
from retrain.cli import cli
from tests.drawing import COLOURS, draw

HEAVY = ("tensorflow", "keras", "numpy", "PIL", "ai_edge_litert", "safetensors", "tqdm", "sqlite3", "tensorflow_hub")
NO_TENSORFLOW = "import sys; sys.modules['tensorflow'] = sys.modules['keras'] = sys.modules['tensorflow_hub'] = None; "
COMMANDS = sorted(cli.commands)


def python(code: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    line = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.run(line, capture_output=True, text=True, timeout=60, check=False)


@pytest.mark.parametrize(
    "arguments", [["--help"], ["--version"], ["-h"], ["lable"], *([name, "--help"] for name in COMMANDS)]
)
def test_help_loads_nothing_heavy(arguments: list[str]) -> None:
    code = (
        "import atexit, json, sys\n"
        f"atexit.register(lambda: print('loaded', json.dumps([name for name in {HEAVY} if name in sys.modules])))\n"
        "from retrain.cli import main; main()"
    )
    ran = python(code, *arguments)
    assert ran.returncode == (2 if arguments == ["lable"] else 0), ran.stderr
    assert json.loads(ran.stdout.splitlines()[-1].removeprefix("loaded ")) == []


def test_importing_the_package_loads_none_of_its_modules() -> None:
    ran = python(
        "import sys; before = set(sys.modules); import retrain\n"
        "print([name for name in set(sys.modules) - before if 'retrain.' in name])"
    )
    assert ran.stdout.strip() == "[]"


def test_every_public_name_can_be_fetched_and_is_listed() -> None:
    for name in retrain.__all__:
        assert getattr(retrain, name) is not None
    assert set(retrain.__all__) == set(dir(retrain)) and len(set(retrain.__all__)) == len(retrain.__all__)
    with pytest.raises(AttributeError, match="has no attribute 'trian'"):
        _ = retrain.trian  # type: ignore[attr-defined]


def test_the_public_names_are_what_their_modules_hold_whatever_was_imported_before() -> None:
    code = (
        "import retrain.pipeline, retrain.model, retrain.label, retrain, inspect\n"
        + "print([n for n in retrain.__all__ if inspect.ismodule(getattr(retrain, n))])"
    )
    assert python(code).stdout.strip() == "[]"


def test_label_and_classify_work_where_there_is_no_tensorflow(trained: Path, tmp_path: Path) -> None:
    picture = draw(tmp_path / "in" / "red.png", COLOURS["red"], 1)
    start = NO_TENSORFLOW + "from retrain.cli import main; main()"
    label = python(start, "label", picture, "--model", trained / "model", "--top", 1)
    assert label.returncode == 0 and label.stdout.startswith("red (score = "), label.stderr
    classify = python(start, "classify", tmp_path / "in", tmp_path / "out", "--model", trained / "model")
    assert classify.returncode == 0 and len(list((tmp_path / "out").glob("red-*.png"))) == 1, classify.stderr
    # The check can fail: the same trick stops a command that does need it.
    train = python(NO_TENSORFLOW + "from retrain.devices import start; start()")
    assert train.returncode != 0 and "ModuleNotFoundError" in train.stderr


@pytest.mark.parametrize(
    "module", ["artifact", "classify", "explain", "heat.colours", "images", "label", "model", "runner", "views"]
)
def test_a_module_that_serves_labelling_imports_no_tensorflow(module: str) -> None:
    assert python(f"{NO_TENSORFLOW} import retrain.{module}").returncode == 0


@pytest.mark.parametrize("name", COMMANDS)
def test_every_option_and_argument_of_every_command_is_explained(name: str) -> None:
    command: Any = cli.commands[name]
    assert command.help and command.short_help.endswith(".") and "\b" in command.help, "a text and examples"
    for parameter in command.params:
        if isinstance(parameter, click.Option):
            assert parameter.help and parameter.help.strip()[-1] in ".])", parameter.name
        else:
            assert parameter.make_metavar(click.Context(command)).strip("[].") in command.help, parameter.name


def test_the_help_of_the_group_names_every_command_and_exit_code() -> None:
    text = cli.get_help(click.Context(cli, info_name="retrain"))
    assert all(f"\n  {name} " in text for name in COMMANDS)
    exits = importlib.import_module("retrain.errors").Exit
    assert all(f"{int(code)} " in text for code in exits)
