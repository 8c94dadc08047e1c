"""What classify writes, and where it cannot: numbers 19 to 22 of the list.

19  test_a_thousand_pictures_of_equal_score_are_a_thousand_copies
20  test_hostile_labels_give_names_that_every_system_takes; also test_names and
    test_classify.test_hostile_labels_stay_inside_the_output_and_are_exact_in_the_manifest
21  test_files_of_the_same_names_stay_and_a_second_run_adds_nothing_and_says_so;
    also test_classify.test_a_file_that_is_there_already_is_never_overwritten and test_a_second_run_adds_nothing
22  test_an_output_that_cannot_work_is_refused_before_anything_is_read,
    test_a_folder_behind_a_closed_one_is_refused_before_anything_is_read, test_an_output_around_the_pictures_takes_copies,
    test_an_output_that_may_not_be_written_is_named, test_a_disk_that_is_full_leaves_whole_copies_only;
    also test_classify.test_folders_that_lie_inside_one_another_are_refused_before_anything_is_written and
    test_paths_that_cannot_work_are_refused,
    test_classify_kill.test_a_disk_that_is_full_ends_the_run_with_whole_copies_only
"""

import json
import os
import re
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image, PngImagePlugin

from retrain.classify import Outcome, classify
from retrain.label import Labeller, load
from tests.drawing import COLOURS, draw
from tests.faults.nearest import nearest
from tests.faults.promises import in_order, placed_by_classify
from tests.privileges import where_permissions_count

Command = Callable[..., subprocess.CompletedProcess[str]]
ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def labeller(trained: Path) -> Labeller:
    return load(trained / "model")


def rows(out: Path) -> list[dict]:
    return [json.loads(line) for line in (out / "manifest.jsonl").read_text().splitlines()]


