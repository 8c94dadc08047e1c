"""What each step of fine-tuning learns from: pictures, distorted in another way each time they are seen.

Everything random about a step is drawn from the seed, the epoch and the step: a run that was interrupted and goes on later
sees what it would have seen. mixup: H. Zhang et al., "mixup: Beyond empirical risk minimization", ICLR 2018.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any

import numpy as np

from retrain import distortions
from retrain.devices import start
from retrain.pixels import side_for
from retrain.settings import AugmentSettings, FineTuneSettings

_ORDER, _STEP = 1, 2  # what a generator is for: the order of an epoch, or what a step draws
_LUMA = (0.299, 0.587, 0.114)  # of red, green and blue, ITU-R BT.601, as Pillow has it


@dataclass(frozen=True)
class Batches:
    """Pictures to learn from. `squares`: uint8 (n, side, side, 3); `labels`: int64 (n,); `rows`: those to learn from.

    `features`: of the backbone, for dropout; `replicas`: devices that each step is divided over.
    """

    squares: np.ndarray
    labels: np.ndarray
    rows: np.ndarray
    classes: int
    features: int
    settings: FineTuneSettings
    augment: AugmentSettings
    seed: int
    balanced: bool = False
    replicas: int = 1

    @property
    def steps(self) -> int:
        """Steps of an epoch."""
        return math.ceil(len(self.rows) / self.settings.tuning_batch)

    @property
    def batch(self) -> int:
        """Pictures a step: as even as can be, so that no step has only a few; it divides evenly over the devices."""
        return math.ceil(len(self.rows) / self.steps / self.replicas) * self.replicas

    @cached_property
    def weights(self) -> np.ndarray:
        """How much each picture counts, float32 (n,); 1 on average over the rows to learn from."""
        if not self.balanced:
            return np.ones(len(self.labels), np.float32)
        counts = np.bincount(self.labels[self.rows], minlength=self.classes)
        weights = (1 / np.maximum(counts, 1))[self.labels]
        return (weights / weights[self.rows].mean()).astype(np.float32)

    def chosen(self, epoch: int, step: int) -> np.ndarray:
        """Return the rows of a step, int64 (batch,): each once an epoch, the first few again to fill the last step."""
        order = _order(self.seed, epoch, len(self.rows))
        places = np.arange(step * self.batch, (step + 1) * self.batch) % len(order)
        rows: np.ndarray = self.rows[order[places]]
        return rows

    def drawn(self, epoch: int, step: int, side: int, size: int) -> list[np.ndarray]:
        """Return what a step learns from: squares, transforms, colours, targets, weights, shares, partners, kept features.

        `side`: of the squares as they are transformed to `size`. For their shapes see `_shapes`.
        """
        rng = np.random.default_rng((self.seed, _STEP, epoch, step))
        rows = self.chosen(epoch, step)
        distorted = distortions.draw(len(rows), self.augment, rng)
        targets, weights = np.eye(self.classes, dtype=np.float32)[self.labels[rows]], self.weights[rows]
        shares, partners = np.ones(len(rows), np.float32), np.arange(len(rows), dtype=np.int32)
        if self.settings.mixup:
            shares = rng.beta(self.settings.mixup, self.settings.mixup, len(rows)).astype(np.float32)
            partners = rng.permutation(len(rows)).astype(np.int32)
            targets = shares[:, None] * targets + (1 - shares[:, None]) * targets[partners]
            weights = shares * weights + (1 - shares) * weights[partners]
        kept = np.empty((len(rows), 0), np.float32)
        if self.settings.dropout:
            left = 1 - self.settings.dropout
            kept = (rng.uniform(size=(len(rows), self.features)) < left).astype(np.float32) / np.float32(left)
        colours = distorted[:, 6:].astype(np.float32)
        return [self.squares[rows], transforms(distorted, side, size), colours, targets, weights, shares, partners, kept]

    def dataset(self, plan: np.ndarray, size: int) -> Any:
        """Return a tf.data.Dataset of the steps of a plan, int64 (m, 2): epoch and step; pictures are `size` pixels wide.

        Its elements are as `keras.Model.fit` takes them: inputs, a dictionary, and targets, and how much each counts.
        """
        tf = start()
        side = min(self.squares.shape[1], side_for((size,)))

        def look_up(number: Any) -> Any:
            found = tf.numpy_function(
                lambda epoch, step: self.drawn(int(epoch), int(step), side, size),
                (number[0], number[1]),
                [tf.uint8, *[tf.float32] * 5, tf.int32, tf.float32],
            )
            return [tf.ensure_shape(one, shape) for one, shape in zip(found, self._shapes(), strict=True)]

        def show(squares: Any, moved: Any, colours: Any, targets: Any, weights: Any, *mixed: Any) -> Any:
            shares, partners, kept = mixed
            pixels = distort(tf, tf.cast(squares, tf.float32), moved, colours, side, size)
            if self.settings.mixup:
                shares = shares[:, None, None, None]
                pixels = shares * pixels + (1 - shares) * tf.gather(pixels, partners)
            inputs = {"pixels": pixels} | ({"kept": kept} if self.settings.dropout else {})
            return inputs, targets, weights

        steps = tf.data.Dataset.from_tensor_slices(plan)
        looked_up = steps.map(look_up, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)
        shown = looked_up.map(show, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)
        return _own(tf, shown.apply(tf.data.experimental.assert_cardinality(len(plan))).prefetch(2))

    def _shapes(self) -> Iterator[tuple[int, ...]]:
        features = self.features if self.settings.dropout else 0
        for shape in (self.squares.shape[1:], (8,), (2,), (self.classes,), (), (), (), (features,)):
            yield (self.batch, *shape)


def epoch_plan(epoch: int, steps: int) -> np.ndarray:
    """Return the plan of one epoch, int64 (steps, 2)."""
    return np.stack([np.full(steps, epoch), np.arange(steps)], axis=1).astype(np.int64)


def undistorted(squares: np.ndarray, rows: np.ndarray, size: int, batch: int) -> Any:
    """Return a tf.data.Dataset of pictures as they are, float32 (batch, size, size, 3); the last fills the last batch."""
    tf = start()
    places = np.minimum(np.arange(math.ceil(len(rows) / batch) * batch), len(rows) - 1)

    def show(chosen: Any) -> Any:
        found = tf.numpy_function(lambda numbers: squares[numbers], (chosen,), tf.uint8)
        found = tf.ensure_shape(found, (batch, *squares.shape[1:]))
        if squares.shape[1] == size:
            return {"pixels": tf.cast(found, tf.float32)}
        # As Pillow makes the view: bicubic, with antialiasing, rounded.
        smaller = tf.image.resize(found, (size, size), "bicubic", antialias=True)
        return {"pixels": tf.clip_by_value(tf.round(smaller), 0.0, 255.0)}

    numbers = tf.data.Dataset.from_tensor_slices(rows[places].reshape(-1, batch))
    return _own(tf, numbers.map(show, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True).prefetch(2))


def transforms(drawn: np.ndarray, side: int, size: int) -> np.ndarray:
    """Return distortions, as `distortions.draw` gives them, as ImageProjectiveTransformV3 takes them: float32 (n, 8).

    Shares of a side are measured from its edge, pixels from the middle of the first one.
    """
    found = distortions.matrices(drawn)
    scaled = found[:, :, :2] * (side / size)
    shift = side * found[:, :, 2] + scaled.sum(axis=2) / 2 - 0.5
    rows = np.concatenate([scaled, shift[:, :, None]], axis=2).reshape(-1, 6)
    return np.concatenate([rows, np.zeros((len(rows), 2))], axis=1).astype(np.float32)


def distort(tf: Any, squares: Any, moved: Any, colours: Any, side: int, size: int) -> Any:
    """Return pictures distorted as `Distortion.apply` does it: float32 (n, size, size, 3), values 0 to 255.

    `squares`: float32 (n, any, any, 3), first made smaller where they have more than `side` pixels; `moved`: what
    `transforms` gives; `colours`: float32 (n, 2), the factors of brightness and colour.
    """
    if squares.shape[1] != side:
        squares = tf.image.resize(squares, (side, side), antialias=True)
    pictures = tf.raw_ops.ImageProjectiveTransformV3(
        images=squares,
        transforms=moved,
        output_shape=(size, size),
        fill_value=0.0,
        interpolation="BILINEAR",
        fill_mode="NEAREST",
    )
    brightness, colour = colours[:, :1, None, None], colours[:, 1:, None, None]
    bright = tf.clip_by_value(pictures * brightness, 0.0, 255.0)
    grey = tf.reduce_sum(bright * _LUMA, axis=-1, keepdims=True)
    return tf.clip_by_value(grey + (bright - grey) * colour, 0.0, 255.0)


@lru_cache(maxsize=2)
def _order(seed: int, epoch: int, count: int) -> np.ndarray:
    return np.random.default_rng((seed, _ORDER, epoch)).permutation(count)


def _own(tf: Any, dataset: Any) -> Any:
    """Say that a dataset is this process's own: over several devices it is divided step by step, not file by file."""
    options = tf.data.Options()
    options.experimental_distribute.auto_shard_policy = tf.data.experimental.AutoShardPolicy.OFF
    options.deterministic = True
    return dataset.with_options(options)
