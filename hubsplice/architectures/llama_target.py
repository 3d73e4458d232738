"""Families whose result is a stock `LlamaForCausalLM`, the class that can have every bias."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn import functional
from typing_extensions import override

from hubsplice.architectures.base import Architecture
from hubsplice.architectures.inserted_tensor import InsertedTensor
from hubsplice.architectures.layer_fields import LayerField, PerLayer
from hubsplice.architectures.prenorm import compile_prenorm
from hubsplice.architectures.projection import Projection
from hubsplice.architectures.spliced_layer import SplicedLayer
from hubsplice.calibration import SiteActivations
from hubsplice.intervention import Site

ATTENTION_INPUTS = frozenset({"self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"})
ATTENTION = ATTENTION_INPUTS | {"self_attn.o_proj"}
MLP = frozenset({"mlp.gate_proj", "mlp.up_proj", "mlp.down_proj"})

_NORMS = ("input_layernorm", "post_attention_layernorm")
_FULL_ATTENTION = "full_attention"


class LlamaTarget(Architecture[SplicedLayer]):
    """A pre-norm family with a gated SiLU MLP and Llama's tensor names."""

    class_name_after: ClassVar[str] = "LlamaForCausalLM"
    layer_fields: ClassVar[Mapping[str, LayerField]] = {"layer_types": PerLayer(_FULL_ATTENTION)}
    rewritten: ClassVar[Mapping[str, Any]] = {
        "model_type": "llama",
        "attention_bias": True,
        "mlp_bias": True,
    }

    @property
    @override
    def biased_after(self) -> frozenset[str]:
        return ATTENTION | MLP

    @property
    @override
    def norm_eps(self) -> float:
        return float(self.config.get("rms_norm_eps", 1e-6))

    @property
    def head_dim(self) -> int:
        """The width of one attention head."""
        if self.config.get("head_dim") is not None:
            return self.size("head_dim")
        return self.hidden_size // self.size("num_attention_heads")

    @property
    def _num_key_value_heads(self) -> int:
        name = "num_key_value_heads"
        if self.config.get(name) is not None:
            return self.size(name)
        if name not in self.config and name in self.absent_means:
            return int(self.absent_means[name])
        return self.size("num_attention_heads")

    @property
    @override
    def projections(self) -> Mapping[str, Projection]:
        hidden, width = self.hidden_size, self.intermediate_size
        queries = self.size("num_attention_heads") * self.head_dim
        keys = self._num_key_value_heads * self.head_dim
        return {
            "self_attn.q_proj": Projection(queries, hidden),
            "self_attn.k_proj": Projection(keys, hidden),
            "self_attn.v_proj": Projection(keys, hidden),
            "self_attn.o_proj": Projection(hidden, queries),
            "mlp.gate_proj": Projection(width, hidden),
            "mlp.up_proj": Projection(width, hidden),
            "mlp.down_proj": Projection(hidden, width),
        }

    @override
    def problems(self) -> Iterator[str]:
        yield from super().problems()
        config = self.config
        if config.get("hidden_act", "silu") != "silu":
            yield (
                f"hidden_act: found {config['hidden_act']!r}, expected 'silu': the construction "
                "is made of SiLU, and vLLM's Llama has no other"
            )
        heads = self.size("num_attention_heads")
        if self.hidden_size % heads:
            yield (
                f"num_attention_heads: found {heads}, expected a divisor of hidden_size "
                f"({self.hidden_size}), which transformers' Llama asks for"
            )
        layer_types = config.get("layer_types") or []
        other = next((kind for kind in layer_types if kind != _FULL_ATTENTION), None)
        if other is not None:
            yield f"layer_types: found {other!r}, expected {_FULL_ATTENTION!r}, all that Llama has"

    @override
    def spliced_config(self, after_layers: Sequence[int], dtype: torch.dtype) -> dict[str, Any]:
        config = super().spliced_config(after_layers, dtype)
        if self.class_name_before != self.class_name_after:
            config["head_dim"] = self.head_dim
        return config

    @property
    @override
    def norms(self) -> Mapping[str, InsertedTensor]:
        return {f"{norm}.weight": InsertedTensor((self.hidden_size,), 1.0) for norm in _NORMS}

    @override
    def layer_tensors(self, layer: SplicedLayer) -> dict[str, Tensor]:
        missing = self.intermediate_size - layer.neurons
        return {
            "self_attn.o_proj.bias": layer.attention_bias,
            "mlp.gate_proj.weight": functional.pad(layer.gate_weight, (0, 0, 0, missing)),
            "mlp.gate_proj.bias": functional.pad(layer.gate_bias, (0, missing)),
            "mlp.up_proj.weight": functional.pad(layer.up_weight, (0, 0, 0, missing)),
            "mlp.up_proj.bias": functional.pad(layer.up_bias, (0, missing)),
            "mlp.down_proj.weight": functional.pad(layer.down_weight, (0, missing)),
            "mlp.down_proj.bias": layer.down_bias,
        }

    @override
    def empty_layer(self, dtype: torch.dtype) -> SplicedLayer:
        return SplicedLayer.empty(self.hidden_size, dtype)

    @override
    def compile(self, site: Site, activations: SiteActivations, dtype: torch.dtype) -> SplicedLayer:
        return compile_prenorm(site, activations, dtype)
