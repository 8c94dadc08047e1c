"""Guided backprop: which pixels, if they were stronger, would make a label surer. Needs TensorFlow.

J. Springenberg et al., "Striving for simplicity: the all convolutional net", ICLR 2015. Its fine lines show edges of what is
there, for any label much the same (J. Adebayo et al., "Sanity checks for saliency maps", NeurIPS 2018): it shows what the
network can see, and a map shows what the label rests on.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from retrain.artifact import Member
from retrain.devices import check_installed, start
from retrain.errors import UsageError
from retrain.quiet import native_chatter_dropped
from retrain.rebuild import rebuilt

if TYPE_CHECKING:
    import keras

_LINE = 3.0  # standard deviations of the gradient that are drawn in full


def gradients(member: Member, pixels: np.ndarray, classes: list[int], weights: Path | None = None) -> np.ndarray:
    """Return the guided gradient of logits, float32 (classes, size, size, 3), of a picture: uint8 (size, size, 3).

    `classes`: numbers of labels; `weights`: the file for a network of keras.applications.

    Raises EnvironmentProblem where TensorFlow is not installed, UsageError where the network cannot be guided: it has no
    ReLU, or its insides cannot be seen; ModelRefused where its weights are not at hand.
    """
    check_installed()
    tf = start()
    with native_chatter_dropped():
        network = guided(rebuilt([member], weights)[0], member.backbone)
        found = []
        for number in classes:
            entry = tf.Variable(pixels[np.newaxis].astype(np.float32))
            with tf.GradientTape() as tape:
                outputs = network(entry, training=False)
                features = outputs[0] if isinstance(outputs, list | tuple) else outputs
                logit = tf.reduce_sum(features * member.kernel[:, number])
            found.append(tape.gradient(logit, entry).numpy()[0])
    return np.stack(found)


def as_picture(gradients: np.ndarray) -> np.ndarray:
    """Return gradients, float32 (labels, size, size, 3), as pixels around grey: uint8 of the same shape, on one scale."""
    spread = float(gradients.std()) or 1.0
    return np.clip(127.5 + 127.5 * gradients / (_LINE * spread), 0, 255).round().astype(np.uint8)


def guided(model: "keras.Model", name: str) -> "keras.Model":
    """Return a network that computes the same, but through whose ReLUs only what strengthens is led back.

    `name`: of the backbone. Raises UsageError where there is no ReLU.
    """
    tf = start()
    import keras

    count = 0

    def led(low_slope: Any) -> Any:
        @tf.custom_gradient
        def function(x: Any) -> Any:
            y = low_slope(x)
            return y, lambda above: tf.cast(y > 0, above.dtype) * tf.cast(y >= x, above.dtype) * tf.nn.relu(above)

        return function

    def clone(layer: Any) -> Any:
        nonlocal count
        if isinstance(layer, keras.layers.ReLU):
            count += 1
            function = led(layer.call)
            return keras.layers.Lambda(function, name=layer.name, output_shape=lambda shape: shape)
        made = layer.__class__.from_config(layer.get_config())
        if getattr(layer, "activation", None) in (keras.activations.relu, keras.activations.relu6):
            count += 1
            made.activation = led(layer.activation)
        return made

    try:
        copy = keras.models.clone_model(model, clone_function=clone, recursive=True)
    except (TypeError, ValueError) as error:
        raise UsageError(f"{name} cannot be guided, as its insides cannot be seen ({error}); drop --guided") from None
    if not count:
        raise UsageError(f"{name} has no ReLU that could be guided; drop --guided")
    copy.set_weights(model.get_weights())
    return copy
