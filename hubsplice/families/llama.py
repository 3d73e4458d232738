"""Llama, and what calls itself so: SmolLM 1 and 2, Yi, TinyLlama, spliced models."""

from __future__ import annotations

import datetime
from dataclasses import replace

from hubsplice.families.blocks import BIAS_FREE_PRE_NORM, GATED_PRE_NORM
from hubsplice.families.engines import RUN, EngineKey, Evidence, Support
from hubsplice.families.family import BiasSwitch, Family, ModelClass, Named, Refused
from hubsplice.families.known import GGUF, Measured, Weights
from hubsplice.families.layer_fields import FULL_ATTENTION, PerLayer
from hubsplice.families.registry import FAMILIES
from hubsplice.families.tensors import ATTENTION, MLP

BIAS_SWITCHES = (
    BiasSwitch("attention_bias", ATTENTION, always=True),
    BiasSwitch("mlp_bias", MLP, always=True),
)

_USUAL = ModelClass(
    name="LlamaForCausalLM",
    model_type="llama",
    block=GATED_PRE_NORM,
    switches=BIAS_SWITCHES,
    equal_heads=True,
    engines={
        EngineKey.VLLM: RUN,
        EngineKey.TRANSFORMERS: RUN,
        EngineKey.SGLANG: Support(Evidence.READ, ignored_biases=frozenset(MLP)),
        EngineKey.TGI: Support(
            Evidence.READ, note="a version of 2025; those of 2024 ignore self_attn.o_proj.bias"
        ),
        EngineKey.LLAMA_CPP: Support(
            Evidence.RUN, note="converted by it, and served by xllamacpp 2026.10.11549"
        ),
    },
)

_WITHOUT_MLP_BIASES = replace(
    _USUAL,
    block=BIAS_FREE_PRE_NORM,
    switches=(BiasSwitch("attention_bias", ATTENTION, always=True),),
)
"""For engines that ignore the biases of its MLP: they honour those of attention."""

LLAMA_CLASS = replace(_USUAL, without_mlp_biases=_WITHOUT_MLP_BIASES)

LAYER_FIELDS = {"layer_types": PerLayer(FULL_ATTENTION, only=FULL_ATTENTION)}

LLAMA = FAMILIES.add(
    "llama",
    Family(
        model_type="llama",
        title="Llama and SmolLM",
        class_name="LlamaForCausalLM",
        becomes=LLAMA_CLASS,
        eps=Named("rms_norm_eps", 1e-6),
        activation=Named("hidden_act", "silu"),
        weights=Weights.REAL,
        measured=(
            Measured(
                f"SmolLM2-135M-Instruct, {GGUF}", "edit_kinds.md", datetime.date(2026, 11, 26)
            ),
        ),
        layer_fields=LAYER_FIELDS,
        refused=(
            Refused(
                "pretraining_tp",
                "found {value!r}, expected 1: servers that still act on it leave the biases out; "
                "with 1 the model computes the same up to rounding",
                harmless=(None, 1),
            ),
        ),
    ),
)
