"""What every source of features gives: an encoder, an activation function and a decoder."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from hubsplice.features.amounts import Activity
from hubsplice.intervention.normalization import Normalization
from hubsplice.intervention.piecewise_linear import PiecewiseLinear


@dataclass(frozen=True, eq=False)
class Feature:
    """One SAE feature, as a ridge function of the residual stream.

    Its activation at a token is `activation(⟨encoder, h̃⟩ + bias)`, exactly as SAELens computes
    it, and the SAE adds `s(h)·activation·decoder` to its reconstruction.

    Attributes:
        name: for messages and reports, such as "feature 3585".
        encoder: e, shape [d], float32.
        bias: b; the decoder bias is folded in where the SAE subtracts it from its input.
        activation: f as a function of the pre-activation p.
        threshold: the p above which the feature counts as active (θ; 0 for ReLU). A feature that
            keeps its sign (AbsTopK) is active below -θ too.
        decoder: d, shape [d], float32.
        normalization: how the SAE scales its input.
        approximation: what this feature does not reproduce exactly (TopK's competition), or None.
    """

    name: str
    encoder: Tensor
    bias: float
    activation: PiecewiseLinear
    threshold: float
    decoder: Tensor
    normalization: Normalization = Normalization.NONE
    approximation: str | None = None

    @property
    def active(self) -> PiecewiseLinear:
        """1 where the feature is active, 0 elsewhere, as a function of the pre-activation p."""
        f = self.activation
        return PiecewiseLinear(
            f.breakpoints,
            (0.0,) * len(f.slopes),
            tuple(
                float(slope != 0.0 or intercept != 0.0)
                for slope, intercept in zip(f.slopes, f.intercepts, strict=True)
            ),
        ).simplified()


@dataclass(frozen=True, eq=False)
class Probe:
    """A linear read-out ⟨weight, h⟩ + bias: weight of shape [d], float32."""

    name: str
    weight: Tensor
    bias: float


@dataclass(frozen=True)
class SiteStatistics:
    """What a strength such as `0.5 x max` or `0.3 x norm` is measured in.

    Attributes:
        median_norm: the median residual norm at the site over calibration tokens, sinks apart.
        activity: how active the features are there, by their names.
    """

    median_norm: float
    activity: Mapping[str, Activity]
