"""How many pictures a second does `retrain serve` label, and does it hold?

    python benchmarks/serve_load.py

Trains a model on the sample set and saves its pictures as JPEGs of 224 px. A second process (`load_client.py`) sends them
over loopback; it has the same cores as the server.

throughput   16 connections, against LiteRT and Pillow's decoder alone, in one thread a core of one process, in turns.
             Ratio of the medians at least 0.7. Percentiles of the time to an answer are those of all rounds together.
memory       50,000 requests: resident memory after a tenth of them, and at the end. At most 10 % more.
end          SIGTERM while 16 connections ask: requests that were sent whole and not answered. None.
overload     200 connections at a time, more than may wait: every one is answered, with 200 or 503 and Retry-After.
photos       one connection, photos of some 300 KB and of 20 megapixels: seconds to an answer.
"""

import io
import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import measure
import numpy as np
import psutil
from measure import REPOSITORY, RETRAIN, run_child
from PIL import Image, ImageFilter

from retrain import artifact, images
from retrain.errors import BadImage
from retrain.runner import Network, cores

SIZE = 224
LEAST_OF_BARE, MOST_GROWTH = 0.7, 1.1
CONNECTIONS, MANY = 16, 200
ENDS = 5  # times that the server is ended under load
TRAIN_ENDS = (0, 3)  # 3: some pictures were skipped
CLIENT = Path(__file__).resolve().parent / "load_client.py"


class Bare:
    """LiteRT and Pillow with nothing around them."""

    def __init__(self, network: Network) -> None:
        from ai_edge_litert.interpreter import Interpreter

        self._interpreter = Interpreter(model_content=network.data, num_threads=1)
        self._interpreter.allocate_tensors()
        self._input = self._interpreter.get_input_details()[0]["index"]
        outputs = self._interpreter.get_output_details()
        self._features = next(output["index"] for output in outputs if len(output["shape"]) == 2)

    def run(self, data: list[bytes], seconds: float) -> int:
        """Decode and compute for so long; return how many pictures."""
        ends, count = time.perf_counter() + seconds, 0
        while time.perf_counter() < ends:
            with Image.open(io.BytesIO(data[count % len(data)])) as image:
                pixels = np.asarray(image.convert("RGB"), np.float32)
            self._interpreter.set_tensor(self._input, pixels[np.newaxis])
            self._interpreter.invoke()
            self._interpreter.get_tensor(self._features)
            count += 1
        return count


@contextmanager
def served(model: Path, *options: str) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """Give a server and its port; it is ended afterwards if it has not ended by then."""
    command = [*RETRAIN, "serve", "--model", str(model), "--port", "0", *options]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert server.stdout is not None
    try:
        address = server.stdout.readline().split(" on ")[1].split()[0]
        yield server, int(address.rsplit(":", 1)[1].rstrip("/"))
    finally:
        server.terminate()
        server.communicate(timeout=60)


def asked(port: int, connections: int, files: list[Path], *, seconds: float = 3600, most: int = 10**9) -> dict[str, Any]:
    """Let the client ask, and return what it found."""
    command = [sys.executable, str(CLIENT), str(port), str(connections), str(seconds), str(most), *map(str, files)]
    found: dict[str, Any] = json.loads(run_child(command).stdout)
    return found


def percentiles(seconds: list[float]) -> dict[str, float]:
    """Return the usual ones, in milliseconds."""
    return {f"p{at}": 1000 * float(np.percentile(seconds, at)) for at in (50, 95, 99)}


def throughput(model: Path, files: list[Path], rounds: int, seconds: float) -> dict[str, Any]:
    """Compare the server with what is under it."""
    network, data = artifact.load(model).artifact.members[0].network, [file.read_bytes() for file in files]
    bare, answers = [Bare(network) for _ in range(cores())], []

    def alone() -> float:
        with ThreadPoolExecutor(len(bare)) as pool:
            return sum(pool.map(lambda one: one.run(data, seconds), bare)) / seconds

    with served(model) as (_, port):

        def through_it() -> float:
            found = asked(port, CONNECTIONS, files, seconds=seconds)
            assert set(found["statuses"]) == {"200"} and not found["lost"], found["statuses"]
            answers.extend(found["seconds"])
            return len(found["seconds"]) / found["in all"]

        asked(port, CONNECTIONS, files, seconds=2)  # not counted
        figures = measure.in_turns({"LiteRT and decoding alone": alone, "served": through_it}, rounds)
    medians = measure.medians(figures)
    ratio = medians["served"] / medians["LiteRT and decoding alone"]
    return {"pictures a second": medians, "rounds": figures, "ratio": ratio, "milliseconds": percentiles(answers)}


