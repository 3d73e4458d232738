"""The compiled layer of families that normalise what each block writes."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn import functional
from typing_extensions import override

from hubsplice.constructions.compiled_layer import CompiledLayer
from hubsplice.constructions.held_norms import HeldNorms
from hubsplice.constructions.sandwich_form import SANDWICH, SandwichForm


@dataclass(frozen=True, eq=False)
class SandwichLayer(CompiledLayer):
    """A decoder layer with norms after both blocks, whose attention adds a constant.

    With norm(z) = z/rms(z), the family's activation and what its norms add to their weights, the
    layer computes

        h' = h + norm(attention_bias) ⊙ (offset + attention_norm),
        x  = norm(h'), or h' where no norm stands before the MLP,
        h'' = h' + norm(down·(activation(gate·x) ⊙ up·x)) ⊙ (offset + output_norm).

    Attributes:
        attention_bias: attention's output bias, all that attention gives, shape [d].
        attention_norm: weight of the norm after attention, shape [d].
        gate_weight, up_weight: shape [neurons, d].
        down_weight: shape [d, neurons].
        output_norm: weight of the norm after the MLP, shape [d].
        form: how the family's block differs from others.
    """

    attention_bias: Tensor
    attention_norm: Tensor
    gate_weight: Tensor
    up_weight: Tensor
    down_weight: Tensor
    output_norm: Tensor
    form: SandwichForm = SANDWICH

    @staticmethod
    def empty(
        hidden_size: int,
        dtype: torch.dtype,
        form: SandwichForm = SANDWICH,
        held: HeldNorms | None = None,
    ) -> SandwichLayer:
        """A layer that changes nothing, bit for bit; its norms are silent, or those held."""
        nothing = torch.zeros(hidden_size, dtype=dtype)
        silent = form.weight(nothing)
        return SandwichLayer(
            attention_bias=nothing,
            attention_norm=silent if held is None else held.attention,
            gate_weight=torch.zeros(0, hidden_size, dtype=dtype),
            up_weight=torch.zeros(0, hidden_size, dtype=dtype),
            down_weight=torch.zeros(hidden_size, 0, dtype=dtype),
            output_norm=silent if held is None else held.output,
            form=form,
        )

    @property
    def without_neurons(self) -> SandwichLayer:
        """What is left of the layer: its norms, and attention that gives nothing."""
        empty = SandwichLayer.empty(len(self.output_norm), self.output_norm.dtype, self.form)
        return replace(empty, attention_norm=self.attention_norm, output_norm=self.output_norm)

    @property
    @override
    def neurons(self) -> int:
        return self.gate_weight.shape[0]

    def attention_constant(self, eps: float) -> Tensor:
        """What attention adds to the stream, shape [d], in the layer's dtype."""
        return self._written(self.attention_bias, self.attention_norm, eps)

    def normalise(self, h: Tensor, eps: float) -> Tensor:
        """What the MLP reads, from the stream h [..., d] at the site, in the layer's dtype."""
        shifted = h.to(self.attention_bias.dtype) + self.attention_constant(eps)
        if not self.form.normalises_input:
            return shifted
        return _unit(shifted, eps).to(shifted.dtype)

    def gates(self, x: Tensor) -> Tensor:
        """The gate pre-activations for x [..., d], shape [..., neurons]."""
        return functional.linear(x, self.gate_weight)

    def mlp(self, x: Tensor) -> Tensor:
        """What the MLP gives for x [..., d], before its norm, shape [..., d]."""
        hidden = self.form.activate(self.gates(x))
        return functional.linear(hidden * functional.linear(x, self.up_weight), self.down_weight)

    @override
    def __call__(self, h: Tensor, eps: float) -> Tensor:
        h = h.to(self.attention_bias.dtype)
        written = self._written(self.mlp(self.normalise(h, eps)), self.output_norm, eps)
        return (h + self.attention_constant(eps)) + written

    def _written(self, z: Tensor, weight: Tensor, eps: float) -> Tensor:
        """The norm after a block, in float32 throughout and rounded once."""
        return (_unit(z, eps) * self.form.gain(weight).float()).to(z.dtype)


def _unit(z: Tensor, eps: float) -> Tensor:
    wide = z.float()
    return wide * torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + eps)
