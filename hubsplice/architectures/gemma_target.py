"""What Gemma 2 and Gemma 3 have in common: sandwich norms, and attention of two kinds."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor
from typing_extensions import override

from hubsplice.architectures.base import Architecture
from hubsplice.architectures.inserted_tensor import InsertedTensor
from hubsplice.architectures.projection import Projection
from hubsplice.architectures.sandwich import compile_sandwich
from hubsplice.architectures.sandwich_layer import SandwichLayer
from hubsplice.calibration import SiteActivations
from hubsplice.intervention import Site

SLIDING_ATTENTION = "sliding_attention"
FULL_ATTENTION = "full_attention"

_ATTENTION = frozenset(f"self_attn.{name}_proj" for name in "qkvo")
_ACTIVATION = "gelu_pytorch_tanh"


class GemmaTarget(Architecture[SandwichLayer]):
    """A family whose blocks are normalised before and after, by weights around zero.

    Its own class has biases on attention, switched on for the whole model: there the constant
    comes from that an inserted layer's attention adds.
    """

    rewritten: ClassVar[Mapping[str, Any]] = {"attention_bias": True}

    defaults: ClassVar[Mapping[str, int]]
    """The sizes that the family's class takes where config.json leaves them out, as the
    checkpoints on the Hub do."""

    @override
    def size(self, name: str) -> int:
        if name not in self.decoder_config and name in self.defaults:
            return self.defaults[name]
        return super().size(name)

    @property
    @override
    def norm_eps(self) -> float:
        return float(self.decoder_config.get("rms_norm_eps", 1e-6))

    @property
    @override
    def tied(self) -> bool:
        fields = {**self.decoder_config, **self.config}
        return bool(fields.get("tie_word_embeddings", True))

    @property
    @override
    def projections(self) -> Mapping[str, Projection]:
        hidden, width, head = self.hidden_size, self.intermediate_size, self.size("head_dim")
        queries = self.size("num_attention_heads") * head
        keys = self.size("num_key_value_heads") * head
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
    @override
    def biased_before(self) -> frozenset[str]:
        return _ATTENTION if self.decoder_config.get("attention_bias") else frozenset()

    @property
    @override
    def biased_after(self) -> frozenset[str]:
        return _ATTENTION

    @override
    def problems(self) -> Iterator[str]:
        yield from super().problems()
        activation = self.decoder_config.get("hidden_activation") or _ACTIVATION
        if activation != _ACTIVATION:
            yield (
                f"hidden_activation: found {activation!r}, expected {_ACTIVATION!r}: the "
                "construction is made of it"
            )
        if self.decoder_config.get("use_bidirectional_attention"):
            yield (
                "use_bidirectional_attention: found true, expected false: only causal language "
                "models can be spliced"
            )

    @property
    @override
    def norms(self) -> Mapping[str, InsertedTensor]:
        names = ("input_layernorm", "pre_feedforward_layernorm")
        return {f"{name}.weight": InsertedTensor((self.hidden_size,), 0.0) for name in names}

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
        return SandwichLayer.empty(self.hidden_size, dtype)

    @override
    def compile(
        self, site: Site, activations: SiteActivations, dtype: torch.dtype
    ) -> SandwichLayer:
        return compile_sandwich(site, activations, dtype, self.intermediate_size)
