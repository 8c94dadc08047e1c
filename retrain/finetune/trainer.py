"""Run epochs on a network of one image size, and say what it makes of pictures."""

import math
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np

from retrain import devices
from retrain.backbones import Backbone
from retrain.devices import start
from retrain.errors import EnvironmentProblem, UsageError
from retrain.finetune import network, optimizer
from retrain.finetune.batches import Batches, undistorted
from retrain.finetune.network import Network
from retrain.finetune.optimizer import RateOf
from retrain.head import Head
from retrain.progress import Progress
from retrain.quiet import native_chatter_dropped
from retrain.settings import FineTuneSettings

# Compiling with XLA takes longer than it saves in the minutes that fine-tuning usually takes; with several devices, or in
# SavedModels, it fails.
XLA = False
ADVICE = "try a lower --tuning-rate or --precision float32"


@dataclass(frozen=True)
class Setting:
    """What and how a run trains: the same for every image size. `policy`: a Keras dtype policy; `strategy`: of devices."""

    backbone: Backbone
    head: Head
    settings: FineTuneSettings
    policy: str
    strategy: Any

    @property
    def replicas(self) -> int:
        """How many devices a step is divided over."""
        return int(self.strategy.num_replicas_in_sync)


def setting(
    backbone: Backbone,
    head: Head,
    settings: FineTuneSettings,
    precision: str,
    names: Sequence[str],
    progress: Progress,
) -> Setting:
    """Find number format and devices, and say so where they are not what was asked for."""
    choice = devices.choose_precision(precision, names)
    policy = choice.policy
    opaque = network.is_saved_model(backbone)
    if opaque and len(names) > 1:
        raise UsageError(f"{backbone.name} is a SavedModel, which trains on one device only, not on {', '.join(names)}")
    strategy = devices.strategy(names)
    if opaque and strategy.num_replicas_in_sync > 1:
        strategy = devices.strategy(["GPU:0"])
    if opaque and policy != "float32":
        policy = "float32"
        progress.note(f"{backbone.name} is a SavedModel, whose number format is fixed: float32")
    elif precision == "auto" and policy != "float32":
        progress.note(f"fine-tuning in {choice}")
    return Setting(backbone, head, settings, policy, strategy)


class Trainer:
    """A network with its optimizer."""

    def __init__(self, of: Setting, image_size: int, rate_of: RateOf) -> None:
        """`rate_of`: the highest rate of a group -> its rate, a number or a schedule."""
        start()
        import keras

        self.strategy, self.image_size = of.strategy, image_size
        with _guarded(), native_chatter_dropped():
            self.network: Network = network.build(
                of.backbone, of.head, image_size, of.policy, of.settings.blocks, of.strategy.scope()
            )
            model = self.network.model
            with of.strategy.scope():
                self.by_depth = optimizer.make(
                    self.network.groups, self.network.dense.trainable_variables, of.settings, rate_of
                )
                loss = keras.losses.CategoricalCrossentropy(from_logits=True, label_smoothing=of.settings.label_smoothing)
                # In mixed_float16, Keras puts what scales the loss around the optimizer.
                model.compile(self.by_depth, loss, jit_compile=XLA)
                model.optimizer.build(model.trainable_variables)

    @property
    def weights(self) -> list[np.ndarray]:
        """The values of all variables of the model, backbone first."""
        return network.arrays(self.network.model.weights)

    @weights.setter
    def weights(self, values: Sequence[np.ndarray]) -> None:
        network.assign(self.network.model.weights, values)

    @property
    def optimizer(self) -> list[np.ndarray]:
        """The values of the optimizer's variables: steps done, moments, scale of the loss."""
        return network.arrays(self.network.model.optimizer.variables)

    @optimizer.setter
    def optimizer(self, values: Sequence[np.ndarray]) -> None:
        network.assign(self.network.model.optimizer.variables, values)

    def fits(self, weights: Sequence[np.ndarray], of_optimizer: Sequence[np.ndarray]) -> bool:
        """True where kept values have the shapes of this network's."""
        own = [*self.network.model.weights, *self.network.model.optimizer.variables]
        kept = [*weights, *of_optimizer]
        return len(own) == len(kept) and all(tuple(one.shape) == value.shape for one, value in zip(own, kept, strict=True))

    def train(
        self, batches: Batches, plan: np.ndarray, after_step: Callable[[float], bool], before_step: Callable[[int], None]
    ) -> None:
        """Run the steps of a plan. Called before a step with its number in the plan; after it with its mean loss, not
        weighted with those before; where that gives True, training ends.

        Raises EnvironmentProblem where the memory of a device is too short.
        """
        import keras

        # Only until the first step is done: a progress bar is drawn where the chatter goes to. What draws the steps, in
        # threads of its own, must not ask for the same.
        quiet = ExitStack()

        class Watch(keras.callbacks.Callback):
            def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
                before_step(batch)

            def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
                quiet.close()
                loss = float((logs or {})["loss"])
                self.model.reset_metrics()  # or it would be the mean of all steps so far
                if after_step(loss):
                    self.model.stop_training = True

        with _guarded(), quiet:
            quiet.enter_context(native_chatter_dropped())
            self.network.model.fit(batches.dataset(plan, self.image_size), shuffle=False, verbose=0, callbacks=[Watch()])

    def logits(self, squares: np.ndarray, rows: np.ndarray, batch: int) -> np.ndarray:
        """Return what the network says of pictures as they are: float32 (m, classes) for rows int64 (m,)."""
        replicas = int(self.strategy.num_replicas_in_sync)
        batch = min(batch, math.ceil(len(rows) / replicas)) // replicas * replicas or replicas
        with _guarded(), native_chatter_dropped():
            found = self.network.model.predict(undistorted(squares, rows, self.image_size, batch), verbose=0)
        return np.asarray(found[: len(rows)], np.float32)


@contextmanager
def _guarded() -> Iterator[None]:
    """Say in one line that memory is short."""
    tf = start()
    with warnings.catch_warnings():
        # A SavedModel may have weights that its features do not depend on.
        warnings.filterwarnings("ignore", "Gradients do not exist")
        try:
            yield
        except tf.errors.ResourceExhaustedError:
            raise EnvironmentProblem(
                "the device has not enough memory to fine-tune; try a lower --tuning-batch, or --image-size"
            ) from None
