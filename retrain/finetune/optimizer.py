"""How far weights move in each step: learning rates by depth and time, weight decay, and a longest gradient.

AdamW: Loshchilov and Hutter, "Decoupled weight decay regularization", ICLR 2019. Rates that fall with the distance from the
top: Howard and Ruder, "Universal language model fine-tuning", ACL 2018. One cycle: L. Smith and Topin, "Super-convergence",
2018, with cosines in place of straight lines.
"""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from retrain.devices import start
from retrain.settings import FineTuneSettings

if TYPE_CHECKING:
    import keras

WARM_UP = 0.1  # of all steps of the schedule 'cosine'
RISE = 0.3  # of all steps of one cycle
LOWEST_FIRST, LOWEST_LAST = 1 / 25, 1e-4  # of the highest rate: where one cycle begins and ends

# The highest learning rate of a group -> what its optimizer takes for a rate.
RateOf = Callable[[float], Any]


def factors(count: int, rate_decay: float) -> list[float]:
    """Return what the learning rate of each group is multiplied by, the last group of the network first."""
    return [rate_decay**number for number in range(count)]


def scheduled(settings: FineTuneSettings, steps: int) -> RateOf:
    """Return how rates run over so many steps."""
    start()
    import keras

    if settings.schedule == "one-cycle":
        return lambda highest: one_cycle(highest, steps)
    warm = max(1, round(WARM_UP * steps))
    return lambda highest: keras.optimizers.schedules.CosineDecay(
        highest / warm, max(steps - warm, 1), warmup_target=highest, warmup_steps=warm
    )


def one_cycle(highest: float, steps: int) -> "keras.optimizers.schedules.LearningRateSchedule":
    """Return a schedule that rises to the highest rate along half a wave, and falls to almost nothing along another."""
    start()
    import keras
    from keras import ops

    rise = max(RISE * steps, 1.0)
    fall = max(steps - rise, 1.0)

    class OneCycle(keras.optimizers.schedules.LearningRateSchedule):
        def __call__(self, step: Any) -> Any:
            done = ops.cast(step, "float32")
            up = 0.5 - 0.5 * ops.cos(3.14159265 * ops.minimum(done / rise, 1.0))
            down = 0.5 + 0.5 * ops.cos(3.14159265 * ops.clip((done - rise) / fall, 0.0, 1.0))
            rising = LOWEST_FIRST + (1 - LOWEST_FIRST) * up
            falling = LOWEST_LAST + (1 - LOWEST_LAST) * down
            return highest * ops.where(done < rise, rising, falling)

    return OneCycle()


def make(
    groups: Sequence[Sequence[Any]], head: Sequence[Any], settings: FineTuneSettings, rate_of: RateOf
) -> "keras.optimizers.Optimizer":
    """Return an optimizer of the groups' variables, the last group first, and of the head's.

    Weights decay, vectors (biases, scales and shifts) do not. Gradients are clipped to one length over all groups, after a
    LossScaleOptimizer around it has undone its scaling. Call it within the scope of the strategy.
    """
    tf = start()
    import keras

    class Clipped(keras.optimizers.MultiOptimizer):
        def apply(self, grads: list[Any], trainable_variables: Any = None) -> None:
            super().apply(clipped(tf, grads, settings.clip_norm) if settings.clip_norm else grads, trainable_variables)

    def adam(factor: float, variables: Sequence[Any]) -> Any:
        made = keras.optimizers.AdamW(
            rate_of(settings.tuning_rate * factor), weight_decay=float(settings.weight_decay), name="adamw"
        )
        if settings.weight_decay:
            made.exclude_from_weight_decay(var_list=[one for one in variables if len(one.shape) < 2])
        return made

    optimizers: dict[int, Any] = {}
    for factor, variables in zip(factors(len(groups), settings.rate_decay), groups, strict=True):
        if variables:
            optimizers |= dict.fromkeys(map(id, variables), adam(factor, variables))
    optimizers |= dict.fromkeys(map(id, head), adam(1.0, head))
    # By the variables themselves: their paths need not be unique.
    return Clipped(lambda variable: optimizers[id(variable)], name="by_depth")


def clipped(tf: Any, gradients: Sequence[Any], longest: float) -> list[Any]:
    """Return gradients shortened together where they are longer than `longest`; None stays None.

    With several devices, what counts is the length of their sum, which is what weights are moved by.
    """
    there = [one for one in gradients if one is not None]
    replica = tf.distribute.get_replica_context()
    if replica is not None and replica.num_replicas_in_sync > 1:
        there = replica.all_reduce(tf.distribute.ReduceOp.SUM, there)
    scale = longest / tf.maximum(tf.linalg.global_norm(there), longest)
    return [None if one is None else one * scale for one in gradients]
