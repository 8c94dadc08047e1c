"""Fine-tuning: what may learn learns, what must stay stays, the best is kept, and a run that was cut short goes on."""

import dataclasses
import hashlib
import json
import math
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from retrain import distortions, finetune
from retrain.backbones import Backbone, get, saved_model
from retrain.backbones.torch_file import read_tensors
from retrain.devices import choose_precision, logical_cpus, start, strategy
from retrain.distortions import Distortion
from retrain.errors import EnvironmentProblem, ModelRefused, NothingUsable, UsageError
from retrain.finetune import checkpoint, depth, network, optimizer, page, rates, said, tune
from retrain.finetune.batches import Batches, distort, epoch_plan, transforms, undistorted
from retrain.finetune.checkpoint import Epoch
from retrain.finetune.trainer import Trainer, setting
from retrain.head import Head
from retrain.pixels import Pixels
from retrain.progress import SILENT
from retrain.scores import cross_entropies, fit_temperature, softmax
from retrain.settings import AugmentSettings, FineTuneSettings
from tests import hub_modules
from tests.hub_modules import tiny_net, write_tf1, write_tf2

SIZE, FEATURES, CLASSES, COUNT = 32, 12, 3, 36
STILL = AugmentSettings(flip=False, crop=0, scale=0, brightness=0, colour=0, rotation=0)
QUICK = FineTuneSettings(epochs=2, tuning_batch=8, tuning_rate=0.01, blocks=0, weight_decay=0.01)
NOTHING = dataclasses.replace(QUICK, epochs=1, tuning_rate=1e-8, weight_decay=0.0)  # learns next to nothing
LEARNT, VALIDATED = np.arange(24), np.arange(24, COUNT)


def build_small(_weights: Path, image_size: int = SIZE) -> Any:
    """A residual network with batch norm and the names of EfficientNet-Lite: stem, two blocks, top."""
    start()
    import keras
    from keras import layers

    rng = np.random.default_rng(7)

    def normalised(x: Any, name: str) -> Any:
        norm = layers.BatchNormalization(epsilon=1e-3, name=name)
        y, channels = norm(x), x.shape[-1]
        shares = ((1, 0.1), (0.2, 0.1), (0.0, 0.2))
        norm.set_weights([*(rng.normal(mean, by, channels) for mean, by in shares), rng.uniform(0.5, 1.5, channels)])
        return y

    def convolved(x: Any, name: str, filters: int, size: int, stride: int = 1) -> Any:
        layer = layers.Conv2D(filters, size, stride, "same", use_bias=False, name=name)
        y = layer(x)
        layer.set_weights([rng.normal(0, (2 / (size * size * x.shape[-1])) ** 0.5, layer.kernel.shape)])
        return y

    pixels = keras.Input((image_size, image_size, 3), name="pixels")
    x = layers.Rescaling(1 / 128, offset=-127 / 128)(pixels)
    x = layers.ReLU(6)(normalised(convolved(x, "conv_stem", 6, 3, 4), "bn0"))
    y = layers.ReLU(6)(normalised(convolved(x, "blocks_0_project_conv", 6, 1), "blocks_0_bn1"))
    x = layers.Add()([x, y])
    x = layers.ReLU(6)(convolved(x, "blocks_1_project_conv", 8, 3, 2))
    spatial = layers.ReLU(6, name="spatial")(convolved(x, "conv_head", FEATURES, 1))
    return keras.Model(pixels, [layers.GlobalAveragePooling2D(name="features")(spatial), spatial])


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Backbone:
    weights = tmp_path_factory.mktemp("weights") / "none"
    weights.write_bytes(b"none")
    return Backbone("small", SIZE, FEATURES, "Apache-2.0", "drawn by the tests", lambda: weights, build_small)


@pytest.fixture(scope="module")
def labels() -> np.ndarray:
    return np.arange(COUNT) % CLASSES


@pytest.fixture
def held(labels: np.ndarray, tmp_path: Path) -> Iterator[Pixels]:
    """Noise in three colours, as squares that need not be made smaller."""
    with drawn(labels, tmp_path) as found:
        yield found


def drawn(labels: np.ndarray, folder: Path, side: int = SIZE) -> Pixels:
    held = Pixels(len(labels), side, folder)
    rng = np.random.default_rng(1)
    colours = np.eye(CLASSES)[labels][:, None, None, :] * 60 + 90
    held.squares[:] = np.clip(rng.normal(colours, 50, held.squares.shape), 0, 255)
    return held


@pytest.fixture(scope="module")
def head() -> Head:
    rng = np.random.default_rng(2)
    return Head(rng.normal(0, 0.3, (FEATURES, CLASSES)).astype(np.float32), rng.normal(0, 0.1, CLASSES).astype(np.float32))


@dataclasses.dataclass
class Told:
    """Keeps what is noted; may raise at a note or at a step of a bar, as Ctrl-C would."""

    stop_at: str = ""
    stop_after_steps: int = 10**9
    lines: list[str] = dataclasses.field(default_factory=list)
    steps: int = 0

    def note(self, line: str) -> None:
        self.lines.append(line)
        if self.stop_at and self.stop_at in line:
            raise KeyboardInterrupt

    def bar(self, what: str, total: int | None) -> Any:
        return nullcontext(self.advance)

    def advance(self) -> None:
        self.steps += 1
        if self.steps == self.stop_after_steps:
            raise KeyboardInterrupt


@pytest.fixture
def tuned(small: Backbone, head: Head, held: Pixels, labels: np.ndarray) -> Callable[..., finetune.Tuned]:
    """Fine-tune the small backbone, with some of what is usual replaced."""

    def run(settings: FineTuneSettings = QUICK, augment: AugmentSettings = STILL, **other: Any) -> finetune.Tuned:
        usual = {
            "backbone": small, "head": head, "pixels": held, "labels": labels, "train_rows": LEARNT,
            "validation_rows": VALIDATED, "precision": "float32",
        }  # fmt: skip
        return finetune.fine_tune(**(usual | {"settings": settings, "augment": augment} | other))

    return run


