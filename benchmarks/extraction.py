"""How near is the extraction of bottlenecks to what this machine can do at best, and how does it compare with Keras?

    python benchmarks/extraction.py CORPORA

Three comparisons, each of things timed in turns:

small JPEGs   1,200 pictures of the corpora, saved as JPEGs of 224 px: `retrain.bottlenecks.extract` with an empty cache
              (read, hash, decode, compute, write to the cache) against LiteRT alone on pictures that lie decoded in
              memory (the faster of two interpreters with a thread each, and one with two threads). Ratio at least 0.85.
clip art      the corpus as it is, large PNGs mostly: against the time that reading, hashing and decoding (one after the
              other, on one core) and computing (likewise) would take if spread over all cores without any loss; pictures
              that are refused count with the time they take. Limit / actual at least 0.85.
Keras         the small JPEGs again: against `Model.predict` over `image_dataset_from_directory` (`keras_predict.py`, a
              process of its own). At least twice as many pictures a second, over all rounds together: from process to
              process Keras has one of two speeds, far apart, so a median of few rounds is one or the other by chance.
"""

import hashlib
import json
import statistics
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import chain
from pathlib import Path
from typing import Any

import measure
import numpy as np
from PIL import Image

from retrain import backbones, bottlenecks, images, views
from retrain.errors import BadImage
from retrain.runner import Network, Runner, cores

ROW = backbones.get(backbones.DEFAULT)
SIZE = ROW.image_size
LEAST_OF_BARE, LEAST_OF_LIMIT, LEAST_OF_KERAS = 0.85, 0.85, 2.0
BARE_ONE, BARE_TWO = "LiteRT alone, 1 x 2 threads", "LiteRT alone, 2 x 1 thread"


class Bare:
    """LiteRT with nothing around it."""

    def __init__(self, network: Network, threads: int) -> None:
        from ai_edge_litert.interpreter import Interpreter

        self._interpreter = Interpreter(model_content=network.data, num_threads=threads)
        self._interpreter.allocate_tensors()
        self._input = self._interpreter.get_input_details()[0]["index"]
        outputs = self._interpreter.get_output_details()
        self._features = next(output["index"] for output in outputs if len(output["shape"]) == 2)

    def run(self, pixels: list[np.ndarray]) -> None:
        """Compute the features of pictures: float32 of shape (1, size, size, 3) each."""
        for picture in pixels:
            self._interpreter.set_tensor(self._input, picture)
            self._interpreter.invoke()
            self._interpreter.get_tensor(self._features)


def time_bare(interpreters: list[Bare], pixels: list[np.ndarray]) -> float:
    """Return the seconds that interpreters take for all pictures together, each in a Python thread with its share."""
    with ThreadPoolExecutor(len(interpreters)) as pool:
        began = time.perf_counter()
        shares = [pixels[start :: len(interpreters)] for start in range(len(interpreters))]
        list(pool.map(Bare.run, interpreters, shares))
        return time.perf_counter() - began


def time_extract(paths: list[str], network: Network) -> float:
    """Return the seconds of a whole extraction into a new cache, opening and closing it included."""
    space = bottlenecks.Space(ROW.name, "benchmark", views.preprocessing_id(views.DEFAULT_VIEW, SIZE), Runner.engine)
    with measure.temporary_folder() as folder:
        began = time.perf_counter()
        with bottlenecks.Store(folder / "bottlenecks.sqlite", space) as store:
            found = bottlenecks.extract(paths, store, network, views.DEFAULT_VIEW, SIZE, ROW.feature_size)
        seconds = time.perf_counter() - began
    if found.computed != len(found.rows) or len(found.rows) + len(found.problems) != len(paths):
        raise RuntimeError(f"{found.computed} computed, {len(found.rows)} found, {len(found.problems)} refused")
    return seconds


def time_keras(folder: Path, pictures: int) -> float:
    """Return the seconds that Keras takes for the pictures below a folder."""
    script = Path(__file__).with_name("keras_predict.py")
    answer = json.loads(measure.run_child([sys.executable, str(script), str(folder)]).stdout.splitlines()[-1])
    if answer["pictures"] != pictures:
        raise RuntimeError(f"Keras found {answer['pictures']} pictures, not {pictures}")
    return answer["seconds"]


def decoded(paths: list[str]) -> Iterator[np.ndarray]:
    """Read, hash, decode and render pictures one after the other; those that are refused are passed over."""
    for path in paths:
        try:
            data = images.read_bytes(Path(path))
            hashlib.sha256(data).digest()
            yield views.render(views.decode_for(data, SIZE), views.DEFAULT_VIEW, SIZE)
        except BadImage:
            continue


def as_input(pictures: Iterator[np.ndarray]) -> list[np.ndarray]:
    """Return pictures as LiteRT takes them."""
    return [picture[np.newaxis].astype(np.float32) for picture in pictures]


def listed(root: Path) -> list[str]:
    """Return the paths of the picture files below a folder."""
    paths = [str(path) for path, problem in images.find(root) if problem is None]
    if not paths:
        raise SystemExit(f"{root} has no pictures; make the corpora first, benchmarks/README.md says how")
    return paths


