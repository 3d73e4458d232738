"""The arguments of the neurons that bend at zero."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from hubsplice.constructions.decomposition import Affine
from hubsplice.constructions.site_view import SiteView


@dataclass(frozen=True, eq=False)
class RampGates:
    """The argument of every ramp's neuron, before it is sharpened and rounded.

    Attributes:
        weights, biases: rows [n, d] and biases [n] that give a(h)/r, right on average over the
            tokens that are active.
        values: a(h)/r from the reference stream, shape [tokens, n].
        active: where that is above zero and the token is no sink, same shape.
    """

    weights: Tensor
    biases: Tensor
    values: Tensor
    active: Tensor

    @staticmethod
    def of(affines: list[Affine], view: SiteView, sharpness: float) -> RampGates:
        """Gates that are rounded when they have been multiplied by `sharpness`."""
        weights, biases = view.rows(affines)
        values = view.reference_values(affines)
        error = view.arguments(sharpness * weights, sharpness * biases) / sharpness - values
        active = (values > 0) & ~view.is_sink[:, None]
        # Too few tokens say more of themselves than of the rounding.
        shift = (error * active).sum(dim=0) / active.sum(dim=0).clamp(min=16)
        return RampGates(weights, biases - shift, values, active)
