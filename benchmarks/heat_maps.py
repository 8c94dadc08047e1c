"""Does the report of `evaluate` tell when a frame, or a background, carries a class, and is it silent when none does?

    python benchmarks/heat_maps.py CORPORA

At most 60 pictures of each class, drawn at random, of factions/data/<class>/<unit>/ and clipart/data/<class>/. A model is
trained on them as they are; and on factions for each class in turn with a black frame of 6 pixels around all pictures of
this class, and with their colours multiplied by a light blue, so that their white background becomes blue. Each model is
evaluated as `retrain evaluate` does.

Of each class: `fall`, how much the logarithm of the odds of its label against the next one loses without the border, or on
the background of the others; `rise`, how much it gains in pictures of other classes that are given the border or
background; None where nobody looked, as too little was lost. Both are medians over at most 20 pictures of the class.
Flagged is what reaches ln 20 in both, if it is a third of the lead that the label had. The limits were set with frames
on some of these pictures in view, so what is found here says how well they fit. `heat_in_border`: the share of the map
that lies in the outermost 8 % along each edge, of the changed class, and the largest of the others: whether the map alone
would tell.

Met: a frame is flagged of every class of factions, and nothing else is, neither there nor in the pictures as they are. Blue
backgrounds are only counted.
"""

import argparse
import hashlib
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import measure
import numpy as np
from PIL import Image, ImageOps

import retrain
from retrain import images
from retrain.errors import BadImage
from retrain.evaluation.heat import Carried, Found
from retrain.settings import HeadSettings

FRAME = 6  # pixels
BLUE = (205, 220, 255)


def framed(image: Image.Image) -> Image.Image:
    """Put a black frame around a picture."""
    return ImageOps.expand(image, FRAME, (0, 0, 0))


def tinted(image: Image.Image) -> Image.Image:
    """Show a picture in blue light."""
    return Image.fromarray((np.asarray(image) * (np.array(BLUE) / 255)).round().astype(np.uint8))


CHANGES: dict[str, tuple[str, Callable[[Image.Image], Image.Image]]] = {
    "framed": ("border", framed),
    "tinted": ("background", tinted),
}


def subset(corpus: Path, folder: Path, most: int) -> Path:
    """Copy so many pictures of each class at most into a new working folder."""
    for of_class in sorted(path for path in corpus.iterdir() if path.is_dir()):
        files = [path for path in of_class.rglob("*") if path.is_file()]
        target = folder / "data" / of_class.name
        target.mkdir(parents=True)
        # Not by the hash of the content alone: that decides the split.
        for path in sorted(files, key=lambda path: hashlib.sha256(b"subset" + path.read_bytes()).hexdigest())[:most]:
            shutil.copy(path, target / "-".join(path.relative_to(of_class).parts))
    return folder


def changed(base: Path, folder: Path, label: str, change: Callable[[Image.Image], Image.Image]) -> Path:
    """Copy a working folder, its cache included, with all pictures of one class changed; PNGs."""
    shutil.copytree(base / "data", folder / "data")
    shutil.copy(base / "bottlenecks.sqlite", folder / "bottlenecks.sqlite")
    for path in sorted((folder / "data" / label).iterdir()):
        try:
            image = images.decode(path.read_bytes()).image
        except BadImage:
            continue
        path.unlink()
        change(image).save(path.with_name(f"{path.name}.png"))
    return folder


def evaluated(folder: Path, seed: int) -> Found:
    """Train a model and return what its classes rest on."""
    retrain.train(folder, head=HeadSettings(seed=seed))
    found: Found = retrain.evaluate(folder).maps
    return found


def facts(found: Found) -> dict[str, Any]:
    """Return the figures of each class."""
    return {
        one.label: {
            "pictures": one.pictures, "lead": one.lead, "border": figures(one.border), "background": figures(one.background),
            "heat_in_border": one.in_border, "flagged": list(one.flagged),
        }
        for one in found.rests
    }  # fmt: skip


def figures(of: Carried | None) -> dict[str, float | None] | None:
    """Return fall and rise."""
    return None if of is None else {"fall": of.fall, "rise": of.rise}


def marked(base: Path, folder: Path, label: str, kind: str, seed: int) -> dict[str, Any]:
    """Change a class, and tell whether that is flagged, and what else is."""
    part, change = CHANGES[kind]
    rests = evaluated(changed(base, folder, label, change), seed).rests
    own = next(one for one in rests if one.label == label)
    named = own.border if part == "border" else own.background
    others = [one for one in rests if one.label != label]
    return {
        "pictures": own.pictures,
        "lead": own.lead,
        "flagged": part in own.flagged,
        "figures": figures(named),
        "flagged_besides": {one.label: list(one.flagged) for one in others if one.flagged},
        "highest_fall_of_others": max(one.border.fall for one in others if one.border),
        "heat_in_border": own.in_border,
        "highest_heat_in_border_of_others": max(one.in_border or 0.0 for one in others),
    }  # fmt: skip


def options() -> argparse.Namespace:
    """Read the command line."""
    parser = measure.parser(__doc__, corpora=True)
    parser.add_argument("--most", type=int, default=60, help="pictures of a class [60]")
    parser.add_argument("--classes", type=int, help="how many classes of factions are changed [all]")
    parser.add_argument("--seed", type=int, default=0, help="seed of the heads [0]")
    return parser.parse_args()


def main() -> None:
    """Run the benchmark."""
    chosen = options()
    measure.default_network()
    with measure.temporary_folder() as temporary:
        bases = {
            name: subset(chosen.corpora / name / "data", temporary / name, chosen.most) for name in ("factions", "clipart")
        }
        untouched = {name: facts(evaluated(base, chosen.seed)) for name, base in bases.items()}
        results: dict[str, Any] = {}
        for kind in CHANGES:
            results[kind] = {}
            for label in list(untouched["factions"])[: chosen.classes]:
                folder = temporary / f"{kind}-{label}"
                results[kind][label] = marked(bases["factions"], folder, label, kind, chosen.seed)
                measure.say(f"{label} {kind}: {measure.rounded(results[kind][label])}")
                shutil.rmtree(folder)
    alarms = {
        name: {label: row["flagged"] for label, row in its.items() if row["flagged"]} for name, its in untouched.items()
    }
    alarms |= {
        f"{kind} {label}": row["flagged_besides"]
        for kind, its in results.items() for label, row in its.items() if row["flagged_besides"]
    }  # fmt: skip
    counts = {kind: f"{sum(row['flagged'] for row in its.values())} of {len(its)}" for kind, its in results.items()}
    met = all(row["flagged"] for row in results["framed"].values()) and not any(alarms.values())
    target = "a frame is flagged of every class of factions, and nothing is of classes that nobody changed"
    results = {"flagged": counts, "false_alarms": alarms, "changed": results, "untouched": untouched}
    measure.write(chosen.out, "heat_maps", __doc__, results, target=target, met=met, seed=chosen.seed)


if __name__ == "__main__":
    main()
