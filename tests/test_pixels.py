"""Pictures are kept as squares, in a file that nobody sees and that leaves nothing behind."""

import errno
import hashlib
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from retrain import pixels, views
from retrain.errors import EnvironmentProblem, UsageError
from tests.drawing import COLOURS, draw


@pytest.fixture
def paths(tmp_path: Path) -> list[str]:
    """Five pictures."""
    return [str(draw(tmp_path / "data" / f"{number}.png", COLOURS["red"], number)) for number in range(5)]


def sha256(path: str) -> str:
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()


class Bars:
    """Counts what bars are told."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.steps: dict[str, int] = {}

    def note(self, line: str) -> None:
        self.lines.append(line)

    def bar(self, what: str, total: int | None) -> "Bars":
        self.name = what
        self.steps[what] = 0
        return self

    def __enter__(self) -> object:
        return self.advance

    def __exit__(self, *_: object) -> None:
        pass

    def advance(self) -> None:
        self.steps[self.name] += 1


def test_squares_are_what_the_view_shows(paths: list[str], tmp_path: Path) -> None:
    bars = Bars()
    with pixels.read(paths, 40, tmp_path, hashes=[sha256(path) for path in paths], progress=bars) as found:
        assert found.squares.dtype == np.uint8 and found.squares.shape == (5, 40, 40, 3)
        for square, path in zip(found.squares, paths, strict=True):
            picture = views.decode_for(Path(path).read_bytes(), 40)
            assert (square == views.render(picture, "squash", 40)).all()
        assert not found.problems
    assert bars.steps == {"pictures": 5}


def test_borders_are_cut_off_where_the_view_says_so(tmp_path: Path) -> None:
    path = draw(tmp_path / "framed.png", COLOURS["blue"], 1, (60, 60))
    from PIL import Image

    framed = Image.new("RGB", (100, 60), "black")
    framed.paste(Image.open(path), (20, 0))
    framed.save(path)
    with pixels.read([str(path)], 32, tmp_path, view="crop-borders") as found:
        assert found.squares[0, :, :2].mean() > 20
    with pixels.read([str(path)], 32, tmp_path) as found:
        assert found.squares[0, :, :2].max() == 0


def test_files_that_changed_vanished_or_are_no_picture_are_told_by_row(paths: list[str], tmp_path: Path) -> None:
    hashes = [sha256(path) for path in paths]
    draw(Path(paths[1]), COLOURS["green"], 99)
    Path(paths[3]).unlink()
    Path(paths[4]).write_bytes(b"no picture at all")
    hashes[4] = sha256(paths[4])
    with pixels.read(paths, 24, tmp_path, hashes=hashes) as found:
        assert {row: problem.reason for row, problem in found.problems.items()} == {
            1: "changed",
            3: "missing",
            4: "not-an-image",
        }
        assert found.squares[0].any() and found.squares[2].any() and not found.squares[3].any()


def test_no_file_can_be_seen_while_pixels_are_kept(paths: list[str], tmp_path: Path) -> None:
    folder = tmp_path / "working"
    folder.mkdir()
    with pixels.read(paths, 24, folder):
        assert not list(folder.iterdir())
    assert not list(folder.iterdir())


def test_a_killed_process_leaves_nothing(tmp_path: Path) -> None:
    code = (
        "import os, signal, sys; from pathlib import Path; from retrain.pixels import Pixels;"
        "held = Pixels(10, 64, Path(sys.argv[1])); held.squares[:] = 7; os.kill(os.getpid(), signal.SIGKILL)"
    )
    ended = subprocess.run([sys.executable, "-c", code, str(tmp_path)], timeout=60, check=False)
    assert ended.returncode == -9
    assert not list(tmp_path.iterdir())


def test_a_full_disk_is_told_before_a_picture_is_decoded(
    paths: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(EnvironmentProblem, match=r"cannot set aside 0 MiB of pixels in .*: No space left on device"):
        pixels.read(paths, 24, tmp_path, run=lambda *_: pytest.fail("decoded"))


def test_more_room_than_any_disk_has_is_refused_by_the_real_system(tmp_path: Path) -> None:
    with pytest.raises(EnvironmentProblem, match=f"MiB of pixels in {tmp_path}"):
        pixels.Pixels(2**40, 256, tmp_path)


def test_room_is_taken_where_the_file_system_cannot_set_it_aside(
    paths: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def cannot(*_: object) -> None:
        raise OSError(errno.EOPNOTSUPP, "no")

    monkeypatch.setattr(os, "posix_fallocate", cannot)
    monkeypatch.setattr(pixels, "_CHUNK", 1000)
    with pixels.read(paths, 24, tmp_path) as found:
        assert found.squares.shape == (5, 24, 24, 3) and found.squares.any()


def test_a_folder_that_is_not_there_is_named(paths: list[str], tmp_path: Path) -> None:
    with pytest.raises(EnvironmentProblem, match="gone"):
        pixels.read(paths, 24, tmp_path / "gone")


def test_no_pictures_are_no_squares(tmp_path: Path) -> None:
    with pixels.read([], 24, tmp_path) as found:
        assert found.squares.shape == (0, 24, 24, 3)


def test_an_unknown_view_is_refused(paths: list[str], tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="did you mean 'squash'"):
        pixels.read(paths, 24, tmp_path, view="sqush")


@pytest.mark.parametrize(("sizes", "side"), [((224,), 256), ((160, 224), 256), ((32,), 40), ((300, 96), 344)])
def test_there_is_room_to_crop(sizes: tuple[int, ...], side: int) -> None:
    assert pixels.side_for(sizes) == side
