"""Families whose result is a stock `LlamaForCausalLM`, the class that can have every bias."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

import torch
from typing_extensions import override

from hubsplice.architectures.gated_prenorm import FULL_ATTENTION, BiasedPreNorm
from hubsplice.architectures.layer_fields import LayerField, PerLayer
from hubsplice.checkpoint.layer_map import LayerMap


class LlamaTarget(BiasedPreNorm):
    """A family whose weights a Llama can hold as they are."""

    class_name_after: ClassVar[str] = "LlamaForCausalLM"
    layer_fields: ClassVar[Mapping[str, LayerField]] = {"layer_types": PerLayer(FULL_ATTENTION)}
    rewritten: ClassVar[Mapping[str, Any]] = {
        "model_type": "llama",
        "attention_bias": True,
        "mlp_bias": True,
    }

    @override
    def problems(self) -> Iterator[str]:
        yield from super().problems()
        heads = self.size("num_attention_heads")
        if self.hidden_size % heads:
            yield (
                f"num_attention_heads: found {heads}, expected a divisor of hidden_size "
                f"({self.hidden_size}), which transformers' Llama asks for"
            )
        layer_types = self.config.get("layer_types") or []
        other = next((kind for kind in layer_types if kind != FULL_ATTENTION), None)
        if other is not None:
            yield f"layer_types: found {other!r}, expected {FULL_ATTENTION!r}, all that Llama has"

    @override
    def spliced_config(self, layers: LayerMap, dtype: torch.dtype) -> dict[str, Any]:
        config = super().spliced_config(layers, dtype)
        if self.class_name_before != self.class_name_after:
            config["head_dim"] = self.head_dim
        return config
