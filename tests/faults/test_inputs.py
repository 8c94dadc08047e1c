"""Every bad and odd picture at once, given to every command; all arrays the same; little memory; nobody else is called.

Number of the list -> tests. Numbers 1 to 8 and 10 picture by picture are in test_bad_pictures.py.

1   test_train_places_every_input..., test_label_of_nothing_but_bad_pictures_ends_with_4
2   the same
5   test_train_label_and_classify_see_the_same_array_bit_for_bit
7   test_where_memory_runs_out_the_picture_is_named..., test_where_there_is_no_memory_for_the_model...
8   test_no_command_starts_a_process_or_touches_the_network
9   test_train_places..., test_a_second_training..., test_label_and_classify..., test_train_as_a_process... (marker faults)
"""

import functools
import hashlib
import json
import os
import resource
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from PIL import Image

from retrain import artifact, pipeline
from retrain.backbones import Backbone
from retrain.cli import least_memory
from retrain.images import find
from tests.drawing import COLOURS, draw, draw_classes
from tests.faults.pictures import CUT, FOREIGN, PICTURES, content, write_all
from tests.faults.promises import in_order, placed_by_classify, placed_by_train
from tests.hub_modules import tiny_net, write_tf2
from tests.test_images import CORPUS_FILES

Command = Callable[..., subprocess.CompletedProcess[str]]
GOOD = 12  # drawn for each class


def fill(folder: Path) -> Path:
    """Write all that is made, and the collection where it is there."""
    write_all(folder)
    for path in CORPUS_FILES:
        shutil.copyfile(path, folder / path.name)
    return folder


