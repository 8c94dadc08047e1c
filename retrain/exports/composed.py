"""Backbones, heads, temperature and softmax as one Keras network, from pixels to scores."""

from pathlib import Path
from typing import TYPE_CHECKING

from retrain.artifact import Artifact
from retrain.devices import start
from retrain.rebuild import rebuilt
from retrain.views import PLAIN

if TYPE_CHECKING:
    import keras

SCORES = "scores"


def inputs(model: Artifact) -> dict[str, int]:
    """Return the inputs by name, and the side of the pictures that each takes: one for each size among the members.

    Members of one size share an input. A picture that was scaled once is not scaled again, so that every network gets the
    pixels that it was trained with.
    """
    sizes = sorted({member.image_size for member in model.members})
    return {"pixels": sizes[0]} if len(sizes) == 1 else {f"pixels_{size}": size for size in sizes}


def compose(model: Artifact, weights: Path | None = None) -> "keras.Model":
    """Return a network that takes a dictionary of pixels, float32 (n, size, size, 3), values 0 to 255, one for each input.

    It gives scores, float32 (n, classes), in the order of the labels: those of the model where a picture is looked at as
    it is. `weights`: the file for a network of keras.applications, or the SavedModel it came as. Raises as
    `rebuild.rebuilt` does.
    """
    networks = rebuilt(model.members, weights)
    tf = start()
    import keras

    with tf.device("/CPU:0"):
        names = {size: name for name, size in inputs(model).items()}
        entries = {size: keras.Input((size, size, 3), name=name) for size, name in names.items()}
        found = []
        for number, (member, network) in enumerate(zip(model.members, networks, strict=True)):
            network.name = f"network_{number}"  # each was built in a session of its own, which counts from the start
            outputs = network(entries[member.image_size])
            features = outputs[0] if isinstance(outputs, list | tuple) else outputs
            dense = keras.layers.Dense(len(model.labels), name=f"head_{number}")
            logits = dense(features)
            cooling = 1 / model.temperature[PLAIN]
            # In the kernel: one layer less, and 8-bit numbers are then spread over what softmax is given.
            dense.set_weights([member.kernel * cooling, member.bias * cooling])
            found.append(keras.layers.Softmax(name=f"softmax_{number}")(logits))
        scores = found[0] if len(found) == 1 else keras.layers.Average(name=SCORES)(found)
        return keras.Model({names[size]: entry for size, entry in entries.items()}, scores, name="retrain")
