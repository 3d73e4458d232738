"""StarCoder2: rotary embeddings and few key heads, beside a plain MLP and LayerNorm."""

from __future__ import annotations

from hubsplice.families.blocks import plain_block
from hubsplice.families.engines import BACKEND, RUN, EngineKey
from hubsplice.families.family import BiasSwitch, Family, ModelClass, Named
from hubsplice.families.known import BEHIND_SMOLLM2, Weights
from hubsplice.families.registry import FAMILIES
from hubsplice.families.tensors import (
    ATTENTION,
    ATTENTION_OUTPUT,
    GROUPED_ATTENTION,
    LinearMap,
    Size,
)

STARCODER2_CLASS = ModelClass(
    name="Starcoder2ForCausalLM",
    model_type="starcoder2",
    block=plain_block(
        (
            *GROUPED_ATTENTION,
            LinearMap("mlp.c_fc", Size.MLP, Size.HIDDEN),
            LinearMap("mlp.c_proj", Size.HIDDEN, Size.MLP),
        ),
        norms=("input_layernorm", "post_attention_layernorm"),
        attention_output=ATTENTION_OUTPUT,
        mlp_input="mlp.c_fc",
        mlp_output="mlp.c_proj",
        attention_modules=("self_attn", "input_layernorm"),
    ),
    switches=(
        BiasSwitch("use_bias", (*ATTENTION, "mlp.c_fc", "mlp.c_proj"), default=True, always=True),
    ),
    engines={EngineKey.VLLM: BACKEND, EngineKey.TRANSFORMERS: RUN},
)

STARCODER2 = FAMILIES.add(
    "starcoder2",
    Family(
        model_type="starcoder2",
        title="StarCoder2",
        class_name="Starcoder2ForCausalLM",
        becomes=STARCODER2_CLASS,
        eps=Named("norm_epsilon", 1e-5),
        activation=Named("hidden_act", "gelu_pytorch_tanh"),
        weights=Weights.STREAM,
        measured=BEHIND_SMOLLM2,
        tied=True,
        defaults={"num_key_value_heads": 2},
    ),
)
