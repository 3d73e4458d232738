"""The compiled layer of pre-norm families with a gated SiLU MLP."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional
from typing_extensions import override

from hubsplice.constructions.compiled_layer import CompiledLayer


@dataclass(frozen=True, eq=False)
class SplicedLayer(CompiledLayer):
    """A pre-norm decoder layer whose attention adds a constant and whose MLP is the edit.

    The layer computes, with x = rms_norm(h + attention_bias) and unit norm weights,

        h + attention_bias + down·(silu(gate·x + gate_bias) ⊙ (up·x + up_bias)) + down_bias,

    with what attention and the MLP add multiplied by `multiplier`, each.

    Attributes:
        attention_bias: the constant that attention's output bias adds, shape [d].
        gate_weight, up_weight: shape [neurons, d].
        gate_bias, up_bias: shape [neurons].
        down_weight: shape [d, neurons].
        down_bias: shape [d].
        multiplier: of what a block adds to the stream, in families that have one.
    """

    attention_bias: Tensor
    gate_weight: Tensor
    gate_bias: Tensor
    up_weight: Tensor
    up_bias: Tensor
    down_weight: Tensor
    down_bias: Tensor
    multiplier: float = 1.0

    @staticmethod
    def empty(hidden_size: int, dtype: torch.dtype) -> SplicedLayer:
        """A layer that changes nothing, bit for bit."""
        nothing = torch.zeros(hidden_size, dtype=dtype)
        return SplicedLayer(
            nothing,
            torch.zeros(0, hidden_size, dtype=dtype),
            torch.zeros(0, dtype=dtype),
            torch.zeros(0, hidden_size, dtype=dtype),
            torch.zeros(0, dtype=dtype),
            torch.zeros(hidden_size, 0, dtype=dtype),
            nothing,
        )

    @property
    @override
    def neurons(self) -> int:
        return self.gate_weight.shape[0]

    @property
    def constant(self) -> Tensor:
        """What attention adds to the stream, shape [d]."""
        return self.attention_bias * self.multiplier

    def normalise(self, h: Tensor, eps: float) -> Tensor:
        """What the MLP reads, from the stream h [..., d] at the site, in the layer's dtype."""
        shifted = (h.to(self.attention_bias.dtype) + self.constant).float()
        variance = shifted.pow(2).mean(-1, keepdim=True)
        return (shifted * torch.rsqrt(variance + eps)).to(self.attention_bias.dtype)

    def divisor(self, h: Tensor, eps: float) -> Tensor:
        """What the norm divides by, from the stream h [..., d] at the site, float64."""
        shifted = h.double() + self.constant.double()
        return (shifted.pow(2).mean(dim=-1) + eps).sqrt()

    def gates(self, x: Tensor) -> Tensor:
        """The gate pre-activations for x [..., d], shape [..., neurons]."""
        return functional.linear(x, self.gate_weight, self.gate_bias)

    @override
    def __call__(self, h: Tensor, eps: float) -> Tensor:
        h = h.to(self.attention_bias.dtype)
        x = self.normalise(h, eps)
        hidden = functional.silu(self.gates(x)) * functional.linear(x, self.up_weight, self.up_bias)
        written = functional.linear(hidden, self.down_weight, self.down_bias)
        return (h + self.constant) + written * self.multiplier
