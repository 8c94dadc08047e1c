"""The plan of a check: what is written comes back, whatever a spreadsheet does to it; what is applied can be undone."""

import csv
import hashlib
import io
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from retrain import dataset
from retrain.checks import apply as applying
from retrain.checks import plan
from retrain.checks.apply import Applied, apply, undo
from retrain.checks.findings import KINDS, OF_CONTENT, Finding
from retrain.checks.plan import COLUMNS, Row, content_hash
from retrain.errors import REASONS, EnvironmentProblem, UsageError
from retrain.storage import SENTINEL, Layout
from tests.conftest import Ran
from tests.drawing import COLOURS, draw
from tests.privileges import where_permissions_count

FILES = {
    "red/1.png": b"one", "red/2.png": b"two", "red/sub/3.png": b"three", "red/noext": b"four",
    "blue/1.png": b"five", "blue/sub/3.png": b"six", "blue/sub/deep/4.tar.gz": b"seven", "green/5.png": b"eight",
}  # fmt: skip


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    return fill(tmp_path / "tf_files")


def fill(root: Path, data: str = "data") -> Layout:
    for name, content in FILES.items():
        path = root / data / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return Layout(root)


def places(layout: Layout) -> dict[str, bytes]:
    """Return what lies where in the working folder: files, links, and folders that are empty; not what is ours."""
    found = {}
    for folder, folders, names in os.walk(layout.root):
        if Path(folder) == layout.root and "reports" in folders:
            folders.remove("reports")
        lying = [Path(folder, name) for name in names if name != SENTINEL]
        found |= {path: os.fsencode(f"-> {path.readlink()}") if path.is_symlink() else path.read_bytes() for path in lying}
        if not folders and not names:
            found[Path(folder)] = b"empty"
    return {str(path.relative_to(layout.root)): content for path, content in found.items()}


def row(action: str, path: str, to: str = "") -> Row:
    content = FILES.get(path)
    return Row(action, path, to=to, sha256=hashlib.sha256(content).hexdigest() if content else "")


def written(folder: Path, text: str | bytes) -> Path:
    path = folder / "plan.csv"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


# --- write


def finding(kind: str, path: Path, score: float, **others: str) -> Finding:
    return Finding(kind, others.get("detail", kind), (str(path),), score=score, to=others.get("to", ""))


def test_each_picture_has_one_row_with_its_strongest_action_and_rows_are_in_order(layout: Layout, tmp_path: Path) -> None:
    red, blue = layout.data / "red", layout.data / "blue"
    findings = [
        finding("dark", red / "1.png", 1.0),
        finding("blank", red / "2.png", 0.5),
        finding("dark", red / "2.png", 0.9, detail="black"),
        finding("mislabelled", red / "sub/3.png", 0.7, to="blue"),
        finding("blank", red / "sub/3.png", 1.0),
        finding("mislabelled", blue / "1.png", 0.9, to="red"),
        finding("mislabelled", blue / "sub/3.png", 0.9),  # to nothing: for a person to decide
        finding("blurry", tmp_path / "test" / "x" / "1.png", 1.0),  # of a test folder elsewhere
        Finding("leak", "of the whole set"),
    ]
    known = {str(red / "1.png"): "0" * 64}
    assert plan.write(tmp_path / "plan.csv", layout, findings, known) == 5
    rows = plan.read(tmp_path / "plan.csv")
    assert [(row.action, row.path, row.to, row.finding, row.detail, row.score) for row in rows] == [
        ("relabel", "blue/1.png", "red", "mislabelled", "mislabelled", 0.9),
        ("relabel", "red/sub/3.png", "blue", "mislabelled; blank", "mislabelled; blank", 0.7),
        ("move", "red/2.png", "", "blank; dark", "blank; black", 0.5),
        ("keep", "red/1.png", "", "dark", "dark", 1.0),
        ("keep", "blue/sub/3.png", "", "mislabelled", "mislabelled", 0.9),
    ]
    assert [row.label for row in rows] == ["blue", "red", "red", "red", "blue"]
    assert rows[3].sha256 == "0" * 64 and rows[0].sha256 == hashlib.sha256(b"five").hexdigest()


def test_a_copy_of_what_the_suggested_class_has_is_set_aside(layout: Layout, tmp_path: Path) -> None:
    one, other = str(layout.data / "red" / "1.png"), str(layout.data / "blue" / "1.png")
    hashes = {one: "1" * 64, other: "1" * 64}
    for to, action in (("blue", "move"), ("green", "relabel")):
        plan.write(tmp_path / "plan.csv", layout, [finding("mislabelled", one, 0.9, to=to)], hashes)
        (row,) = plan.read(tmp_path / "plan.csv")
        assert (row.action, row.path) == (action, "red/1.png")