@pytest.fixture(scope="module")
def everything(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with every bad and odd picture."""
    return fill(tmp_path_factory.mktemp("everything") / "pictures")


class Run(NamedTuple):
    """What a training run left behind."""

    record: dict[str, Any]
    features: dict[bytes, bytes]
    refused: dict[bytes, str]
    model: dict[str, bytes]


def left_by(tf_files: Path) -> Run:
    record = json.loads((tf_files / "reports/train.json").read_text())
    with sqlite3.connect(tf_files / "bottlenecks.sqlite") as cache:
        features = dict(cache.execute("SELECT sha256, vector FROM feature"))
        refused = dict(cache.execute("SELECT sha256, reason FROM bad"))
    return Run(record, features, refused, {path.name: path.read_bytes() for path in (tf_files / "model").iterdir()})


def without_times(record: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in record.items() if key not in ("started", "seconds", "peak_memory_mib")}


@pytest.fixture(scope="module")
def worked(tmp_path_factory: pytest.TempPathFactory, tiny: Backbone) -> Path:
    """A working folder, trained; beside its good pictures, one class has every bad and odd one."""
    folder = tmp_path_factory.mktemp("worked") / "tf_files"
    draw_classes(folder / "data", GOOD)
    fill(folder / "data/red/found")
    pipeline.train(folder, backbone=tiny)
    return folder


def inputs(folder: Path) -> list[Path]:
    return [item.path for item in find(folder)]


def test_train_places_every_input_and_gives_each_reason(worked: Path) -> None:
    """Numbers 1, 2, 3, 7, 8, 9 and 10."""
    skipped = placed_by_train(worked, inputs(worked / "data"))
    reasons = {name: skipped.get(str(worked / "data/red/found" / name)) for name in PICTURES}
    wrong = {name: reasons[name] for name, made in PICTURES.items() if reasons[name] not in (made.reasons or (None,))}
    assert not wrong
    assert reasons["1-empty.jpg"] == "empty" and left_by(worked).record["exit_code"] == 3


@pytest.mark.weights
def test_a_second_training_gives_the_same_to_the_last_bit(worked: Path, tmp_path: Path, tiny: Backbone) -> None:
    """Number 9: without the cache, then with it."""
    first = left_by(worked)
    for again in ("cold", "warm"):
        if again == "cold":
            kept = tmp_path / "bottlenecks.sqlite"
            (worked / "bottlenecks.sqlite").rename(kept)
        pipeline.train(worked, backbone=tiny)
        second = left_by(worked)
        assert (second.features, second.refused, second.model) == first[1:]
        counts = {"computed": 0, "cached": first.record["counts"]["used"]} if again == "warm" else {}
        expected = {**first.record, "counts": {**first.record["counts"], **counts}}
        assert without_times(second.record) == without_times(expected)


@pytest.fixture(scope="module")
def revealing(worked: Path) -> Path:
    """A model that gives its features away: a label for each, and one whose logit is zero, to measure them by."""
    loaded = artifact.load(worked / "model")
    (member,) = loaded.artifact.members
    size = len(member.kernel)
    kernel, bias = np.eye(size, size + 1, dtype=np.float32), np.zeros(size + 1, np.float32)
    labels = (*(f"feature {number:03}" for number in range(size)), "zero")
    member = replace(member, kernel=kernel, bias=bias)
    model = replace(loaded.artifact, labels=labels, members=(member,), temperature={"none": 1.0})
    folder = worked.parent / "revealing"
    artifact.save(folder, model, loaded.reference(), loaded.split(), {})
    return folder


def implied(vector: bytes) -> np.ndarray:
    """The scores that the revealing model must give for features as they are in the cache."""
    logits = np.append(np.frombuffer(vector, "<f4"), np.float32(0)).astype(np.float64)
    powers = np.exp(logits - logits.max())
    return powers / powers.sum()


def labelled(command: Command, model: Path, folder: Path) -> tuple[dict[str, Any], str]:
    """Label all files of a folder; hold the answer to the promises; return name -> answer, and the text itself."""
    files = inputs(folder)
    done = command("label", "--json", "--model", model, *files)
    in_order(done, 3)
    answers = {Path(line["image"]).name: line for line in map(json.loads, done.stdout.splitlines())}
    assert sorted(answers) == sorted(path.name for path in files) and len(done.stdout.splitlines()) == len(files)
    assert len(done.stderr.splitlines()) == sum("reason" in answer for answer in answers.values())
    return answers, done.stdout + done.stderr


def test_train_label_and_classify_see_the_same_array_bit_for_bit(
    everything: Path, worked: Path, revealing: Path, tmp_path: Path, command: Command
) -> None:
    """Number 5, of every picture: features tell of any difference between arrays, scores here of any between features."""
    trained = left_by(worked)
    answers, _ = labelled(command, revealing, everything)
    in_order(command("classify", everything, tmp_path / "out", "--model", revealing), 3)
    lines = (tmp_path / "out/manifest.jsonl").read_text().splitlines()
    rows = {Path(row["source"]).name: row for row in map(json.loads, lines)}
    skipped = {Path(item["path"]).name: item["reason"] for item in trained.record["skipped"]}
    assert sorted(answers) == sorted(rows) and sum("labels" in answer for answer in answers.values()) > 60
    for name, answer in answers.items():
        if name in skipped:
            assert answer["reason"] == rows[name]["reason"] == skipped[name], name
            continue
        expected = implied(trained.features[hashlib.sha256((everything / name).read_bytes()).digest()])
        order = sorted(answer["labels"], key=lambda score: score["label"])
        assert [score["score"] for score in order] == expected.tolist(), name
        assert rows[name]["score"] == expected.max(), name


def test_label_and_classify_place_every_input_and_answer_the_same_again(
    everything: Path, worked: Path, tmp_path: Path, command: Command
) -> None:
    """Number 9."""
    model = worked / "model"
    answers, text = labelled(command, model, everything)
    assert labelled(command, model, everything)[1] == text
    placed = []
    for out in (tmp_path / "one", tmp_path / "two"):
        in_order(command("classify", everything, out, "--model", model), 3)
        placed.append(placed_by_classify(out, inputs(everything)))
    assert placed[0] == placed[1]
    assert (tmp_path / "one/manifest.jsonl").read_bytes() == (tmp_path / "two/manifest.jsonl").read_bytes()
    for source, copy in placed[0].items():
        answer = answers[Path(source).name]
        expected = answer.get("reason") or ("unknown" if answer["unknown"] else answer["labels"][0]["label"])
        assert copy == expected if "reason" in answer else copy.startswith(f"{expected}-")


@pytest.mark.parametrize("names", [["1-empty.jpg"], ["2-cut-at-99.jpg"], [f"2-{name}" for name in CUT]], ids=len)
def test_label_of_nothing_but_bad_pictures_ends_with_4(
    names: list[str], everything: Path, worked: Path, command: Command
) -> None:
    """Numbers 1 and 2."""
    done = command("label", "--model", worked / "model", *(everything / name for name in names))
    in_order(done, 4)
    assert not done.stdout and len(done.stderr.splitlines()) == len(names) + 1
    assert all(f"{name}: " in line for name, line in zip(names, done.stderr.splitlines(), strict=False))


# --- memory


def held_by(model: Path, picture: Path) -> tuple[int, int]:
    """How many bytes of address space `label` takes before it loads the model, and at most."""
    script = (
        "import ai_edge_litert.interpreter, sys, PIL.Image, retrain.model; from retrain import cli\n"
        "def told(what): return next(line.split()[1] for line in open('/proc/self/status') if line.startswith(what))\n"
        "before = told('VmSize')\n"
        "try: cli.main(['label', sys.argv[1], '--model', sys.argv[2]])\n"
        "except SystemExit: print(before, told('VmPeak'))"
    )
    line = [sys.executable, "-c", script, str(picture), str(model)]
    said = subprocess.run(line, capture_output=True, text=True, check=True, timeout=60).stdout
    before, peak = said.splitlines()[-1].split()
    return int(before) * 1024, int(peak) * 1024


@pytest.fixture
def small_and_large(tmp_path: Path) -> tuple[Path, Path]:
    """Two good pictures, one of which needs 448 MB: its layers, and the page that they are laid on."""
    large = tmp_path / "large.png"
    Image.new("RGBA", (8000, 8000)).save(large)
    return draw(tmp_path / "small.png", COLOURS["red"], 1), large


def limited(size: int) -> dict[str, Any]:
    """Options of a command that can have so many bytes of address space."""
    return {"preexec_fn": functools.partial(resource.setrlimit, resource.RLIMIT_AS, (size, size))}


def test_where_memory_runs_out_the_picture_is_named_and_the_others_go_on(
    small_and_large: tuple[Path, Path], worked: Path, command: Command
) -> None:
    """Number 7: a large but good picture, and too little memory for it alone."""
    small, large = small_and_large
    _, peak = held_by(worked / "model", small)
    size = max(peak + 32 * 2**20, least_memory())  # less is refused before the work begins
    if size > peak + 400 * 2**20:
        pytest.skip("with so many cores, as much is asked for as both pictures need")
    done = command("label", large, small, "--model", worked / "model", "--top", "1", **limited(size))
    in_order(done, 3)
    assert done.stderr == f"retrain: skipped {large}: too-large (out of memory)\n" and "small.png" in done.stdout
    in_order(command("label", large, "--model", worked / "model"), 0)


def test_where_there_is_no_memory_for_the_model_one_line_says_so(
    small_and_large: tuple[Path, Path], worked: Path, command: Command
) -> None:
    """Number 7: the machine stands in the way, so 6."""
    before, _ = held_by(worked / "model", small_and_large[0])
    done = command("label", small_and_large[0], "--model", worked / "model", **limited(before + 8 * 2**20))
    in_order(done, 6)
    assert not done.stdout and done.stderr.startswith("retrain: memory is limited to") and done.stderr.count("\n") == 1


# --- nobody else


def traceable() -> bool:
    if shutil.which("strace") is None:
        return False
    return subprocess.run(["strace", "-e", "trace=none", "true"], capture_output=True, check=False).returncode == 0


@pytest.mark.skipif(not traceable(), reason="strace is not there, or may not look")
@pytest.mark.parametrize("name", ["label", "classify"])
def test_no_command_starts_a_process_or_touches_the_network(name: str, worked: Path, tmp_path: Path) -> None:
    """Number 8: the only program that starts is the command itself."""
    files = [tmp_path / "given" / f"8-{kind}.png" for kind in FOREIGN]
    draw(tmp_path / "given/good.png", COLOURS["red"], 1)
    for path in files:
        path.write_bytes(content(path.name))
    rest = [tmp_path / "given/good.png", *files] if name == "label" else [tmp_path / "given", tmp_path / "out"]
    line = [sys.executable, "-m", "retrain", name, *map(str, rest), "--model", str(worked / "model")]
    watch = ["strace", "-f", "-qq", "-e", "trace=execve,%network", "-e", "signal=none", "-o", str(tmp_path / "calls")]
    done = subprocess.run([*watch, *line], capture_output=True, text=True, timeout=120, check=False)
    in_order(done, 3)
    assert all(f"unsupported-format ({kind}" in done.stderr for kind in FOREIGN), done.stderr
    calls = (tmp_path / "calls").read_text().splitlines()
    assert len(calls) == 1 and "execve(" in calls[0], calls


# --- the whole, as a process


@pytest.mark.faults
def test_train_as_a_process_on_everything_with_a_module_as_backbone(tmp_path: Path, command: Command) -> None:
    """Number 9: twice, into two folders of the same content, without what the other run knew."""
    module = write_tf2(tmp_path / "module", tiny_net())
    runs = []
    for caches in ("one", "two"):
        tf_files = tmp_path / "tf_files"
        draw_classes(tf_files / "data", GOOD)
        fill(tf_files / "data/red/found")
        environment = {**os.environ, "RETRAIN_CACHE_DIR": str(tmp_path / caches)}
        done = command("train", tf_files, "--backbone", module, "--image-size", "32", env=environment)
        in_order(done, 3)
        placed_by_train(tf_files, inputs(tf_files / "data"))
        runs.append((left_by(tf_files), done.stderr))
        shutil.rmtree(tf_files)
    (first, told), (second, told_again) = runs
    assert told == told_again and first[1:] == second[1:] and without_times(first.record) == without_times(second.record)
