"""What lies where, and that it gets there whole."""

import os
import stat
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from retrain import storage
from retrain.errors import EnvironmentProblem, Exit, UsageError
from retrain.storage import SENTINEL, Layout, find_cached, is_own, locked, own_folder, user_cache, write_atomically
from tests.privileges import where_permissions_count

ROOT = hasattr(os, "geteuid") and os.geteuid() == 0


def child(script: str, *arguments: object, **options: object) -> subprocess.Popen:
    """Start a Python process that we can talk to."""
    line = [sys.executable, "-c", script, *map(str, arguments)]
    return subprocess.Popen(line, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, **options)


# --- write_atomically


def test_runs_with_the_same_process_number_do_not_get_into_one_anothers_way(tmp_path: Path) -> None:
    """As in containers, where each is number 1; here they are threads."""
    contents = [bytes([number]) * 50_000 for number in range(200)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda data: write_atomically(tmp_path / "file", data), contents))
    assert (tmp_path / "file").read_bytes() in contents and os.listdir(tmp_path) == ["file"]


def test_a_file_is_written_and_replaced_and_nothing_else_is_left(tmp_path: Path) -> None:
    for data in (b"first", b"", b"second" * 9999):
        write_atomically(tmp_path / "file", data)
        assert (tmp_path / "file").read_bytes() == data
    assert os.listdir(tmp_path) == ["file"]


def test_the_old_file_stays_whole_when_there_is_no_room_for_the_new_one(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"old")
    script = (
        "import resource, sys; from pathlib import Path\n"
        "from retrain.errors import EnvironmentProblem; from retrain.storage import write_atomically\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))\n"
        "try: write_atomically(Path(sys.argv[1]), bytes(5000))\n"
        "except EnvironmentProblem as problem: print(problem)"
    )
    said, _ = child(script, tmp_path / "file").communicate(timeout=60)
    assert str(tmp_path / "file") in said and "too large" in said and ".tmp" not in said
    assert (tmp_path / "file").read_bytes() == b"old" and os.listdir(tmp_path) == ["file"]


def test_a_folder_in_place_of_the_file_or_none_to_write_in_is_named(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "kept").touch()
    for path in (tmp_path / "folder", tmp_path / "absent" / "file"):
        with pytest.raises(EnvironmentProblem, match=f"cannot write {path}:"):
            write_atomically(path, b"data")
    assert os.listdir(tmp_path) == ["folder"] and os.listdir(tmp_path / "folder") == ["kept"]


def test_a_reader_and_a_kill_see_one_whole_version_or_another(tmp_path: Path) -> None:
    script = (
        "import itertools, sys; from pathlib import Path; from retrain.storage import write_atomically\n"
        "for number in itertools.count():\n"
        "    write_atomically(Path(sys.argv[1]), bytes([number % 2]) * (1 + number % 2) * 100_000)\n"
        "    if number == 0: print('ready', flush=True)"
    )
    versions = {bytes(100_000), b"\1" * 200_000}
    for _ in range(3):
        with child(script, tmp_path / "file") as writer:
            assert writer.stdout.readline() == "ready\n"
            assert {(tmp_path / "file").read_bytes() for _ in range(200)} <= versions
            writer.kill()
        assert (tmp_path / "file").read_bytes() in versions


@pytest.mark.parametrize("umask", [0o022, 0o002, 0o077])
def test_the_umask_is_honoured(tmp_path: Path, umask: int) -> None:
    before = os.umask(umask)
    try:
        write_atomically(tmp_path / "file", b"data")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "file").stat().st_mode) == 0o666 & ~umask


def test_what_killed_runs_left_of_a_file_is_removed_and_what_a_run_writes_now_is_not(tmp_path: Path) -> None:
    left, other, young = (tmp_path / f".{name}.tmp" for name in ("file.4194305", "file2.4194305", "file.4194306"))
    for path in (left, other, young):
        path.write_bytes(b"half")
    for path in (left, other):
        os.utime(path, (1, 1))
    write_atomically(tmp_path / "file", b"data")
    assert sorted(os.listdir(tmp_path)) == [young.name, other.name, "file"]
    os.utime(young, (1, 1))
    script = (
        "import fcntl, sys; file = open(sys.argv[1]); fcntl.flock(file, fcntl.LOCK_EX); print('held', flush=True); input()"
    )
    with child(script, young) as holder:
        assert holder.stdout.readline() == "held\n"
        write_atomically(tmp_path / "file", b"data")
        assert young.exists()
        holder.communicate("\n", timeout=60)
    write_atomically(tmp_path / "file", b"data")
    assert not young.exists()


