"""The compiled layer of families that normalise what each block writes as well as reads."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional
from typing_extensions import override

from hubsplice.architectures.compiled_layer import CompiledLayer


@dataclass(frozen=True, eq=False)
class SandwichLayer(CompiledLayer):
    """A decoder layer with norms around both blocks, whose attention adds a constant.

    With norm(z) = z/rms(z), the layer computes

        h' = h + norm(attention_bias) ⊙ (1 + attention_norm),
        x  = norm(h'),
        h'' = h' + norm(down·(gelu(gate·x) ⊙ up·x)) ⊙ (1 + output_norm).

    Attributes:
        attention_bias: attention's output bias, all that attention gives, shape [d].
        attention_norm: weight of the norm after attention, shape [d].
        gate_weight, up_weight: shape [neurons, d].
        down_weight: shape [d, neurons].
        output_norm: weight of the norm after the MLP, shape [d].
    """

    attention_bias: Tensor
    attention_norm: Tensor
    gate_weight: Tensor
    up_weight: Tensor
    down_weight: Tensor
    output_norm: Tensor

    @staticmethod
    def empty(hidden_size: int, dtype: torch.dtype) -> SandwichLayer:
        """A layer that changes nothing, bit for bit."""
        nothing = torch.zeros(hidden_size, dtype=dtype)
        return SandwichLayer(
            attention_bias=nothing,
            attention_norm=torch.full_like(nothing, -1.0),
            gate_weight=torch.zeros(0, hidden_size, dtype=dtype),
            up_weight=torch.zeros(0, hidden_size, dtype=dtype),
            down_weight=torch.zeros(hidden_size, 0, dtype=dtype),
            output_norm=torch.full_like(nothing, -1.0),
        )

    @property
    @override
    def neurons(self) -> int:
        return self.gate_weight.shape[0]

    def attention_constant(self, eps: float) -> Tensor:
        """What attention adds to the stream, shape [d], in the layer's dtype."""
        return _norm(self.attention_bias, self.attention_norm, eps)

    def normalise(self, h: Tensor, eps: float) -> Tensor:
        """What the MLP reads, from the stream h [..., d] at the site, in the layer's dtype."""
        shifted = h.to(self.attention_bias.dtype) + self.attention_constant(eps)
        return _norm(shifted, torch.zeros_like(self.attention_norm), eps)

    def gates(self, x: Tensor) -> Tensor:
        """The gate pre-activations for x [..., d], shape [..., neurons]."""
        return functional.linear(x, self.gate_weight)

    def mlp(self, x: Tensor) -> Tensor:
        """What the MLP gives for x [..., d], before its norm, shape [..., d]."""
        hidden = functional.gelu(self.gates(x), approximate="tanh")
        return functional.linear(hidden * functional.linear(x, self.up_weight), self.down_weight)

    @override
    def __call__(self, h: Tensor, eps: float) -> Tensor:
        h = h.to(self.attention_bias.dtype)
        written = _norm(self.mlp(self.normalise(h, eps)), self.output_norm, eps)
        return (h + self.attention_constant(eps)) + written


def _norm(z: Tensor, weight: Tensor, eps: float) -> Tensor:
    """RMSNorm with weights around zero, in float32 throughout and rounded once."""
    wide = z.float()
    unit = wide * torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + eps)
    return (unit * (1.0 + weight.float())).to(z.dtype)
