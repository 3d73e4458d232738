"""Qwen2 and Qwen2.5, re-expressed as Llama: their own class has no bias after attention."""

from __future__ import annotations

from hubsplice.families.family import Family, Named, Refused
from hubsplice.families.known import Weights
from hubsplice.families.llama import LAYER_FIELDS, LLAMA_CLASS
from hubsplice.families.registry import FAMILIES
from hubsplice.families.tensors import ATTENTION_INPUTS

QWEN2 = FAMILIES.add(
    "qwen2",
    Family(
        model_type="qwen2",
        title="Qwen2 and Qwen2.5",
        class_name="Qwen2ForCausalLM",
        becomes=LLAMA_CLASS,
        eps=Named("rms_norm_eps", 1e-6),
        activation=Named("hidden_act", "silu"),
        weights=Weights.TINY,
        switches=(),
        fixed_biases=ATTENTION_INPUTS,
        absent_means={
            "vocab_size": 151936,
            "max_position_embeddings": 32768,
            "num_key_value_heads": 32,
            # Llama's own would stop a generation at token 2.
            "bos_token_id": None,
            "eos_token_id": None,
        },
        layer_fields=LAYER_FIELDS,
        dropped=frozenset(
            {"use_sliding_window", "sliding_window", "max_window_layers", "layer_types"}
        ),
        refused=(
            Refused(
                "use_sliding_window",
                "found true, expected false: the model would be served as a Llama, which has no "
                "window",
            ),
            Refused(
                "dual_chunk_attention_config",
                "vLLM's Qwen2 acts on it and its Llama does not; remove it to splice the model "
                "for contexts that do not need it",
            ),
        ),
    ),
)