@pytest.fixture(scope="module")
def usual(
    small: Backbone, head: Head, labels: np.ndarray, tmp_path_factory: pytest.TempPathFactory
) -> tuple[finetune.Tuned, Told]:
    """A run that many tests look at."""
    told = Told()
    with drawn(labels, tmp_path_factory.mktemp("usual")) as held:
        found = finetune.fine_tune(
            small, head, held, labels, LEARNT, VALIDATED, QUICK, STILL, precision="float32", progress=told
        )  # fmt: skip
    return found, told


def features_of(model: Any, squares: np.ndarray) -> np.ndarray:
    found = model.predict_on_batch(np.asarray(squares, np.float32))
    return np.asarray(found[0] if isinstance(found, list | tuple) else found)


def at_best(logits: np.ndarray, truth: np.ndarray) -> float:
    """The mean cross-entropy at the temperature that is best for these pictures, which is how epochs are compared."""
    found = float(cross_entropies(logits / fit_temperature(logits, truth), truth).mean())
    assert found <= cross_entropies(logits, truth).mean() + 1e-6
    return found


def digest(found: finetune.Tuned) -> str:
    whole = hashlib.sha256()
    for name, array in sorted(found.tensors.items()):
        whole.update(name.encode() + array.tobytes())
    whole.update(found.head.kernel.tobytes() + found.head.bias.tobytes() + repr(found.history and found.best_epoch).encode())
    return whole.hexdigest()


def moved(found: finetune.Tuned, backbone: Backbone) -> dict[str, float]:
    """How far each tensor of the backbone is from where it was."""
    before = network.tensors(backbone.build(backbone.weights(), SIZE))
    return {name: float(np.abs(array - before[name]).max()) for name, array in found.tensors.items()}


# --- what learns and what does not


def test_a_tuned_network_is_better_and_has_the_form_of_a_backbone(tuned: Callable, held: Pixels, labels: np.ndarray) -> None:
    found = tuned(dataclasses.replace(QUICK, epochs=8, tuning_rate=0.03, label_smoothing=0.0))
    first, last = found.history[0], found.history[-1]
    assert last.loss < first.loss / 2 and found.history[found.best_epoch - 1].validation_error == 0
    assert found.model.input_shape == (None, SIZE, SIZE, 3)
    assert [tuple(output.shape[1:]) for output in found.model.outputs] == [(FEATURES,), (4, 4, FEATURES)]
    features, spatial = found.model.predict_on_batch(held.squares[:4].astype(np.float32))
    assert np.abs(spatial.mean(axis=(1, 2)) - features).max() < 1e-5
    assert found.head.kernel.shape == (FEATURES, CLASSES) and found.head.kernel.dtype == found.head.bias.dtype == np.float32
    hits = found.head.logits(features_of(found.model, held.squares)).argmax(axis=1) == labels
    assert hits[VALIDATED].all()


def test_statistics_of_batch_norm_never_move_while_scales_and_shifts_learn(usual: tuple, small: Backbone) -> None:
    by = moved(usual[0], small)
    still = {name for name in by if "moving_" in name}
    assert len(still) == 4 and all(by[name] == 0 for name in still)
    assert all(by[name] > 0 for name in by.keys() - still)


