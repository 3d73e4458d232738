"""What families have in common whose blocks are normalised afterwards."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor
from typing_extensions import override

from hubsplice.architectures.base import Architecture
from hubsplice.architectures.projection import Projection
from hubsplice.architectures.sandwich import compile_sandwich
from hubsplice.architectures.sandwich_form import SandwichForm
from hubsplice.architectures.sandwich_layer import SandwichLayer
from hubsplice.calibration import SiteActivations
from hubsplice.intervention import Site

SLIDING_ATTENTION = "sliding_attention"
FULL_ATTENTION = "full_attention"

_ATTENTION = frozenset(f"self_attn.{name}_proj" for name in "qkvo")


class SandwichTarget(Architecture[SandwichLayer]):
    """A family with a norm after each block, and a gated MLP without biases.

    Its own class has biases on attention, switched on for the whole model: there the constant
    comes from that an inserted layer's attention adds.
    """

    form: ClassVar[SandwichForm]
    """How the family's block differs from others."""

    rewritten: ClassVar[Mapping[str, Any]] = {"attention_bias": True}

    @property
    @override
    def projections(self) -> Mapping[str, Projection]:
        hidden, width, head = self.hidden_size, self.intermediate_size, self.head_dim
        queries, keys = self.size("num_attention_heads") * head, self.num_key_value_heads * head
        return {
            "self_attn.q_proj": Projection(queries, hidden),
            "self_attn.k_proj": Projection(keys, hidden),
            "self_attn.v_proj": Projection(keys, hidden),
            "self_attn.o_proj": Projection(hidden, queries),
            "mlp.gate_proj": Projection(width, hidden),
            "mlp.up_proj": Projection(width, hidden),
            "mlp.down_proj": Projection(hidden, width),
        }

    @property
    def head_dim(self) -> int:
        """The width of one attention head."""
        return self.size("head_dim")

    @property
    def num_key_value_heads(self) -> int:
        """How many heads keys and values have."""
        return self.size("num_key_value_heads")

    @property
    @override
    def biased_before(self) -> frozenset[str]:
        return _ATTENTION if self.decoder_config.get("attention_bias") else frozenset()

    @property
    @override
    def biased_after(self) -> frozenset[str]:
        return _ATTENTION

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
