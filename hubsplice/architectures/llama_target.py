"""Families whose result is a stock `LlamaForCausalLM`, the class that can have every bias."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

import torch
from typing_extensions import override

from hubsplice.architectures.gated_prenorm import BiasedPreNorm
from hubsplice.architectures.layer_fields import FULL_ATTENTION, LayerField, PerLayer
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

    default_window: ClassVar[int | None] = None
    """How far the base's class looks back where config.json does not say; None for no limit."""

    def window_problems(self) -> Iterator[str]:
        """Why a base whose class acts on `sliding_window` can't be a Llama, which has none."""
        window = self.config.get("sliding_window", self.default_window)
        name = "max_position_embeddings"
        positions = self.size(name) if name in self.config else self.absent_means[name]
        # A window that no position reaches beyond changes nothing.
        if window is not None and window < positions:
            found = "nothing, which means" if "sliding_window" not in self.config else "found"
            yield (
                f"sliding_window: {found} {window!r}, expected null or at least "
                f"max_position_embeddings ({positions}): the model would be served as a Llama, "
                "which has no window"
            )

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