def test_a_plan_replaces_a_plan_and_nothing_else(layout: Layout, tmp_path: Path) -> None:
    path = tmp_path / "plan.csv"
    plan.write(path, layout, [finding("dark", layout.data / "red/1.png", 1)], {})
    plan.write(path, layout, [finding("blank", layout.data / "red/1.png", 1)], {})
    assert plan.read(path)[0].action == "move"
    for foreign in (
        b"",
        b"path,action\n",
        b"\xff\xfea",
        b"x" * 5000,
        bytes(range(256)),
        b'a\rb\0,\r"c',
        b"\x89PNG\r\n\x1a\n\0",
    ):
        path.write_bytes(foreign)
        with pytest.raises(UsageError, match=r"plan.csv exists and is no plan of retrain check; give the plan another name"):
            plan.write(path, layout, [], {})
        assert path.read_bytes() == foreign
    with pytest.raises(UsageError, match="is no file; give the plan another name"):
        plan.write(tmp_path, layout, [], {})
    for folder in (tmp_path / "absent", path):
        with pytest.raises(UsageError, match=f"there is no folder {folder} for the plan x.csv; make it, or give another"):
            plan.write(folder / "x.csv", layout, [], {})


def test_a_plan_that_a_spreadsheet_saved_with_old_line_ends_may_be_replaced(layout: Layout, tmp_path: Path) -> None:
    path = tmp_path / "plan.csv"
    plan.write(path, layout, [finding("dark", layout.data / "red/1.png", 1)], {})
    path.write_bytes(path.read_bytes().replace(b"\n", b"\r"))
    assert len(plan.read(path)) == 1
    plan.refuse_foreign(path)


@pytest.mark.parametrize("reason", REASONS)
def test_what_cannot_be_used_is_moved_only_where_its_content_is_to_blame(
    layout: Layout, tmp_path: Path, reason: str
) -> None:
    one = Finding("unreadable", reason, (str(layout.data / "red" / "1.png"),), ("red",), reason=reason)
    plan.write(tmp_path / "plan.csv", layout, [one], {})
    (row,) = plan.read(tmp_path / "plan.csv")
    assert row.action == ("move" if reason in OF_CONTENT else "keep")
    assert set(REASONS) > OF_CONTENT


@pytest.mark.parametrize("kind", KINDS)
def test_no_row_of_ours_moves_what_could_be_anything(layout: Layout, tmp_path: Path, kind: str) -> None:
    """The picture went while it was looked at: what comes to lie there was never judged."""
    one = Finding(kind, "", (str(layout.data / "red" / "gone.png"),), ("red",), to="blue", reason="corrupt")
    plan.write(tmp_path / "plan.csv", layout, [one], {})
    (row,) = plan.read(tmp_path / "plan.csv")
    assert (row.action, row.to, row.sha256) == ("keep", "", "")


def test_a_plan_says_what_a_picture_is_like(layout: Layout, tmp_path: Path) -> None:
    def said(kind: str, detail: str, *others: Path) -> str:
        paths = (str(layout.data / "red" / "1.png"), *map(str, others))
        plan.write(tmp_path / "plan.csv", layout, [Finding(kind, detail, paths)], {})
        return plan.read(tmp_path / "plan.csv")[0].detail

    many = [layout.data / "blue" / f"{number}.png" for number in range(5)]
    size = "the same 3,445 bytes"
    assert said("same-file", size, many[1]) == "the same 3,445 bytes as blue/1.png"
    assert said("same-file-two-classes", f"{size} in 2 classes", many[1]) == f"{size} in 2 classes as blue/1.png"
    assert said("near-duplicate", "alike", *many[:3]) == "like blue/0.png, blue/1.png, blue/2.png: alike"
    assert said("near-duplicate", "alike", *many) == "like blue/0.png, blue/1.png, blue/2.png and 2 more: alike"
    elsewhere = tmp_path / "test" / "blue" / "1.png"
    assert (
        said("near-duplicate-across-parts", f"test and train: {size}", elsewhere)
        == f"like {elsewhere}: test and train: {size}"
    )
    assert said("outlier", "far away", many[0]) == "far away"


# --- names


ROOT = Path("/data/set")
BAD_NAMES = [
    b"=1+1.png", b"+1", b"-rf.png", b"@SUM(A1).png", b"'quoted", b"a;=1+1", b"#NA",
    b"not utf \xe4", b"half \xe7\x8c", b"\xed\xa0\x80", b"a" * 255, b"\x01\x1b[2J",
    b"new\nline", b"return\rline", b"\ttab", b"  two  blanks  ", "\xa0wide\u3000".encode(), "\u202eright to left".encode(),
    b"back\\slash\\n", b"\\x3d", b"\\\\udce4", b'quote"', b"a,b;c", "\ufeffmark".encode(), "👩‍👩‍👧 é 猫".encode(),
    "\U000e0001".encode(), b"007", b"7", b"1e5", b"1-2", b"12:30", b"2024-01-02", b"true", b"MAR1", b"1 may",
]  # fmt: skip
names = st.binary(min_size=1, max_size=20) | st.text(min_size=1, max_size=20).map(lambda text: os.fsencode(_encodable(text)))


