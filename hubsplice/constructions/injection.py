"""The constant that attention's output bias adds, which carries thresholds and tells the scale."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from hubsplice.constructions.decomposition import Parts
from hubsplice.constructions.prenorm_constants import PreNormConstants
from hubsplice.intervention.normalization import Normalization
from hubsplice.intervention.site import Site
from hubsplice.streams.calibration import SiteActivations


def threshold_bias(
    site: Site,
    parts: Parts,
    activations: SiteActivations,
    constants: PreNormConstants,
    *,
    start: Tensor | None = None,
) -> Tensor:
    """The shortest bias, beside the injected constant, that carries every threshold.

    Jumps come first where one direction has several thresholds: a bend that is a little off
    changes little, a jump that is off fires on the wrong tokens.

    Args:
        site: with terms.
        parts: its.
        activations: calibration there.
        constants: how much may be injected.
        start: the injected constant, shape [d]; None for one where the scale must be told.
    """
    longest = constants.longest_bias * activations.median_norm
    targets: dict[bytes, tuple[Tensor, float]] = {}
    for affine in (*parts.jumps, *parts.ramps, *parts.linear):
        encoder, offset = affine.threshold
        targets.setdefault(encoder.float().numpy().tobytes(), (encoder, offset))
    if start is None:
        start = torch.zeros_like(parts.constant)
        if any(a.normalization is Normalization.NONE for a in (*parts.ramps, *parts.linear)):
            start = injected_constant(site, activations, constants)
    if not targets:
        return start
    encoders = torch.stack([encoder for encoder, _ in targets.values()])
    missing = torch.tensor([t for _, t in targets.values()]).double() - encoders @ start
    # The injected channels are left out: thresholds that outnumber the dimensions would otherwise
    # be met best by taking the injection away, and r could no longer be told.
    free = encoders.masked_fill(start != 0, 0.0)
    values, vectors = torch.linalg.eigh(free @ free.T)
    damping = constants.damping
    while True:
        solved = vectors @ ((vectors.T @ missing) / (values.clamp(min=0) + damping))
        change = free.T @ solved
        if change.norm() <= longest:
            return start + change
        damping *= 2.0


def injected_constant(
    site: Site, activations: SiteActivations, constants: PreNormConstants
) -> Tensor:
    """A constant on the channels that the other channels predict best, shape [d].

    What such a channel holds beside the constant can be told from the rest of x, so that x there
    gives 1/r. Its size with the channel's own value stays just below a power of two: above it a
    float's spacing doubles, and so would the rounding of that value.
    """
    h = activations.reference[~site.is_sink(activations.reference)].double()
    bias = torch.zeros(h.shape[1], dtype=torch.float64)
    size = constants.injection * activations.median_norm
    if not size:
        return bias
    covariance = torch.cov(h.T)
    covariance.diagonal().add_(1e-6 * covariance.diagonal().mean())
    precision = torch.linalg.inv(covariance)
    below = 2.0 ** math.floor(math.log2(size))
    for channel in precision.diagonal().topk(constants.channels).indices.tolist():
        # The sign under which the channels tell most together.
        sign = 1.0 if precision[channel] @ (bias + h.mean(dim=0)) >= 0 else -1.0
        room = (sign * h[:, channel]).quantile(0.999).clamp(min=0)
        bias[channel] = sign * (below - room)
    return bias
