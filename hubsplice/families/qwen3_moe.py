"""Qwen3-MoE: the inserted layer is one of the dense layers that the family can have."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hubsplice.families.blocks import BIAS_FREE_PRE_NORM, head_norms
from hubsplice.families.engines import RUN, EngineKey, Evidence, Support
from hubsplice.families.family import Family, ModelClass, Named
from hubsplice.families.known import BEHIND_SMOLLM2, Weights
from hubsplice.families.layer_fields import LayerIndices
from hubsplice.families.qwen3 import BIAS_SWITCHES
from hubsplice.families.registry import FAMILIES
from hubsplice.families.tensors import ATTENTION_OUTPUT

QWEN3_MOE_CLASS = ModelClass(
    name="Qwen3MoeForCausalLM",
    model_type="qwen3_moe",
    block=BIAS_FREE_PRE_NORM.with_norms(*head_norms(1.0)),
    switches=BIAS_SWITCHES,
    engines={
        EngineKey.VLLM: Support(Evidence.RUN, ignored_biases=frozenset({ATTENTION_OUTPUT})),
        EngineKey.TRANSFORMERS: RUN,
        EngineKey.SGLANG: Support(Evidence.READ, ignored_fields=frozenset({"mlp_only_layers"})),
    },
)


def _dense_layers(config: Mapping[str, Any], num_layers: int) -> list[int]:
    """The layers that are dense by their index, listed or not."""
    step = config.get("decoder_sparse_step", 1)
    if config.get("num_experts", 128) == 0:
        return list(range(num_layers))
    return [layer for layer in range(num_layers) if (layer + 1) % step]


QWEN3_MOE = FAMILIES.add(
    "qwen3_moe",
    Family(
        model_type="qwen3_moe",
        title="Qwen3-MoE",
        class_name="Qwen3MoeForCausalLM",
        becomes=QWEN3_MOE_CLASS,
        eps=Named("rms_norm_eps", 1e-6),
        activation=Named("hidden_act", "silu"),
        weights=Weights.STREAM,
        measured=BEHIND_SMOLLM2,
        absent_means={"num_key_value_heads": 4},
        layer_fields={"mlp_only_layers": LayerIndices(inserted=True, implied=_dense_layers)},
        # Dense layers are all listed, so that none goes by its index any more.
        rewritten={"decoder_sparse_step": 1},
        dense_layers=_dense_layers,
    ),
)