def _encodable(text: str) -> str:
    return text.encode("utf-8", "replace").decode()


def is_name(name: bytes) -> bool:
    return not name.startswith(b".") and not {0, ord("/")} & set(name) and name.lower() not in (b"thumbs.db", b"desktop.ini")


def as_saved(data: bytes, separator: str, mark: bytes, width: int) -> bytes:
    """As a spreadsheet leaves a table: everything quoted or nothing, CRLF, a mark, empty cells and rows at the end."""
    rows = [*csv.reader(io.StringIO(data.decode(), newline="")), [""] * len(COLUMNS)]
    order = sorted(range(len(COLUMNS)), key=lambda index: (index * width) % 11)
    table = io.StringIO()
    quoting = csv.QUOTE_ALL if width % 2 else csv.QUOTE_MINIMAL
    writer = csv.writer(table, delimiter=separator, lineterminator="\r\n", quoting=quoting)
    writer.writerows([*(cells[index].strip() for index in order), *[""] * width] for cells in rows)
    return mark + table.getvalue().encode()


def there_and_back(folder: Path, raw: bytes, label: bytes, save: Callable[[bytes], bytes] = lambda data: data) -> None:
    label, picture = os.fsdecode(label), f"{os.fsdecode(label)}/{os.fsdecode(raw)}"
    path = folder / "plan.csv"
    path.unlink(missing_ok=True)
    one = Finding("mislabelled", f"'{os.fsdecode(raw)}'", (str(ROOT / picture),), score=0.5, to=label)
    assert plan.write(path, Layout(ROOT), [one], {str(ROOT / picture): "ab" * 32}) == 1
    text = path.read_text(encoding="utf-8")
    for cells in csv.reader(io.StringIO(text, newline="")):
        assert not any(cell.startswith(tuple("=+-@\t\r ")) or "\n" in cell for cell in cells)
        assert not cells[1].startswith("'") and not cells[3].startswith("'")
    path.write_bytes(save(text.encode()))
    assert plan.read(path) == [Row("relabel", picture, label, label, "mislabelled", one.detail, 0.5, "ab" * 32)]


@pytest.mark.parametrize("name", BAD_NAMES)
def test_bad_names_come_back_from_a_plan_and_from_a_spreadsheet(tmp_path: Path, name: bytes) -> None:
    there_and_back(tmp_path, name, name)
    for separator, mark, width in ((";", b"\xef\xbb\xbf", 1), ("\t", b"", 2), (",", b"\xef\xbb\xbf", 3)):
        there_and_back(tmp_path, name, name, lambda data: as_saved(data, separator, mark, width))  # noqa: B023  # at once


@given(names.filter(is_name), names.filter(is_name), st.sampled_from(",;\t"), st.booleans(), st.integers(0, 3))
@example(b"x", b"\\u", ";", True, 1)
@settings(max_examples=70, deadline=None)
def test_any_name_comes_back(
    tmp_path_factory: pytest.TempPathFactory, raw: bytes, label: bytes, separator: str, mark: bool, width: int
) -> None:
    folder = tmp_path_factory.getbasetemp()
    there_and_back(folder, raw, label, lambda data: as_saved(data, separator, b"\xef\xbb\xbf" * mark, width))


def test_what_a_spreadsheet_would_change_is_escaped_and_what_it_would_not_is_left(tmp_path: Path) -> None:
    """As docs say: people see these cells."""
    names = {
        "007": "\\x3007",
        "7": "7",
        "3d": "3d",
        "mar1": "\\x6dar1",
        "marten": "marten",
        "C:\\x": "C:\\\\x",
        "é 猫": "é 猫",
    }
    for name, cell in names.items():
        one = Finding("mislabelled", "", (str(ROOT / "a" / "b"),), to=name)
        plan.write(tmp_path / "plan.csv", Layout(ROOT), [one], {str(ROOT / "a" / "b"): "ab" * 32})
        with (tmp_path / "plan.csv").open(newline="", encoding="utf-8") as file:
            assert next(csv.DictReader(file))["to"] == cell


# --- read: mistakes

