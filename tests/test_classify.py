"""A folder of pictures -> copies named by label and score, and a manifest that accounts for every source."""

import csv
import dataclasses
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

import retrain
from retrain.classify import Outcome, Row, classify
from retrain.errors import EnvironmentProblem, NothingUsable, UsageError
from retrain.label import Labeller, load
from tests.drawing import COLOURS, draw
from tests.privileges import where_permissions_count

NAME = re.compile(r"(blue|green|red)-[01]\.\d{5}(-\d+)?\.(png|jpg|webp)")


@pytest.fixture(scope="module")
def labeller(trained: Path) -> Labeller:
    return load(trained / "model")


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """Three clear pictures and one broken file, in nested folders."""
    folder = tmp_path / "pictures"
    draw(folder / "a.png", COLOURS["red"], 1)
    draw(folder / "deep" / "er" / "b.png", COLOURS["blue"], 2)
    draw(folder / "z, last\n.png", COLOURS["green"], 3)
    (folder / "page.jpg").write_text("<html>not found")
    return folder


def rows(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / "manifest.jsonl").read_text().splitlines()]


def tree(folder: Path) -> dict[str, bytes]:
    """Every file but a lock."""
    files = (path for path in sorted(folder.rglob("*")) if path.is_file() and not path.name.startswith(".lock"))
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def copies(out: Path) -> dict[str, bytes]:
    return {name: data for name, data in tree(out).items() if not name.startswith("manifest.")}


def check_account(images: Path, out: Path) -> None:
    """Every source once, in order; every copy once, byte for byte; nothing else in the folder."""
    found = [row for row in rows(out) if Path(row["source"]).is_relative_to(images)]
    assert [row["source"] for row in found] == sorted((str(path) for path in images.rglob("*") if path.is_file()), key=_key)
    named = {row["copy"]: row["source"] for row in rows(out) if row["copy"]}
    assert set(copies(out)) == set(named) and len(named) == sum(bool(row["copy"]) for row in rows(out))
    assert all(data == Path(named[copy]).read_bytes() for copy, data in copies(out).items())
    assert all(bool(row["copy"]) != bool(row["reason"]) for row in rows(out))


def _key(source: str) -> list[bytes]:
    return os.fsencode(source).split(b"/")


def test_each_picture_is_copied_unchanged_under_its_label_and_score(
    labeller: Labeller, images: Path, tmp_path: Path
) -> None:
    before, out = tree(images), tmp_path / "out"
    outcome = classify(labeller, images, out)
    assert outcome == Outcome(copied=3, skipped={"not-an-image": 1}, labels={"red": 1, "blue": 1, "green": 1})
    check_account(images, out)
    for row in filter(lambda row: row["copy"], rows(out)):
        top = labeller.label(row["source"]).scores[0]
        assert (row["label"], row["score"]) == tuple(top)
        assert row["copy"] == f"{top.label}-{top.score:.5f}.png" and NAME.fullmatch(row["copy"])
    assert tree(images) == before


def test_a_file_that_is_no_picture_is_in_the_manifest_with_the_reason(
    labeller: Labeller, images: Path, tmp_path: Path
) -> None:
    os.mkfifo(images / "pipe.png")
    (images / "empty.png").touch()
    (images / "dangling.png").symlink_to("nowhere")
    told: list[Row] = []
    classify(labeller, images, tmp_path / "out", told=told.append)
    skipped = {
        Path(row["source"]).name: (row["reason"], row["copy"], row["score"])
        for row in rows(tmp_path / "out")
        if row["reason"]
    }
    assert skipped == {
        "page.jpg": ("not-an-image", "", None),
        "pipe.png": ("not-a-file", "", None),
        "empty.png": ("empty", "", None),
        "dangling.png": ("missing", "", None),
    }
    assert [dataclasses.asdict(row) for row in told] == rows(tmp_path / "out")