def memory(model: Path, files: list[Path], requests: int) -> dict[str, Any]:
    """Ask many times, and look at the server's resident memory on the way."""
    with served(model) as (server, port):
        process, found = psutil.Process(server.pid), []
        for tenth in range(10):
            asked(port, CONNECTIONS, files, most=requests // 10)
            found.append(process.memory_info().rss / 10**6)
            measure.say(f"{(tenth + 1) * requests // 10} requests: {found[-1]:.0f} MB")
        handles = process.num_fds()
    return {"requests": requests, "MB after each tenth": found, "growth": found[-1] / found[0], "open files": handles}


def ended(model: Path, files: list[Path]) -> dict[str, int]:
    """End the server while it is asked, several times."""
    answered = lost = 0
    codes = []
    for _ in range(ENDS):
        with served(model) as (server, port), ThreadPoolExecutor(1) as pool:
            asking = pool.submit(asked, port, CONNECTIONS, files, seconds=30)
            time.sleep(3)
            server.send_signal(signal.SIGTERM)
            found = asking.result()
            codes.append(server.wait(timeout=30))
        answered, lost = answered + len(found["seconds"]), lost + found["lost"]
    assert set(codes) == {128 + signal.SIGTERM}, codes
    return {"times ended": ENDS, "answered": answered, "lost": lost}


def overloaded(model: Path, files: list[Path], seconds: float) -> dict[str, Any]:
    """Ask over more connections than requests may wait."""
    with served(model) as (_, port):
        found = asked(port, MANY, files, seconds=seconds)
        after = asked(port, 1, files, most=10)
    lacking = found["busy without Retry-After"]
    return {
        "connections": MANY, "statuses": found["statuses"], "lost": found["lost"], "busy without Retry-After": lacking,
        "milliseconds": percentiles(found["seconds"]), "afterwards": after["statuses"],
    }  # fmt: skip


def photos(model: Path, folder: Path) -> dict[str, Any]:
    """Ask with large pictures: smooth noise, which compresses about as well as a photo."""
    found = {}
    with served(model) as (_, port):
        for name, (width, height, blur, quality) in {"300 KB": (1600, 1200, 2, 70), "20 MP": (5472, 3648, 3, 88)}.items():
            noise = np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)
            file = folder / f"{width}.jpg"
            Image.fromarray(noise).filter(ImageFilter.GaussianBlur(blur)).save(file, quality=quality)
            answers = asked(port, 1, [file], most=20)
            assert set(answers["statuses"]) == {"200"}, answers
            found[name] = {"bytes": file.stat().st_size, "milliseconds": percentiles(answers["seconds"])}
    return found


def main() -> None:
    """Run the benchmark."""
    parser = measure.parser(__doc__)
    parser.add_argument("--rounds", type=int, default=5, help="repeats of the throughput [5]")
    parser.add_argument("--seconds", type=float, default=10.0, help="of each of them [10]")
    parser.add_argument("--requests", type=int, default=50_000, help="for the memory [50000]")
    options = parser.parse_args()
    with measure.temporary_folder() as temporary:
        folder = measure.working_folder(REPOSITORY / "tf_files" / "data", temporary, "tf_files")
        run_child([*RETRAIN, "train", str(folder)], allowed=TRAIN_ENDS)
        model, files = folder / "model", []
        for path, problem in images.find(folder / "data"):
            try:
                image = images.decode(path.read_bytes()).image if problem is None else None
            except BadImage:
                continue
            if image is not None:
                files.append(temporary / f"{len(files)}.jpg")
                image.resize((SIZE, SIZE)).save(files[-1], quality=90)
        results = {
            "throughput": throughput(model, files, options.rounds, options.seconds),
            "overload": overloaded(model, files, options.seconds),
            "end": ended(model, files),
            "photos": photos(model, temporary),
            "memory": memory(model, files, options.requests),
        }
    held = results["overload"]
    met = (
        results["throughput"]["ratio"] >= LEAST_OF_BARE
        and results["memory"]["growth"] <= MOST_GROWTH
        and not results["end"]["lost"]
        and not held["lost"]
        and not held["busy without Retry-After"]
        and set(held["statuses"]) <= {"200", "503"}
        and set(held["afterwards"]) == {"200"}
    )
    target = (
        f"{LEAST_OF_BARE} of LiteRT and decoding alone; memory within {MOST_GROWTH:.0%} after {options.requests} requests;"
    )
    target += " nothing lost when it ends; under overload each request answered"
    measure.write(options.out, "serve_load", __doc__, results, target=target, met=met, seed=0)


if __name__ == "__main__":
    main()
