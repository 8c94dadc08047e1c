"""A process that changes the pictures of a folder as fast as it can: python -m ...changing FOLDER VERSIONS SEED."""

import contextlib
import os
import random
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]


@contextlib.contextmanager
def changing(folder: Path, versions: Path, seed: int) -> Iterator[None]:
    """Have the pictures of a folder changed by another process while the block runs."""
    line = [sys.executable, "-m", __name__, str(folder), str(versions), str(seed)]
    with subprocess.Popen(line, cwd=ROOT, stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None and process.stdout.readline() == b"begun\n"
            yield
            assert process.poll() is None, "it ended before the run did"
        finally:
            process.kill()


def change(path: Path, content: bytes, choose: random.Random) -> None:
    """Replace, delete, bring back, overwrite in place, cut or extend one picture."""
    match choose.randrange(6):
        case 0:
            path.unlink(missing_ok=True)
        case 1:
            with path.open("ab") as file:
                file.write(choose.randbytes(5000))
        case 2:
            with path.open("r+b" if path.exists() else "wb") as file:
                file.write(content)  # in place: a reader may see half of this and half of what was there
        case 3 if path.exists():
            os.truncate(path, choose.randrange(2000))
        case _:
            path.with_suffix(".new").write_bytes(content)
            path.with_suffix(".new").replace(path)


if __name__ == "__main__":
    chosen = random.Random(int(sys.argv[3]))
    pictures = sorted(Path(sys.argv[1]).rglob("*.png"))
    contents = [path.read_bytes() for path in sorted(Path(sys.argv[2]).iterdir())]
    for number in range(10**9):
        change(chosen.choice(pictures), chosen.choice(contents), chosen)
        if not number:
            print("begun", flush=True)
