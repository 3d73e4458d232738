"""Granite 3 and 4 dense: Llama with a factor on what each block adds to the stream."""

from __future__ import annotations

from hubsplice.families.blocks import GATED_PRE_NORM
from hubsplice.families.engines import READ, RUN, EngineKey, Evidence, Support
from hubsplice.families.family import Family, ModelClass, Named
from hubsplice.families.known import Weights
from hubsplice.families.llama import BIAS_SWITCHES
from hubsplice.families.registry import FAMILIES
from hubsplice.families.tensors import ATTENTION, MLP

GRANITE_CLASS = ModelClass(
    name="GraniteForCausalLM",
    model_type="granite",
    block=GATED_PRE_NORM,
    switches=BIAS_SWITCHES,
    engines={
        EngineKey.VLLM: RUN,
        EngineKey.TRANSFORMERS: RUN,
        EngineKey.SGLANG: Support(Evidence.READ, ignored_biases=frozenset((*ATTENTION, *MLP))),
        EngineKey.LLAMA_CPP: READ,
    },
)

GRANITE = FAMILIES.add(
    "granite",
    Family(
        model_type="granite",
        title="Granite 3 and 4",
        class_name="GraniteForCausalLM",
        becomes=GRANITE_CLASS,
        eps=Named("rms_norm_eps", 1e-6),
        activation=Named("hidden_act", "silu"),
        weights=Weights.TINY,
        multiplier="residual_multiplier",
    ),
)