@pytest.mark.weights
def test_batch_norm_stays_as_it_is_where_the_constant_says_so(
    tuned: Callable, small: Backbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(network, "NORMS_LEARN", False)
    by = moved(tuned(), small)
    assert {name.rpartition("/")[2] for name, distance in by.items() if distance} == {"kernel"}


@pytest.mark.parametrize(
    ("blocks", "first"),
    [
        pytest.param(1, "conv_head", marks=pytest.mark.weights),
        (None, "blocks_1_"),
        pytest.param(3, "blocks_0_", marks=pytest.mark.weights),
    ],
)
def test_blocks_before_the_last_ones_do_not_move(tuned: Callable, small: Backbone, blocks: int | None, first: str) -> None:
    by = moved(tuned(dataclasses.replace(QUICK, blocks=blocks)), small)
    names = [name for name in by if "moving_" not in name]
    begin = next(number for number, name in enumerate(names) if first in name)
    assert [by[name] > 0 for name in names] == [number >= begin for number in range(len(names))]


def test_more_blocks_than_there_are_are_refused(tuned: Callable) -> None:
    with pytest.raises(UsageError, match="--blocks 5 is more than small has; it has 4, and 0 stands for all"):
        tuned(dataclasses.replace(QUICK, blocks=5))


@pytest.mark.weights
def test_layers_further_from_the_top_move_less(tuned: Callable, small: Backbone) -> None:
    by = moved(tuned(dataclasses.replace(QUICK, rate_decay=0.1, weight_decay=0.0, clip_norm=0.0)), small)
    stem, top = (by[next(name for name in by if f"/{layer}/kernel" in name)] for layer in ("conv_stem", "conv_head"))
    assert 100 < top / stem < 3000


def test_the_best_epoch_is_kept_and_patience_ends_a_run(tuned: Callable, held: Pixels, labels: np.ndarray) -> None:
    wrong = np.where(np.isin(np.arange(COUNT), VALIDATED), (labels + 1) % CLASSES, labels)
    found = tuned(dataclasses.replace(QUICK, epochs=9, patience=2, label_smoothing=0.0), labels=wrong)
    losses = [epoch.validation_loss for epoch in found.history]
    best = int(np.argmin(losses))
    assert found.best_epoch == best + 1 and len(losses) == best + 3 and found.stopped
    logits = found.head.logits(features_of(found.model, held.squares[VALIDATED]))
    assert abs(at_best(logits, wrong[VALIDATED]) - losses[best]) < 1e-5
    assert losses[-1] > losses[best] + 1e-3
    through = tuned(dataclasses.replace(QUICK, epochs=len(losses) + 1, label_smoothing=0.0), labels=wrong)
    assert len(through.history) == len(losses) + 1 and not through.stopped


@pytest.mark.weights
def test_without_validation_pictures_the_last_epoch_is_kept(tuned: Callable) -> None:
    found = tuned(dataclasses.replace(QUICK, patience=1), validation_rows=VALIDATED[:0])
    assert found.best_epoch == 2 and not found.stopped
    assert found.history[0].validation_loss is found.history[0].validation_error is None


@pytest.mark.weights
@pytest.mark.parametrize(
    ("smoothing", "class_weight"),
    [
        pytest.param(0.0, "none", marks=pytest.mark.weights),
        pytest.param(0.4, "none", marks=pytest.mark.weights),
        (0.1, "balanced"),
    ],
)
def test_it_begins_with_backbone_and_head_as_given_and_the_loss_is_that_of_smoothed_labels_and_weighed_classes(
    tuned: Callable, small: Backbone, head: Head, held: Pixels, labels: np.ndarray, smoothing: float, class_weight: str
) -> None:
    rows = np.concatenate([LEARNT[:12], LEARNT[0:12:3]])  # class 0 twice as often
    found = tuned(dataclasses.replace(NOTHING, label_smoothing=smoothing), train_rows=rows, class_weight=class_weight)
    logits = head.logits(features_of(small.build(small.weights(), SIZE), held.squares))
    targets = np.eye(CLASSES)[labels[rows]] * (1 - smoothing) + smoothing / CLASSES
    losses = -(targets * np.log(softmax(logits[rows]))).sum(axis=1)
    counts = np.bincount(labels[rows])[labels[rows]]
    weights = 1 / counts if class_weight == "balanced" else np.ones(len(rows))
    (epoch,) = found.history
    assert abs(epoch.loss - (losses * weights).mean() / weights.mean()) < 1e-4
    assert abs(epoch.validation_loss - at_best(logits[VALIDATED], labels[VALIDATED])) < 1e-4
    assert epoch.validation_error == (logits.argmax(axis=1) != labels)[VALIDATED].mean()
    assert np.abs(found.head.kernel - head.kernel).max() < 1e-5


@pytest.mark.weights
def test_all_that_can_be_set_at_once_trains(tuned: Callable) -> None:
    settings = dataclasses.replace(QUICK, schedule="one-cycle", mixup=0.2, dropout=0.3)
    found = tuned(settings, AugmentSettings(), class_weight="balanced", image_sizes=(16, SIZE))
    assert [epoch.size for epoch in found.history] == [16, SIZE] and found.best_epoch == 2
    assert all(math.isfinite(epoch.loss) for epoch in found.history)
    assert found.model.input_shape[1] == SIZE


@pytest.mark.weights
def test_weights_are_carried_over_to_the_next_size(tuned: Callable) -> None:
    first, second = tuned(dataclasses.replace(QUICK, epochs=6), image_sizes=(24, SIZE)).history[2:4]
    assert (first.size, second.size) == (24, SIZE)
    assert abs(second.loss - first.loss) < 0.25 and second.loss < 0.9 * math.log(CLASSES)


@pytest.mark.parametrize(("pictures", "epochs"), [(8, 15), (400, 7), (40_000, 5), (0, 15)])
def test_epochs_are_enough_for_some_hundred_steps_where_their_number_is_not_set(pictures: int, epochs: int) -> None:
    assert tune.epoch_count(pictures, dataclasses.replace(QUICK, epochs=0)) == epochs
    assert tune.epoch_count(pictures, QUICK) == 2


def test_the_last_sizes_have_no_fewer_epochs() -> None:
    assert tune.sizes_of_epochs((16, SIZE), 5) == (16, 16, SIZE, SIZE, SIZE)
    assert tune.sizes_of_epochs((8, 16, SIZE), 1) == (SIZE,)


# --- refused


def test_a_backbone_with_nothing_to_train_is_refused(tuned: Callable, squares: Backbone) -> None:
    nothing = Head(np.zeros((27, CLASSES), np.float32), np.zeros(CLASSES, np.float32))
    with pytest.raises(UsageError, match="squares has no weights that can be trained; drop --fine-tune"):
        tuned(backbone=squares, head=nothing)


def test_a_loss_that_is_not_finite_is_told_with_advice(tuned: Callable, head: Head) -> None:
    broken = Head(np.full_like(head.kernel, np.nan), head.bias)
    with pytest.raises(EnvironmentProblem, match="not finite in epoch 1; try a lower --tuning-rate or --precision float32"):
        tuned(head=broken)


def test_too_little_memory_is_told_with_advice(tuned: Callable, monkeypatch: pytest.MonkeyPatch) -> None:
    tf = start()
    import keras

    def out_of_memory(*_: Any, **__: Any) -> None:
        raise tf.errors.ResourceExhaustedError(None, None, "OOM when allocating tensor")

    monkeypatch.setattr(keras.Model, "fit", out_of_memory)
    with pytest.raises(EnvironmentProblem, match="not enough memory to fine-tune; try a lower --tuning-batch"):
        tuned()


@pytest.mark.weights
def test_a_bar_can_be_seen_while_steps_are_run(tuned: Callable, capfd: pytest.CaptureFixture[str]) -> None:
    class Drawn(Told):
        def advance(self) -> None:
            super().advance()
            os.write(2, f"step {self.steps}\n".encode())

    tuned(dataclasses.replace(QUICK, epochs=1), progress=Drawn())
    assert "step 1\nstep 2\nstep 3\n" in capfd.readouterr().err


def test_no_picture_to_learn_from_is_told(tuned: Callable) -> None:
    with pytest.raises(NothingUsable, match="no picture to fine-tune on"):
        tuned(train_rows=LEARNT[:0])


# --- interrupted


RICH = dataclasses.replace(QUICK, epochs=4, mixup=0.2, dropout=0.3)
RICHLY: dict[str, Any] = {"image_sizes": (16, SIZE), "key": "one", "seed": 5}


@pytest.fixture(scope="module")
def whole(small: Backbone, head: Head, labels: np.ndarray, tmp_path_factory: pytest.TempPathFactory) -> finetune.Tuned:
    """A run that nothing interrupts."""
    with drawn(labels, tmp_path_factory.mktemp("whole")) as held:
        return finetune.fine_tune(
            small, head, held, labels, LEARNT, VALIDATED, RICH, AugmentSettings(), precision="float32", **RICHLY
        )  # fmt: skip


@pytest.mark.weights
@pytest.mark.parametrize("told", [Told("epoch 2 of 4"), Told(stop_after_steps=8)])
def test_an_interrupted_run_ends_as_if_it_had_not_been(
    tuned: Callable, whole: finetune.Tuned, tmp_path: Path, told: Told
) -> None:
    kept = tmp_path / "run.safetensors"
    with pytest.raises(KeyboardInterrupt):
        tuned(RICH, AugmentSettings(), **RICHLY, checkpoint=kept, progress=told)
    after = Told()
    resumed = tuned(RICH, AugmentSettings(), **RICHLY, checkpoint=kept, progress=after)
    assert f"goes on after epoch {len(told.lines) or 2} of 4" in after.lines[0]
    assert digest(resumed) == digest(whole) and resumed.history == whole.history


@pytest.mark.weights
def test_a_checkpoint_of_another_run_or_a_damaged_one_is_not_gone_on_from(tuned: Callable, tmp_path: Path) -> None:
    kept = tmp_path / "run.safetensors"
    with pytest.raises(KeyboardInterrupt):
        tuned(checkpoint=kept, key="one", progress=Told("epoch 1"))
    good = kept.read_bytes()
    state = checkpoint.load(kept, "one")
    assert state is not None and len(state.history) == 1
    assert checkpoint.load(kept, "two") is None and checkpoint.load(tmp_path / "none", "one") is None
    damaged = bytearray(good)
    damaged[-5] ^= 1
    for content in (bytes(damaged), good[:-7], good[:5], b"", b"no checkpoint"):
        kept.write_bytes(content)
        assert checkpoint.load(kept, "one") is None
    told = Told()
    found = tuned(checkpoint=kept, key="one", progress=told)
    assert len(found.history) == 2 and not any("goes on" in line for line in told.lines)
    last = tuned(checkpoint=kept, key="one", progress=(told := Told()))
    assert told.steps == 0 and digest(last) == digest(found)  # it was killed before its result was saved
    kept.write_bytes(good)
    narrow = Head(np.zeros((FEATURES, 2), np.float32), np.zeros(2, np.float32))
    told = Told()
    tuned(checkpoint=kept, key="one", head=narrow, labels=np.arange(COUNT) % 2, progress=told)
    assert not any("goes on" in line for line in told.lines)


@pytest.mark.weights
def test_the_same_seed_gives_the_same_bytes_and_another_gives_others(tuned: Callable, usual: tuple) -> None:
    assert digest(tuned()) == digest(usual[0]) != digest(tuned(seed=4))


_KILLED = """
import sys
from pathlib import Path
from tests import test_finetune as t
import numpy as np
folder = Path(sys.argv[1])
labels = np.arange(t.COUNT) % t.CLASSES
rng = np.random.default_rng(2)
head = t.Head(rng.normal(0, 0.3, (t.FEATURES, t.CLASSES)).astype("f4"), np.zeros(t.CLASSES, "f4"))
small = t.Backbone("small", t.SIZE, t.FEATURES, "", "", lambda: folder, t.build_small)
class Printed(t.Told):
    def note(self, line): print(line, flush=True)
found = t.finetune.fine_tune(small, head, t.drawn(labels, folder), labels, t.LEARNT, t.VALIDATED, t.RICH,
    t.AugmentSettings(), precision="float32", checkpoint=folder / "kept" if len(sys.argv) > 2 else None, progress=Printed(),
    **t.RICHLY)
print(t.digest(found))
"""


@pytest.mark.faults
def test_a_killed_process_goes_on_where_it_was(tmp_path: Path) -> None:
    line = [sys.executable, "-c", _KILLED, str(tmp_path)]

    def lines(*more: str) -> list[str]:
        return subprocess.run([*line, *more], capture_output=True, text=True, timeout=300, check=True).stdout.splitlines()

    with subprocess.Popen([*line, "keep"], stdout=subprocess.PIPE, text=True) as killed:
        assert killed.stdout is not None
        assert any("epoch 2 of 4" in told for told in killed.stdout)
        killed.kill()
    after = lines("keep")
    assert killed.returncode == -signal.SIGKILL
    assert any("goes on after epoch" in told for told in after) and after[-1] == lines()[-1]


# --- what a step learns from


def batches(held: Pixels, labels: np.ndarray, **other: Any) -> Batches:
    usual = {"settings": QUICK, "augment": AugmentSettings(), "seed": 0, "rows": LEARNT, "features": FEATURES}
    return Batches(held.squares, labels, classes=CLASSES, **(usual | other))


@pytest.mark.parametrize(("size", "replicas"), [(8, 1), (23, 1), (7, 2), (1000, 2)])
def test_each_picture_is_learnt_from_once_an_epoch(held: Pixels, labels: np.ndarray, size: int, replicas: int) -> None:
    of = batches(held, labels, settings=dataclasses.replace(QUICK, tuning_batch=size), replicas=replicas)
    first, second = (np.concatenate([of.chosen(epoch, step) for step in range(of.steps)]) for epoch in (0, 1))
    assert of.batch % replicas == 0 and of.batch <= max(size + replicas - 1, replicas)
    assert sorted(first[:24]) == sorted(second[:24]) == list(LEARNT) and (first[:24] != second[:24]).any()
    assert len(first) - 24 < of.steps * replicas + 1


def test_steps_are_drawn_from_seed_epoch_and_step_alone(held: Pixels, labels: np.ndarray) -> None:
    settings = dataclasses.replace(QUICK, mixup=0.5, dropout=0.5)
    first, again = (batches(held, labels, settings=settings).drawn(3, 1, SIZE, SIZE) for _ in range(2))
    assert all((one == two).all() for one, two in zip(first, again, strict=True))
    for epoch, step, seed in ((3, 2, 0), (4, 1, 0), (3, 1, 7)):
        other = batches(held, labels, settings=settings, seed=seed).drawn(epoch, step, SIZE, SIZE)
        differ = [not (one == two).all() for one, two in zip(first, other, strict=True)]
        assert differ == [True] * 4 + [False] + [True] * 3  # the weights of pictures are all 1


def test_mixed_pictures_have_mixed_labels(held: Pixels, labels: np.ndarray) -> None:
    of = batches(held, labels, settings=dataclasses.replace(QUICK, mixup=0.8), augment=STILL)
    (inputs, targets, weights), = of.dataset(epoch_plan(0, 1), SIZE).as_numpy_iterator()  # fmt: skip
    shares, partners = of.drawn(0, 0, SIZE, SIZE)[5:7]
    rows = of.chosen(0, 0)
    assert len(np.unique(shares)) == len(rows) and (weights == 1).all()
    plain, beside = held.squares[rows].astype(np.float32), held.squares[rows[partners]].astype(np.float32)
    mixed = shares[:, None, None, None] * plain + (1 - shares[:, None, None, None]) * beside
    assert np.abs(inputs["pixels"] - mixed).max() < 0.01
    first, second = (np.eye(CLASSES)[labels[chosen]] for chosen in (rows, rows[partners]))
    assert np.abs(targets - (shares[:, None] * first + (1 - shares[:, None]) * second)).max() < 1e-6


def test_dropout_keeps_the_mean_of_features(held: Pixels, labels: np.ndarray) -> None:
    of = batches(held, labels, settings=dataclasses.replace(QUICK, dropout=0.25), features=4000)
    kept = of.drawn(0, 0, SIZE, SIZE)[7]
    assert set(np.unique(kept)) == {np.float32(0), np.float32(1) / np.float32(0.75)}
    assert abs(kept.mean() - 1) < 0.02


def scene(side: int) -> Image.Image:
    """A picture with a different colour at each place, and edges."""
    rng = np.random.default_rng(4)
    coarse = Image.fromarray(rng.integers(0, 256, (6, 6, 3), dtype=np.uint8))
    return coarse.resize((side, side), Image.Resampling.BICUBIC)


@pytest.mark.parametrize(
    "distortion",
    [
        Distortion(width=0.8, height=0.8),
        Distortion(flip=1, width=0.8, height=0.8, x=0.1, y=-0.05),
        Distortion(width=0.8, height=0.8, turn=25),
        Distortion(width=0.9, height=0.8, x=0.3, turn=-170, flip=1),
        Distortion(width=0.8, height=0.8, brightness=1.6),
        Distortion(width=0.8, height=0.8, brightness=0.7, colour=0.2),
        Distortion(width=0.8, height=0.8, brightness=1.2, colour=1.9),
    ],
)
def test_pictures_are_distorted_as_pillow_does_it(distortion: Distortion) -> None:
    tf = start()
    size, side = 48, 60  # Distortion.apply has the picture at this side before it takes the window
    picture = scene(150)
    square = np.asarray(picture.resize((side, side), Image.Resampling.BICUBIC, reducing_gap=3.0), np.float32)
    row = np.array([[getattr(distortion, name) for name in distortions.NAMES]])
    found = distort(tf, tf.constant(square[None]), transforms(row, side, size), row[:, 6:].astype(np.float32), side, size)
    difference = np.abs(np.asarray(found[0]) - np.asarray(distortion.apply(picture, size), np.float32))
    assert difference.max() < 6 and difference.mean() < 1.2  # Pillow cuts off fractions, up to three times


def test_larger_squares_are_made_smaller_before_they_are_distorted() -> None:
    tf = start()
    checks = np.indices((120, 120)).sum(axis=0)[None, :, :, None] % 2 * np.full(3, 255.0)
    identity = np.array([[0, 1, 1, 0, 0, 0, 1, 1.0]])
    found = distort(tf, tf.constant(checks, tf.float32), transforms(identity, 40, 30), np.ones((1, 2), np.float32), 40, 30)
    assert np.asarray(found)[0, 2:-2, 2:-2].std() < 40  # grey, not a pattern that is not there


def test_pictures_to_validate_on_are_as_pillow_shows_them() -> None:
    picture = scene(60)
    squares = np.stack([np.asarray(picture)] * 5)
    for size in (60, 48):
        (first, second) = (one["pixels"] for one in undistorted(squares, np.arange(5), size, 3).as_numpy_iterator())
        expected = np.asarray(picture.resize((size, size), Image.Resampling.BICUBIC), np.float32)
        assert first.shape == second.shape == (3, size, size, 3)
        assert np.abs(first[0] - expected).max() <= 2


# --- optimizer


def made(settings: FineTuneSettings) -> tuple[Any, list[Any]]:
    """An optimizer of a kernel in each of two groups, the first with a bias, and a head."""
    start()
    import keras

    first, second, head = (keras.Variable(np.full((3, 2), 1.0, np.float32)) for _ in range(3))
    bias = keras.Variable(np.full(2, 1.0, np.float32))
    built = optimizer.make([[first, bias], [second]], [head], settings, lambda highest: highest)
    built.build([second, first, bias, head])
    return built, [second, first, bias, head]


def test_each_group_has_its_own_rate() -> None:
    built, variables = made(FineTuneSettings(tuning_rate=0.1, rate_decay=0.5, weight_decay=0.0, clip_norm=0.0))
    built.apply([np.ones_like(one.numpy()) for one in variables], variables)
    steps = [1 - float(one.numpy().ravel()[0]) for one in variables]
    assert np.allclose(steps, [0.05, 0.1, 0.1, 0.1], rtol=1e-4)


def test_weights_decay_and_vectors_do_not() -> None:
    built, variables = made(FineTuneSettings(tuning_rate=0.1, rate_decay=0.5, weight_decay=0.2))
    built.apply([np.zeros_like(one.numpy()) for one in variables], variables)
    assert np.allclose([float(one.numpy().ravel()[0]) for one in variables], [0.99, 0.98, 1, 0.98])


def test_gradients_are_shortened_together_and_only_when_they_are_long() -> None:
    tf = start()
    long = [tf.constant([3.0, 0.0]), None, tf.constant([[4.0]])]
    found = optimizer.clipped(tf, long, 1.0)
    assert found[1] is None and np.allclose(found[0], [0.6, 0]) and np.allclose(found[2], [[0.8]])
    assert np.allclose(optimizer.clipped(tf, long, 6.0)[0], [3, 0])


def test_scaling_of_the_loss_is_undone_before_gradients_are_shortened(monkeypatch: pytest.MonkeyPatch) -> None:
    start()
    import keras

    built, variables = made(QUICK)
    seen: list[list[np.ndarray]] = []
    monkeypatch.setattr(optimizer, "clipped", lambda tf, grads, most: seen.append([np.asarray(g) for g in grads]) or grads)
    scaled = keras.optimizers.LossScaleOptimizer(built, initial_scale=1024.0)
    scaled.build(variables)
    scaled.apply([np.full_like(one.numpy(), 1024 * 0.25) for one in variables], variables)
    assert all(np.allclose(gradient, 0.25) for gradient in seen[-1])


def rates_of(settings: FineTuneSettings, steps: int) -> np.ndarray:
    schedule = optimizer.scheduled(settings, steps)(0.5)
    return np.array([float(schedule(step)) for step in range(steps)])


def test_cosine_warms_up_and_falls_to_nothing() -> None:
    found = rates_of(QUICK, 100)
    assert np.allclose(found[[0, 10]], [0.05, 0.5], rtol=1e-5) and found.argmax() == 10
    assert (np.diff(found[:11]) > 0).all() and (np.diff(found[10:]) < 0).all() and found[-1] < 0.001
    assert math.isfinite(rates_of(QUICK, 1)[0])


def test_one_cycle_rises_and_falls_along_waves() -> None:
    found = rates_of(dataclasses.replace(QUICK, schedule="one-cycle"), 100)
    assert np.allclose(found[[0, 30]], [0.02, 0.5], rtol=1e-4) and found.argmax() == 30
    assert (np.diff(found[:31]) > 0).all() and (np.diff(found[30:]) < 0).all() and found[-1] < 0.001
    assert math.isfinite(rates_of(dataclasses.replace(QUICK, schedule="one-cycle"), 1)[0])


# --- learning rates


@pytest.mark.weights
def test_a_search_for_the_rate_tries_them_in_order_and_leaves_nothing(
    small: Backbone, head: Head, held: Pixels, labels: np.ndarray
) -> None:
    kernel = head.kernel.copy()
    told = Told()
    found = finetune.find_rate(
        small, head, held, labels, LEARNT, QUICK, STILL, precision="float32", progress=told, steps=40
    )  # fmt: skip
    assert (np.diff(np.log(found.rates)) > 0).all() and found.rates[0] == rates.LOWEST and len(found.rates) <= 40
    assert len(found.losses) == len(found.smoothed) == len(found.rates) == told.steps
    assert found.rates[0] <= found.proposed <= found.rates[-1] and (head.kernel == kernel).all()


def test_the_rate_is_on_the_longest_fall_where_that_has_begun() -> None:
    exponents = np.linspace(-7, 0, 100)
    losses = 2 - np.clip((exponents + 4) / 2, 0, 1) + np.clip(exponents + 1.5, 0, None) * 8
    found = rates.curve(list(10**exponents), list(losses))
    assert found.rule == rates.VALLEY and 3e-4 < found.proposed < 1e-2


def test_where_the_loss_only_rises_the_rate_is_a_tenth_of_where_it_begins_to() -> None:
    exponents = np.linspace(-7, 0, 100)
    noise = np.random.default_rng(0).normal(0, 0.05, 100)
    found = rates.curve(list(10**exponents), list(1 + noise + np.clip(exponents + 2, 0, None) * 5))
    assert found.rule == rates.BEFORE_RISE and 5e-4 < found.proposed < 5e-3


def test_the_page_of_rates_shows_the_proposal_and_loads_nothing() -> None:
    curve = rates.RateCurve((1e-3, 1e-2, 1e-1), (2.0, 1.0, 90.0), (2.0, 1.5, 30.0), 0.01, rates.VALLEY)
    written = page.render(curve, "<b>net")
    assert "--tuning-rate 0.01" in written and rates.VALLEY in written and "&lt;b&gt;net" in written
    assert 'class="proposed"' in written and "http" not in written.replace("http-equiv", "") and "nan" not in written


# --- depth


def test_blocks_are_found_by_their_names(small: Backbone) -> None:
    found = depth.blocks(small.build(small.weights(), SIZE))
    assert [[layer.name for layer in block] for block in found] == [
        ["conv_stem", "bn0"],
        ["blocks_0_project_conv", "blocks_0_bn1"],
        ["blocks_1_project_conv"],
        ["conv_head"],
    ]
    assert [len(group) for group in depth.groups([["a"], ["b", "c"], *[["d"]] * 5])] == [1, 1, 1, 2, 3]


@pytest.mark.parametrize("joined", [True, False])
def test_blocks_without_names_end_where_paths_meet_or_begin_at_weights(joined: bool) -> None:
    start()
    import keras
    from keras import layers

    x = pixels = keras.Input((8, 8, 3))
    for _ in range(3):
        y = layers.BatchNormalization()(layers.Conv2D(3, 1)(x))
        x = layers.Add()([x, layers.Conv2D(3, 1)(y)]) if joined else y
    found = depth.blocks(keras.Model(pixels, [layers.Conv2D(4, 1)(x)]))
    assert [len(block) for block in found] == ([3, 3, 3, 1] if joined else [2, 2, 2, 1])


# --- number formats


@pytest.mark.weights
@pytest.mark.parametrize("policy", ["mixed_float16", pytest.param("mixed_bfloat16", marks=pytest.mark.weights)])
def test_half_precision_trains_and_leaves_float32_behind(tuned: Callable, policy: str) -> None:
    import keras

    found = tuned(dataclasses.replace(QUICK, epochs=3), precision=policy)
    assert found.history[-1].loss < found.history[0].loss
    assert all(array.dtype == np.float32 for array in found.tensors.values())
    assert found.head.kernel.dtype == np.float32 and found.model.dtype_policy.name == "float32"
    assert all(layer.compute_dtype == "float32" for layer in found.model.layers)
    assert keras.config.dtype_policy().name == "float32"


def test_in_half_precision_the_backbone_is_half_and_head_and_loss_are_not(small: Backbone, head: Head) -> None:
    start()
    import keras

    of = setting(small, head, QUICK, "mixed_float16", (), SILENT)
    trainer = Trainer(of, SIZE, optimizer.scheduled(QUICK, 4))
    parts = trainer.network
    assert parts.backbone.get_layer("conv_head").compute_dtype == "float16" and parts.dense.compute_dtype == "float32"
    assert isinstance(parts.model.optimizer, keras.optimizers.LossScaleOptimizer)
    assert parts.model({"pixels": np.zeros((1, SIZE, SIZE, 3), np.float32)}).dtype == "float32"


@pytest.mark.parametrize(
    ("details", "policy", "why"),
    [
        ([], "float32", "no GPU"),
        ([("NVIDIA H100", (9, 0))], "mixed_float16", "NVIDIA H100 has compute capability 9.0"),
        ([("A", (9, 0)), ("GTX 1080", (6, 1))], "float32", "GTX 1080 has compute capability 6.1, float16 is slow there"),
    ],
)
def test_the_number_format_is_chosen_for_the_gpu_and_the_reason_told(
    monkeypatch: pytest.MonkeyPatch, details: list, policy: str, why: str
) -> None:
    tf = start()
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind: details)
    keys = ("device_name", "compute_capability")
    monkeypatch.setattr(
        tf.config.experimental, "get_device_details", lambda gpu: dict(zip(keys, gpu, strict=True))
    )  # fmt: skip
    monkeypatch.setattr(tf.config.experimental, "set_memory_growth", lambda *_: None)
    assert str(choose_precision("auto")) == f"{policy}: {why}"
    assert choose_precision("mixed_bfloat16").policy == "mixed_bfloat16"


