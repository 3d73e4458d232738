"""SmolLM3: Llama with layers that have no rotary embedding."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from hubsplice.architectures.gated_prenorm import BiasedPreNorm
from hubsplice.architectures.layer_fields import (
    FULL_ATTENTION,
    SLIDING_ATTENTION,
    LayerField,
    PerLayer,
)
from hubsplice.architectures.registry import ARCHITECTURES


def _has_rope(config: Mapping[str, Any], num_layers: int) -> list[int]:
    interval = config.get("no_rope_layer_interval", 4)
    return [int((layer + 1) % interval != 0) for layer in range(num_layers)]


def _layer_types(config: Mapping[str, Any], num_layers: int) -> list[str]:
    windowed = bool(config.get("use_sliding_window")) and config.get("sliding_window") is not None
    rope = config.get("no_rope_layers") or _has_rope(config, num_layers)
    return [SLIDING_ATTENTION if windowed and not has else FULL_ATTENTION for has in rope]


@ARCHITECTURES.register("smollm3")
class SmolLM3(BiasedPreNorm):
    """SmolLM3: its own class has every bias."""

    class_name_before: ClassVar[str] = "SmolLM3ForCausalLM"
    class_name_after: ClassVar[str] = "SmolLM3ForCausalLM"
    tied_when_absent: ClassVar[bool] = True
    absent_means: ClassVar[Mapping[str, Any]] = {"num_key_value_heads": 4}
    # An entry of 1 in no_rope_layers means that the layer has a rotary embedding.
    layer_fields: ClassVar[Mapping[str, LayerField]] = {
        "no_rope_layers": PerLayer(1, _has_rope),
        "layer_types": PerLayer(FULL_ATTENTION, _layer_types),
    }
    rewritten: ClassVar[Mapping[str, Any]] = {"attention_bias": True, "mlp_bias": True}