def test_the_extension_is_that_of_the_real_format(labeller: Labeller, tmp_path: Path) -> None:
    plain = draw(tmp_path / "in" / "png named.jpg.png", COLOURS["red"], 1)
    plain.rename(tmp_path / "in" / "png.JPEG")
    Image.open(tmp_path / "in" / "png.JPEG").save(tmp_path / "in" / "jpeg.png", "JPEG")
    Image.open(tmp_path / "in" / "png.JPEG").save(tmp_path / "in" / "no extension", "WEBP")
    classify(labeller, tmp_path / "in", tmp_path / "out")
    endings = {Path(row["source"]).name: Path(row["copy"]).suffix for row in rows(tmp_path / "out")}
    assert endings == {"jpeg.png": ".jpg", "no extension": ".webp", "png.JPEG": ".png"}
    check_account(tmp_path / "in", tmp_path / "out")


def test_the_spreadsheet_has_the_same_rows_as_the_exact_manifest(labeller: Labeller, images: Path, tmp_path: Path) -> None:
    draw(images / "quote\",'.png", COLOURS["red"], 5)
    draw(images / os.fsdecode(b"not utf \xe4.png"), COLOURS["red"], 6)
    classify(labeller, images, tmp_path / "out")
    with (tmp_path / "out" / "manifest.csv").open(newline="", encoding="utf-8") as file:
        table = list(csv.DictReader(file))
    exact = rows(tmp_path / "out")
    assert len(table) == len(exact) == 6
    for cells, row in zip(table, exact, strict=True):
        assert list(cells) == ["source", "copy", "label", "score", "reason", "detail", "nearest"]
        assert cells["source"] == row["source"].encode("utf-8", "backslashreplace").decode()
        assert (float(cells["score"]) if cells["score"] else None) == row["score"]
        assert all(cells[name] == row[name] for name in ("copy", "label", "reason", "detail"))
    check_account(images, tmp_path / "out")


def test_names_that_clash_are_numbered_in_the_sorted_order_of_the_sources(labeller: Labeller, tmp_path: Path) -> None:
    one = draw(tmp_path / "one.png", COLOURS["red"], 1)
    for number in range(40):
        target = tmp_path / "in" / ("B" if number % 2 else "a") / f"{number}.png"
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(one, target)
    classify(labeller, tmp_path / "in", tmp_path / "out")
    stem = f"red-{labeller.label(one).scores[0].score:.5f}"
    assert [row["copy"] for row in rows(tmp_path / "out")] == [f"{stem}.png"] + [f"{stem}-{n}.png" for n in range(2, 41)]
    assert rows(tmp_path / "out")[0]["source"].endswith("B/1.png")  # bytes count: capitals first
    check_account(tmp_path / "in", tmp_path / "out")


def test_a_file_that_is_there_already_is_never_overwritten(labeller: Labeller, images: Path, tmp_path: Path) -> None:
    out, stem = tmp_path / "out", f"red-{labeller.label(images / 'a.png').scores[0].score:.5f}"
    out.mkdir()
    (out / f"{stem}.png").write_bytes(b"mine")
    (out / f"{stem}-2.png").symlink_to("nowhere")
    (out / "notes.txt").write_bytes(b"mine too")
    classify(labeller, images, out)
    assert (out / f"{stem}.png").read_bytes() == b"mine" and (out / "notes.txt").read_bytes() == b"mine too"
    assert (out / f"{stem}-2.png").is_symlink() and not (tmp_path / "nowhere").exists()
    assert (out / f"{stem}-3.png").read_bytes() == (images / "a.png").read_bytes()


def test_a_second_run_adds_nothing(labeller: Labeller, images: Path, tmp_path: Path) -> None:
    classify(labeller, images, tmp_path / "out")
    before = tree(tmp_path / "out")
    outcome = classify(labeller, images, tmp_path / "out")
    assert (outcome.copied, outcome.present, outcome.skipped.total()) == (0, 3, 1)
    assert tree(tmp_path / "out") == before


