"""Are the embedded weights the real ones, and does LiteRT compute what Keras computes?

    python benchmarks/embedded_weights.py CORPORA

Builds the embedded EfficientNet-Lite0 with the ImageNet classifier that its weights file holds, and shows it pictures
whose content is known: a cup of coffee, a cat, a daisy. Wrong weights, a wrong layer or a wrong scale of pixels would
give other classes. What counts is the default view, the whole picture squashed; beside it stands the score of the
central crop that ImageNet figures are usually quoted for. Then the features of those and of pictures from the corpora,
by LiteRT and by Keras: the largest difference, relative to the largest feature. Met: each picture is recognised, and
the two engines agree to 1e-4.
"""

import importlib.util
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import measure
import numpy as np
from PIL import Image

from retrain import backbones, devices, images, views
from retrain.backbones import efficientnet_lite
from retrain.errors import BadImage
from retrain.runner import Runner

KNOWN = (  # package, file below it, ImageNet classes that are right
    ("skimage", "data/coffee.png", (967,)),  # espresso
    ("skimage", "data/chelsea.png", (281, 282, 285)),  # tabby, tiger cat, Egyptian cat
    ("sklearn", "datasets/images/flower.jpg", (985,)),  # daisy
)
LARGEST_DIFFERENCE = 1e-4


def installed(package: str, file: str) -> Path:
    """Return the path of a file that a package brings along."""
    spec = importlib.util.find_spec(package)
    if spec is None or spec.origin is None:
        raise SystemExit(f"{package} is not installed; run: pip install 'retrain[test]'")
    return Path(spec.origin).parent / file


def pixels_of(path: Path, size: int) -> np.ndarray:
    """Return the default view of a picture, as training sees it; raises BadImage."""
    return views.render(views.decode_for(images.read_bytes(path), size), views.DEFAULT_VIEW, size)


def some_pictures(root: Path, count: int, size: int) -> list[np.ndarray]:
    """Return pixels of so many pictures, spread evenly over a corpus; those that are refused are passed over."""
    paths = [path for path, problem in images.find(root) if problem is None]
    if not paths:
        raise SystemExit(f"{root} has no pictures; make the corpora first, benchmarks/README.md says how")
    return list(islice(usable(paths[:: max(1, len(paths) // max(1, count))], size), count))


def usable(paths: list[Path], size: int) -> Iterator[np.ndarray]:
    """Yield pixels of the pictures that aren't refused."""
    for path in paths:
        try:
            yield pixels_of(path, size)
        except BadImage:
            continue


def central_crop(path: Path, size: int) -> np.ndarray:
    """Return the middle 87.5 % of the shorter side as a square."""
    image = images.decode(images.read_bytes(path)).image
    side = int(0.875 * min(image.size))
    left, top = ((length - side) // 2 for length in image.size)
    box = (left, top, left + side, top + side)
    return np.asarray(image.resize((size, size), Image.Resampling.BICUBIC, box=box))


def recognise(row: backbones.Backbone) -> tuple[list[dict[str, Any]], list[np.ndarray]]:
    """Show the network, with its ImageNet classifier, the known pictures; returns what it says and the pixels."""
    model = efficientnet_lite.build(row.weights(), row.image_size, classify=True)
    answers, pictures = [], []
    for package, file, right in KNOWN:
        path = installed(package, file)
        pictures.append(pixels_of(path, row.image_size))
        both = np.float32([pictures[-1], central_crop(path, row.image_size)])
        scores, of_crop = model.predict_on_batch(both)
        best = int(scores.argmax())
        facts = {"class": best, "score": float(scores[best]), "score_of_central_crop": float(of_crop[best])}
        answers.append({"picture": f"{package}/{file}", "expected": right, **facts, "met": best in right})
    return answers, pictures


def largest_difference(row: backbones.Backbone, pictures: list[np.ndarray]) -> tuple[float, float]:
    """Return the largest difference between LiteRT's and Keras's features, and the largest feature."""
    model = row.build(row.weights(), row.image_size)
    runner = Runner(backbones.network(row).data)
    difference = largest = 0.0
    for at in range(0, len(pictures), 32):
        batch = np.float32(pictures[at : at + 32])
        expected = model.predict_on_batch(batch)[0]
        difference = max(difference, float(np.abs(runner.features(batch) - expected).max()))
        largest = max(largest, float(np.abs(expected).max()))
    return difference, largest


def main() -> None:
    """Run the benchmark."""
    parser = measure.parser(__doc__, corpora=True)
    parser.add_argument("--limit", type=int, default=100, help="pictures from the corpora [100]")
    options = parser.parse_args()
    devices.start()
    row = backbones.get(backbones.DEFAULT)
    answers, pictures = recognise(row)
    half = options.limit // 2
    pictures += some_pictures(options.corpora / "clipart/data", options.limit - half, row.image_size)
    pictures += some_pictures(options.corpora / "factions/data", half, row.image_size)
    difference, largest = largest_difference(row, pictures)
    met = all(answer["met"] for answer in answers) and difference / largest < LARGEST_DIFFERENCE
    results = {
        "backbone": row.name,
        "weights_sha256": backbones.weights_hash(row),
        "recognised": answers,
        "compared_pictures": len(pictures),
        "largest_difference": f"{difference:.2e}",
        "largest_feature": largest,
        "relative_difference": f"{difference / largest:.2e}",
    }
    target = f"each known picture recognised; relative difference below {LARGEST_DIFFERENCE:.0e}"
    measure.write(options.out, "embedded_weights", __doc__, results, target=target, met=met)


if __name__ == "__main__":
    main()