def tree(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


# --- 19: equal scores


def same_pixels(folder: Path, count: int) -> list[Path]:
    """Pictures that look the same and differ in a comment, so that a mix-up shows."""
    pixels = Image.open(draw(folder / "0.png", COLOURS["red"], 1))
    for number in range(count):
        comment = PngImagePlugin.PngInfo()
        comment.add_text("number", str(number))
        pixels.save(folder / f"{number}.png", pnginfo=comment)
    return sorted(folder.iterdir())


def test_a_thousand_pictures_of_equal_score_are_a_thousand_copies(labeller: Labeller, tmp_path: Path) -> None:
    sources, out = same_pixels(tmp_path / "in", 1000), tmp_path / "out"
    assert classify(labeller, tmp_path / "in", out) == Outcome(copied=1000, labels=Counter(red=1000))
    found = rows(out)
    assert len({(row["label"], row["score"]) for row in found}) == 1 and [row["source"] for row in found] == [
        *map(str, sources)
    ]
    assert set(tree(out)) == {row["copy"] for row in found} | {"manifest.csv", "manifest.jsonl"} and len(tree(out)) == 1002
    assert all((out / row["copy"]).read_bytes() == Path(row["source"]).read_bytes() for row in found)
    assert placed_by_classify(out, sources) == {row["source"]: row["copy"] for row in found}


# --- 20: hostile labels

HOSTILE = [
    "a/b", "a\\b", "a_b", "a:b", "..", ".", "../../up", "/etc/x", " x ", "x", "x ", "CON", "con", "Con.txt", "_CON",
    "x" * 300, "x" * 301, "猫" * 100, "猫" * 101, "", " ", "~", "x~2", "manifest.csv", "Manifest.JSONL", "new\nline",
    "\x1b[2J", "-rf", ".copy.tmp", ".manifest.journal", "Ros\u00e9", "Rose\u0301", "STRASSE", "straße",
    os.fsdecode(b"caf\xe9"), "a\0b", "name-0.99999", "name", "red-1.00000.png", "%s", "{0}",
]  # fmt: skip


@pytest.mark.parametrize("sort", [False, True])
def test_hostile_labels_give_names_that_every_system_takes(labeller: Labeller, tmp_path: Path, sort: bool) -> None:
    room, images = tmp_path / "room", tmp_path / "in"
    pictures = {
        label: draw(images / f"{number:02}.png", (number % 4 * 80, number // 4 % 4 * 80, number // 16 * 80), number)
        for number, label in enumerate(HOSTILE)
    }
    for copied in (len(HOSTILE), 0):
        outcome = classify(nearest(labeller.model, pictures), images, room / "out", sort=sort)
        assert outcome.copied == copied and outcome.labels == Counter(HOSTILE)
        found = rows(room / "out")
        assert {row["label"]: row["source"] for row in found} == {label: str(path) for label, path in pictures.items()}
        assert {row["copy"] for row in found} == set(tree(room / "out")) - {"manifest.csv", "manifest.jsonl"}
    assert len({row["copy"].casefold() for row in found}) == len(HOSTILE) and list(room.iterdir()) == [room / "out"]
    for part in {part for row in found for part in row["copy"].split("/")}:
        assert len(part.encode()) <= 255 and not re.search(r'[\\:*?"<>|\x00-\x1f\x7f-\x9f]', part) and part[0] not in ". -"
        assert not re.match(r"(con|nul)(\.|$)", part, re.IGNORECASE) and part[-1] not in ". "


# --- 21: what was there before


@pytest.mark.parametrize("options", [(), ("--sort",)], ids=["flat", "sorted"])
def test_files_of_the_same_names_stay_and_a_second_run_adds_nothing_and_says_so(
    command: Command, trained: Path, tmp_path: Path, options: tuple[str, ...]
) -> None:
    shutil.copytree(trained / "data", tmp_path / "in")
    line = ["classify", tmp_path / "in", tmp_path / "out", "--model", trained / "model", *options]
    in_order(command(*line), 0)
    names = [row["copy"] for row in rows(tmp_path / "out")]
    shutil.rmtree(tmp_path / "out")
    for number, name in enumerate(names):
        (tmp_path / "out" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "out" / name).write_bytes(b"mine %d" % number)
    mine = tree(tmp_path / "out")
    in_order(command(*line), 0)
    after = tree(tmp_path / "out")
    assert mine.items() <= after.items() and len(after) == 2 * len(mine) + 2
    again = command(*line)
    in_order(again, 0)
    assert again.stdout.splitlines()[:2] == [
        "nothing new: every picture was copied by an earlier run",
        f"pictures: 0 copied, {len(mine)} there already, 0 skipped",
    ]
    assert tree(tmp_path / "out") == after


# --- 22: outputs that cannot work

REFUSED = {  # images, output, options, and what is said
    "inside by a link": ("link", "in/deep/out", (), "lie inside one another"),
    "around, one folder a label": ("in/deep", "in", ("--sort",), "lie inside one another"),
}
CLOSED = {
    "pictures in a closed folder": ("closed/in", "out", (), "permission denied"),
    "an output in a closed folder": ("in", "closed/out", (), "permission denied"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_an_output_that_cannot_work_is_refused_before_anything_is_read(
    command: Command, trained: Path, tmp_path: Path, case: str
) -> None:
    check_refused(command, trained, tmp_path, *REFUSED[case])


@where_permissions_count
@pytest.mark.parametrize("case", CLOSED)
def test_a_folder_behind_a_closed_one_is_refused_before_anything_is_read(
    command: Command, trained: Path, tmp_path: Path, case: str
) -> None:
    check_refused(command, trained, tmp_path, *CLOSED[case])


def check_refused(
    command: Command, trained: Path, tmp_path: Path, images: str, out: str, options: tuple[str, ...], words: str
) -> None:
    draw(tmp_path / "in" / "deep" / "x.png", COLOURS["red"], 1)
    (tmp_path / "link").symlink_to("in")
    (tmp_path / "file").write_text("mine")
    (tmp_path / "closed").mkdir(0)
    before = tree(tmp_path)
    ran = command("classify", images, out, *options, "--model", trained / "model", cwd=tmp_path, env=with_us())
    in_order(ran, 2)
    assert words in ran.stderr and len(ran.stderr.splitlines()) == 1 and not ran.stdout
    (tmp_path / "closed").chmod(0o700)
    assert tree(tmp_path) == before and sorted(path.name for path in (tmp_path / "in").rglob("*")) == ["deep", "x.png"]


def with_us(**environment: str) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT), **environment}


def test_an_output_around_the_pictures_takes_copies(command: Command, trained: Path, tmp_path: Path) -> None:
    """Copies lie beside the folder of pictures then, never in it, so they are read by no later run."""
    draw(tmp_path / "in" / "x.png", COLOURS["red"], 1)
    for _ in range(2):
        in_order(command("classify", tmp_path / "in", tmp_path, "--model", trained / "model"), 0)
        assert len(list(tmp_path.glob("*.png"))) == len(list(tmp_path.rglob("*.png"))) - 1 == 1
    ran = command("classify", tmp_path / "in", tmp_path, "--sort", "--model", trained / "model")
    in_order(ran, 2)


@where_permissions_count
@pytest.mark.parametrize("mode", [0o000, 0o100, 0o200, 0o300, 0o400, 0o500, 0o600])
def test_an_output_that_may_not_be_written_is_named(command: Command, trained: Path, tmp_path: Path, mode: int) -> None:
    out = tmp_path / "out"
    draw(tmp_path / "in" / "x.png", COLOURS["red"], 1)
    out.mkdir(mode)
    ran = command("classify", tmp_path / "in", out, "--model", trained / "model")
    out.chmod(0o700)
    in_order(ran, 6)
    (told,) = ran.stderr.splitlines()
    assert str(out) in told and list(out.iterdir()) == []


def mounting() -> str:
    """Why no small disk can be had here, or nothing."""
    if not shutil.which("unshare"):
        return "no unshare"
    ran = subprocess.run(
        ["unshare", "-m", "mount", "-t", "tmpfs", "none", "/mnt"], capture_output=True, text=True, check=False
    )
    return ran.stderr.strip()


@pytest.mark.parametrize("pages", [1, 4, 12])
@pytest.mark.parametrize("options", [(), ("--sort",)], ids=["flat", "sorted"])
def test_a_disk_that_is_full_leaves_whole_copies_only(
    trained: Path, tmp_path: Path, pages: int, options: tuple[str, ...]
) -> None:
    """A disk of a few pages; it is gone with its namespace, so what is left on it is copied away before that."""
    if problem := mounting():
        pytest.skip(f"cannot mount: {problem}")
    sources, out, left = same_pixels(tmp_path / "in", 8), tmp_path / "out", tmp_path / "left"
    out.mkdir()
    script = 'mount -t tmpfs -o size=$0 none "$1" && "${@:3}"; code=$?; cp -a "$1" "$2"; exit $code'
    line = ["unshare", "-m", "bash", "-c", script, f"{4 * pages}k", str(out), str(left)]
    run = [sys.executable, "-m", "retrain", "classify", str(tmp_path / "in"), str(out), "--model", str(trained / "model")]
    ran = subprocess.run([*line, *run, *options], capture_output=True, text=True, timeout=60, check=False, env=with_us())
    in_order(ran, 6)
    (told,) = ran.stderr.splitlines()
    assert "No space left on device" in told and str(out) in told
    whole, found = {path.read_bytes() for path in sources}, tree(left)
    copies = {name for name, content in found.items() if content in whole}
    assert set(found) - {".manifest.journal"} == copies and len(copies) >= (pages > 4)
