"""GPT-2, and what calls itself so: DistilGPT-2, GPT-2 medium to XL."""

from __future__ import annotations

from hubsplice.families.blocks import plain_block
from hubsplice.families.engines import READ, RUN, EngineKey
from hubsplice.families.family import Family, ModelClass, Named, Refused, Sizes
from hubsplice.families.known import Weights
from hubsplice.families.registry import FAMILIES
from hubsplice.families.tensors import LinearMap, Size

_MAPS = (
    LinearMap("attn.c_attn", Size.FUSED_QKV, Size.HIDDEN, transposed=True),
    LinearMap("attn.c_proj", Size.HIDDEN, Size.HIDDEN, transposed=True),
    LinearMap("mlp.c_fc", Size.MLP, Size.HIDDEN, transposed=True),
    LinearMap("mlp.c_proj", Size.HIDDEN, Size.MLP, transposed=True),
)

GPT2_CLASS = ModelClass(
    name="GPT2LMHeadModel",
    model_type="gpt2",
    block=plain_block(
        _MAPS,
        norms=("ln_1", "ln_2"),
        attention_output="attn.c_proj",
        mlp_input="mlp.c_fc",
        mlp_output="mlp.c_proj",
        attention_modules=("attn", "ln_1"),
    ),
    # The published checkpoints hold the bare decoder's names.
    prefixes=("transformer.h.", "h."),
    fixed_biases=tuple(linear.name for linear in _MAPS),
    engines={
        EngineKey.VLLM: RUN,
        EngineKey.TRANSFORMERS: RUN,
        EngineKey.SGLANG: READ,
        EngineKey.LLAMA_CPP: READ,
    },
)

GPT2 = FAMILIES.add(
    "gpt2",
    Family(
        model_type="gpt2",
        title="GPT-2",
        class_name="GPT2LMHeadModel",
        becomes=GPT2_CLASS,
        eps=Named("layer_norm_epsilon", 1e-5),
        activation=Named("activation_function", "gelu_new"),
        weights=Weights.TINY,
        sizes=Sizes(hidden="n_embd", layers="n_layer", mlp="n_inner", mlp_multiple=4),
        tied=True,
        positions=Named("n_positions", 1024),
        refused=(
            Refused(
                "scale_attn_by_inverse_layer_idx",
                "found true, expected false: attention would be scaled by another layer's index, "
                "and vLLM refuses it",
            ),
            Refused(
                "add_cross_attention",
                "found true, expected false: only decoders by themselves can be spliced",
            ),
            Refused("reorder_and_upcast_attn", "found true, expected false: vLLM refuses it"),
        ),
    ),
)
