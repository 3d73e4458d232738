"""Mistral, re-expressed as Llama: its own class has no biases."""

from __future__ import annotations

from hubsplice.families.family import Family, Named
from hubsplice.families.known import Weights
from hubsplice.families.llama import LAYER_FIELDS, LLAMA_CLASS
from hubsplice.families.registry import FAMILIES

MISTRAL = FAMILIES.add(
    "mistral",
    Family(
        model_type="mistral",
        title="Mistral",
        class_name="MistralForCausalLM",
        becomes=LLAMA_CLASS,
        eps=Named("rms_norm_eps", 1e-6),
        activation=Named("hidden_act", "silu"),
        weights=Weights.TINY,
        switches=(),
        fixed_biases=(),
        absent_means={"max_position_embeddings": 131072, "num_key_value_heads": 8},
        layer_fields=LAYER_FIELDS,
        dropped=frozenset({"sliding_window", "layer_types"}),
        window=Named("sliding_window", 4096),
    ),
)