# --- devices


_TWO_CPUS = """
import json, sys
from pathlib import Path
from retrain import devices
devices.logical_cpus(2)
from tests import test_finetune as t
import numpy as np
folder = Path(sys.argv[1])
labels = np.arange(t.COUNT) % t.CLASSES
head = t.Head(np.random.default_rng(2).normal(0, 0.3, (t.FEATURES, t.CLASSES)).astype("f4"), np.zeros(t.CLASSES, "f4"))
small = t.Backbone("small", t.SIZE, t.FEATURES, "", "", lambda: folder, t.build_small)
found = t.finetune.fine_tune(small, head, t.drawn(labels, folder), labels, t.LEARNT, t.VALIDATED[:11], t.DROPPED, t.STILL,
    devices=("CPU:0", "CPU:1"), precision=sys.argv[2])
print(json.dumps([[one.loss, one.validation_loss] for one in found.history]))
"""
DROPPED = dataclasses.replace(QUICK, dropout=0.2)


@pytest.mark.weights
@pytest.mark.parametrize("policy", ["float32", "mixed_float16"])
def test_two_devices_train_as_one_does(tuned: Callable, head: Head, tmp_path: Path, policy: str) -> None:
    line = [sys.executable, "-c", _TWO_CPUS, str(tmp_path), policy]
    ended = subprocess.run(line, capture_output=True, text=True, timeout=300, check=False)
    assert ended.returncode == 0, ended.stderr[-3000:]
    two = np.array(json.loads(ended.stdout.splitlines()[-1]))
    alone = tuned(DROPPED, validation_rows=VALIDATED[:11], head=Head(head.kernel, np.zeros(CLASSES, np.float32)))
    one = np.array([[epoch.loss, epoch.validation_loss] for epoch in alone.history])
    assert np.isfinite(two).all() and np.abs(two - one).max() < (1e-3 if policy == "float32" else 0.05)


