"""Train heads, one or many at once.

How strong the L2 penalty should be is found by training many heads at once: the same batch of features goes through
one dense layer that holds all of them side by side, each with its own strength and, where wanted, its own choice of
training pictures. No head sees another's gradient, so the result is as if each were trained alone, for little more
than the price of one. The head that is kept is trained last, at the best strength, on all pictures.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy as np

from retrain.devices import precision, start
from retrain.errors import EnvironmentProblem
from retrain.quiet import native_chatter_dropped
from retrain.settings import HeadSettings

if TYPE_CHECKING:
    import keras

_LEAST_STEPS, _MOST_STEPS, _PASSES = 300, 5000, 40
_WAY, _HIGHEST_RATE = 10, 0.02  # steps times rate: how far Adam can carry a weight, twice over
_STEPS_AT_ONCE = 250  # a graph cannot be interrupted while it runs
_SMALL = 2**26  # bytes of features; of larger ones no copy is made, only of the rows of a few steps
_BLOCK = 4096  # rows whose spread is measured at a time
_LEAST_SPREAD = 0.05  # of the usual spread of a feature
_POINTS = 25  # of a curve: so often training stops to be watched


class Watch(Protocol):
    """Looks on while heads are trained."""

    def __call__(self, step: int, heads: "list[list[Head]]") -> None:
        """See the heads, [choice][strength], as they are after `step` steps."""


@dataclass(frozen=True)
class Head:
    """A linear classifier of features: `kernel` float32 (feature_size, classes), `bias` float32 (classes,).

    Standardisation is folded into both, so they act on features as the backbone gives them.
    """

    kernel: np.ndarray
    bias: np.ndarray

    def logits(self, features: np.ndarray) -> np.ndarray:
        """Return float32 (n, classes) for features of shape (n, feature_size)."""
        return features @ self.kernel + self.bias


def fit(features: np.ndarray, labels: np.ndarray, classes: int, l2: float, settings: HeadSettings) -> Head:
    """Train one head on all rows.

    `features`: float32 (n, feature_size), or views, see `train_many`; `labels`: int64 (n,), values 0 to classes - 1; `l2`:
    the loss is the mean cross-entropy plus l2 times the sum of squared weights, on standardised features.

    Raises EnvironmentProblem where training ends in values that are not finite.
    """
    everything = np.ones((1, len(labels)), bool)
    return train_many(features, labels, classes, everything, (l2,), settings)[0][0]


def fit_each(
    features: np.ndarray, labels: np.ndarray, classes: int, choices: np.ndarray, l2: float, settings: HeadSettings
) -> list[Head]:
    """Train a head for each choice of rows, all at once.

    `choices`: bool (choices, n), the rows that each head learns from; otherwise as `fit`.
    """
    return [of_choice[0] for of_choice in train_many(features, labels, classes, choices, (l2,), settings)]


def plain(features: np.ndarray) -> np.ndarray:
    """Return the features of the pictures as they are, (n, feature_size), of what may have several views of each."""
    return features if features.ndim == 2 else features[:, 0]


def step_count(rows: int, settings: HeadSettings) -> int:
    """Return the number of training steps for so many pictures."""
    return settings.steps or min(max(_LEAST_STEPS, math.ceil(_PASSES * rows / settings.batch_size)), _MOST_STEPS)


def learning_rate(steps: int, settings: HeadSettings) -> float:
    """Return the highest learning rate: the fewer the steps, the longer each, so that weights can move equally far."""
    return settings.learning_rate or min(_WAY / steps, _HIGHEST_RATE)


def train_many(
    features: np.ndarray,
    labels: np.ndarray,
    classes: int,
    masks: np.ndarray,
    strengths: tuple[float, ...],
    settings: HeadSettings,
    watch: Watch | None = None,
) -> list[list[Head]]:
    """Train a head for each choice of rows (`masks`: bool (choices, n)) and each strength; returns [choice][strength].

    `features` may have several views of each picture, float32 (n, views, feature_size), the plain picture first: each pass
    over the pictures takes one view of each, drawn at random, so that more views cost no more steps. `watch` is shown the
    number of steps done and the heads as they are then, before the first step and some 25 times more.
    """
    tf = start()
    from keras import layers

    size = features.shape[-1]
    copies = features.size // (len(features) * size)
    rows = features.reshape(-1, size)
    mean, scale = _standardisation(rows, np.repeat(masks.any(axis=0), copies))
    count = len(masks) * len(strengths) * classes
    bank = layers.Dense(count, kernel_initializer="zeros", dtype=precision(settings.precision), name="heads")
    bank.build((None, size))

    def heads() -> list[list[Head]]:
        return _unfolded(bank, mean, scale, (len(masks), len(strengths), classes))

    with native_chatter_dropped():  # oneDNN's, at each kernel that it lacks in half precision
        due, steps = 0, step_count(len(labels), settings)
        for done in _descend(
            tf, bank, _Rows(rows, mean, scale, copies), labels, classes, masks, strengths, settings, bool(watch)
        ):
            if watch is not None and (done >= due or done == steps):
                watch(done, heads())
                due = done + math.ceil(steps / _POINTS)
    if not all(np.isfinite(tensor).all() for tensor in bank.get_weights()):
        raise EnvironmentProblem(
            "training gave values that are not finite at learning rate"
            f" {learning_rate(step_count(len(labels), settings), settings):.3g};"
            " try a lower --learning-rate or --precision float32"
        )
    return heads()


def _unfolded(
    bank: "keras.layers.Dense", mean: np.ndarray, scale: np.ndarray, shape: tuple[int, int, int]
) -> list[list[Head]]:
    """Take heads out of the layer that holds them; `shape`: choices, strengths, classes."""
    kernels, biases = (np.asarray(tensor, np.float64) for tensor in bank.get_weights())
    kernels = kernels.reshape(-1, *shape) / scale[:, None, None, None]
    biases = biases.reshape(shape) - np.einsum("d,dmsc->msc", mean, kernels)
    return [
        [
            Head(kernels[:, choice, strength].astype(np.float32), biases[choice, strength].astype(np.float32))
            for strength in range(shape[1])
        ]
        for choice in range(shape[0])
    ]


class _Rows(NamedTuple):
    """The rows to learn from, `copies` of each picture, and what standardises them: float32 (n * copies, d), (d,), (d,)."""

    features: np.ndarray
    mean: np.ndarray
    scale: np.ndarray
    copies: int

    def standardised(self, numbers: np.ndarray) -> np.ndarray:
        inputs = self.features[numbers]
        inputs -= self.mean
        inputs /= self.scale
        return inputs


def _standardisation(features: np.ndarray, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and scale of each feature, float32: its standard deviation and, in quadrature, a twentieth of the usual one.

    Among a few dozen pictures some features hardly vary. Divided by so little, they would be all that counts where a new
    picture does not have the same value.
    """
    chosen = np.flatnonzero(rows)
    blocks = [chosen[at : at + _BLOCK] for at in range(0, len(chosen), _BLOCK)]
    mean = np.sum([features[block].sum(axis=0, dtype=np.float64) for block in blocks], axis=0) / len(chosen)
    squares = np.sum([((features[block] - mean) ** 2).sum(axis=0) for block in blocks], axis=0)
    variances = squares / len(chosen)
    scale = np.sqrt(variances + _LEAST_SPREAD**2 * variances.mean())
    scale[scale < 1e-6] = 1.0  # no feature varies
    return mean.astype(np.float32), scale.astype(np.float32)


