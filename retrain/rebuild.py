"""The network of a model in Keras again: a model folder has it in a form that only runs."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from retrain import backbones
from retrain.artifact import Member
from retrain.errors import ModelRefused, UsageError
from retrain.finetune import put_back

if TYPE_CHECKING:
    import keras


def rebuilt(members: Sequence[Member], weights: Path | None = None) -> list["keras.Model"]:
    """Build the networks of members as `Backbone.build` says, with the weights that the model has.

    `weights`: the file for a network of keras.applications, or the SavedModel that a network came as.

    Raises UsageError where they must be given, or are given and not needed; ModelRefused where the weights at hand are
    others than those that the model was trained with.
    """
    if weights is not None and not any(_has_weights_elsewhere(member) for member in members):
        raise UsageError(f"--weights does nothing for {members[0].backbone}, whose weights are known; leave it out")
    return [_rebuilt(member, weights if _has_weights_elsewhere(member) else None) for member in members]


def _rebuilt(member: Member, weights: Path | None) -> "keras.Model":
    name = member.backbone.removesuffix(backbones.TUNED)
    if name.startswith(backbones.LOCAL):  # no path gets into a model
        if weights is None:
            raise UsageError(
                f"the network came from the folder or archive '{name.removeprefix(backbones.LOCAL)}'; give it with --weights"
            )
        name, weights = str(weights), None
    backbone = backbones.get(name, member.image_size, weights)
    model = backbones.built(backbone, member.image_size)
    if member.tuned:
        put_back(model, member.tuned)
    elif backbones.weights_hash(backbone) != member.weights:
        raise ModelRefused(f"the weights of {name} here are not those that the model was trained with; train again")
    return model


def _has_weights_elsewhere(member: Member) -> bool:
    return member.backbone.startswith((backbones.LOCAL, backbones.OF_KERAS))
