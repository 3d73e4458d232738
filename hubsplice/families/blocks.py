"""What a decoder layer looks like inside, for every kind of layer that can be inserted.

A block says which construction computes an edit in it, and where each tensor that the construction
fills lies in the layer. It computes nothing.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from hubsplice.families.tensors import (
    ATTENTION_OUTPUT,
    GATED_MLP,
    GROUPED_ATTENTION,
    LinearMap,
    NormTensor,
    Size,
)


class Construction(enum.StrEnum):
    """The arithmetic that turns an edit into a layer, as manifests call it."""

    PRENORM = "prenorm-bias"
    BIAS_FREE = "prenorm-bias-free"
    LAYERNORM = "layernorm-bias"
    SANDWICH = "sandwich"
    POST_NORM = "post-norm"


@dataclass(frozen=True)
class BlockKind:
    """One kind of decoder layer.

    Attributes:
        construction: what computes an edit in it.
        linear_maps: in the order of the layer.
        norms: the tensors of its norms.
        roles: where each tensor that the construction fills lies, by the construction's name for
            it. A tensor of the layer that is not among them is the same for every edit.
        activations: those of the MLP that the construction is made of, by transformers' names; a
            configuration that says nothing means the family's own default.
        attention_modules: the parts of a layer that go with its attention; the others go with its
            MLP.
        silent_attention: what an attention that adds nothing holds throughout in tensors that an
            edit may fill, by name in the layer, where that is not zero.
        gate_module: the module whose output begins with the gate pre-activations.
        carrier: the linear map of the base's own attention whose bias can hold the constant of an
            inserted layer; None where the constant is made of more than that bias.
        output_map: the linear map that writes what the MLP adds to the stream, where its bias can
            hold a constant edit; None where none can.
    """

    construction: Construction
    linear_maps: tuple[LinearMap, ...]
    norms: tuple[NormTensor, ...]
    roles: Mapping[str, str]
    activations: frozenset[str]
    attention_modules: tuple[str, ...] = ("self_attn", "input_layernorm")
    silent_attention: Mapping[str, float] = field(default_factory=dict)
    gate_module: str = "mlp.gate_proj"
    carrier: str | None = None
    output_map: str | None = None

    def with_norms(self, *norms: NormTensor) -> BlockKind:
        """The same with further norms."""
        return replace(self, norms=(*self.norms, *norms))


def head_norms(neutral: float) -> tuple[NormTensor, ...]:
    """The norms of queries and keys, head by head."""
    names = ("self_attn.q_norm.weight", "self_attn.k_norm.weight")
    return tuple(NormTensor(name, neutral, Size.HEAD) for name in names)


_GATED_WEIGHTS = {
    "gate_weight": "mlp.gate_proj.weight",
    "up_weight": "mlp.up_proj.weight",
    "down_weight": "mlp.down_proj.weight",
}
_PRE_NORMS = (
    NormTensor("input_layernorm.weight", 1.0),
    NormTensor("post_attention_layernorm.weight", 1.0),
)

GATED_PRE_NORM = BlockKind(
    Construction.PRENORM,
    linear_maps=(*GROUPED_ATTENTION, *GATED_MLP),
    norms=_PRE_NORMS,
    roles={
        "attention_bias": f"{ATTENTION_OUTPUT}.bias",
        "gate_weight": "mlp.gate_proj.weight",
        "gate_bias": "mlp.gate_proj.bias",
        "up_weight": "mlp.up_proj.weight",
        "up_bias": "mlp.up_proj.bias",
        "down_weight": "mlp.down_proj.weight",
        "down_bias": "mlp.down_proj.bias",
    },
    activations=frozenset({"silu"}),
    carrier=ATTENTION_OUTPUT,
    output_map="mlp.down_proj",
)
"""RMSNorm in front of each block, and a gated SiLU MLP, with biases throughout."""

BIAS_FREE_PRE_NORM = BlockKind(
    Construction.BIAS_FREE,
    linear_maps=(*GROUPED_ATTENTION, *GATED_MLP),
    norms=_PRE_NORMS,
    # vLLM leaves Qwen3's o_proj.bias out, so the constant comes another way: attention weights add
    # up to one, and so a bias of v, in one channel of the first head, passes attention unchanged.
    roles={
        "value_bias": "self_attn.v_proj.bias",
        "value_output": "self_attn.o_proj.weight",
        **_GATED_WEIGHTS,
    },
    activations=frozenset({"silu"}),
)
"""RMSNorm in front of each block, and a gated SiLU MLP without biases."""

_SANDWICH_ROLES = {
    "attention_bias": f"{ATTENTION_OUTPUT}.bias",
    "attention_norm": "post_attention_layernorm.weight",
    **_GATED_WEIGHTS,
    "output_norm": "post_feedforward_layernorm.weight",
}

SANDWICH = BlockKind(
    Construction.SANDWICH,
    linear_maps=(*GROUPED_ATTENTION, *GATED_MLP),
    norms=tuple(
        NormTensor(f"{name}.weight", 0.0)
        for name in (
            "input_layernorm",
            "post_attention_layernorm",
            "pre_feedforward_layernorm",
            "post_feedforward_layernorm",
        )
    ),
    roles=_SANDWICH_ROLES,
    activations=frozenset({"gelu_pytorch_tanh"}),
    attention_modules=("self_attn", "input_layernorm", "post_attention_layernorm"),
    silent_attention={"post_attention_layernorm.weight": -1.0},
)
"""RMSNorm in front of each block and behind it, with weights around zero, and a gated GELU MLP."""

POST_NORM = BlockKind(
    Construction.POST_NORM,
    linear_maps=(*GROUPED_ATTENTION, *GATED_MLP),
    norms=(
        NormTensor("self_attn.q_norm.weight", 1.0, Size.QUERIES),
        NormTensor("self_attn.k_norm.weight", 1.0, Size.KEYS),
        NormTensor("post_attention_layernorm.weight", 1.0),
        NormTensor("post_feedforward_layernorm.weight", 1.0),
    ),
    roles=_SANDWICH_ROLES,
    activations=frozenset({"silu"}),
    attention_modules=("self_attn", "post_attention_layernorm"),
)
"""RMSNorm behind each block alone, and a gated SiLU MLP."""


def plain_block(
    linear_maps: tuple[LinearMap, ...],
    *,
    norms: tuple[str, str],
    attention_output: str,
    mlp_input: str,
    mlp_output: str,
    attention_modules: tuple[str, ...],
) -> BlockKind:
    """LayerNorm in front of each block, and a plain GELU MLP, with biases throughout.

    Args:
        linear_maps: in the order of the layer.
        norms: those in front of attention and MLP.
        attention_output, mlp_input, mlp_output: the names of linear maps.
        attention_modules: see `BlockKind`.
    """
    return BlockKind(
        Construction.LAYERNORM,
        linear_maps=linear_maps,
        norms=tuple(
            NormTensor(f"{norm}.{name}", neutral)
            for norm in norms
            for name, neutral in (("weight", 1.0), ("bias", 0.0))
        ),
        roles={
            "attention_bias": f"{attention_output}.bias",
            "in_weight": f"{mlp_input}.weight",
            "in_bias": f"{mlp_input}.bias",
            "out_weight": f"{mlp_output}.weight",
            "out_bias": f"{mlp_output}.bias",
        },
        activations=frozenset({"gelu", "gelu_new", "gelu_fast", "gelu_pytorch_tanh"}),
        attention_modules=attention_modules,
        gate_module=mlp_input,
    )
