"""Every option has its limits where it is declared."""

import dataclasses
import json
from pathlib import Path, PurePath
from typing import Any

import pytest

from retrain.errors import Exit, UsageError
from retrain.settings import HeadSettings, SplitSettings, as_plain

REFUSED: list[tuple[type, dict[str, Any], str]] = [
    (SplitSettings, {"validation": 0}, "--validation 0 is out of range; it goes from 1 to 45"),
    (SplitSettings, {"validation": 46}, "--validation 46 is out of range"),
    (SplitSettings, {"test": -1}, "--test -1 is out of range"),
    (SplitSettings, {"folds": 1}, "--folds 1 leaves nothing to learn from; use 0"),
    (SplitSettings, {"folds": -2}, "--folds -2 is out of range"),
    (SplitSettings, {"folds": 101}, "--folds 101 is out of range; it goes from 0 to 100"),
    (
        SplitSettings,
        {"folds": 5, "test_dir": Path("held")},
        "--folds cannot be combined with --test-dir or --validation-dir",
    ),
    (SplitSettings, {"folds": 5, "validation_dir": Path("held")}, "--folds cannot be combined with"),
    (
        SplitSettings,
        {"groups": "scene("},
        r"--groups 'scene\(' is no regular expression: .*; or use 'folder', 'name' or 'auto'$",
    ),
    (
        SplitSettings,
        {"test_source": "fanart", "folds": 5},
        "--test-source cannot be combined with --test-dir or --folds; drop",
    ),
    (SplitSettings, {"test_source": "fanart", "test_dir": "held"}, "--test-source cannot be combined with"),
    (SplitSettings, {"test_source": "", "folds": 5}, "--test-source cannot be combined with"),
    (SplitSettings, {"test_source": 5}, "--test-source 5 is no text"),
    (HeadSettings, {"steps": -1}, "--steps -1 is out of range"),
    (HeadSettings, {"learning_rate": 0.0}, "--learning-rate 0.0 is out of range"),
    (HeadSettings, {"learning_rate": float("nan")}, "--learning-rate nan is out of range"),
    (HeadSettings, {"learning_rate": float("inf")}, "--learning-rate inf is out of range"),
    (HeadSettings, {"batch_size": 0}, "--batch-size 0 is out of range"),
    (HeadSettings, {"l2": -1e-9}, "--l2 -1e-09 is out of range"),
    (HeadSettings, {"l2": float("nan")}, "--l2 nan is out of range"),
    (HeadSettings, {"seed": 2**31}, "--seed 2147483648 is out of range"),
    (HeadSettings, {"seed": 1.5}, "--seed 1.5 is no whole number"),
    (HeadSettings, {"seed": True}, "--seed True is no whole number"),
    (HeadSettings, {"l2": "0.5"}, "--l2 '0.5' is no number"),
    (HeadSettings, {"l2": False}, "--l2 False is no number"),
    (SplitSettings, {"folds": "5"}, "--folds '5' is no whole number"),
    (HeadSettings, {"class_weight": "balance"}, "--class-weight 'balance' is not known; did you mean 'balanced'"),
    (HeadSettings, {"class_weight": "zzz"}, "--class-weight 'zzz' is not known; one of none, balanced"),
    (HeadSettings, {"precision": "mixed-float16"}, "--precision 'mixed-float16' is not known; did you mean 'mixed_float16'"),
]
ACCEPTED: list[tuple[type, dict[str, Any]]] = [
    (SplitSettings, {"validation": 1, "test": 45}),
    (SplitSettings, {"folds": 2}),
    (SplitSettings, {"folds": 100, "groups": "folder"}),
    (SplitSettings, {"groups": r"scene(\d+)"}),
    (SplitSettings, {"groups": "name"}),
    (SplitSettings, {"groups": "auto", "test_source": "fanart", "validation_dir": Path("other")}),
    (SplitSettings, {"test_dir": Path("held"), "validation_dir": Path("other")}),
    (HeadSettings, {"l2": 0.0, "learning_rate": 10.0, "steps": 10**7, "batch_size": 1, "seed": 2**31 - 1}),
    (HeadSettings, {"l2": 0, "learning_rate": 1}),
    (HeadSettings, {"l2": None, "class_weight": "balanced", "precision": "mixed_bfloat16"}),
]


@pytest.mark.parametrize(("kind", "values", "message"), REFUSED)
def test_a_value_outside_its_limits_is_refused_by_name(kind: type, values: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=f"^{message}") as caught:
        kind(**values)
    assert caught.value.exit_code == Exit.USAGE and "\n" not in str(caught.value)


@pytest.mark.parametrize(("kind", "values"), ACCEPTED)
def test_a_value_at_its_limits_is_taken(kind: type, values: dict[str, Any]) -> None:
    settings = kind(**values)
    assert {name: getattr(settings, name) for name in values} == values


@pytest.mark.parametrize("name", ["validation_dir", "test_dir"])
@pytest.mark.parametrize("given", ["held/out", PurePath("held/out"), Path("held/out")])
def test_a_folder_may_be_given_as_text(name: str, given: str | PurePath) -> None:
    settings = SplitSettings(**{name: given})
    assert getattr(settings, name) == Path("held/out") and isinstance(getattr(settings, name), Path)
    assert settings == SplitSettings(**{name: Path("held/out")}) and as_plain(settings)[name] == "held/out"
    assert as_plain(settings, paths=False)[name] is True


@pytest.mark.parametrize("kind", [SplitSettings, HeadSettings])
def test_the_defaults_are_valid_and_every_setting_has_a_help_text(kind: type) -> None:
    kind()
    assert all(field.metadata["help"].endswith(".") for field in dataclasses.fields(kind))


def test_settings_cannot_be_changed_afterwards() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        HeadSettings().seed = 1  # type: ignore[misc]


def test_plain_settings_hold_paths_as_text_or_only_that_there_was_one() -> None:
    settings = SplitSettings(test_dir=Path("held/out"))
    with_paths, without = as_plain(settings), as_plain(settings, paths=False)
    assert with_paths["test_dir"] == "held/out" and without["test_dir"] is True
    assert with_paths["validation_dir"] is None and without["validation_dir"] is None
    assert {**with_paths, "test_dir": 0} == {**without, "test_dir": 0}
    assert json.loads(json.dumps(with_paths)) == with_paths


def test_plain_settings_make_the_same_settings_again() -> None:
    settings = HeadSettings(seed=3, l2=0.5, precision="float32")
    assert HeadSettings(**as_plain(settings)) == settings
