"""Strengths, turned into numbers in the units that an edit's formula is written in.

An SAE with normalised inputs measures activations at each token's own scale s(h). A strength
then belongs either to the activations or to the stream, and one cannot stand for the other.
"""

from __future__ import annotations

from torch import Tensor

from hubsplice.edits.lookup import Sources
from hubsplice.edits.strength import Amount
from hubsplice.errors import UnsupportedError
from hubsplice.features.base import Feature
from hubsplice.intervention.normalization import Normalization


def activation_units(
    sources: Sources, amount: Amount, feature: Feature, stated_max: float | None = None
) -> float:
    """`amount` as a value of the feature's activation.

    Args:
        sources: what looks it up.
        amount: the strength.
        feature: the feature.
        stated_max: the recipe's own `max` for the feature, if it gives one.

    Raises:
        UnsupportedError: `x norm` for an SAE that normalises its input.
        RecipeError: `x max` of a feature that calibration never saw active.
    """
    if amount.unit == "norm" and feature.normalization is not Normalization.NONE:
        raise UnsupportedError(
            f"{feature.name}: '{amount}' is a length in the residual stream, and this SAE "
            f"({feature.normalization.value}) measures activations at each token's own scale; "
            "give a number in SAE units, or one like '0.5 x max'"
        )
    return sources.amount(amount, direction=feature.decoder, feature=feature, stated_max=stated_max)


def stream_units(
    sources: Sources,
    amount: Amount,
    direction: Tensor,
    feature: Feature | None,
    stated_max: float | None = None,
) -> float:
    """`amount` as a multiple of `direction` [d], the same at every token.

    Args:
        sources: what looks it up.
        amount: the strength.
        direction: what is written, shape [d].
        feature: the feature that the direction is of, if it is of one.
        stated_max: the recipe's own `max` for the feature, if it gives one.

    Raises:
        UnsupportedError: `x max` for an SAE that normalises its input.
        RecipeError: `x max` without a feature, or of one that calibration never saw active.
    """
    if (
        amount.unit == "max"
        and feature is not None
        and feature.normalization is not Normalization.NONE
    ):
        raise UnsupportedError(
            f"{feature.name}: this edit writes the same length at every token, and '{amount}' has "
            f"none: this SAE ({feature.normalization.value}) measures activations at each token's "
            "own scale; give a number, or one like '0.3 x norm'"
        )
    return sources.amount(amount, direction=direction, feature=feature, stated_max=stated_max)