def test_a_device_that_is_not_there_is_refused() -> None:
    with pytest.raises(UsageError, match="there is no device 'GPU:7' here; there are CPU:0"):
        strategy(["GPU:7"])
    with pytest.raises(UsageError, match="a device is named twice"):
        strategy(["CPU:0", "/cpu:0"])


def test_the_cpu_cannot_be_divided_once_tensorflow_runs() -> None:
    start().constant(1) + 1
    with pytest.raises(EnvironmentProblem, match="TensorFlow already runs in this process"):
        logical_cpus(3)


@pytest.mark.weights
def test_one_device_by_name_trains(tuned: Callable) -> None:
    assert math.isfinite(tuned(dataclasses.replace(QUICK, epochs=1), devices=["CPU:0"]).history[0].loss)


# --- SavedModels


@pytest.fixture
def module(tmp_path: Path) -> Backbone:
    folder = write_tf2(tmp_path / "module", tiny_net(FEATURES))
    return Backbone("module", SIZE, FEATURES, "", "", lambda: folder, saved_model.build)


@pytest.mark.weights
def test_a_saved_model_learns_all_but_its_statistics(tuned: Callable, module: Backbone, held: Pixels) -> None:
    told = Told()
    found = tuned(dataclasses.replace(QUICK, epochs=3), backbone=module, precision="mixed_float16", progress=told)
    assert told.lines[0] == "module is a SavedModel, whose number format is fixed: float32"
    by = moved(found, module)
    assert len(by) == 15
    assert all(("mean" in name or "variance" in name) == (not distance) for name, distance in by.items())
    assert found.history[-1].loss < found.history[0].loss
    logits = found.head.logits(features_of(found.model, held.squares[VALIDATED]))
    expected = found.history[found.best_epoch - 1].validation_loss
    assert abs(at_best(logits, (np.arange(COUNT) % CLASSES)[VALIDATED]) - expected) < 1e-4