def save_small(corpora: Path, folder: Path, limit: int) -> list[str]:
    """Save the first pictures of the corpora as JPEGs of 224 px, in folders as they were; returns their paths."""
    saved: list[str] = []
    for path in chain(listed(corpora / "clipart/data"), listed(corpora / "factions/data")):
        for pixels in decoded([path]):
            place = folder / Path(path).parent.name / f"{len(saved)}.jpg"
            place.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(place, quality=90)
            saved.append(str(place))
        if len(saved) == limit:
            break
    return saved


def overall(rates: list[float]) -> float:
    """Return the pictures a second of rounds taken together: the same number of pictures in each, so the harmonic mean."""
    return statistics.harmonic_mean(rates)


def small_jpegs(corpora: Path, folder: Path, network: Network, limit: int, rounds: int) -> dict[str, Any]:
    """Compare extraction with LiteRT alone and with Keras, on small JPEGs."""
    paths = save_small(corpora, folder, limit)
    pixels = as_input(decoded(paths))
    one, two = [Bare(network, 2)], [Bare(network, 1), Bare(network, 1)]
    time_bare(one, pixels[:50]), time_bare(two, pixels[:50])
    measures = {
        BARE_ONE: lambda: len(pixels) / time_bare(one, pixels),
        BARE_TWO: lambda: len(pixels) / time_bare(two, pixels),
        "extract": lambda: len(paths) / time_extract(paths, network),
        "Keras": lambda: len(paths) / time_keras(folder, len(paths)),
    }
    rates = measure.in_turns(measures, rounds)
    medians = measure.medians(rates)
    bare = [max(both) for both in zip(rates[BARE_ONE], rates[BARE_TWO], strict=True)]
    return {
        "pictures": len(paths),
        "median_pictures_per_second": medians,
        "rounds": rates,
        "extract_to_bare_ratio": medians["extract"] / max(medians[BARE_ONE], medians[BARE_TWO]),
        "extract_to_keras_ratio": overall(rates["extract"]) / overall(rates["Keras"]),
        "extract_to_bare_by_round": [a / b for a, b in zip(rates["extract"], bare, strict=True)],
        "extract_to_keras_by_round": [a / b for a, b in zip(rates["extract"], rates["Keras"], strict=True)],
    }


def clip_art(corpora: Path, network: Network, limit: int | None, rounds: int) -> dict[str, Any]:
    """Compare extraction from the clip art as it is with serial work spread over all cores without loss."""
    paths = listed(corpora / "clipart/data")[:limit]
    bare = Bare(network, 1)
    pixels = as_input(decoded(paths))  # also brings the files into the system's cache

    def time_decoding() -> float:
        began = time.perf_counter()
        for _ in decoded(paths):
            pass
        return time.perf_counter() - began

    measures = {
        "serial decoding": time_decoding,
        "serial inference": lambda: time_bare([bare], pixels),
        "extract": lambda: time_extract(paths, network),
    }
    seconds = measure.in_turns(measures, rounds)
    medians = measure.medians(seconds)
    limit_seconds = (medians["serial decoding"] + medians["serial inference"]) / cores()
    turns = zip(*seconds.values(), strict=True)
    return {
        "pictures": len(paths),
        "refused": len(paths) - len(pixels),
        "cores": cores(),
        "median_seconds": medians,
        "rounds": seconds,
        "limit_seconds": limit_seconds,
        "limit_to_actual_ratio": limit_seconds / medians["extract"],
        "limit_to_actual_by_round": [(decoding + inference) / cores() / actual for decoding, inference, actual in turns],
    }


def main() -> None:
    """Run the benchmark."""
    parser = measure.parser(__doc__, corpora=True)
    parser.add_argument("--limit", type=int, default=1200, help="number of small JPEGs [1200]")
    parser.add_argument("--clip-art", type=int, help="number of clip art pictures [all]")
    parser.add_argument("--rounds", type=int, default=5, help="repeats of each measurement [5]")
    options = parser.parse_args()
    network = measure.default_network()
    with measure.temporary_folder() as folder:
        small = small_jpegs(options.corpora, folder, network, options.limit, options.rounds)
    large = clip_art(options.corpora, network, options.clip_art, options.rounds)
    met = (
        small["extract_to_bare_ratio"] >= LEAST_OF_BARE
        and small["extract_to_keras_ratio"] >= LEAST_OF_KERAS
        and large["limit_to_actual_ratio"] >= LEAST_OF_LIMIT
    )
    target = (
        f"small JPEGs: extract / LiteRT alone at least {LEAST_OF_BARE}; extract / Keras at least {LEAST_OF_KERAS};"
        f" clip art: limit / actual at least {LEAST_OF_LIMIT}"
    )
    results = {"small_jpegs": small, "clip_art": large}
    measure.write(options.out, "extraction", __doc__, results, target=target, met=met)


if __name__ == "__main__":
    main()
