"""The network of a model in Keras again: a model folder has it in a form that only runs."""

from pathlib import Path
from typing import TYPE_CHECKING

from retrain import backbones
from retrain.artifact import Member
from retrain.errors import ModelRefused
from retrain.finetune import put_back

if TYPE_CHECKING:
    import keras


def rebuilt(member: Member, weights: Path | None = None) -> "keras.Model":
    """Build a member's network as `Backbone.build` says, with the weights that the model has.

    `weights`: the file for a network of keras.applications. Raises ModelRefused where the weights at hand are others than
    those that the model was trained with.
    """
    name = member.backbone.removesuffix(backbones.TUNED)
    backbone = backbones.get(name, member.image_size, weights)
    model = backbones.built(backbone, member.image_size)
    if member.tuned:
        put_back(model, member.tuned)
    elif backbones.weights_hash(backbone) != member.weights:
        raise ModelRefused(f"the weights of {name} here are not those that the model was trained with; train again")
    return model
