"""One SAE feature as a ridge function, exactly as SAELens computes it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from hubsplice.errors import RecipeError, UnsupportedError
from hubsplice.features.base import Feature
from hubsplice.features.sae import LoadedSae
from hubsplice.intervention.normalization import Normalization
from hubsplice.intervention.piecewise_linear import PiecewiseLinear

# SAELens scales nothing at run time under any other name.
_NORMALIZATIONS = {
    "constant_norm_rescale": Normalization.CONSTANT_NORM_RESCALE,
    "layer_norm": Normalization.LAYER_NORM,
}


@dataclass(frozen=True)
class CalibratedGate:
    """A threshold that stands in for TopK's competition, for one feature.

    Attributes:
        threshold: the feature counts as active above it (AbsTopK: above it in magnitude).
        f1: of "active" against the true competition, on the calibration text; None where the
            feature never won it there.
        tokens: how many tokens of calibration it was chosen on.
    """

    threshold: float
    f1: float | None
    tokens: int


@dataclass(frozen=True, eq=False)
class ReadOut:
    """A feature's pre-activation ⟨encoder, h̃⟩ + bias and its decoder, in the SAE's own units.

    `encoder` and `decoder` have shape [d], float32; the decoder bias is folded into `bias`
    where the SAE subtracts it from its input.
    """

    encoder: Tensor
    bias: float
    decoder: Tensor
    normalization: Normalization


def read_out(sae: LoadedSae, index: int) -> ReadOut:
    """The linear part of one feature.

    Raises:
        RecipeError: the index is out of range, or the feature's decoder row is all zeros.
    """
    sae.config.require_feature(index)
    module = sae.module
    encoder = module.W_enc.detach()[:, index].double()
    decoder = module.W_dec.detach()[index].double()
    norm = float(decoder.norm())
    if norm == 0.0:
        raise RecipeError(
            f"feature: {index} of {sae.config.origin} is dead: its decoder row is all zeros"
        )
    own_bias = module.b_gate if sae.config.architecture == "gated" else module.b_enc
    bias = float(own_bias.detach()[index])
    if sae.config.apply_b_dec_to_input:
        bias -= float(module.b_dec.detach().double() @ encoder)
    if getattr(module.cfg, "rescale_acts_by_decoder_norm", False):
        encoder, bias, decoder = encoder * norm, bias * norm, decoder / norm
    normalization = _NORMALIZATIONS.get(sae.config.normalize_activations, Normalization.NONE)
    return ReadOut(encoder.float().cpu(), bias, decoder.float().cpu(), normalization)


def extract_feature(sae: LoadedSae, index: int, gate: CalibratedGate | None = None) -> Feature:
    """One feature of a loaded SAE.

    Args:
        sae: the SAE.
        index: the feature's index.
        gate: the calibrated threshold, which TopK and AbsTopK need, and others don't have.

    Raises:
        RecipeError: the index is out of range, or the feature's decoder row is all zeros.
        UnsupportedError: a TopK feature without a gate.
    """
    linear = read_out(sae, index)
    activation, threshold = _activation(sae, index, gate)
    return Feature(
        name=f"feature {index}",
        encoder=linear.encoder,
        bias=linear.bias,
        activation=activation,
        threshold=threshold,
        decoder=linear.decoder,
        normalization=linear.normalization,
        approximation=None if gate is None else _approximation(sae, gate),
    )


def _activation(
    sae: LoadedSae, index: int, gate: CalibratedGate | None
) -> tuple[PiecewiseLinear, float]:
    architecture, module = sae.config.architecture, sae.module
    if architecture == "standard":
        return PiecewiseLinear.relu(), 0.0
    if architecture == "jumprelu":
        threshold = max(float(module.threshold.detach()[index]), 0.0)
        return PiecewiseLinear.jump_relu(threshold), threshold
    if architecture == "gated":
        return _gated(module, index)
    if gate is None:
        raise UnsupportedError(
            f"{sae.config.origin}: features of a {architecture} SAE compete at each token; feature "
            f"{index} needs a threshold calibrated on text"
        )
    if architecture == "topk":
        threshold = max(gate.threshold, 0.0)
        return PiecewiseLinear.jump_relu(threshold), threshold
    return _two_sided(gate.threshold), gate.threshold


def _gated(module: Any, index: int) -> tuple[PiecewiseLinear, float]:
    """1[p > 0]·relu(r·(p − b_gate) + b_mag): the magnitude path reads the gate's direction."""
    ratio = math.exp(float(module.r_mag.detach()[index]))
    b_gate = float(module.b_gate.detach()[index])
    intercept = float(module.b_mag.detach()[index]) - ratio * b_gate
    threshold = max(-intercept / ratio, 0.0)
    return PiecewiseLinear((threshold,), (0.0, ratio), (0.0, intercept)), threshold


def _two_sided(threshold: float) -> PiecewiseLinear:
    """p·1[|p| > threshold]."""
    if threshold <= 0.0:
        return PiecewiseLinear.linear(1.0)
    return PiecewiseLinear((-threshold, threshold), (1.0, 0.0, 1.0), (0.0, 0.0, 0.0))


def _approximation(sae: LoadedSae, gate: CalibratedGate) -> str:
    competition = f"{sae.config.architecture}'s competition (k = {sae.config.k})"
    if gate.f1 is None:
        return (
            f"{competition} is replaced by a threshold; the feature never won it on the "
            f"{gate.tokens} tokens of calibration, so its gate is untested"
        )
    return (
        f"{competition} is replaced by the threshold {gate.threshold:.4g}, whose gate F1 is "
        f"{gate.f1:.4f} on the {gate.tokens} tokens of calibration"
    )
