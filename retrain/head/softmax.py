"""Train heads, one or many at once.

How strong the L2 penalty should be is found by training many heads at once: the same batch of features goes through
one dense layer that holds all of them side by side, each with its own strength and, where wanted, its own choice of
training pictures. No head sees another's gradient, so the result is as if each were trained alone, for little more
than the price of one. The head that is kept is trained last, at the best strength, on all pictures.
"""

import math
from collections.abc import Callable, Iterator
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
_KEPT, _LARGEST = 12, 2**20  # graphs that wait to be used again, and weights of the largest of them


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
    size = features.shape[-1]
    copies = features.size // (len(features) * size)
    rows = features.reshape(-1, size)
    mean, scale = _standardisation(rows, np.repeat(masks.any(axis=0), copies))
    steps = step_count(len(labels), settings)
    shape = (len(masks), len(strengths), classes)
    form = _Form(size, *shape, steps, learning_rate(steps, settings), precision(settings.precision))
    trainer = _taken(tf, form)

    def heads() -> list[list[Head]]:
        return _unfolded(trainer.bank, mean, scale, shape)

    with native_chatter_dropped():  # oneDNN's, at each kernel that it lacks in half precision
        due = 0
        for done in _descend(tf, trainer, _Rows(rows, mean, scale, copies), labels, masks, strengths, settings, bool(watch)):
            if watch is not None and (done >= due or done == steps):
                watch(done, heads())
                due = done + math.ceil(steps / _POINTS)
    if not all(np.isfinite(tensor).all() for tensor in trainer.bank.get_weights()):
        raise EnvironmentProblem(
            f"training gave values that are not finite at learning rate {form.rate:.3g};"
            " try a lower --learning-rate or --precision float32"
        )
    found = heads()
    _kept(trainer)
    return found


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


class _Form(NamedTuple):
    """All that a graph of training depends on; what else there is, it is given."""

    features: int
    choices: int
    strengths: int
    classes: int
    steps: int
    rate: float
    policy: str


class _Trainer(NamedTuple):
    """A layer of heads with the graph that trains them: `descend(rows, labels, weights, penalties, order)`.

    `fresh`: each variable, of the layer and the optimizer, with the value that it has before the first step.
    """

    form: _Form
    bank: "keras.layers.Dense"
    descend: Callable[..., None]
    fresh: list[tuple[Any, np.ndarray]]


_waiting: dict[_Form, _Trainer] = {}


def _taken(tf: Any, form: _Form) -> _Trainer:
    """Return a trainer for nobody else until it is given to `_kept`: one that waits, or a new one.

    To trace and optimise a graph takes longer than to train on a few hundred pictures, and a check of a collection or the
    folds of a search train dozens of heads of one form.
    """
    trainer = _waiting.pop(form, None)
    if trainer is None:
        return _made(tf, form)
    for variable, value in trainer.fresh:
        variable.assign(value)
    return trainer


def _kept(trainer: _Trainer) -> None:
    """Let a trainer wait for the next training of its form; large ones, and the one that waits longest, are dropped."""
    form = trainer.form
    if form.features * form.choices * form.strengths * form.classes > _LARGEST:
        return
    _waiting[form] = trainer
    while len(_waiting) > _KEPT:
        _waiting.pop(next(iter(_waiting)), None)


def _made(tf: Any, form: _Form) -> _Trainer:
    """Adam on mini-batches, the learning rate falling along a cosine; the loop is one graph."""
    import keras

    heads = (form.choices, form.strengths, form.classes)
    bank = keras.layers.Dense(math.prod(heads), kernel_initializer="zeros", dtype=form.policy, name="heads")
    bank.build((None, form.features))
    optimizer = keras.optimizers.Adam(keras.optimizers.schedules.CosineDecay(form.rate, form.steps))
    if bank.dtype_policy.name == "mixed_float16":
        optimizer = keras.optimizers.LossScaleOptimizer(optimizer)
    optimizer.build(bank.trainable_variables)

    def step(x: Any, y: Any, weights: Any, penalties: Any) -> None:
        with tf.GradientTape() as tape:
            logits = tf.reshape(tf.cast(bank(x), tf.float32), (-1, *heads))
            target = tf.one_hot(y, form.classes)[:, tf.newaxis, tf.newaxis]
            losses = tf.nn.softmax_cross_entropy_with_logits(tf.broadcast_to(target, tf.shape(logits)), logits)
            batch = tf.cast(tf.shape(y)[0], tf.float32)
            loss = optimizer.scale_loss(tf.reduce_sum(losses * weights[:, :, tf.newaxis]) / batch)
        kernel_gradient, bias_gradient = tape.gradient(loss, [bank.kernel.value, bank.bias.value])
        # The gradient of the penalty is known; leaving it to the tape costs three more passes over the weights.
        kernel_gradient += optimizer.scale_loss(2 * penalties) * bank.kernel.value
        optimizer.apply([kernel_gradient, bias_gradient], bank.trainable_variables)

    # What is large is passed in: a graph would hold what it captures for as long as it waits. Written with while_loop, for
    # which autograph, half of the time until the first step, is not needed; for any number of rows and steps and any
    # batch, or the last portion, which is smaller, would be traced again.
    shapes = ((None, form.features), (None,), (None, form.choices), (math.prod(heads),), (None, None))
    dtypes = (tf.float32, tf.int64, tf.float32, tf.float32, tf.int32)

    @tf.function(input_signature=[tf.TensorSpec(*spec) for spec in zip(shapes, dtypes, strict=True)], autograph=False)
    def descend(x: Any, y: Any, weights: Any, penalties: Any, order: Any) -> None:
        def one(number: Any) -> Any:
            chosen = order[number]
            step(tf.gather(x, chosen), tf.gather(y, chosen), tf.gather(weights, chosen), penalties)
            return number + 1

        tf.while_loop(lambda number: number < tf.shape(order)[0], one, (tf.constant(0),), parallel_iterations=1)

    variables = [*bank.variables, *optimizer.variables]
    return _Trainer(form, bank, descend, [(variable, variable.numpy()) for variable in variables])


def _descend(
    tf: Any,
    trainer: _Trainer,
    rows: _Rows,
    labels: np.ndarray,
    masks: np.ndarray,
    strengths: tuple[float, ...],
    settings: HeadSettings,
    watched: bool,
) -> Iterator[int]:
    """Train the heads of a trainer, some steps at a time. Yields the steps done."""
    steps, classes = trainer.form.steps, trainer.form.classes
    batch = min(settings.batch_size, len(labels))
    penalties = tf.constant(np.tile(np.repeat(strengths, classes), len(masks)), tf.float32)
    weights = _example_weights(labels, classes, masks, settings.class_weight)
    at_once = min(_STEPS_AT_ONCE, math.ceil(steps / _POINTS)) if watched else _STEPS_AT_ONCE
    done = 0
    yield done
    for inputs, numbers, order in _portions(
        tf, rows, _batches(len(labels), steps, batch, settings.seed, rows.copies), at_once
    ):
        pictures = numbers // rows.copies
        given = (tf.constant(labels[pictures], tf.int64), tf.constant(weights[pictures]), penalties, tf.constant(order))
        trainer.descend(inputs, *given)
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