def _descend(
    tf: Any,
    bank: "keras.layers.Dense",
    rows: _Rows,
    labels: np.ndarray,
    classes: int,
    masks: np.ndarray,
    strengths: tuple[float, ...],
    settings: HeadSettings,
    watched: bool,
) -> Iterator[int]:
    """Adam on mini-batches, the learning rate falling along a cosine; the loop is one graph. Yields the steps done."""
    import keras

    steps = step_count(len(labels), settings)
    batch = min(settings.batch_size, len(labels))
    penalties = tf.constant(np.tile(np.repeat(strengths, classes), len(masks)), tf.float32)
    optimizer = keras.optimizers.Adam(keras.optimizers.schedules.CosineDecay(learning_rate(steps, settings), steps))
    if bank.dtype_policy.name == "mixed_float16":
        optimizer = keras.optimizers.LossScaleOptimizer(optimizer)
    optimizer.build(bank.trainable_variables)

    def step(x: Any, y: Any, weights: Any) -> None:
        with tf.GradientTape() as tape:
            logits = tf.reshape(tf.cast(bank(x), tf.float32), (batch, len(masks), -1, classes))
            target = tf.one_hot(y, classes)[:, tf.newaxis, tf.newaxis]
            losses = tf.nn.softmax_cross_entropy_with_logits(tf.broadcast_to(target, tf.shape(logits)), logits)
            loss = optimizer.scale_loss(tf.reduce_sum(losses * weights[:, :, tf.newaxis]) / batch)
        kernel_gradient, bias_gradient = tape.gradient(loss, [bank.kernel.value, bank.bias.value])
        # The gradient of the penalty is known; leaving it to the tape costs three more passes over the weights.
        kernel_gradient += optimizer.scale_loss(2 * penalties) * bank.kernel.value
        optimizer.apply([kernel_gradient, bias_gradient], bank.trainable_variables)

    # What is large is passed in: a graph would hold what it captures for as long as the process lives. Written with
    # while_loop, for which autograph, half of the time until the first step, is not needed; for any number of rows and
    # steps, or the last portion, which is smaller, would be traced again.
    shapes = ((None, rows.features.shape[1]), (None,), (None, len(masks)), (None, batch))
    dtypes = (tf.float32, tf.int64, tf.float32, tf.int32)

    @tf.function(input_signature=[tf.TensorSpec(*spec) for spec in zip(shapes, dtypes, strict=True)], autograph=False)
    def descend(x: Any, y: Any, weights: Any, order: Any) -> None:
        def one(number: Any) -> Any:
            chosen = order[number]
            step(tf.gather(x, chosen), tf.gather(y, chosen), tf.gather(weights, chosen))
            return number + 1

        tf.while_loop(lambda number: number < tf.shape(order)[0], one, (tf.constant(0),), parallel_iterations=1)

    weights = _example_weights(labels, classes, masks, settings.class_weight)
    at_once = min(_STEPS_AT_ONCE, math.ceil(steps / _POINTS)) if watched else _STEPS_AT_ONCE
    done = 0
    yield done
    for inputs, numbers, order in _portions(
        tf, rows, _batches(len(labels), steps, batch, settings.seed, rows.copies), at_once
    ):
        pictures = numbers // rows.copies
        descend(inputs, tf.constant(labels[pictures], tf.int64), *map(tf.constant, (weights[pictures], order)))
        done += len(order)
        yield done