# --- folders


def test_the_layout_takes_the_data_folder_or_else_the_working_folder(tmp_path: Path) -> None:
    layout = Layout(tmp_path)
    assert layout.data == tmp_path
    (tmp_path / "data").touch()
    assert layout.data == tmp_path
    (tmp_path / "data").unlink()
    (tmp_path / "data").mkdir()
    assert layout.data == tmp_path / "data"
    assert (layout.model, layout.reports) == (tmp_path / "model", tmp_path / "reports")
    assert layout.bottlenecks == tmp_path / "bottlenecks.sqlite"


def test_our_folders_are_marked_and_an_empty_one_may_be_taken(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for name in ("new/below", "empty"):
        folder = own_folder(tmp_path / name)
        assert folder == tmp_path / name and is_own(folder) and os.listdir(folder) == [SENTINEL]
        (folder / "report.json").touch()
        assert own_folder(folder) == folder
    assert not is_own(tmp_path)


def test_a_folder_that_a_killed_run_was_about_to_mark_may_be_taken(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "..retrain.4194305.tmp").touch()
    assert is_own(own_folder(tmp_path / "model"))


def test_a_folder_of_someone_else_is_refused_and_left_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "car.jpg").touch()
    with pytest.raises(UsageError, match=f"model exists and was not made by retrain; .* into {tmp_path}/data"):
        own_folder(tmp_path / "model")
    assert os.listdir(tmp_path / "model") == ["car.jpg"]


def test_a_file_or_a_link_to_nowhere_in_place_of_our_folder_is_a_mistake(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to("nowhere")
    for name in ("file", "link"):
        with pytest.raises(UsageError, match=name):
            own_folder(tmp_path / name)
    with pytest.raises(EnvironmentProblem, match="file"):
        own_folder(tmp_path / "file" / "below")


@where_permissions_count
def test_a_folder_that_cannot_be_written_is_the_environments_fault(tmp_path: Path) -> None:
    own_folder(tmp_path / "ours").chmod(0o500)
    for folder in (tmp_path / "ours", tmp_path / "ours" / "below"):
        with pytest.raises(EnvironmentProblem, match="ours"):
            own_folder(folder)


# --- locks

HOLDER = (
    "import sys; from pathlib import Path; from retrain.storage import locked\n"
    "with locked(Path(sys.argv[1]), 'work'):\n"
    "    print('held', flush=True); sys.stdin.read()"
)


def test_who_waits_too_long_for_a_lock_is_told_which_process_holds_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(storage, "LOCK_SECONDS", 0.2)
    path = tmp_path / "x.lock"
    for end in (lambda process: process.stdin.close(), lambda process: process.kill()):
        with child(HOLDER, path) as holder:
            assert holder.stdout.readline() == "held\n"
            with pytest.raises(EnvironmentProblem, match=f"process {holder.pid}.* for converting") as caught:
                locked(path, "converting").__enter__()
            assert caught.value.exit_code is Exit.ENVIRONMENT
            end(holder)
        with locked(path, "converting"):
            pass


def test_an_error_while_a_lock_is_held_passes_and_frees_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(storage, "LOCK_SECONDS", 0.2)
    with pytest.raises(ZeroDivisionError), locked(tmp_path / "x.lock", "work"):
        raise ZeroDivisionError
    holder = child(HOLDER, tmp_path / "x.lock")
    assert holder.communicate(input="", timeout=60)[0] == "held\n"


def test_a_lock_that_cannot_be_made_is_the_environments_fault(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(EnvironmentProblem, match="file"), locked(tmp_path / "file" / "x.lock", "work"):
        pytest.fail("there is no lock")


# --- the user's cache folder


def test_the_cache_folder_is_the_one_that_was_chosen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RETRAIN_CACHE_DIR", str(tmp_path / "a" / "b"))
    assert user_cache() == user_cache() == tmp_path / "a" / "b"
    assert (tmp_path / "a" / "b" / "CACHEDIR.TAG").read_bytes().startswith(b"Signature: 8a477f597d28d172789f06886806bc55")
    assert stat.S_IMODE((tmp_path / "a" / "b").stat().st_mode) == 0o700


def test_without_a_choice_it_is_the_systems_usual_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RETRAIN_CACHE_DIR")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert tmp_path in user_cache().parents and user_cache().name == "retrain"


def test_where_it_cannot_be_made_a_temporary_one_is_used_and_then_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("RETRAIN_CACHE_DIR", str(tmp_path / "file"))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    fallback = user_cache()
    assert fallback.parent == tmp_path and fallback.stat().st_uid == os.getuid() and (fallback / "CACHEDIR.TAG").exists()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "file"))
    with pytest.raises(EnvironmentProblem, match=r"no cache folder can be written.*RETRAIN_CACHE_DIR"):
        user_cache()


