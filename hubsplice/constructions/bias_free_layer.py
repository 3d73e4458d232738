"""The compiled layer of pre-norm families whose gated SiLU MLP has no biases."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from typing_extensions import override

from hubsplice.constructions.compiled_layer import CompiledLayer
from hubsplice.constructions.prenorm_layer import SplicedLayer


@dataclass(frozen=True, eq=False)
class BiasFreeLayer(CompiledLayer):
    """A pre-norm decoder layer whose attention adds a constant and whose MLP is the edit.

    The layer computes what `SplicedLayer` does with no biases in the MLP.

    Attributes:
        attention_bias: the constant that attention adds, shape [d].
        gate_weight, up_weight: shape [neurons, d].
        down_weight: shape [d, neurons].
    """

    attention_bias: Tensor
    gate_weight: Tensor
    up_weight: Tensor
    down_weight: Tensor

    @staticmethod
    def empty(hidden_size: int, dtype: torch.dtype) -> BiasFreeLayer:
        """A layer that changes nothing, bit for bit."""
        return BiasFreeLayer.of(SplicedLayer.empty(hidden_size, dtype))

    @staticmethod
    def of(layer: SplicedLayer) -> BiasFreeLayer:
        """The layer without its MLP's biases, which are to be zero."""
        return BiasFreeLayer(
            layer.attention_bias, layer.gate_weight, layer.up_weight, layer.down_weight
        )

    @property
    @override
    def neurons(self) -> int:
        return self.gate_weight.shape[0]

    @override
    def written(self) -> dict[str, Tensor]:
        """The tensors, with the constant as attention carries it: in the values.

        Attention weights add up to one, so a bias of one channel of the values passes attention
        unchanged, and the projection after it makes the constant of that.
        """
        tensors = self.tensors()
        constant = tensors.pop("attention_bias")
        return {
            "value_bias": constant.any().float()[None],
            "value_output": constant[:, None],
            **tensors,
        }

    @property
    def with_biases(self) -> SplicedLayer:
        """The same layer as one with biases, which are zero."""
        nothing = torch.zeros_like(self.gate_weight[:, 0])
        return SplicedLayer(
            self.attention_bias,
            self.gate_weight,
            nothing,
            self.up_weight,
            nothing,
            self.down_weight,
            torch.zeros_like(self.attention_bias),
        )

    @override
    def __call__(self, h: Tensor, eps: float) -> Tensor:
        return self.with_biases(h, eps)