HEADER = "action,path,to,sha256\n"
MISTAKES = {
    f"{HEADER}mvoe,a/b,,": r"line 2: unknown action 'mvoe'; did you mean 'move'\?",
    f"{HEADER}keep,a/b,,\n,a/c,,": "line 3: unknown action ''; give one of keep, move, relabel",
    "action,path,sha256\nkeep,a/b,": "has no column 'to'; write a new plan with --plan",
    "action,pth,to,sha256\nkeep,a/b,": r"has no column 'path'; did you mean 'pth'\?",
    "action,path,path,to,sha256\n": "has more than one column 'path'",
    f"{HEADER}keep,/a/b,,": "line 2: the path /a/b is absolute; give it as <class>/<picture>",
    f"{HEADER}keep,a/../../b,,": "line 2: the path a/../../b leads out of the data folder",
    f"{HEADER}keep,b,,": "line 2: the path b is none of a picture",
    f"{HEADER}keep,a//b,,": "line 2: the path a//b is none of a picture",
    f"{HEADER}move,a/.retrain,,": "names that start with a dot are not read",
    f"{HEADER}move,a/b\\x00,,": "line 2: the path a/b\0 is none of a picture",
    f"{HEADER}move,a/b\\ud800,,": "line 2: the path a/b\ud800 is none of a picture",
    f"{HEADER}keep,,,": "line 2: the path is empty; give <class>/<picture>, or delete the row",
    f"{HEADER}relabel,a/b,,": "line 2: relabel to no class: the cell 'to' is empty; name a class, or make it keep",
    f"{HEADER}relabel,a/b,.,": "line 2: relabel to '.': folders of that name are not read",
    f"{HEADER}relabel,a/b,..,": r"line 2: relabel to '\.\.'",
    f"{HEADER}relabel,a/b,.x,": r"name a class that does not start with a dot",
    f"{HEADER}relabel,a/b,Thumbs.db,": "line 2: relabel to 'Thumbs.db': folders of that name are not read",
    f"{HEADER}relabel,a/b,c/d,": "line 2: relabel to 'c/d': no folder can have that name",
    f"{HEADER}relabel,a/b,c\\x00,": "no folder can have that name",
    f"{HEADER}relabel,a/b,{'é' * 128},": "256 bytes are too many for a folder",
    f"{HEADER}move,a/b,c,": "move does nothing with the class 'c' in 'to'; did you mean relabel[?] If not, empty the cell",
    f"{HEADER}keep,a/b,c,": "line 2: keep does nothing with the class 'c' in 'to'; did you mean relabel[?]",
    f"{HEADER[:-1]},finding\nmove,a/b,c,,mislabelled": "line 2: move does nothing with the class 'c'",
    f"{HEADER[:-1]},finding\nkeep,a/b,c,,dark": "line 2: keep does nothing with the class 'c'",
    f"{HEADER}keep,a/b,,12ab": "line 2: '12ab' is no sha256; take it from a new plan, or empty the cell",
    f"{HEADER}keep,a/b,,\nmove,a/b,,": "lines 2 and 3: different actions for a/b; keep one of them",
    f"{HEADER}relabel,a/b,c,\nrelabel,a/b,d,": "lines 2 and 3: different actions for a/b",
    HEADER: "is a plan without rows: there is nothing to apply; write one with --plan",
    f"{HEADER},,,\n ,,,\n": "is a plan without rows",
    f'{HEADER}keep,"a/b,,\n': "line 2: unexpected end of data; save it as CSV",
    f"{HEADER}keep,{'a' * 200_000}/b,,": "line 2: field larger than field limit",
    "": "is empty; write one with --plan",
    ",,,\n": "has no column 'action'",
    "PK\3\4": "is a workbook or an archive; save it as CSV in UTF-8",
    "a\0b": "is no text; save it as CSV in UTF-8",
    "\1" * 200_000: "line 1: field larger than field limit",
}


@pytest.mark.parametrize("text", MISTAKES)
def test_a_mistake_in_a_plan_is_named_with_its_line(tmp_path: Path, text: str) -> None:
    with pytest.raises(UsageError, match=f"plan.csv.*{MISTAKES[text]}") as caught:
        plan.read(written(tmp_path, text))
    assert "\n" not in str(caught.value)


def test_what_is_no_file_of_text_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"is not UTF-8 in line 2; save it as CSV in UTF-8"):
        plan.read(written(tmp_path, HEADER.encode() + b"keep,caf\xe9/b,,"))
    with pytest.raises(UsageError, match="is not UTF-8 in line 1"):
        plan.read(written(tmp_path, HEADER.encode("utf-16")))
    with pytest.raises(UsageError, match=r"the plan .*plan.cvs does not exist; did you mean 'plan.csv'\?"):
        plan.read(tmp_path / "plan.cvs")
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path, tmp_path / "pipe"):
        with pytest.raises(UsageError, match="is no file; give one that --plan wrote"):
            plan.read(path)


def test_what_a_person_may_do_to_a_plan_does_no_harm(tmp_path: Path) -> None:
    text = (
        "\n Path ;ACTION;To;sha256;my notes;finding\n;;;;\na/b; Move ;;;see\na/c;keep;old suggestion;;;mislabelled; dark\n"
    )
    text += "a/b;move;;;twice\na/d;relabel; new \n"
    rows = plan.read(written(tmp_path, text))
    assert [(row.action, row.path, row.to) for row in rows] == [
        ("move", "a/b", ""), ("keep", "a/c", "old suggestion"), ("relabel", "a/d", "new"),
    ]  # fmt: skip


