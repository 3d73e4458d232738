"""Activations at a site, and the statistics that constants are fitted to."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True, eq=False)
class SiteActivations:
    """The residual stream at one site over the calibration text, earlier edits applied.

    Attributes:
        reference: from the float32 model, shape [tokens, d], float32.
        serving: the same tokens from the model at the serving precision, shape [tokens, d].
        median_norm: the median residual norm.
        eps: the epsilon of the model's RMSNorm.
    """

    reference: Tensor
    serving: Tensor
    median_norm: float
    eps: float
