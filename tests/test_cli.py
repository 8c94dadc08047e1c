"""The commands as people meet them: what is printed, what they end with, and one line for every mistake."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from retrain import __version__
from tests.conftest import Ran
from tests.drawing import COLOURS, draw

SCORE_LINE = re.compile(r"(blue|green|red) \(score = [01]\.\d{5}\)")
Command = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def room(tmp_path: Path, trained: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A current folder with a model, pictures and things that are neither."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(trained / "model", "trained")
    for number, name in enumerate(("red", "blue")):
        draw(Path("pictures") / f"{name}.png", COLOURS[name], 100 + number)
    Path("file").write_text("words")
    for folder in ("nothing", "tf_empty/data", "tf_single/data/only", "tf_hollow/data/a", "tf_hollow/data/b", "foreign"):
        Path(folder).mkdir(parents=True)
    Path("foreign/mine.txt").touch()
    draw(Path("tf_single/data/only/1.png"), COLOURS["red"], 1)
    for name in ("red", "blue"):
        draw(Path("tf_files/data") / name / "1.png", COLOURS[name], 1)
    return tmp_path


MISTAKES = [
    # what is typed, how it ends, and a part of the one line that says why and what next
    ("lable x.png", 2, "no such command 'lable'; did you mean 'label'?"),
    ("qqq", 2, "no such command 'qqq'; see: retrain --help"),
    ("--versoin", 2, "--version"),
    ("train", 2, "Missing argument 'TF_FILES'"),
    ("train nowhere", 2, "the folder to train on, nowhere, does not exist; check the path"),
    ("train tf_flies", 2, "the folder to train on, tf_flies, does not exist; did you mean 'tf_files'?"),
    ("train file", 2, "file, is a file; give a folder that holds one folder a class"),
    ("train nothing", 4, "nothing has no class folders; put pictures into nothing/data/<class>/"),
    ("train tf_empty", 4, "tf_empty/data has no class folders; put pictures into tf_empty/data/<class>/"),
    ("train tf_files more", 2, "unexpected extra argument"),
    ("train tf_files --backbone tini", 2, "--backbone 'tini' is not known; did you mean 'tiny'?"),
    ("backbones fech", 2, "no such command 'fech'; did you mean 'fetch'?"),
    ("train tf_files --backbone zzz", 2, "--backbone 'zzz' is not known; for the names see: retrain backbones"),
    ("train tf_files --class-weight balancd", 2, "'balancd' is not one of none, balanced; did you mean 'balanced'?"),
    ("train tf_files --precision mixed_flaot16", 2, "did you mean 'mixed_float16'?"),
    ("train tf_files --folds 1", 2, "--folds 1 leaves nothing to learn from; use 0 (off) or at least 2"),
    ("train tf_files --folds many", 2, "'--folds': 'many' is not a valid integer"),
    ("train tf_files --validation 0", 2, "'--validation': 0 is not in the range"),
    ("train tf_files --learning-rate nan", 2, "--learning-rate nan is out of range"),
    ("train tf_files --l2 -1", 2, "'--l2': -1.0 is not in the range"),
    ("train tf_files --seed", 2, "Option '--seed' requires an argument"),
    ("train tf_files --sede 1", 2, "--seed"),
    ("train tf_files --groups (", 2, "--groups '(' is no regular expression"),
    ("train tf_files --groups folder", 2, "--groups 'folder' finds no groups"),
    ("train tf_files --groups fodler", 2, "did you mean 'folder'?"),
    ("train tf_files --test-dir nowhere", 2, "--test-dir, nowhere, does not exist"),
    ("train tf_files --test-dir file", 2, "--test-dir, file, is a file"),
    ("train tf_files --test-dir foreign", 2, "--test-dir foreign has none of the class folders of tf_files/data"),
    ("train tf_files --folds 3 --test-dir tf_files/data", 2, "--folds cannot be combined with --test-dir"),
    ("train tf_files --model file", 2, "file is a file"),
    ("train tf_files --model foreign", 2, "foreign exists and was not made by retrain; move it away"),
    ("train tf_files --model file/model", 6, "file/model"),
    ("label", 2, "Missing argument 'IMAGE...'"),
    ("label pictures/red.png", 5, "no model at tf_files/model; train one first: retrain train tf_files"),
    (
        "label pictures/red.png --model nowhere",
        5,
        "no model at nowhere; train one first: retrain train TF_FILES --model nowhere",
    ),
    ("label pictures/red.png --model file", 5, "file is a file, not a model folder"),
    ("label pictures/red.png --model nothing", 5, "nothing is no model folder, manifest.json is missing"),
    ("label pictures/red.png --model trained --top 0", 2, "'--top': 0 is not in the range"),
    ("label pictures/red.png --model trained --top two", 2, "'--top': 'two' is not a valid integer"),
    ("label pictures/red.png --jsno", 2, "--json"),
    ("classify", 2, "Missing argument 'IMAGES'"),
    ("classify pictures", 2, "Missing argument 'OUT'"),
    ("classify pictures out", 5, "no model at tf_files/model; train one first: retrain train tf_files"),
    ("classify pitcures out --model trained", 2, "pitcures, does not exist; did you mean 'pictures'?"),
    ("classify pictures/red.png out --model trained", 2, "to label single pictures: retrain label pictures/red.png"),
    ("classify nothing out --model trained", 4, "nothing holds no files; give a folder of pictures"),
    ("classify foreign out --model trained", 4, "foreign is a usable picture; see out/manifest.csv"),
    ("classify pictures file --model trained", 2, "file is a file; give a folder for the copies"),
    ("classify pictures pictures/out --model trained", 2, "choose another output folder"),
    ("classify pictures pictures --model trained", 2, "choose another output folder"),
    ("classify pictures file/out --model trained", 6, "file/out"),
    ("classify pictures out --model trained --srot", 2, "--sort"),
]


def check_one_line(ran: Ran, code: int, part: str) -> None:
    last = ran.err[-1]
    assert ran.code == code and part in last, ran
    assert last.startswith("retrain: ") and sum(line.startswith("retrain: ") for line in ran.err) == 1
    assert "Traceback" not in "".join(ran.err) and "internal error" not in last


@pytest.mark.parametrize(("typed", "code", "part"), MISTAKES)
def test_a_mistake_is_one_line_that_says_what_next(
    room: Path, retrain: Callable[..., Ran], tiny_by_name: str, typed: str, code: int, part: str
) -> None:
    ran = retrain(*typed.split())
    check_one_line(ran, code, part)
    assert not ran.out and (len(ran.err) == 1 or "foreign/mine.txt: empty" in ran.err[0])


@pytest.mark.parametrize("folder", ["tf_single", "tf_hollow"])
def test_fewer_than_two_usable_classes_are_one_line_and_leave_no_model(
    room: Path, retrain: Callable[..., Ran], tiny_by_name: str, folder: str
) -> None:
    check_one_line(
        retrain("train", folder, "--backbone", tiny_by_name), 4, "at least two class folders with pictures are needed"
    )
    assert not (room / folder / "model" / "manifest.json").exists()


@pytest.mark.parametrize("command_line", ["label pictures/red.png", "classify pictures out"])
def test_a_changed_missing_or_foreign_model_file_ends_with_5_and_is_named(
    room: Path, retrain: Callable[..., Ran], command_line: str
) -> None:
    for path in sorted(path for path in (room / "trained").iterdir() if not path.name.startswith(".")):
        data = path.read_bytes()
        for edited in (data[:-1], data + b"x", b"foreign", None):
            path.unlink() if edited is None else path.write_bytes(edited)
            ran = retrain(*command_line.split(), "--model", "trained")
            check_one_line(ran, 5, path.name)
            assert not ran.out
        path.write_bytes(data)
    assert not (room / "out").exists()
    assert retrain(*command_line.split(), "--model", "trained").code == 0


def test_without_a_command_the_help_is_shown(retrain: Callable[..., Ran]) -> None:
    ran = retrain()
    assert ran.code == 2 and any("retrain train tf_files/" in line for line in [*ran.out, *ran.err])


def test_the_version_is_told(retrain: Callable[..., Ran]) -> None:
    assert retrain("--version") == Ran(0, [f"retrain, version {__version__}"], [])


def test_train_sums_up_and_says_what_comes_next(retrain: Callable[..., Ran], tf_files: Path, tiny_by_name: str) -> None:
    (tf_files / "data" / "red" / "page.jpg").write_text("<html>")
    ran = retrain("train", tf_files, "--backbone", tiny_by_name, "--steps", 100)
    assert ran.code == 3
    start = [line.split(":")[0] for line in ran.out]
    assert start[1:7] == ["classes", "pictures", "bottlenecks", "test accuracy", "model", "next"]
    text = "\n".join(ran.out)
    assert f"skipped {tf_files}/data/red/page.jpg: not-an-image" in text
    assert "classes:       3 (blue, green, red)" in text and "pictures:      36 used, 1 skipped" in text
    assert "bottlenecks:   36 computed, 0 from the cache" in text
    assert re.search(
        r"test accuracy: \d+\.\d % \(95 % interval \d+\.\d % to \d+\.\d %; \d+ of \d+ pictures, test part\)", text
    )
    line = re.search(r"next: +retrain (label IMAGE.*)", text)
    assert line is not None
    picture = draw(tf_files / "unseen.png", COLOURS["red"], 9)
    assert retrain(*line[1].replace("IMAGE", str(picture)).split()).out[0].startswith("red (score = ")
    again = retrain("train", tf_files, "--backbone", tiny_by_name, "--steps", 100)
    assert "bottlenecks:   0 computed, 36 from the cache" in again.out


def test_label_prints_every_class_by_falling_score(room: Path, retrain: Callable[..., Ran]) -> None:
    ran = retrain("label", "pictures/red.png", "--model", "trained")
    assert ran.code == 0 and ran.err == [] and len(ran.out) == 3
    assert all(SCORE_LINE.fullmatch(line) for line in ran.out) and ran.out[0].startswith("red ")
    scores = [float(line[-8:-1]) for line in ran.out]
    assert scores == sorted(scores, reverse=True) and abs(sum(scores) - 1) < 3e-5


@pytest.mark.parametrize(("top", "lines"), [(1, 1), (2, 2), (99, 3)])
def test_top_limits_the_classes_that_are_printed(room: Path, retrain: Callable[..., Ran], top: int, lines: int) -> None:
    whole = retrain("label", "pictures/red.png", "--model", "trained").out
    assert retrain("label", "pictures/red.png", "--model", "trained", "--top", top).out == whole[:lines]
    (row,) = retrain("label", "pictures/red.png", "--model", "trained", "--top", top, "--json").out
    assert len(json.loads(row)["labels"]) == lines


def test_several_pictures_get_headings(room: Path, retrain: Callable[..., Ran]) -> None:
    ran = retrain("label", "pictures/red.png", "pictures/blue.png", "--model", "trained", "--top", 1)
    assert [re.sub(r"\d\.\d+", "N", line) for line in ran.out] == [
        "pictures/red.png:", "red (score = N)", "", "pictures/blue.png:", "blue (score = N)",
    ]  # fmt: skip


def test_json_is_one_object_a_picture_with_exact_scores(room: Path, retrain: Callable[..., Ran]) -> None:
    ran = retrain("label", "pictures/red.png", "file", "pictures/blue.png", "--model", "trained", "--json")
    red, bad, blue = map(json.loads, ran.out)
    assert ran.code == 3 and [row["image"] for row in (red, bad, blue)] == ["pictures/red.png", "file", "pictures/blue.png"]
    assert bad["reason"] == "not-an-image" and "labels" not in bad
    printed = retrain("label", "pictures/blue.png", "--model", "trained").out
    assert [f"{row['label']} (score = {row['score']:.5f})" for row in blue["labels"]] == printed
    assert sum(row["score"] for row in red["labels"]) == pytest.approx(1, abs=1e-12)


def test_a_bad_picture_is_named_and_the_others_go_on(room: Path, retrain: Callable[..., Ran]) -> None:
    ran = retrain("label", "file", "pictures/red.png", "gone.png", "nothing", "--model", "trained", "--top", 1)
    assert ran.code == 3 and ran.out[-1].startswith("red ") and len(ran.out) == 2
    expected = [("file", "not-an-image"), ("gone.png", "missing"), ("nothing", "not-a-file")]
    assert all(name in line and reason in line for (name, reason), line in zip(expected, ran.err, strict=True))


def test_only_bad_pictures_end_with_4(room: Path, retrain: Callable[..., Ran]) -> None:
    ran = retrain("label", "file", "gone.png", "--model", "trained")
    assert ran.code == 4 and not ran.out and len(ran.err) == 3
    assert ran.err[-1].startswith("retrain: none of the pictures could be used (2 of 2 skipped)")


def test_a_dash_reads_the_picture_from_standard_input(room: Path, command: Command) -> None:
    with Path("pictures/red.png").open("rb") as picture:
        piped = command("label", "-", "--model", "trained", stdin=picture)
    assert piped.returncode == 0 and piped.stderr == ""
    assert piped.stdout == command("label", "pictures/red.png", "--model", "trained").stdout


def test_standard_input_that_is_empty_or_closed_is_no_picture(room: Path, command: Command) -> None:
    piped = command("label", "-", "--model", "trained", stdin=subprocess.DEVNULL)
    assert piped.returncode == 4 and " -" in piped.stderr and "empty" in piped.stderr
    line = ["bash", "-c", 'exec "$0" -m retrain label - --model trained <&-', sys.executable]
    closed = subprocess.run(line, capture_output=True, text=True, timeout=60, check=False)
    assert closed.returncode in (2, 4) and "internal error" not in closed.stderr and "Traceback" not in closed.stderr


def test_classify_sums_up_and_says_when_there_was_nothing_new(room: Path, retrain: Callable[..., Ran]) -> None:
    shutil.copy("file", "pictures/words.jpg")
    line = ["classify", "pictures", "out", "--model", "trained"]
    dry = retrain(*line, "--dry-run")
    assert dry.code == 3 and not Path("out").exists()
    for name, text in zip(("blue", "red"), dry.out, strict=False):
        assert re.search(rf"pictures/{name}\.png -> {name}-[01]\.\d{{5}}\.png$", text)
    assert dry.out[2] == "pictures: 2 would be copied, 1 skipped"
    first = retrain(*line)
    assert first.code == 3 and first.out == [
        "pictures: 2 copied, 1 skipped",
        "labels:   blue 1, red 1",
        "copies:   out, listed in out/manifest.csv",
    ]
    assert len(first.err) == 1 and "pictures/words.jpg: not-an-image" in first.err[0]
    again = retrain(*line)
    assert again.out[0].startswith("nothing new") and again.out[1] == "pictures: 0 copied, 2 there already, 1 skipped"
    assert retrain(*line, "--sort").code == 3 and sorted(path.name for path in Path("out").glob("*/")) == ["blue", "red"]
    Path("pictures/words.jpg").unlink()
    assert retrain(*line).code == 0


def test_classify_says_which_copies_are_no_longer_listed(room: Path, retrain: Callable[..., Ran]) -> None:
    line = ["classify", "pictures", "out", "--model", "trained"]
    for options, words in [
        ([], None),
        (["--sort", "--dry-run"], "2 of these had another name"),
        (["--sort"], "2 of these had another name"),
        (["--sort"], None),
    ]:
        ran = retrain(*line, *options)
        told = [text.removeprefix("earlier:").strip() for text in ran.out if text.startswith("earlier:")]
        assert ran.code == 0 and len(told) == bool(words) and (not words or told[0].startswith(words)), ran


@pytest.mark.parametrize(
    ("typed", "stage"),
    [
        ("train tf_files", "retrain.pipeline.train"),
        ("label pictures/red.png --model trained", "retrain.artifact.load"),
        ("classify pictures out --model trained", "retrain.classify.classify"),
    ],
)
def test_ctrl_c_is_one_line_that_says_what_next(
    room: Path, retrain: Callable[..., Ran], monkeypatch: pytest.MonkeyPatch, typed: str, stage: str
) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(stage, interrupted)
    line = "retrain: interrupted; what was done so far is kept, run again to go on"
    assert retrain(*typed.split()) == Ran(130, [], [line])


def test_debug_shows_the_traceback_and_ends_the_same(room: Path, command: Command) -> None:
    plain = command("label", "x.png", "--model", "nowhere")
    debug = command("--debug", "label", "x.png", "--model", "nowhere")
    assert plain.returncode == debug.returncode == 5 and "Traceback" not in plain.stderr
    assert "Traceback" in debug.stderr and debug.stderr.splitlines()[-1] == plain.stderr.strip()


def test_a_reader_that_has_seen_enough_is_no_error(room: Path) -> None:
    pictures = ["pictures/red.png"] * 600  # far more lines than a pipe holds
    line = [sys.executable, "-m", "retrain", "label", *pictures, "--model", "trained", "--json"]
    with subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None and process.stderr is not None
        assert json.loads(process.stdout.readline())["image"] == "pictures/red.png"
        process.stdout.close()
        assert (process.wait(60), process.stderr.read()) == (0, "")


def test_names_cannot_move_the_cursor_or_add_lines(room: Path, retrain: Callable[..., Ran]) -> None:
    good, bad = "\x1b[31mred\n\u202e.png", "\x1b]0;title\x07\r.png"
    shutil.copy("pictures/red.png", good)
    Path(bad).write_text("words")
    Path("hostile").mkdir()
    shutil.copy(good, Path("hostile") / good), shutil.copy(bad, Path("hostile") / bad)
    labelled = retrain("label", good, bad, "--model", "trained", "--top", 1)
    assert labelled.out[0] == "\\x1b[31mred\\n\\u202e.png:" and len(labelled.out) == 2 and len(labelled.err) == 1
    for ran in (
        labelled,
        retrain("classify", "hostile", "out", "--model", "trained", "--dry-run"),
        retrain("classify", good, "out", "--model", "trained"),
        retrain("classify", "pictures", "out", "--model", "no\x1b[2Jmodel"),
        retrain("train", "no\x1b[2J\nfolder"),
        retrain("trai\x1b[2Jn"),
        retrain("train", "tf_files", "--precision", "\x1b[2J"),
    ):
        assert not re.search(r"[\x00-\x1f\x7f-\x9f\u202e]", "".join(ran.out + ran.err)), ran
        assert ran.code != 1


def test_an_output_that_cannot_show_a_name_gets_escapes(room: Path, command: Command) -> None:
    shutil.copy("pictures/red.png", "猫.png")
    shutil.copy("pictures/red.png", os.fsdecode(b"\xe4.png"))
    ran = command(
        "label",
        "猫.png",
        os.fsdecode(b"\xe4.png"),
        "--model",
        "trained",
        env={**os.environ, "PYTHONIOENCODING": "latin-1:strict"},
    )
    assert ran.returncode == 0, ran.stderr
    assert [line for line in ran.stdout.splitlines() if line.endswith(":")] == ["\\u732b.png:", "\\udce4.png:"]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
def test_where_nothing_can_be_told_the_exit_code_still_tells(room: Path) -> None:
    line = [sys.executable, "-m", "retrain", "label", "pictures/red.png", "--model"]
    with Path("/dev/full").open("w") as full:
        assert subprocess.run([*line, "nowhere"], cwd=room, stderr=full, timeout=60, check=False).returncode == 5
        assert subprocess.run([*line, "trained"], cwd=room, stdout=full, timeout=60, check=False).returncode == 6


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="no /proc to see from when on a signal is caught")
@pytest.mark.parametrize(("before", "code"), [(signal.SIG_DFL, 143), (signal.SIG_IGN, 4)], ids=["as usual", "with nohup"])
def test_a_closed_terminal_ends_a_run_unless_it_is_to_be_ignored(room: Path, before: signal.Handlers, code: int) -> None:
    line = [sys.executable, "-m", "retrain", "label", "-", "--model", "trained"]
    kept = signal.signal(signal.SIGHUP, before)  # a child process starts with the same
    try:
        waiting = subprocess.Popen(line, cwd=room, stdin=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    finally:
        signal.signal(signal.SIGHUP, kept)
    with waiting:
        deadline, catches = time.monotonic() + 60, re.compile(r"^SigCgt:\t([0-9a-f]+)$", re.MULTILINE)
        handlers = 0
        while not handlers >> (signal.SIGTERM - 1) & 1:
            assert time.monotonic() < deadline and waiting.poll() is None
            time.sleep(0.02)
            handlers = int(catches.findall(Path(f"/proc/{waiting.pid}/status").read_text())[0], 16)
        waiting.send_signal(signal.SIGHUP)
        _, errors = waiting.communicate(timeout=60)
    assert waiting.returncode == code and errors.startswith("retrain: terminated") == (code == 143), errors


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_before_the_command_line_is_imported_ends_the_process_at_once(number: int, tmp_path: Path) -> None:
    (tmp_path / "click.py").write_text("import pathlib, time\npathlib.Path('begun').touch()\ntime.sleep(60)\n")
    line = [sys.executable, "-c", "from retrain.__main__ import program; program()", "--help"]
    paths = os.pathsep.join([str(tmp_path), *sys.path])
    with subprocess.Popen(
        line, cwd=tmp_path, env={**os.environ, "PYTHONPATH": paths}, stderr=subprocess.PIPE, text=True
    ) as begun:
        deadline = time.monotonic() + 60
        while not (tmp_path / "begun").exists():
            assert time.monotonic() < deadline and begun.poll() is None
            time.sleep(0.02)
        begun.send_signal(number)
        _, errors = begun.communicate(timeout=30)
    assert (begun.returncode, errors) == (-number, "")


@pytest.mark.parametrize(
    ("number", "code", "word"), [(signal.SIGINT, 130, "interrupted"), (signal.SIGTERM, 143, "terminated")]
)
@pytest.mark.parametrize(
    "instead",
    ["SystemError('bad argument to internal function')", "MemoryError", "ImportError('x')", "cli.RetrainError('x')"],
)
def test_a_stop_that_a_library_turned_into_another_error_is_told_as_a_stop(
    number: int, code: int, word: str, instead: str, room: Path
) -> None:
    """TensorFlow's C code has been seen to do so where a signal came while it called Python."""
    lost = (
        "import os, time, retrain.cli as cli\n"
        "def lost(**_):\n"
        f"    try: os.kill(os.getpid(), {int(number)}); time.sleep(60)\n"
        f"    except BaseException: raise {instead} from None\n"
        "cli.label.callback = lost\n"
        "cli.main(['label', 'pictures/red.png'])"
    )
    done = subprocess.run(
        [sys.executable, "-c", lost], cwd=room, capture_output=True, text=True, timeout=120, check=False,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )  # fmt: skip
    told = f"retrain: {word}; what was done so far is kept, run again to go on\n"
    assert (done.returncode, done.stderr) == (code, told)


