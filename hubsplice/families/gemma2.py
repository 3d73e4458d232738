"""Gemma 2: every other layer attends within a window, and logits are capped."""

from __future__ import annotations

from hubsplice.families.blocks import SANDWICH
from hubsplice.families.engines import RUN, EngineKey, Evidence, Support
from hubsplice.families.family import BiasSwitch, Family, ModelClass, Named, Refused
from hubsplice.families.known import BEHIND_SMOLLM2, Weights
from hubsplice.families.layer_fields import FULL_ATTENTION, SLIDING_ATTENTION, EveryNth, PerLayer
from hubsplice.families.registry import FAMILIES
from hubsplice.families.tensors import ATTENTION

BIAS_SWITCHES = (BiasSwitch("attention_bias", ATTENTION, always=True),)

GEMMA2_CLASS = ModelClass(
    name="Gemma2ForCausalLM",
    model_type="gemma2",
    block=SANDWICH,
    switches=BIAS_SWITCHES,
    engines={
        EngineKey.VLLM: RUN,
        EngineKey.TRANSFORMERS: RUN,
        EngineKey.SGLANG: Support(
            Evidence.READ,
            ignored_fields=frozenset({"layer_types"}),
            note="it assumes that every other layer has a window",
        ),
    },
)

DEFAULTS = {
    "hidden_size": 2304,
    "intermediate_size": 9216,
    "num_hidden_layers": 26,
    "num_attention_heads": 8,
    "num_key_value_heads": 4,
    "head_dim": 256,
}
ACTIVATION = Named("hidden_activation", "gelu_pytorch_tanh", null_is_missing=True)
REFUSED = (
    Refused(
        "use_bidirectional_attention",
        "found true, expected false: only causal language models can be spliced",
    ),
)

GEMMA2 = FAMILIES.add(
    "gemma2",
    Family(
        model_type="gemma2",
        title="Gemma 2",
        class_name="Gemma2ForCausalLM",
        becomes=GEMMA2_CLASS,
        eps=Named("rms_norm_eps", 1e-6),
        activation=ACTIVATION,
        weights=Weights.STREAM,
        measured=BEHIND_SMOLLM2,
        tied=True,
        defaults=DEFAULTS,
        layer_fields={
            "layer_types": PerLayer(
                SLIDING_ATTENTION, EveryNth(2, nth=FULL_ATTENTION, others=SLIDING_ATTENTION)
            )
        },
        refused=REFUSED,
    ),
)
