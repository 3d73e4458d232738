"""What families have in common whose blocks are normalised afterwards."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor
from typing_extensions import override

from hubsplice.architectures.gated_target import GatedTarget
from hubsplice.architectures.grouped_attention import ATTENTION
from hubsplice.architectures.sandwich import compile_sandwich
from hubsplice.architectures.sandwich_form import SandwichForm
from hubsplice.architectures.sandwich_layer import SandwichLayer
from hubsplice.calibration import SiteActivations
from hubsplice.intervention import Site


class SandwichTarget(GatedTarget[SandwichLayer]):
    """A family with a norm after each block, and a gated MLP without biases.

    Its own class has biases on attention, switched on for the whole model: there the constant
    comes from that an inserted layer's attention adds.
    """

    form: ClassVar[SandwichForm]
    """How the family's block differs from others."""

    rewritten: ClassVar[Mapping[str, Any]] = {"attention_bias": True}

    @property
    @override
    def biased_before(self) -> frozenset[str]:
        return ATTENTION if self.decoder_config.get("attention_bias") else frozenset()

    @property
    @override
    def biased_after(self) -> frozenset[str]:
        return ATTENTION

    @override
    def layer_tensors(self, layer: SandwichLayer) -> dict[str, Tensor]:
        return {
            "self_attn.o_proj.bias": layer.attention_bias,
            "post_attention_layernorm.weight": layer.attention_norm,
            "mlp.gate_proj.weight": layer.gate_weight,
            "mlp.up_proj.weight": layer.up_weight,
            "mlp.down_proj.weight": layer.down_weight,
            "post_feedforward_layernorm.weight": layer.output_norm,
        }

    @override
    def empty_layer(self, dtype: torch.dtype) -> SandwichLayer:
        return SandwichLayer.empty(self.hidden_size, dtype, self.form)

    @override
    def construct(
        self, site: Site, activations: SiteActivations, dtype: torch.dtype
    ) -> SandwichLayer:
        return compile_sandwich(site, activations, dtype, self.intermediate_size, self.form)