@pytest.mark.parametrize(
    ("number", "code", "word"), [(signal.SIGINT, 130, "interrupted"), (signal.SIGTERM, 143, "terminated")]
)
def test_a_stop_that_comes_while_something_is_cleared_up_is_not_lost(number: int, code: int, word: str, room: Path) -> None:
    lost = (
        "import os, time, retrain.cli as cli\n"
        "class Cleared:\n"
        f"    def __del__(self): os.kill(os.getpid(), {int(number)}); time.sleep(0.2)\n"
        "def busy(**_):\n"
        "    Cleared()\n"
        "    time.sleep(60)\n"
        "cli.label.callback = busy\n"
        "cli.main(['label', 'pictures/red.png'])"
    )
    done = subprocess.run(
        [sys.executable, "-c", lost], cwd=room, capture_output=True, text=True, timeout=30, check=False,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )  # fmt: skip
    told = f"retrain: {word}; what was done so far is kept, run again to go on\n"
    assert (done.returncode, done.stderr) == (code, told)


def test_what_is_said_while_another_thread_drops_native_chatter_is_heard(room: Path) -> None:
    code = (
        "import os, threading, click, retrain.cli as cli\n"
        "from retrain.quiet import native_chatter_dropped\n"
        "dropping, said = threading.Event(), threading.Event()\n"
        "def drop():\n"
        "    with native_chatter_dropped(): dropping.set(); os.write(2, b'chatter'); said.wait(60)\n"
        "def speak(**_):\n"
        "    other = threading.Thread(target=drop); other.start(); dropping.wait(60)\n"
        "    click.echo('heard', err=True); said.set(); other.join()\n"
        "cli.label.callback = speak\n"
        "cli.main(['label', 'pictures/red.png'])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=room, timeout=120, check=False)
    assert (done.returncode, done.stderr) == (0, "heard\n")


def test_a_limit_of_memory_that_is_too_low_for_anything_is_told_at_once(room: Path) -> None:
    """Below it OpenBLAS would end the process in words of its own."""
    resource = pytest.importorskip("resource")
    for megabytes in (100, 250, 500):
        size = megabytes * 2**20
        done = subprocess.run(
            [sys.executable, "-m", "retrain", "label", "pictures/red.png", "--model", "trained"], cwd=room, text=True,
            preexec_fn=lambda size=size: resource.setrlimit(resource.RLIMIT_AS, (size, size)),
            capture_output=True, timeout=60, check=False,
        )  # fmt: skip
        told = f"retrain: memory is limited to {megabytes} MiB and "
        assert done.returncode == 6 and done.stderr.startswith(told) and done.stderr.count("\n") == 1, done.stderr
