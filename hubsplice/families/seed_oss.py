"""Seed-OSS: Llama with a switch of its own for the bias after attention."""

from __future__ import annotations

from hubsplice.families.blocks import GATED_PRE_NORM
from hubsplice.families.engines import BACKEND, RUN, EngineKey
from hubsplice.families.family import BiasSwitch, Family, ModelClass, Named
from hubsplice.families.known import Weights
from hubsplice.families.registry import FAMILIES
from hubsplice.families.tensors import ATTENTION_INPUTS, ATTENTION_OUTPUT, MLP

SEED_OSS_CLASS = ModelClass(
    name="SeedOssForCausalLM",
    model_type="seed_oss",
    block=GATED_PRE_NORM,
    switches=(
        BiasSwitch("attention_bias", ATTENTION_INPUTS, default=True, always=True),
        BiasSwitch("attention_out_bias", (ATTENTION_OUTPUT,), always=True),
        BiasSwitch("mlp_bias", MLP, always=True),
    ),
    engines={EngineKey.VLLM: BACKEND, EngineKey.TRANSFORMERS: RUN},
)

SEED_OSS = FAMILIES.add(
    "seed_oss",
    Family(
        model_type="seed_oss",
        title="Seed-OSS",
        class_name="SeedOssForCausalLM",
        becomes=SEED_OSS_CLASS,
        eps=Named("rms_norm_eps", 1e-6),
        activation=Named("hidden_act", "silu"),
        weights=Weights.TINY,
        absent_means={"num_key_value_heads": 8, "head_dim": 128},
    ),
)
