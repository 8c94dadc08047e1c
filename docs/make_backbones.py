"""Write docs/backbones.md from the table of backbones and a benchmark's results, or with --check say whether it is current.

python docs/make_backbones.py
python docs/make_backbones.py --check      exit code 1, naming the file, when it is not
"""

import json
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

from retrain.backbones import BACKBONES, DEFAULT, Backbone

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "backbones.md"
RESULTS = ROOT / "benchmarks" / "results" / "backbones.json"
FILES = {"clipart": "clip art", "factions-random": "factions, random", "factions-by-unit": "factions, by unit"}

_TOP = """\
# Backbones

The backbone is the pretrained network that turns a picture into features. Choose one by name:

```sh
retrain train tf_files/ --backbone efficientnet-lite2
retrain backbones
```

This file is written by `docs/make_backbones.py`; do not edit it.

## Which one

Start with the default. The larger ones of its family are embedded, too: they need no download, and take longer for each
picture, when training for the first time and when labelling.
"""

_FIGURES = """\
Accuracy of the head that `retrain train` makes by default, mean over five fixed folds; in brackets the difference to the
default with its 95 % interval over the folds (seed {seed}, `{command}`).
{chance}Milliseconds a picture: LiteRT with one thread, one picture at a
time, on {cpu}, the networks taking turns; read them as ratios.
"""

_HUB = """\
## TF Hub

These names are downloaded when they are first asked for, with address, size and progress shown, into the cache folder
of the user. To fetch one ahead and train without a network later:

```sh
retrain backbones fetch mobilenet-v2
```

A download that broke off goes on where it stopped; two runs fetch a module once; what is not whole is never used.
"""

_HANDLES = """\
Any other image feature vector of TF Hub, in the TF2 or the TF1 format, goes by its address, and a module that you have on
disk by its folder or its `.tar.gz`:

```sh
retrain train tf_files/ --backbone https://tfhub.dev/google/imagenet/nasnet_mobile/feature_vector/5
retrain train tf_files/ --backbone downloads/my_module --image-size 192
retrain train tf_files/ --backbone downloads/my_module.tar.gz
```

The image size is what the module says of itself, else the shape of its input, else what its name suggests, else 224 with
a note; `--image-size` decides otherwise. Pixels are handed over as TF Hub asks for it, from 0 to 1.

A module is a program: TensorFlow runs what is in it while it is converted. Use modules from people you trust. The model
that comes out holds the converted network only.

### If you come from `--tfhub_module`

The ancestor's `retrain.py --tfhub_module HANDLE` is `retrain train tf_files/ --backbone HANDLE`; its handles, TF1
modules among them, still work. `--how_many_training_steps` is `--steps`, `--learning_rate` is `--learning-rate`,
`--testing_percentage` and `--validation_percentage` are `--test` and `--validation`, `--image_dir` is the folder
itself, and `--bottleneck_dir` is not needed: features are kept in `tf_files/bottlenecks.sqlite`, for each backbone
apart.

## Where a network runs

Each network is converted to LiteRT once on a machine and compared with TensorFlow on test pictures. Where LiteRT lacks
an operation, or gives other features, `retrain train` says so, and the network runs in TensorFlow as a frozen graph.
Labelling with such a model needs TensorFlow, too, and takes seconds to start. Of a frozen graph only operations that
compute numbers from numbers are admitted; none can touch a file.
"""

_APPLICATIONS = """\
## keras.applications

With a file of weights that you have on disk, as Keras offers it for the network without its top (`notop`):

```sh
retrain train tf_files/ --backbone keras/MobileNetV2 --weights mobilenet_v2_notop.weights.h5
```
"""

_ADDING = """\
## Adding one

A backbone is a row of data and a builder. For a TF Hub module it is one line in `ROWS` of
`retrain/backbones/hub.py`: name, handle, image size, number of features. Networks built in Keras have a builder that
returns features and the last spatial map, as `retrain/backbones/backbone.py` says; the contract test in
`tests/test_backbones.py` takes up every row whose weights are on the machine.
"""


def page() -> str:
    """Return the text of docs/backbones.md."""
    facts = json.loads(RESULTS.read_text())
    results = facts["results"]
    seed, cpu = ", ".join(map(str, facts["seed"])), facts["machine"]["cpu"]
    return "\n".join(
        [
            _TOP,
            _measured(results),
            _FIGURES.format(chance=_chance(results), seed=seed, command=f"python {facts['command']}", cpu=f"one {cpu} core"),
            _table(("name", "parameters", "pixels", "features", "licence", "weights from"), map(_cells, _of("embedded"))),
            _HUB,
            _table(("name", "parameters", "pixels", "features", "licence", "handle"), map(_cells, _of("TF Hub"))),
            _HANDLES,
            _APPLICATIONS,
            _table(("name", "parameters", "pixels", "features"), (_cells(row)[:4] for row in _of("keras.applications"))),
            _ADDING,
        ]
    )


def _of(family: str) -> list[Backbone]:
    return [row for row in BACKBONES.values() if row.family == family]


def _cells(row: Backbone) -> tuple[str, ...]:
    name = f"`{row.name}`{' (default)' if row.name == DEFAULT else ''}"
    return (
        name,
        f"{row.parameters:.1f} M" if row.parameters else "-",
        f"{row.image_size} x {row.image_size}",
        str(row.feature_size),
        row.licence,
        row.origin,
    )


def _measured(results: dict) -> str:
    rows = []
    for name, found in results.items():
        cells = []
        for file in FILES:
            figure = found["accuracy"][file]
            less = figure.get("minus_default")
            interval = "" if less is None else " ({:+.3f}, {:.3f} to {:.3f})".format(less["mean"], *less["interval_95"])
            cells.append(f"{figure['mean']:.3f}{interval}")
        rows.append((f"`{name}`", *cells, f"{found['milliseconds']['median']:.1f}"))
    return _table(("name", *FILES.values(), "ms a picture"), rows)


def _chance(results: dict) -> str:
    figures = [figure for found in results.values() for figure in found["accuracy"].values()]
    intervals = [figure["minus_default"]["interval_95"] for figure in figures if "minus_default" in figure]
    return "None of these differences is beyond chance. " if all(low <= 0 <= high for low, high in intervals) else ""


def _table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = ["| " + " | ".join(cells) + " |" for cells in (heads, ["---"] * len(heads), *rows)]
    return "\n".join(lines) + "\n"


def main(arguments: Sequence[str], file: Path = PAGE) -> int:
    """Write the page, or check it; returns the exit code."""
    text = page()
    if "--check" not in arguments:
        file.write_text(text)
        return 0
    if file.is_file() and file.read_text() == text:
        return 0
    print(f"{file} is out of date; run: make docs", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