def test_a_user_without_a_home_gets_a_temporary_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def homeless(*_: object) -> Path:
        raise RuntimeError("could not determine the home directory")

    for name in ("RETRAIN_CACHE_DIR", "HOME", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("platformdirs.user_cache_path", homeless)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    assert user_cache() == user_cache() == tmp_path / f"retrain-{os.getuid()}"
    monkeypatch.setenv("RETRAIN_CACHE_DIR", str(tmp_path / "chosen"))
    assert user_cache() == tmp_path / "chosen"


@pytest.mark.skipif(not ROOT, reason="only root can make a folder that belongs to someone else")
def test_a_temporary_cache_folder_of_someone_else_is_not_trusted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    (tmp_path / f"retrain-{os.getuid()}").mkdir()
    os.chown(tmp_path / f"retrain-{os.getuid()}", 65534, 65534)
    monkeypatch.setenv("RETRAIN_CACHE_DIR", str(tmp_path / "file"))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with pytest.raises(EnvironmentProblem, match="no cache folder"):
        user_cache()
    assert os.listdir(tmp_path / f"retrain-{os.getuid()}") == []


@where_permissions_count
def test_a_cache_folder_that_can_only_be_read_still_serves(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (image := tmp_path / "image" / "hub").mkdir(parents=True)
    (image / "kept").write_text("from the image")
    image.parent.chmod(0o555)
    monkeypatch.setenv("RETRAIN_CACHE_DIR", str(image.parent))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    assert find_cached("hub/kept") == image / "kept"
    assert find_cached("hub") is None and find_cached("gone") is None
    fallback = user_cache()
    assert fallback.parent == tmp_path
    (fallback / "gone").write_text("made in this run")
    assert find_cached("gone") == fallback / "gone"


def test_with_no_temporary_folder_at_all_the_cache_is_still_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def nowhere() -> str:
        raise FileNotFoundError("no usable temporary directory")

    (tmp_path / "kept").touch()
    monkeypatch.setattr(tempfile, "gettempdir", nowhere)
    monkeypatch.setenv("RETRAIN_CACHE_DIR", str(tmp_path))
    assert find_cached("kept") == tmp_path / "kept"
    (tmp_path / "file").touch()
    monkeypatch.setenv("RETRAIN_CACHE_DIR", str(tmp_path / "file"))
    with pytest.raises(EnvironmentProblem, match="no cache folder can be written"):
        user_cache()


@pytest.mark.skipif(not ROOT, reason="only root can make a folder that belongs to someone else")
def test_nothing_is_read_from_a_temporary_cache_folder_of_someone_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (planted := tmp_path / f"retrain-{os.getuid()}").mkdir()
    (planted / "network").touch()
    monkeypatch.setenv("RETRAIN_CACHE_DIR", str(tmp_path / "empty"))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    assert find_cached("network") == planted / "network"
    os.chown(planted, 65534, 65534)
    assert find_cached("network") is None
