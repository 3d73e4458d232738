"""What carries the edits of a splice: an inserted layer, or a bias of the layer before."""

from __future__ import annotations

from collections.abc import Iterator

from hubsplice.errors import RecipeError
from hubsplice.families.architecture import Architecture
from hubsplice.intervention.place import Block, Place
from hubsplice.recipe.models import Splice


def in_bias(splice: Splice, place: Place, architecture: Architecture) -> bool:
    """Whether a bias of the existing layer carries a splice, and no layer is inserted for it.

    Args:
        splice: the recipe's splice.
        place: where it is.
        architecture: the base's family.

    Raises:
        RecipeError: the recipe asks for a bias, and that would be another edit, or there is none.
    """
    if splice.construction == "layer":
        return False
    reasons = list(_reasons(splice, place, architecture))
    if splice.construction == "bias" and reasons:
        raise RecipeError("\n".join(f"construction: bias: {reason}" for reason in reasons))
    return not reasons


def _reasons(splice: Splice, place: Place, architecture: Architecture) -> Iterator[str]:
    """Why a bias can't carry a splice."""
    if architecture.output_bias is None:
        yield (
            f"{architecture.family.becomes.name} has no bias on what a layer's MLP writes, or the "
            "base has one of its own there; say layer"
        )
    if place.block is Block.ATTENTION or place.layer < 0:
        yield "a bias of an MLP adds to the stream after a layer, and nowhere else; say layer"
    if splice.sinks != "edit":
        yield (
            "a bias is added to attention sinks as well, and sinks: skip leaves them alone; say "
            "sinks: edit, or construction: layer"
        )
    if not splice.edits:
        yield "there are no edits"
    for i, edit in enumerate(splice.edits):
        if not edit.constant or edit.condition is not None:
            yield f"edits[{i}] ({edit.kind}) depends on the token, and a bias does not; say layer"