def test_a_saved_model_shows_no_blocks_and_trains_on_one_device(tuned: Callable, module: Backbone) -> None:
    with pytest.raises(UsageError, match="module is a SavedModel, whose blocks cannot be seen; drop --blocks"):
        tuned(dataclasses.replace(QUICK, blocks=1), backbone=module)
    with pytest.raises(UsageError, match="trains on one device only, not on CPU:0, CPU:1"):
        tuned(backbone=module, devices=["CPU:0", "CPU:1"])


@pytest.mark.weights
def test_a_module_of_the_first_tf_hub_learns_where_its_variables_say_so(
    tuned: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    still = write_tf1(tmp_path / "still", tiny_net(FEATURES))
    backbone = Backbone("hub1", SIZE, FEATURES, "", "", lambda: still, saved_model.build)
    with pytest.raises(UsageError, match="hub1 has no weights that can be trained"):
        tuned(backbone=backbone)
    v1 = start().compat.v1
    get_variable = v1.get_variable

    def trainable(name: str, **options: Any) -> Any:
        return get_variable(name, **(options | {"trainable": not name.endswith(("/mean", "/variance"))}))

    monkeypatch.setattr(v1, "get_variable", trainable)
    learning = write_tf1(tmp_path / "learning", tiny_net(FEATURES))
    backbone = dataclasses.replace(backbone, weights=lambda: learning)
    found = tuned(dataclasses.replace(QUICK, epochs=3), backbone=backbone)
    by = moved(found, backbone)
    assert all(("mean" in name or "variance" in name) == (not distance) for name, distance in by.items())
    assert found.history[-1].loss < found.history[0].loss


# --- weights by name


def test_tensors_go_back_into_a_network_of_any_size(usual: tuple, small: Backbone, held: Pixels) -> None:
    found, _ = usual
    for size in (SIZE, 64):
        fresh = small.build(small.weights(), size)
        network.put_back(fresh, found.tensors)
        if size == SIZE:
            assert (features_of(fresh, held.squares[:3]) == features_of(found.model, held.squares[:3])).all()
        assert network.tensors(fresh).keys() == found.tensors.keys()


def test_names_of_tensors_do_not_depend_on_what_was_built_before(tiny: Backbone) -> None:
    first, second = (list(network.tensors(tiny.build(tiny.weights(), 32))) for _ in range(2))
    assert first == second == ["0000/conv2d/kernel"]


def test_tensors_of_another_network_are_refused(small: Backbone, tiny: Backbone) -> None:
    model = small.build(small.weights(), SIZE)
    with pytest.raises(ModelRefused, match="is only in one of them"):
        network.put_back(model, network.tensors(tiny.build(tiny.weights(), 32)))
    wider = {name: np.zeros((*array.shape, 2), np.float32) for name, array in network.tensors(model).items()}
    with pytest.raises(ModelRefused, match="have another shape"):
        network.put_back(model, wider)


# --- what is said


def test_each_epoch_is_told_with_the_time_that_is_left(usual: tuple) -> None:
    _, told = usual
    assert [line.split(":")[0] for line in told.lines] == ["epoch 1 of 2", "epoch 2 of 2"]
    assert told.lines[0].endswith(" left") and told.lines[1].endswith("% right") and told.steps == 6


def test_the_time_left_counts_pixels() -> None:
    history = [Epoch(100, 1.0, 1.0, 0.5, 300.0), Epoch(100, 1.0, 1.0, 0.5, 120.0)]
    assert said.time_left(history, (100, 100, 100, 200)) == "about 10 min left"
    assert said.in_words(30) == "less than a minute" and said.in_words(9000) == "about 2.5 h"
    line = said.epoch_line(2, 12, Epoch(32, 0.8123, 0.634, 0.219), "about 3 min left")
    assert line == "epoch 2 of 12: loss 0.812, validation loss 0.634, 78.1 % right, about 3 min left"


# --- real networks


@pytest.mark.weights
@pytest.mark.parametrize("blocks", [0, 2])
def test_the_embedded_network_learns(tmp_path: Path, labels: np.ndarray, blocks: int) -> None:
    lite0 = get("efficientnet-lite0", 64)
    head = Head(np.random.default_rng(0).normal(0, 0.01, (1280, CLASSES)).astype(np.float32), np.zeros(CLASSES, np.float32))
    settings = FineTuneSettings(epochs=3, tuning_batch=8, blocks=blocks)
    with drawn(labels, tmp_path, 72) as held:
        found = finetune.fine_tune(
            lite0, head, held, labels, LEARNT, VALIDATED, settings, AugmentSettings(), image_sizes=(48, 64)
        )  # fmt: skip
    assert found.history[-1].loss < found.history[0].loss
    assert len(depth.blocks(found.model)) == 18
    before = network.tensors(lite0.build(lite0.weights(), 64))
    by = {name: float(np.abs(array - before[name]).max()) for name, array in found.tensors.items()}
    assert all(by[name] == 0 for name in by if "moving_" in name)
    learnt = [name for name in by if by[name] and name.endswith("/kernel")]
    assert len(learnt) == (49 if blocks == 0 else 4)


@pytest.mark.weights
def test_a_real_network_in_the_format_of_the_first_tf_hub_learns(
    tuned: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, labels: np.ndarray
) -> None:
    v1 = start().compat.v1
    get_variable = v1.get_variable
    monkeypatch.setattr(
        v1,
        "get_variable",
        lambda name, **options: get_variable(name, **(options | {"trainable": not name.endswith(("/mean", "/variance"))})),
    )
    net = hub_modules.lite0_net(read_tensors(get("efficientnet-lite0").weights()))
    folder = write_tf1(tmp_path / "lite0", net)
    backbone = Backbone("lite0-hub", SIZE, 1280, "", "", lambda: folder, saved_model.build)
    head = Head(np.zeros((1280, CLASSES), np.float32), np.zeros(CLASSES, np.float32))
    found = tuned(dataclasses.replace(QUICK, epochs=3, tuning_rate=1e-3), backbone=backbone, head=head)
    by = moved(found, backbone)
    assert found.history[-1].loss < found.history[0].loss
    assert all(("mean" in name or "variance" in name) == (not distance) for name, distance in by.items())


@pytest.mark.weights
@pytest.mark.parametrize(
    ("name", "blocks"),
    [
        ("MobileNetV2", 19), ("MobileNetV3Small", 13), ("MobileNet", 14), ("EfficientNetB0", 18), ("EfficientNetV2B0", 23),
        ("ResNet50", 17), ("ResNet50V2", 18), ("DenseNet121", 60), ("ConvNeXtTiny", 20), ("VGG16", 5), ("Xception", 14),
    ],
)  # fmt: skip
def test_blocks_of_keras_networks_are_those_of_their_makers(name: str, blocks: int, tmp_path: Path) -> None:
    start()
    import keras

    model = getattr(keras.applications, name)(include_top=False, weights=None, input_shape=(96, 96, 3))
    assert len(depth.blocks(model)) == blocks


@pytest.mark.weights
def test_a_network_of_keras_learns_within_its_model(tuned: Callable, tmp_path: Path) -> None:
    start()
    import keras

    path = tmp_path / "notop.weights.h5"
    keras.applications.MobileNetV2(include_top=False, weights=None, input_shape=(SIZE, SIZE, 3)).save_weights(path)
    backbone = get("keras/MobileNetV2", SIZE, path)
    head = Head(np.zeros((1280, CLASSES), np.float32), np.zeros(CLASSES, np.float32))
    found = tuned(dataclasses.replace(QUICK, blocks=2), backbone=backbone, head=head)
    by = moved(found, backbone)
    assert {name.split("/")[1] for name, distance in by.items() if distance} == {
        "block_16_expand", "block_16_expand_BN", "block_16_depthwise", "block_16_depthwise_BN", "block_16_project",
        "block_16_project_BN", "Conv_1", "Conv_1_bn",
    }  # fmt: skip


def test_a_gpu_that_is_not_among_the_devices_does_not_choose_the_number_format(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("retrain.devices.start", lambda: pytest.fail("no GPU is asked for, so none is looked for"))
    assert str(choose_precision("auto", ["CPU:0", "cpu:1"])) == "float32: no GPU among the devices"
    assert choose_precision("mixed_bfloat16", ["CPU:0"]).policy == "mixed_bfloat16"