def test_a_run_with_new_pictures_adds_only_these(labeller: Labeller, images: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    classify(labeller, images, out)
    before, old_rows = copies(out), rows(out)
    shutil.copy(images / "a.png", images / "0 sorts first.png")  # the same name, and it sorts before
    draw(images / "m.png", COLOURS["blue"], 9)
    outcome = classify(labeller, images, out)
    assert (outcome.copied, outcome.present) == (2, 3)
    assert before.items() <= copies(out).items() and all(row in rows(out) for row in old_rows)
    new = next(row["copy"] for row in rows(out) if row["source"].endswith("0 sorts first.png"))
    assert new == next(row["copy"] for row in old_rows if row["source"].endswith("a.png")).replace(".png", "-2.png")
    check_account(images, out)


def test_a_copy_that_was_lost_or_changed_is_made_again(labeller: Labeller, images: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    classify(labeller, images, out)
    red, blue = (next(row["copy"] for row in rows(out) if row["label"] == label) for label in ("red", "blue"))
    (out / red).unlink()
    (out / blue).write_bytes(b"changed by somebody")
    outcome = classify(labeller, images, out)
    assert (outcome.copied, outcome.present) == (2, 1)
    assert (out / red).read_bytes() == (images / "a.png").read_bytes()
    assert (out / blue).read_bytes() == b"changed by somebody"
    assert (out / blue.replace(".png", "-2.png")).read_bytes() == (images / "deep" / "er" / "b.png").read_bytes()


def test_another_folder_into_the_same_output_keeps_what_was_there(labeller: Labeller, images: Path, tmp_path: Path) -> None:
    out, other = tmp_path / "out", tmp_path / "another"
    shutil.copytree(images, other)
    classify(labeller, images, out)
    old_rows = rows(out)
    assert classify(labeller, other, out).copied == 3
    assert [row for row in rows(out) if "/pictures/" in row["source"]] == old_rows and len(rows(out)) == 8
    check_account(images, out)
    check_account(other, out)


def test_folders_of_the_same_relative_name_are_told_apart(
    command: Callable[..., subprocess.CompletedProcess[str]], trained: Path, tmp_path: Path
) -> None:
    here = {**os.environ, "PYTHONPATH": str(Path(retrain.__file__).parent.parent)}
    for number, home in enumerate(("summer", "winter")):
        draw(tmp_path / home / "pictures" / "1.png", COLOURS["red"], number)
        ran = command("classify", "pictures", tmp_path / "out", "--model", trained / "model", cwd=tmp_path / home, env=here)
        assert ran.returncode == 0, ran.stderr
    assert len(copies(tmp_path / "out")) == 2
    assert {row["copy"] for row in rows(tmp_path / "out")} == set(copies(tmp_path / "out"))


def test_one_folder_written_in_two_ways_is_still_one_folder(labeller: Labeller, images: Path, tmp_path: Path) -> None:
    classify(labeller, images, tmp_path / "out")
    assert classify(labeller, Path(os.path.relpath(images)), tmp_path / "out").copied == 0


def test_another_model_makes_new_copies_and_the_old_ones_stay(labeller: Labeller, images: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    classify(labeller, images, out)
    before = copies(out)
    other = Labeller(dataclasses.replace(labeller.model, temperature={"none": 5.0}))
    assert classify(other, images, out).copied == 3
    assert before.items() < copies(out).items() and len(copies(out)) == 6


def test_hostile_labels_stay_inside_the_output_and_are_exact_in_the_manifest(
    labeller: Labeller, images: Path, tmp_path: Path
) -> None:
    labels = ("../../up", "a/b", "猫\n\udce4" + "x" * 300)
    hostile = Labeller(dataclasses.replace(labeller.model, labels=labels))
    for sort in (False, True):
        out = tmp_path / "room" / f"out {sort}"
        classify(hostile, images, out, sort=sort)
        assert {row["label"] for row in rows(out) if row["copy"]} == set(labels)
        assert len(copies(out)) == 3 and [path.name for path in out.parent.iterdir()][-1] == out.name
        check_account(images, out)
    assert sorted(path.name for path in (tmp_path / "room").iterdir()) == ["out False", "out True"]


def test_sort_makes_one_folder_a_label(labeller: Labeller, images: Path, tmp_path: Path) -> None:
    for _ in range(2):
        classify(labeller, images, tmp_path / "out", sort=True)
        assert {Path(name).parent.as_posix() for name in copies(tmp_path / "out")} == {"blue", "green", "red"}
        assert all(NAME.fullmatch(Path(name).name) for name in copies(tmp_path / "out"))
        check_account(images, tmp_path / "out")


def test_copies_of_an_earlier_run_with_another_layout_stay_and_are_counted_once(
    labeller: Labeller, images: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    assert classify(labeller, images, out).unlisted == 0
    before = copies(out)
    for dry_run, copied, unlisted in [(True, 3, 3), (False, 3, 3), (False, 0, 0)]:
        outcome = classify(labeller, images, out, sort=True, dry_run=dry_run)
        assert (outcome.copied, outcome.unlisted) == (copied, unlisted)
        assert before.items() <= copies(out).items()
    assert len(copies(out)) == 6 and not set(before) & {row["copy"] for row in rows(out)}


def test_copies_of_an_earlier_run_that_were_removed_are_not_counted(
    labeller: Labeller, images: Path, tmp_path: Path
) -> None:
    classify(labeller, images, tmp_path / "out")
    (tmp_path / "out" / min(copies(tmp_path / "out"))).unlink()
    assert classify(labeller, images, tmp_path / "out", sort=True).unlisted == 2


def test_a_dry_run_tells_all_and_writes_nothing(labeller: Labeller, images: Path, tmp_path: Path) -> None:
    told: list[Row] = []
    outcome = classify(labeller, images, tmp_path / "out", dry_run=True, told=told.append)
    assert outcome.copied == 3 and not (tmp_path / "out").exists()
    classify(labeller, images, tmp_path / "out")
    assert [dataclasses.asdict(row) for row in told] == rows(tmp_path / "out")


def test_a_dry_run_on_an_earlier_output_tells_what_is_there_already(
    labeller: Labeller, images: Path, tmp_path: Path
) -> None:
    classify(labeller, images, tmp_path / "out")
    before = tree(tmp_path / "out")
    shutil.copy(images / "a.png", images / "new.png")
    told: list[Row] = []
    outcome = classify(labeller, images, tmp_path / "out", dry_run=True, told=told.append)
    assert (outcome.copied, outcome.present) == (1, 3)
    assert tree(tmp_path / "out") == before
    classify(labeller, images, tmp_path / "out")
    assert [dataclasses.asdict(row) for row in told] == rows(tmp_path / "out")


def test_folders_that_lie_inside_one_another_are_refused_before_anything_is_written(
    labeller: Labeller, images: Path, tmp_path: Path
) -> None:
    (tmp_path / "alias").symlink_to(images)
    before = tree(images)
    for out in (
        images,
        images / "out",
        images / "deep" / "out",
        tmp_path / "alias",
        tmp_path / "alias" / "new",
        images / ".." / "pictures",
    ):
        with pytest.raises(UsageError, match="lie inside one another"):
            classify(labeller, images, out)
    with pytest.raises(UsageError, match="lie inside one another"):
        classify(labeller, images, tmp_path, sort=True)
    assert tree(images) == before and not (images / "out").exists()


def test_paths_that_cannot_work_are_refused(labeller: Labeller, images: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match="file is a file; give a folder for the copies"):
        classify(labeller, images, tmp_path / "file")
    with pytest.raises(UsageError, match=r"a\.png is a file; to label single pictures: retrain label"):
        classify(labeller, images / "a.png", tmp_path / "out")
    with pytest.raises(UsageError, match="picturse, does not exist; did you mean 'pictures'"):
        classify(labeller, tmp_path / "picturse", tmp_path / "out")
    with pytest.raises(EnvironmentProblem, match=re.escape(str(tmp_path / "file" / "out"))):
        classify(labeller, images, tmp_path / "file" / "out")
    assert not (tmp_path / "out").exists()


@where_permissions_count
@pytest.mark.parametrize("mode", [0o000, 0o100, 0o200, 0o300])
def test_an_output_that_may_not_be_read_is_refused_in_words_and_left_alone(
    trained: Path, images: Path, tmp_path: Path, command: Callable[..., subprocess.CompletedProcess[str]], mode: int
) -> None:
    """With 0300 all that classify writes could be written: it is the lock that needs to read the folder."""
    (out := tmp_path / "out").mkdir()
    (out / "mine").write_text("mine")
    out.chmod(mode)
    ran = command("classify", images, out, "--model", trained / "model")
    out.chmod(0o700)
    told = f"retrain: cannot write to {out}: permission denied; fix it or choose another output folder\n"
    assert (ran.returncode, ran.stdout, ran.stderr) == (6, "", told)
    assert tree(out) == {"mine": b"mine"}


def test_without_a_usable_picture_the_manifest_still_tells_why(labeller: Labeller, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    with pytest.raises(NothingUsable, match="holds no files"):
        classify(labeller, tmp_path / "in", tmp_path / "out")
    assert not (tmp_path / "out").exists()
    (tmp_path / "in" / "words.txt").write_text("words")
    with pytest.raises(NothingUsable, match=r"none of the 1 files in .* is a usable picture; see .*manifest\.csv"):
        classify(labeller, tmp_path / "in", tmp_path / "out")
    assert [row["reason"] for row in rows(tmp_path / "out")] == ["not-an-image"]


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("manifest.csv", b"name,age\nelsa,21\n"),
        ("manifest.csv", b""),
        ("manifest.jsonl", b'{"prompt": "a", "completion": "b"}\n'),
        ("manifest.jsonl", b"[1, 2]\n"),
        ("manifest.jsonl", b"words\n"),
        ("manifest.jsonl", b"\xff\xfe\n"),
        ("manifest.jsonl", b'{"source": 5}\n'),
    ],
)
@pytest.mark.parametrize("dry_run", [False, True])
def test_a_foreign_manifest_is_refused_and_left_alone(
    labeller: Labeller, images: Path, tmp_path: Path, name: str, data: bytes, dry_run: bool
) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / name).write_bytes(data)
    with pytest.raises(UsageError, match=f"{re.escape(name)} was not written by retrain classify"):
        classify(labeller, images, tmp_path / "out", dry_run=dry_run)
    assert tree(tmp_path / "out") == {name: data}


def test_a_manifest_that_was_damaged_further_down_is_refused_and_left_alone(
    labeller: Labeller, images: Path, tmp_path: Path
) -> None:
    classify(labeller, images, tmp_path / "out")
    with (tmp_path / "out" / "manifest.jsonl").open("a") as file:
        file.write('{"source": "z')
    before = tree(tmp_path / "out")
    with pytest.raises(UsageError, match=r"manifest\.jsonl"):
        classify(labeller, images, tmp_path / "out")
    assert tree(tmp_path / "out") == before


def test_a_file_where_a_label_needs_its_folder_ends_the_run_and_is_kept(trained: Path, images: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "red").write_bytes(b"mine")
    # Limits, since the mistake to be found here is a loop that fills the disk.
    code = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (10**5, 10**5)); from retrain.cli import main; main()"
    line = [
        sys.executable,
        "-c",
        code,
        "classify",
        str(images),
        str(tmp_path / "out"),
        "--sort",
        "--model",
        str(trained / "model"),
    ]
    ran = subprocess.run(line, capture_output=True, text=True, timeout=60, check=False)
    assert ran.returncode in (2, 6) and "red" in ran.stderr.splitlines()[-1]
    assert (tmp_path / "out" / "red").read_bytes() == b"mine"
    assert (tmp_path / "out" / ".manifest.journal").exists() is False
