"""OLMo 2: the MLP reads the stream as it is, and each block is normalised afterwards."""

from __future__ import annotations

from hubsplice.families.blocks import POST_NORM
from hubsplice.families.engines import BACKEND, RUN, EngineKey
from hubsplice.families.family import BiasSwitch, Family, ModelClass, Named
from hubsplice.families.known import BEHIND_SMOLLM2, Weights
from hubsplice.families.registry import FAMILIES
from hubsplice.families.tensors import ATTENTION

OLMO2_CLASS = ModelClass(
    name="Olmo2ForCausalLM",
    model_type="olmo2",
    block=POST_NORM,
    switches=(BiasSwitch("attention_bias", ATTENTION, always=True),),
    engines={EngineKey.VLLM: BACKEND, EngineKey.TRANSFORMERS: RUN},
)

OLMO2 = FAMILIES.add(
    "olmo2",
    Family(
        model_type="olmo2",
        title="OLMo 2",
        class_name="Olmo2ForCausalLM",
        becomes=OLMO2_CLASS,
        eps=Named("rms_norm_eps", 1e-5),
        activation=Named("hidden_act", "silu"),
        weights=Weights.STREAM,
        measured=BEHIND_SMOLLM2,
    ),
)
