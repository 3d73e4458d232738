"""Qwen3: queries and keys are normalised, and the MLP has no biases."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hubsplice.families.blocks import BIAS_FREE_PRE_NORM, head_norms
from hubsplice.families.engines import READ, RUN, EngineKey, Evidence, Support
from hubsplice.families.family import BiasSwitch, Family, ModelClass, Named
from hubsplice.families.known import BEHIND_SMOLLM2, Weights
from hubsplice.families.layer_fields import (
    FULL_ATTENTION,
    SLIDING_ATTENTION,
    FirstLayers,
    PerLayer,
)
from hubsplice.families.registry import FAMILIES
from hubsplice.families.tensors import ATTENTION, ATTENTION_OUTPUT

# transformers has o_proj.bias too, and wants it in the file: it is zero throughout.
BIAS_SWITCHES = (BiasSwitch("attention_bias", ATTENTION, always=True),)

QWEN3_CLASS = ModelClass(
    name="Qwen3ForCausalLM",
    model_type="qwen3",
    block=BIAS_FREE_PRE_NORM.with_norms(*head_norms(1.0)),
    switches=BIAS_SWITCHES,
    engines={
        EngineKey.VLLM: Support(
            Evidence.RUN,
            ignored_biases=frozenset({ATTENTION_OUTPUT}),
            ignored_fields=frozenset({"layer_types"}),
            note="if some layers have a window and others have none, it fails, or it gives no "
            "layer a window",
        ),
        EngineKey.TRANSFORMERS: RUN,
        EngineKey.SGLANG: READ,
    },
)


def _layer_types(config: Mapping[str, Any], num_layers: int) -> list[str]:
    windowed = bool(config.get("use_sliding_window")) and (
        config.get("sliding_window", 4096) is not None
    )
    first = config.get("max_window_layers", 28)
    return [
        SLIDING_ATTENTION if windowed and layer >= first else FULL_ATTENTION
        for layer in range(num_layers)
    ]


QWEN3 = FAMILIES.add(
    "qwen3",
    Family(
        model_type="qwen3",
        title="Qwen3",
        class_name="Qwen3ForCausalLM",
        becomes=QWEN3_CLASS,
        eps=Named("rms_norm_eps", 1e-6),
        activation=Named("hidden_act", "silu"),
        weights=Weights.STREAM,
        measured=BEHIND_SMOLLM2,
        absent_means={"num_key_value_heads": 32, "head_dim": 128},
        layer_fields={
            "layer_types": PerLayer(FULL_ATTENTION, _layer_types),
            "max_window_layers": FirstLayers(),
        },
    ),
)
