"""How an SAE scales the stream that it reads."""

from __future__ import annotations

import enum
import math

import torch
from torch import Tensor


class Normalization(enum.StrEnum):
    """How an SAE scales its input: the names that SAELens gives to `normalize_activations`."""

    NONE = "none"
    CONSTANT_NORM_RESCALE = "constant_norm_rescale"
    LAYER_NORM = "layer_norm"

    def apply(self, h: Tensor) -> tuple[Tensor, Tensor]:
        """The normalised stream h̃ [..., d] and the scale s(h) [..., 1] that undoes it.

        The formulas are SAELens's own: `layer_norm` divides by the unbiased standard deviation
        plus 1e-5 and multiplies back by the standard deviation alone.
        """
        if self is Normalization.CONSTANT_NORM_RESCALE:
            scale = h.norm(dim=-1, keepdim=True) / math.sqrt(h.shape[-1])
            return h / scale, scale
        if self is Normalization.LAYER_NORM:
            centred = h - h.mean(dim=-1, keepdim=True)
            scale = centred.std(dim=-1, keepdim=True)
            return centred / (scale + 1e-5), scale
        return h, torch.ones_like(h[..., :1])
