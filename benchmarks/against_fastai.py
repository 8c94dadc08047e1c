"""Is fine-tuning here as accurate as fastai's, with test-time augmentation, in at most a third of its time?

    python benchmarks/against_fastai.py CORPORA FOLDS --peer PYTHON

PYTHON is that of an environment with fastai (`pip install fastai`), which stays out of this one. Both get the clip art of
the other folds to learn from, nothing set apart, and are judged on one fold; both begin with the same weights of
EfficientNet-Lite0, at 224 pixels. Each runs as one process, from nothing: imports and decoding are in its time.

retrain    the head on cached features, then the later half of the blocks (`finetune.fine_tune` with its defaults), the last
           epoch kept; judged by the converted network, plain and in four views
fastai     `fine_tune(8, freeze_epochs=1)` with `aug_transforms()`, squished to 256 pixels, batches of 32; `tta()`

The settings of retrain's fine-tuning were chosen on these folds, fastai's are its defaults.
"""

import argparse
import csv
import hashlib
import json
import os
import sys
from pathlib import Path

import measure
import numpy as np

EPOCHS = 8
FOLD = 0
THIRD = 1 / 3


def linked(data: Path, file: Path, fold: int, folder: Path) -> Path:
    """Make a folder with train/<class>/ and valid/<class>/ of links to the pictures of a file of folds."""
    from retrain import images
    from retrain.images import read_bytes

    with file.open(newline="") as lines:
        rows = {(row["sha256"], row["class"]): int(row["fold"]) for row in csv.DictReader(lines)}
    for path, problem in images.find(data):
        label = path.relative_to(data).parts[0]
        number = None if problem else rows.pop((hashlib.sha256(read_bytes(path)).hexdigest(), label), None)
        if number is not None:
            target = folder / ("valid" if number == fold else "train") / label
            target.mkdir(parents=True, exist_ok=True)
            os.symlink(path.resolve(), target / path.name)
    if rows:
        raise SystemExit(f"{file}: {len(rows)} pictures aren't in {data}")
    return folder


def ours(folder: Path, work: Path) -> dict[str, float]:
    """Fine-tune on train/, and judge on valid/."""
    from retrain import backbones, finetune, head, pixels, views
    from retrain.head import Head
    from retrain.pipeline.features import open_extractor
    from retrain.pipeline.tuned import SURE
    from retrain.progress import SILENT
    from retrain.runner import open_network, run_locally
    from retrain.scores import softmax
    from retrain.settings import AugmentSettings, FineTuneSettings, HeadSettings
    from retrain.storage import Layout

    paths = {part: sorted((folder / part).glob("*/*")) for part in ("train", "valid")}
    labels = sorted({path.parent.name for path in paths["train"]})
    classes = {part: np.array([labels.index(path.parent.name) for path in found]) for part, found in paths.items()}
    extractor = open_extractor(backbones.DEFAULT, None, None, False, SILENT)
    learn = [str(path) for path in paths["train"]]
    features = extractor.extract(learn, Layout(work), run_locally, SILENT).features
    rows = np.arange(len(learn))
    fitted = head.fit_best(
        features, classes["train"], len(labels), np.zeros(len(rows), bool), rows, HeadSettings(), watched=False
    )
    first = Head(SURE * fitted.head.kernel, SURE * fitted.head.bias)
    with pixels.read(learn, pixels.side_for([extractor.backbone.image_size]), work) as squares:
        tuned = finetune.fine_tune(
            extractor.backbone, first, squares, classes["train"], rows, rows[:0], FineTuneSettings(fine_tune=True),
            AugmentSettings(),
        )  # fmt: skip
    runner = open_network(backbones.converted(tuned.model, extractor.backbone))
    names = [views.DEFAULT_VIEW, *(views.distorted(views.DEFAULT_VIEW, one) for one in views.TTA)]
    logits = []
    for path in paths["valid"]:
        picture = views.decode_for(path.read_bytes(), runner.image_size)
        logits.append(
            tuned.head.logits(runner.features(np.stack([views.render(picture, n, runner.image_size) for n in names])))
        )
    scores = softmax(np.stack(logits))
    plain, several = scores[:, 0], scores.mean(axis=1)
    right = [float((one.argmax(axis=1) == classes["valid"]).mean()) for one in (plain, several)]
    return {"accuracy": right[0], "accuracy_with_tta": right[1], "epochs": len(tuned.history)}


def main() -> None:
    """Run the benchmark, or, as its child, our side."""
    if sys.argv[1:2] == ["--ours"]:
        print(json.dumps(ours(Path(sys.argv[2]), Path(sys.argv[3]))))
        return
    parser: argparse.ArgumentParser = measure.parser(__doc__, corpora=True, folds=True)
    parser.add_argument("--peer", type=Path, required=True, help="the Python of an environment with fastai")
    parser.add_argument("--rounds", type=int, default=1, help="runs of each, in turns [1]")
    options = parser.parse_args()
    from retrain import backbones

    weights = backbones.get(backbones.DEFAULT).weights()
    measure.default_network()  # converted once on a machine, as fastai's weights are downloaded once
    runs: dict[str, list[dict[str, float]]] = {"retrain": [], "fastai": []}
    with measure.temporary_folder() as temporary:
        folder = linked(options.corpora / "clipart" / "data", options.folds / "clipart.csv", FOLD, temporary / "split")
        script = Path(__file__).parent / "peers" / "fastai_fine_tune.py"
        for number in range(options.rounds):
            work = temporary / f"work-{number}"
            work.mkdir()
            commands = {
                "retrain": [sys.executable, __file__, "--ours", str(folder), str(work)],
                "fastai": [str(options.peer), str(script), str(folder), str(weights), str(EPOCHS)],
            }
            for name, command in commands.items():
                done = measure.run_child(command)
                found = {**json.loads(done.stdout.splitlines()[-1]), "seconds": done.seconds, "peak_mb": done.peak_mb}
                measure.say(f"{name}: {measure.rounded(found)}")
                runs[name].append(found)
    mean = {name: {key: float(np.mean([run[key] for run in found])) for key in found[0]} for name, found in runs.items()}
    share = mean["retrain"]["seconds"] / mean["fastai"]["seconds"]
    better = mean["retrain"]["accuracy_with_tta"] > mean["fastai"]["accuracy_with_tta"]
    results = {"fold": FOLD, "mean": mean, "share_of_time": share, "runs": runs}
    target = "with test-time augmentation more accurate than fastai, in at most a third of its time"
    measure.write(options.out, "against_fastai", __doc__, results, target=target, met=better and share <= THIRD, seed=0)


if __name__ == "__main__":
    main()