def _portions(tf: Any, rows: _Rows, order: np.ndarray, at_once: int) -> Iterator[tuple[Any, np.ndarray, np.ndarray]]:
    """Yield some steps at a time: standardised rows, their numbers, and which of them each step takes."""
    everything = np.arange(len(rows.features))
    small = rows.features.nbytes <= _SMALL
    inputs = tf.constant(rows.standardised(everything)) if small else None
    if not small:
        at_once = min(at_once, max(1, _SMALL // (order.shape[1] * rows.features.shape[1] * 4)))
    for first in range(0, len(order), at_once):
        part = order[first : first + at_once]
        if small:
            yield inputs, everything, part
        else:
            numbers, places = np.unique(part, return_inverse=True)
            yield tf.constant(rows.standardised(numbers)), numbers, places.reshape(part.shape).astype(np.int32)


def _batches(pictures: int, steps: int, batch: int, seed: int, copies: int = 1) -> np.ndarray:
    """Row numbers of each step, int32 (steps, batch): pass after pass over all pictures, each in a new order."""
    rng = np.random.default_rng(seed)
    passes = -(-steps * batch // pictures)
    order = np.concatenate([rng.permutation(pictures) for _ in range(passes)])[: steps * batch].reshape(steps, batch)
    if copies > 1:
        order = order * copies + rng.integers(copies, size=order.shape)
    return order.astype(np.int32)


def _example_weights(labels: np.ndarray, classes: int, masks: np.ndarray, class_weight: str) -> np.ndarray:
    """How much each picture counts for each choice of rows, float32 (n, choices); the mean over all n is 1."""
    weights = masks.T.astype(np.float64)
    if class_weight == "balanced":
        for choice, mask in enumerate(masks):
            counts = np.bincount(labels[mask], minlength=classes)
            weights[:, choice] *= (1 / np.maximum(counts, 1))[labels]
    return (weights / weights.mean(axis=0)).astype(np.float32)