# --- apply and undo

SET_ASIDE_3 = {"set_aside/red/sub/3.png": b"three"}
APPLIED: dict[str, tuple[list[Row], dict[str, bytes], list[str]]] = {  # rows, what lies elsewhere then, what is gone
    "another class": ([row("relabel", "red/2.png", "blue")], {"data/blue/2.png": b"two"}, ["red/2.png"]),
    "folders below the class are kept": (
        [row("relabel", "blue/sub/deep/4.tar.gz", "red")],
        {"data/red/sub/deep/4.tar.gz": b"seven"}, ["blue/sub/deep/4.tar.gz"],
    ),
    "a new class": ([row("relabel", "green/5.png", "grün")], {"data/grün/5.png": b"eight"}, ["green/5.png"]),
    "set aside": ([row("move", "red/sub/3.png")], SET_ASIDE_3, ["red/sub/3.png"]),
    "the name is taken": ([row("relabel", "red/1.png", "blue")], {"data/blue/1 (2).png": b"one"}, ["red/1.png"]),
    "taken by one of the plan": (
        [row("relabel", "red/sub/3.png", "green"), row("relabel", "blue/sub/3.png", "green")],
        {"data/green/sub/3.png": b"three", "data/green/sub/3 (2).png": b"six"}, ["red/sub/3.png", "blue/sub/3.png"],
    ),
    "two change places": (
        [row("relabel", "red/1.png", "blue"), row("relabel", "blue/1.png", "red")],
        {"data/blue/1 (2).png": b"one", "data/red/1 (2).png": b"five"}, ["red/1.png", "blue/1.png"],
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", APPLIED)
@pytest.mark.parametrize("data", ["data", "."])
def test_pictures_go_where_the_plan_says_and_come_back(tmp_path: Path, case: str, data: str) -> None:
    layout = fill(tmp_path, data)
    rows, elsewhere, gone = APPLIED[case]
    before, prefix = places(layout), "data/" if data == "data" else ""
    done = apply(layout, rows)
    after = {name.replace("data/", prefix): content for name, content in elsewhere.items()}
    now = places(layout)
    assert {name: now.get(name) for name in after} == after
    files = {name for name, content in now.items() if content != b"empty"}
    assert files == (set(before) | set(after)) - {f"{prefix}{name}" for name in gone}
    assert (done.moved + done.relabelled, done.skipped) == (len(rows), ())
    assert apply(layout, rows) == Applied(skipped=tuple((row.path, "missing") for row in rows))
    back = undo(layout)
    assert places(layout) == before and (back.restored, back.skipped, back.complete) == (len(rows), (), True)
    with pytest.raises(UsageError, match=r"no plan was applied to .* that is not undone yet; there is nothing to undo"):
        undo(layout)


def test_counts_new_classes_and_notes(layout: Layout) -> None:
    class Notes:
        lines: list[str] = []  # noqa: RUF012
        note = lines.append
        bar = staticmethod(applying.SILENT.bar)

    rows = [
        row("relabel", "red/1.png", "Blue"), row("relabel", "red/2.png", "Blue"), row("relabel", "red/noext", "blue"),
        row("relabel", "green/5.png", "green"), row("keep", "blue/1.png"), row("move", "blue/sub/3.png"),
    ]  # fmt: skip
    done = apply(layout, rows, Notes())
    assert done == Applied(1, 3, 2, (), ("Blue",), layout.reports / "applied" / "0001.json")
    assert Notes.lines == ["'Blue' is a new class; did you mean 'blue'?"]


@pytest.mark.parametrize("data", ["data", "."])
def test_what_is_set_aside_is_no_class_and_emptied_classes_stay(tmp_path: Path, data: str) -> None:
    layout = fill(tmp_path, data)
    apply(layout, [row("move", "green/5.png"), row("move", "red/1.png")])
    listing = dataset.read(layout)
    assert listing.labels == ("blue", "green", "red") and len(listing.examples) == len(FILES) - 2 and not listing.skipped


def test_what_cannot_be_moved_is_skipped_with_its_reason(layout: Layout, tmp_path: Path) -> None:
    data, elsewhere = layout.data, tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "x.png").write_bytes(b"outside")
    (data / "red" / "linked").symlink_to(elsewhere)
    (data / "linked class").symlink_to(elsewhere)
    (data / "red" / "beside").symlink_to("1.png")
    (data / "green" / "noext").mkdir()
    (data / "green" / "sub").write_bytes(b"a file where a folder would have to be")
    (data / "red" / "1.png").write_bytes(b"changed since")
    os.mkfifo(data / "red" / "pipe")
    skipped = {
        row("move", "red/1.png"): "changed",
        row("move", "red/gone.png"): "missing",
        row("move", "red/2.png/gone"): "missing",
        row("move", f"red/{'x' * 300}"): "unreadable",
        row("move", "red/linked/x.png"): "behind-link",
        row("move", "linked class/x.png"): "behind-link",
        row("relabel", "red/2.png", "linked class"): "behind-link",
        row("relabel", "red/sub/3.png", "green"): "taken",
        row("relabel", "red/beside", "blue"): "relative-link",
        row("move", "red/sub"): "not-a-file",
        row("move", "red/linked"): "not-a-file",
        row("move", "red/pipe"): "not-a-file",
    }
    assert set(skipped.values()) <= set(applying.REASONS)
    before = {path: path.lstat().st_ino for path in sorted(tmp_path.rglob("*"))}
    done = apply(layout, list(skipped))
    assert done.skipped == tuple((row.path, reason) for row, reason in skipped.items())
    assert done.journal is None
    after = {path: path.lstat().st_ino for path in sorted(tmp_path.rglob("*")) if layout.reports not in (path, path.parent)}
    assert after == before


def test_links_are_moved_as_links(layout: Layout, tmp_path: Path) -> None:
    (tmp_path / "x.png").write_bytes(b"outside")
    (layout.data / "red" / "far").symlink_to(tmp_path / "x.png")
    (layout.data / "red" / "near").symlink_to("../green/5.png")
    (layout.data / "red" / "broken").symlink_to("/nowhere")
    before = places(layout)
    rows = [row("relabel", "red/far", "blue"), row("relabel", "red/near", "new"), row("move", "red/broken")]
    rows[0] = rows[0]._replace(sha256=content_hash(tmp_path / "x.png"))
    assert apply(layout, rows).skipped == ()
    now = places(layout)
    assert now["data/blue/far"] == os.fsencode(f"-> {tmp_path}/x.png") and now["data/new/near"] == b"-> ../green/5.png"
    assert now["set_aside/red/broken"] == b"-> /nowhere" and (tmp_path / "x.png").read_bytes() == b"outside"
    undo(layout)
    assert places(layout) == before


def test_names_that_are_no_text_or_as_long_as_can_be(layout: Layout) -> None:
    odd, long = os.fsdecode(b"\xe4 \n.png"), "é" * 125 + "x.png"
    for name in (odd, long):
        for label in ("red", "blue"):
            (layout.data / label / name).write_bytes(os.fsencode(label))
    before = places(layout)
    apply(layout, [row("relabel", f"red/{name}", "blue") for name in (odd, long)])
    assert (layout.data / "blue" / os.fsdecode(b"\xe4 \n (2).png")).read_bytes() == b"red"
    assert (layout.data / "blue" / f"{'é' * 123} (2).png").read_bytes() == b"red"
    undo(layout)
    assert places(layout) == before


@pytest.mark.parametrize("to", ["data", "model", "reports", "set_aside", "bottlenecks.sqlite"])
def test_no_class_may_have_a_name_of_ours_beside_the_classes(tmp_path: Path, to: str) -> None:
    layout = fill(tmp_path, ".")
    with pytest.raises(UsageError, match=f"row for red/1.png: .*{to} is no class but retrain's; choose another name"):
        apply(layout, [row("move", "red/2.png"), row("relabel", "red/1.png", to)])
    assert "set_aside" not in os.listdir(tmp_path) and (tmp_path / "red" / "2.png").exists()


def test_rows_that_cannot_be_meant_are_refused_before_anything_is_moved(layout: Layout) -> None:
    (layout.data / "file").touch()
    (layout.data / "mine").mkdir()
    (layout.data / "mine" / SENTINEL).touch()
    (layout.data / "mine" / "x").touch()
    before = places(layout)
    bad = {
        row("relabel", "red/2.png", "file"): "is a file; move it away or choose another class",
        row("relabel", "red/2.png", "mine"): "is no class but retrain's",
        row("move", "mine/x"): "mine was made by retrain, no class; delete the row",
        Row("move", "../x"): "leads out of the data folder",
        Row("mvoe", "red/2.png"): "unknown action",
    }
    for mistake, said in bad.items():
        with pytest.raises(UsageError, match=f"the plan's row for {mistake.path}: .*{said}"):
            apply(layout, [row("move", "red/1.png"), mistake])
        assert places(layout) == before
    (layout.root / "set_aside" / "own").mkdir(parents=True)
    with pytest.raises(UsageError, match="set_aside exists and was not made by retrain"):
        apply(layout, [row("move", "red/1.png")])
    with pytest.raises(UsageError, match=r"the working folder .*absent does not exist; check the path"):
        apply(Layout(layout.root / "absent"), [])


@where_permissions_count
def test_a_folder_that_cannot_be_changed_is_named_before_anything_is_moved(layout: Layout) -> None:
    (layout.data / "blue").chmod(0o555)
    with pytest.raises(EnvironmentProblem, match=r"cannot move pictures in .*blue: permission denied; fix permissions"):
        apply(layout, [row("move", "red/1.png"), row("relabel", "red/2.png", "blue")])
    (layout.data / "blue").chmod(0o755)
    assert (layout.data / "red" / "1.png").exists()


def test_another_disk_is_refused_before_anything_is_moved(layout: Layout) -> None:
    if not Path("/dev/shm").is_dir() or os.stat("/dev/shm").st_dev == os.stat(layout.root).st_dev:
        pytest.skip("there is no second disk")
    layout.data.rename(layout.root / "moved")
    elsewhere = Path("/dev/shm") / f"retrain-test-{os.getpid()}"
    fill(elsewhere, ".")
    try:
        (layout.root / "data").symlink_to(elsewhere)
        with pytest.raises(EnvironmentProblem, match="are on different disks; put the pictures on the disk of"):
            apply(Layout(layout.root), [row("relabel", "red/1.png", "blue"), row("move", "red/2.png")])
        assert (elsewhere / "red" / "1.png").exists()
    finally:
        shutil.rmtree(elsewhere)


def test_what_was_done_meanwhile_is_never_overwritten_by_undo(layout: Layout) -> None:
    apply(layout, [row("move", "red/1.png"), row("relabel", "red/2.png", "new"), row("move", "green/5.png")])
    (layout.data / "red" / "1.png").write_bytes(b"another")
    (layout.root / "set_aside" / "green" / "5.png").unlink()
    (layout.data / "new" / "own.png").write_bytes(b"put there since")
    back = undo(layout)
    assert (back.restored, back.complete) == (1, False)
    assert set(back.skipped) == {("data/red/1.png", "taken"), ("set_aside/green/5.png", "missing")}
    assert (layout.data / "red" / "1.png").read_bytes() == b"another"
    (layout.data / "red" / "1.png").rename(layout.data / "red" / "another.png")
    back = undo(layout)
    assert (back.restored, back.skipped, back.complete) == (1, (("set_aside/green/5.png", "missing"),), True)
    assert (layout.data / "red" / "1.png").read_bytes() == b"one" and (layout.data / "new" / "own.png").exists()


def test_undo_moves_no_other_bytes_back(layout: Layout, tmp_path: Path) -> None:
    (layout.data / "red" / "broken").symlink_to("/nowhere")
    apply(layout, [row("move", "red/1.png"), row("relabel", "red/2.png", "blue"), row("move", "red/broken")])
    apply(layout, [row("move", "green/5.png")])
    aside = layout.root / "set_aside"
    for path in (aside / "red" / "1.png", aside / "red" / "broken", aside / "green" / "5.png"):
        path.unlink()
        path.write_bytes(b"another")
    (layout.data / "red" / "1.png").write_bytes(b"here as well")
    last, first = undo(layout), undo(layout)
    assert (last.restored, last.skipped, last.complete) == (0, (("set_aside/green/5.png", "changed"),), True)
    others = (("set_aside/red/broken", "changed"), ("set_aside/red/1.png", "changed"))
    assert (first.restored, first.skipped, first.complete) == (1, others, True)
    assert {path.read_bytes() for path in aside.rglob("*.png")} == {b"another"}
    assert (layout.data / "red" / "1.png").read_bytes() == b"here as well"


@where_permissions_count
def test_what_cannot_be_read_is_not_moved_for_it_could_not_be_known_again(layout: Layout) -> None:
    (layout.data / "red" / "1.png").chmod(0)
    assert apply(layout, [Row("move", "red/1.png")]).skipped == (("red/1.png", "unreadable"),)


def test_plans_are_undone_the_last_first(layout: Layout) -> None:
    states = [places(layout)]
    for number, (source, to) in enumerate([("red/1.png", "green"), ("green/1.png", "new"), ("new/1.png", "red")], start=1):
        assert apply(layout, [row("relabel", source, to)]).journal == layout.reports / "applied" / f"{number:04}.json"
        states.append(places(layout))
    for state in reversed(states[:-1]):
        undo(layout)
        assert places(layout) == state


def test_a_picture_may_be_undone_where_its_folder_is_gone(layout: Layout) -> None:
    apply(layout, [row("move", "green/5.png")])
    (layout.data / "green").rmdir()
    assert undo(layout).restored == 1 and (layout.data / "green" / "5.png").read_bytes() == b"eight"


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"moves": [1]}', "\0"])
def test_a_damaged_journal_is_named(layout: Layout, text: str) -> None:
    done = apply(layout, [row("move", "red/1.png")])
    assert done.journal is not None
    done.journal.write_text(text)
    for again in (lambda: undo(layout), lambda: apply(layout, [row("move", "red/2.png")])):
        with pytest.raises(UsageError, match=r"0001.json is damaged; move it away"):
            again()


