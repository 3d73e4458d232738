"""Gemma 2: every other layer attends within a window, and logits are capped."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from hubsplice.architectures.gemma_target import GemmaTarget
from hubsplice.architectures.layer_fields import (
    FULL_ATTENTION,
    SLIDING_ATTENTION,
    LayerField,
    PerLayer,
)
from hubsplice.architectures.registry import ARCHITECTURES


def _layer_types(_config: Mapping[str, Any], num_layers: int) -> list[str]:
    kinds = (SLIDING_ATTENTION, FULL_ATTENTION)
    return [kinds[layer % 2] for layer in range(num_layers)]


@ARCHITECTURES.register("gemma2")
class Gemma2(GemmaTarget):
    """Gemma 2."""

    class_name_before: ClassVar[str] = "Gemma2ForCausalLM"
    class_name_after: ClassVar[str] = "Gemma2ForCausalLM"
    layer_fields: ClassVar[Mapping[str, LayerField]] = {
        "layer_types": PerLayer(SLIDING_ATTENTION, _layer_types)
    }
    defaults: ClassVar[Mapping[str, int]] = {
        "hidden_size": 2304,
        "intermediate_size": 9216,
        "num_hidden_layers": 26,
        "num_attention_heads": 8,
        "num_key_value_heads": 4,
        "head_dim": 256,
    }
