"""Names of files, as bad as a file system allows: number 11 of the list.

11  test_every_command_survives_every_name (and its longer sister with any kind of output),
    test_the_manifests_lead_back_to_every_name, test_label_in_json_leads_back_to_every_name,
    test_any_bytes_go_through_classify_and_come_back_from_both_manifests,
    test_a_picture_whose_path_cannot_be_looked_at_does_not_end_the_run,
    test_a_message_names_a_path_exactly_in_one_line;
    also test_images.test_names_that_are_no_text_lead_back_to_their_files,
    test_cli.test_names_cannot_move_the_cursor_or_add_lines and test_an_output_that_cannot_show_a_name_gets_escapes
"""

import csv
import json
import os
import pty
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, assume, example, given, settings
from hypothesis import strategies as st

from retrain.backbones import Backbone
from retrain.classify import classify
from retrain.label import Labeller, load
from tests.drawing import COLOURS, draw
from tests.faults import as_process
from tests.faults.promises import in_order

NAMES = [
    b"not utf \xe4.png", b"\xff\xfe", b"half a character \xe7\x8c.png", b"surrogate \xed\xa0\x80.png",
    b"new\nline.png", b"return\rline.png", b"both\r\n.png", b"tab\t.png", b"bell\a\b\x7f.png", b"\x01\x02\x1f",
    b"\x1b[31mred\x1b[0m.png", b"\x1b]0;title\x07.png", b"\x1b[2J\x1b[H.png", b"\xc2\x9b31m 8-bit escape.png",
    "right \u202e to left.png".encode(), "marks \u200f\u061c\u2066.png".encode(), "lines \u2028\u2029\x85.png".encode(),
    "Ros\u00e9.png".encode(), "Rose\u0301.png".encode(), "猫.png".encode(), "👩‍👩‍👧.png".encode(), "\ufeffmark.png".encode(),
    b"-rf.png", b"--model", b"--", b"-", b" ", b"  two  spaces  .png", b"x.png ", b"x.png.", b"~", b"*", b"a*b?[c].png",
    b"a" * 255, b"a" * 251 + b".png", "猫".encode() * 83 + b".png", b"back\\slash\\n.png", b"quote\".png", b"quote'.png",
    b"a,b;c.png", b"=1+1.png", b"@SUM(A1).png", b"+1", b"$(touch made).png", b"`touch made`.png", b"%s%n%d.png", b"{0}.png",
    b"${HOME}.png", b"<img src=x onerror=alert(1)>", b"CON", b"nul.png", b"com1.jpg", b"null", b"NaN", b"true",
    b"1e400", b"0x0", b"undefined", b"C:\\x.png", b"a:b", b"manifest.csv", b"manifest.jsonl", b"data",
]  # fmt: skip
SHOWN = "\\x1b]0;title\\x07.png"  # as all commands write one of them, which is no picture
# What becomes of standard output and error, and in which environment.
OUTPUTS: dict[str, dict[str, str]] = {
    "strict utf-8": {"PYTHONIOENCODING": "utf-8:strict"},
    "locale C": {"LC_ALL": "C"},
    "ascii only": {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"},
    "latin-1": {"PYTHONIOENCODING": "latin-1:strict"},
}


def fill(folder: Path, names: list[bytes] = NAMES) -> dict[bytes, bytes]:
    """Write a picture under each name; returns name -> bytes. Every third is no picture, and has to be named as skipped."""
    one = draw(folder.with_suffix(".png"), COLOURS["red"], 1).read_bytes()
    folder.mkdir()
    contents = {name: (b"words" if index % 3 == 2 else one + name) for index, name in enumerate(names)}
    for name, content in contents.items():
        Path(os.fsdecode(os.fsencode(folder) + b"/" + name)).write_bytes(content)
    return contents


def usable(contents: dict[bytes, bytes]) -> int:
    return sum(content != b"words" for content in contents.values())


def exact(out: Path) -> dict[bytes, str]:
    """Source name -> copy, or reason, from the exact manifest."""
    rows = map(json.loads, (out / "manifest.jsonl").read_text(encoding="ascii").splitlines())
    return {os.path.basename(os.fsencode(row["source"])): row["copy"] or row["reason"] for row in rows}


def table(out: Path) -> dict[bytes, str]:
    r"""The same from the spreadsheet, where a byte that is no text is written as \udcXX."""
    with (out / "manifest.csv").open(newline="", encoding="utf-8") as file:
        cells = list(csv.DictReader(file))
    assert all(None not in row and None not in row.values() for row in cells), "a row came apart"
    back = {row["source"]: re.sub(r"\\udc([89a-f][0-9a-f])", _byte, row["source"]) for row in cells}
    return {os.path.basename(os.fsencode(back[row["source"]])): row["copy"] or row["reason"] for row in cells}


def _byte(match: re.Match[str]) -> str:
    return chr(0xDC00 + int(match[1], 16))


def check_copies(out: Path, contents: dict[bytes, bytes]) -> None:
    """Every name is accounted for in both manifests, and its copy has its bytes."""
    placed = exact(out)
    assert placed == table(out) and set(placed) == set(contents)
    for name, content in contents.items():
        if content == b"words":
            assert placed[name] == "not-an-image", name
        else:
            assert (out / placed[name]).read_bytes() == content, name


def test_the_manifests_lead_back_to_every_name(trained: Path, tmp_path: Path) -> None:
    contents = fill(tmp_path / "in")
    outcome = classify(load(trained / "model"), tmp_path / "in", tmp_path / "out")
    assert outcome.copied == usable(contents) and outcome.skipped == {"not-an-image": len(contents) - usable(contents)}
    check_copies(tmp_path / "out", contents)
    assert classify(load(trained / "model"), tmp_path / "in", tmp_path / "out").present == usable(contents)


def test_label_in_json_leads_back_to_every_name(
    trained: Path, tmp_path: Path, command: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    """A name that begins with a dash stands after `--`, and one that is a dash has its folder before it."""
    contents = fill(tmp_path / "in")
    asked = [os.fsdecode(b"./-" if name == b"-" else name) for name in contents]
    where = {"cwd": tmp_path / "in", "env": {**os.environ, "PYTHONPATH": str(as_process.ROOT)}}
    ran = command("label", "--json", "--model", trained / "model", "--", *asked, **where)
    in_order(ran, 3)
    told = list(map(json.loads, ran.stdout.splitlines()))
    assert [row["image"] for row in told] == asked
    assert ["labels" in row for row in told] == [content != b"words" for content in contents.values()]


def test_a_picture_whose_path_cannot_be_looked_at_does_not_end_the_run(
    trained: Path, tmp_path: Path, command: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    good = draw(tmp_path / "good.png", COLOURS["red"], 1)
    asked = ["n" * 300, good / "below", tmp_path / ("d/" * 3000 + "x.png"), good]
    ran = command("label", "--json", "--model", trained / "model", *asked)
    in_order(ran, 3)
    reasons = [row.get("reason", "") for row in map(json.loads, ran.stdout.splitlines())]
    assert reasons == ["unreadable", "missing", "unreadable", ""]
    for folders in (("n" * 300, tmp_path / "out"), (tmp_path, "n" * 300)):
        ran = command("classify", *folders, "--model", trained / "model")
        in_order(ran, 2)
        assert "n" * 300 in ran.stderr and len(ran.stderr.splitlines()) == 1


def test_a_message_names_a_path_exactly_in_one_line(
    tmp_path: Path, command: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    where = {"cwd": tmp_path, "env": {**os.environ, "PYTHONPATH": str(as_process.ROOT)}}
    for line in (["label", "x.png", "--model"], ["classify", "x", "out", "--model"]):
        ran = command(*line, " no  such\n\tfolder", **where)
        assert " no  such\\n\\tfolder" in ran.stderr and len(ran.stderr.splitlines()) == 1, ran.stderr


def on_a_terminal(line: list[str], environment: dict[str, str], cwd: Path) -> tuple[int, str]:
    """Run a process on a terminal of its own; returns how it ended and all that the terminal was told."""
    ours, its = pty.openpty()
    with subprocess.Popen(line, stdin=its, stdout=its, stderr=its, env=environment, cwd=cwd) as process:
        os.close(its)
        told = b""
        try:
            while chunk := os.read(ours, 65536):
                told += chunk
        except OSError:  # so a terminal tells that its last user has gone
            pass
        finally:
            os.close(ours)
        return process.wait(60), told.decode("utf-8", "surrogateescape").replace("\r\n", "\n")


def every_command(tf_files: Path, hostile: Path, contents: dict[bytes, bytes]) -> list[tuple[list[object], int]]:
    """The three commands and how they end, on the same names."""
    (tf_files / "data" / "red").rename(tf_files / "before")
    hostile.rename(tf_files / "data" / "red")
    pictures = tf_files / "data" / "red"
    model = ["--model", tf_files / "model"]
    asked = [os.fsdecode(name) for name in contents if name != b"-"]
    return [
        (["train", tf_files, "--backbone", "tiny", "--steps", 30], 3),
        (["classify", pictures, tf_files / "out", *model], 3),
        (["classify", pictures, tf_files / "out", *model, "--dry-run"], 3),
        (["label", *model, "--", *asked], 3),
    ]


def plain(told: str) -> bool:
    return not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]", told)


def test_every_command_survives_every_name(tf_files: Path, tmp_path: Path, tiny: Backbone) -> None:
    """Redirected into files, strict about what can be written."""
    contents = fill(tmp_path / "hostile")
    for arguments, code in every_command(tf_files, tmp_path / "hostile", contents):
        line, environment = as_process.line_and_environment(tiny, *arguments, **OUTPUTS["strict utf-8"])
        with (tmp_path / "stdout").open("wb") as out, (tmp_path / "stderr").open("wb") as err:
            where = tf_files / "data" / "red"
            done = subprocess.run(line, stdout=out, stderr=err, env=environment, cwd=where, timeout=120, check=False)
        texts = [(tmp_path / name).read_bytes().decode() for name in ("stdout", "stderr")]
        in_order(subprocess.CompletedProcess(line, done.returncode, *texts), code)
        assert all(map(plain, texts)) and any(SHOWN in text for text in texts)
    check_copies(tf_files / "out", contents)
    record = json.loads((tf_files / "reports" / "train.json").read_text(encoding="ascii"))
    bad = {name for name, content in contents.items() if content == b"words"}
    assert {os.path.basename(os.fsencode(item["path"])) for item in record["skipped"]} == bad
    assert record["counts"]["used"] == 24 + usable(contents)


@pytest.mark.faults
@pytest.mark.parametrize(
    ("output", "terminal"),
    [("strict utf-8", True), ("locale C", True), ("locale C", False), ("ascii only", False), ("latin-1", False)],
)
def test_every_command_survives_every_name_whatever_it_writes_to(
    tf_files: Path, tmp_path: Path, tiny: Backbone, output: str, terminal: bool
) -> None:
    contents = fill(tmp_path / "hostile")
    for arguments, code in every_command(tf_files, tmp_path / "hostile", contents):
        line, environment = as_process.line_and_environment(tiny, *arguments, **OUTPUTS[output])
        where = tf_files / "data" / "red"
        if terminal:
            ended, told = on_a_terminal(line, environment, where)
            # Ours to write is the bar: it goes back to the start of its line.
            texts = [told.replace("\r", "").replace("\x1b[A", "")]
        else:
            done = subprocess.run(line, capture_output=True, env=environment, cwd=where, timeout=120, check=False)
            ended, texts = done.returncode, [part.decode("latin-1") for part in (done.stdout, done.stderr)]
            texts = [text.encode("latin-1").decode(_encoding(output)) for text in texts]
        in_order(subprocess.CompletedProcess(line, ended, "".join(texts), ""), code)
        assert all(map(plain, texts)) and any(SHOWN in text for text in texts)
    check_copies(tf_files / "out", contents)


def _encoding(output: str) -> str:
    return {"latin-1": "latin-1", "ascii only": "ascii"}.get(output, "utf-8")


@pytest.fixture(scope="module")
def labeller(trained: Path) -> Labeller:
    return load(trained / "model")


@pytest.fixture(scope="module")
def picture(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return draw(tmp_path_factory.mktemp("one") / "x.png", COLOURS["blue"], 7)


# No name of a file holds NUL or a slash; what begins with a dot is no input.
a_name = st.binary(min_size=1, max_size=255).map(lambda raw: raw.replace(b"\0", b"0").replace(b"/", b"|"))
some_names = st.lists(a_name | st.sampled_from(NAMES), min_size=1, max_size=8, unique=True)


@settings(
    max_examples=20 * int(os.environ.get("RETRAIN_FAULT_ROUNDS", "1")),
    deadline=None, derandomize=True, database=None, suppress_health_check=[HealthCheck.function_scoped_fixture],
)  # fmt: skip
@given(some_names)
@example([b"\r", b"\n", b"\r\n", b'"', b",", b'"\r,"'])
def test_any_bytes_go_through_classify_and_come_back_from_both_manifests(
    labeller: Labeller, picture: Path, names: list[bytes]
) -> None:
    assume(not any(rb"\udc" in name or name.startswith(b".") for name in names))
    assume(not any(name.lower() in (b"thumbs.db", b"desktop.ini") for name in names))
    with tempfile.TemporaryDirectory() as room:
        images, out = Path(room, "in"), Path(room, "out")
        images.mkdir()
        contents = {name: picture.read_bytes() + name for name in names}
        for name, content in contents.items():
            Path(os.fsdecode(os.fsencode(images) + b"/" + name)).write_bytes(content)
        assert classify(labeller, images, out).copied == len(names)
        check_copies(out, contents)


if sys.platform == "darwin":  # its file systems take no such names
    pytestmark = pytest.mark.skip(reason="names must be UTF-8 here")