def test_two_at_once_do_not_run(layout: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RETRAIN_LOCK_SECONDS", "0")
    hold = (
        "import sys; from pathlib import Path; from retrain.storage import folder_locked\n"
        "with folder_locked(Path(sys.argv[1]), ''): print(flush=True); sys.stdin.read()"
    )
    line = [sys.executable, "-c", hold, str(layout.root)]
    with subprocess.Popen(line, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout is not None and other.stdout.readline()
        for action in (lambda: apply(layout, [row("move", "red/1.png")]), lambda: undo(layout)):
            with pytest.raises(EnvironmentProblem, match=rf"another run \(process {other.pid}\) holds .*tf_files, .*plan"):
                action()
    assert (layout.data / "red" / "1.png").exists()


# --- what the command says


def test_undo_says_what_to_do_about_a_name_that_is_taken(layout: Layout, retrain: Callable[..., Ran]) -> None:
    apply(layout, [row("move", "red/1.png"), row("move", "red/2.png")])
    (layout.data / "red" / "1.png").write_bytes(b"another")
    ran = retrain("check", layout.root, "--undo")
    assert (ran.code, ran.out) == (3, [
        "left data/red/1.png: taken (something else lies where it belongs)",
        "undone:        1 picture is back, 1 left",
        "next:          free the names that are taken, then run",
        f"               retrain check {layout.root} --undo",
    ])  # fmt: skip
    (layout.data / "red" / "1.png").unlink()
    ran = retrain("check", layout.root, "--undo")
    assert (ran.code, ran.out) == (0, ["undone:        1 picture is back, 0 left"])


def test_of_many_pictures_that_are_left_ten_are_named(layout: Layout, tmp_path: Path, retrain: Callable[..., Ran]) -> None:
    text = HEADER + "".join(f"move,red/gone{number}.png,,\n" for number in range(13))
    ran = retrain("check", layout.root, "--apply", written(tmp_path, text))
    assert (ran.code, len(ran.out)) == (3, 12) and ran.out[9].startswith("left red/gone9.png: missing")
    assert ran.out[10:] == ["and 3 more", "applied:       0 relabelled, 0 set aside, 0 kept, 13 left"]


def test_where_nothing_was_found_about_a_picture_no_plan_is_offered(
    tmp_path: Path, tiny_by_name: str, retrain: Callable[..., Ran]
) -> None:
    root, path = tmp_path / "tf_files", tmp_path / "plan.csv"
    for folder in ("blue", "Blue"):
        (root / "data" / folder).mkdir(parents=True)
    draw(root / "data" / "blue" / "1.png", COLOURS["blue"], 0, (120, 90))
    ran = retrain("check", root, "--backbone", tiny_by_name)
    assert ran.code == 3 and not any(line.startswith("next:") for line in ran.out)
    assert ran.out[0] == "pictures:      1 in 1 class, 0 cannot be used"
    assert "colliding-names: 'Blue', 'blue' differ by upper and lower case only" in ran.out
    ran = retrain("check", root, "--backbone", tiny_by_name, "--plan", path)
    assert ran.out[-1] == f"plan:          {path} (without rows: there is nothing to apply)"
    draw(root / "data" / "blue" / "2.png", COLOURS["blue"], 0, (120, 90))
    ran = retrain("check", root, "--backbone", tiny_by_name)
    assert ran.out[-1] == f"next:          retrain check {root} --plan plan.csv"
    ran = retrain("check", root, "--backbone", tiny_by_name, "--plan", path)
    assert ran.out[-2:] == [
        f"plan:          {path} (1 picture; edit it)", f"next:          retrain check {root} --apply {path}",
    ]  # fmt: skip


@pytest.mark.parametrize("content", [None, b'\x89PNG\r\0\r"', bytes(range(255, -1, -1)) * 9])
def test_where_no_plan_can_be_written_that_is_said_before_the_work_begins(
    tf_files: Path, tiny_by_name: str, retrain: Callable[..., Ran], content: bytes | None
) -> None:
    path = tf_files / "nonexist" / "x.csv"
    if content is not None:
        path.parent.mkdir()
        path.write_bytes(content)
    ran = retrain("check", tf_files, "--plan", path, "--backbone", tiny_by_name)
    said = "is no plan of retrain check" if content else f"there is no folder {path.parent}"
    assert ran.code == 2 and len(ran.err) == 1 and said in ran.err[0]
    assert not (tf_files / "bottlenecks.sqlite").exists()
    if content:
        assert retrain("check", tf_files, "--apply", path).code == 2 and path.read_bytes() == content
