"""The compiled layer of families with LayerNorm and a plain GELU MLP."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor
from torch.nn import functional
from typing_extensions import override

from hubsplice.constructions.compiled_layer import CompiledLayer

GELUS = frozenset({"gelu", "gelu_new", "gelu_fast", "gelu_pytorch_tanh"})
"""The activations that the construction is made of, by transformers' names."""


@dataclass(frozen=True, eq=False)
class PlainLayer(CompiledLayer):
    """A pre-norm decoder layer whose attention adds a constant and whose MLP is the edit.

    The layer computes, with x = layer_norm(h + attention_bias) of unit weight and no bias,

        h + attention_bias + out·gelu(in·x + in_bias) + out_bias.

    Where the MLP reads beside the attention, another layer adds attention_bias before.

    Attributes:
        attention_bias: the constant that attention's output bias adds, shape [d].
        in_weight: shape [neurons, d].
        in_bias: shape [neurons].
        out_weight: shape [d, neurons].
        out_bias: shape [d].
        activation: one of `GELUS`.
    """

    attention_bias: Tensor
    in_weight: Tensor
    in_bias: Tensor
    out_weight: Tensor
    out_bias: Tensor
    activation: str = "gelu"

    @staticmethod
    def empty(hidden_size: int, dtype: torch.dtype, activation: str) -> PlainLayer:
        """A layer that changes nothing, bit for bit."""
        nothing = torch.zeros(hidden_size, dtype=dtype)
        return PlainLayer(
            nothing,
            torch.zeros(0, hidden_size, dtype=dtype),
            torch.zeros(0, dtype=dtype),
            torch.zeros(hidden_size, 0, dtype=dtype),
            nothing,
            activation,
        )

    @property
    @override
    def neurons(self) -> int:
        return self.in_weight.shape[0]

    @property
    def constant(self) -> Tensor:
        """What attention adds to the stream, shape [d]."""
        return self.attention_bias

    def normalise(self, h: Tensor, eps: float) -> Tensor:
        """What the MLP reads, from the stream h [..., d] at the site, in the layer's dtype."""
        shifted = h.to(self.attention_bias.dtype) + self.attention_bias
        return functional.layer_norm(shifted, shifted.shape[-1:], eps=eps)

    def divisor(self, h: Tensor, eps: float) -> Tensor:
        """What the norm divides by, from the stream h [..., d] at the site, float64."""
        shifted = h.double() + self.constant.double()
        return (shifted.var(dim=-1, correction=0) + eps).sqrt()

    def gates(self, x: Tensor) -> Tensor:
        """The activation's arguments for x [..., d], shape [..., neurons]."""
        return functional.linear(x, self.in_weight, self.in_bias)

    def hidden(self, x: Tensor) -> Tensor:
        """What the neurons give for x [..., d], shape [..., neurons]."""
        from transformers.activations import ACT2FN

        functions = cast("Mapping[str, Callable[[Tensor], Tensor]]", ACT2FN)
        return functions[self.activation](self.gates(x))

    @override
    def __call__(self, h: Tensor, eps: float) -> Tensor:
        h = h.to(self.attention_bias.dtype)
        hidden = self.hidden(self.normalise(h, eps))
        return (h + self.attention_bias) + functional.linear(hidden, self.out_weight, self.out_bias)
