"""GPT-NeoX: Pythia, GPT-NeoX-20B, Dolly. Mostly, the MLP stands beside the attention."""

from __future__ import annotations

from hubsplice.families.blocks import plain_block
from hubsplice.families.engines import BACKEND, READ, RUN, EngineKey
from hubsplice.families.family import BiasSwitch, Family, ModelClass, Named
from hubsplice.families.known import Weights
from hubsplice.families.registry import FAMILIES
from hubsplice.families.tensors import LinearMap, Size

GPT_NEOX_CLASS = ModelClass(
    name="GPTNeoXForCausalLM",
    model_type="gpt_neox",
    block=plain_block(
        (
            LinearMap("attention.query_key_value", Size.FUSED_QKV, Size.HIDDEN),
            LinearMap("attention.dense", Size.HIDDEN, Size.HIDDEN),
            LinearMap("mlp.dense_h_to_4h", Size.MLP, Size.HIDDEN),
            LinearMap("mlp.dense_4h_to_h", Size.HIDDEN, Size.MLP),
        ),
        norms=("input_layernorm", "post_attention_layernorm"),
        attention_output="attention.dense",
        mlp_input="mlp.dense_h_to_4h",
        mlp_output="mlp.dense_4h_to_h",
        attention_modules=("attention", "input_layernorm"),
    ),
    prefixes=("gpt_neox.layers.",),
    switches=(
        BiasSwitch(
            "attention_bias", ("attention.query_key_value", "attention.dense"), default=True
        ),
    ),
    fixed_biases=("mlp.dense_h_to_4h", "mlp.dense_4h_to_h"),
    engines={EngineKey.VLLM: BACKEND, EngineKey.TRANSFORMERS: RUN, EngineKey.LLAMA_CPP: READ},
    # vLLM runs it through its Transformers backend, which calls every decoder `model`.
    vllm_prefix="model.layers.",
)

GPT_NEOX = FAMILIES.add(
    "gpt_neox",
    Family(
        model_type="gpt_neox",
        title="GPT-NeoX (Pythia)",
        class_name="GPTNeoXForCausalLM",
        becomes=GPT_NEOX_CLASS,
        eps=Named("layer_norm_eps", 1e-5),
        activation=Named("hidden_act", "gelu"),
        weights=Weights.TINY,
        parallel=Named("use_parallel_residual", True),
    ),
)
