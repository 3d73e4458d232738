"""SmolLM3: Llama with layers that have no rotary embedding."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hubsplice.families.blocks import GATED_PRE_NORM
from hubsplice.families.engines import BACKEND, RUN, EngineKey, Evidence, Support
from hubsplice.families.family import Family, ModelClass, Named
from hubsplice.families.known import Weights
from hubsplice.families.layer_fields import FULL_ATTENTION, SLIDING_ATTENTION, EveryNth, PerLayer
from hubsplice.families.llama import BIAS_SWITCHES
from hubsplice.families.registry import FAMILIES
from hubsplice.families.tensors import ATTENTION_OUTPUT, MLP

SMOLLM3_CLASS = ModelClass(
    name="SmolLM3ForCausalLM",
    model_type="smollm3",
    block=GATED_PRE_NORM,
    switches=BIAS_SWITCHES,
    engines={
        EngineKey.VLLM: BACKEND,
        EngineKey.TRANSFORMERS: RUN,
        EngineKey.LLAMA_CPP: Support(
            Evidence.READ,
            ignored_biases=frozenset((ATTENTION_OUTPUT, *MLP)),
            ignored_fields=frozenset({"no_rope_layers"}),
            note="it drops the rotary embedding of every fourth layer, and does not load such "
            "biases",
        ),
    },
)

# An entry of 1 in no_rope_layers means that the layer has a rotary embedding.
_HAS_ROPE = EveryNth(4, nth=0, others=1, field="no_rope_layer_interval")


def _layer_types(config: Mapping[str, Any], num_layers: int) -> list[str]:
    windowed = bool(config.get("use_sliding_window")) and config.get("sliding_window") is not None
    rope = config.get("no_rope_layers") or _HAS_ROPE(config, num_layers)
    return [SLIDING_ATTENTION if windowed and not has else FULL_ATTENTION for has in rope]


SMOLLM3 = FAMILIES.add(
    "smollm3",
    Family(
        model_type="smollm3",
        title="SmolLM3",
        class_name="SmolLM3ForCausalLM",
        becomes=SMOLLM3_CLASS,
        eps=Named("rms_norm_eps", 1e-6),
        activation=Named("hidden_act", "silu"),
        weights=Weights.TINY,
        tied=True,
        absent_means={"num_key_value_heads": 4},
        layer_fields={
            "no_rope_layers": PerLayer(1, _HAS_ROPE),
            "layer_types": PerLayer(FULL_ATTENTION, _layer_types),
        },
    ),
)
