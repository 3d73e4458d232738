"""The classes that spliced models are served as: their modules, and the biases they can have.

Servers are told of modules and biases by name. What a name means to a class stands here once,
without the heavy imports of `hubsplice.architectures`, which a test holds it against.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType

ATTENTION = ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj")
MLP = ("mlp.gate_proj", "mlp.up_proj", "mlp.down_proj")


@dataclass(frozen=True)
class BiasSwitch:
    """A field of config.json that gives biases to linear maps.

    Attributes:
        field: its name.
        projections: what gets a bias, by name in the layer.
        always: whether every splice of the class switches it on. A base that had it on already,
            such as a spliced one, then shows no change in its manifest.
    """

    field: str
    projections: tuple[str, ...]
    always: bool = False


@dataclass(frozen=True)
class ModelClass:
    """A class of transformers.

    Attributes:
        name: as `architectures` in config.json has it.
        prefix: what stands before a layer's index in the names of new tensors and modules.
        projections: the linear maps of an inserted layer, by name in the layer.
        switches: the fields that give some of them a bias.
        fixed_biases: those that have one whatever config.json says.
        vllm_prefix: what vLLM has in the place of `prefix`, where it renames modules.
    """

    name: str
    prefix: str = "model.layers."
    projections: tuple[str, ...] = (*ATTENTION, *MLP)
    switches: tuple[BiasSwitch, ...] = ()
    fixed_biases: tuple[str, ...] = ()
    vllm_prefix: str | None = None


_ATTENTION_BIAS = BiasSwitch("attention_bias", ATTENTION, always=True)
_MLP_BIAS = BiasSwitch("mlp_bias", MLP, always=True)
_GPT2 = ("attn.c_attn", "attn.c_proj", "mlp.c_fc", "mlp.c_proj")
_NEOX_ATTENTION = ("attention.query_key_value", "attention.dense")
_STARCODER2 = (*ATTENTION, "mlp.c_fc", "mlp.c_proj")
_NEOX_MLP = ("mlp.dense_h_to_4h", "mlp.dense_4h_to_h")


def _classes() -> Iterator[ModelClass]:
    for name in ("LlamaForCausalLM", "GraniteForCausalLM", "SmolLM3ForCausalLM"):
        yield ModelClass(name, switches=(_ATTENTION_BIAS, _MLP_BIAS))
    yield ModelClass(
        "SeedOssForCausalLM",
        switches=(
            BiasSwitch("attention_bias", ATTENTION[:3], always=True),
            BiasSwitch("attention_out_bias", ATTENTION[3:], always=True),
            _MLP_BIAS,
        ),
    )
    for name in (
        "Qwen3ForCausalLM",
        "Qwen3MoeForCausalLM",
        "Gemma2ForCausalLM",
        "Gemma3ForCausalLM",
        "Olmo2ForCausalLM",
        "Olmo3ForCausalLM",
    ):
        yield ModelClass(name, switches=(_ATTENTION_BIAS,))
    yield ModelClass(
        "Gemma3ForConditionalGeneration",
        prefix="model.language_model.layers.",
        switches=(_ATTENTION_BIAS,),
        vllm_prefix="language_model.model.layers.",
    )
    yield ModelClass(
        "GPT2LMHeadModel", prefix="transformer.h.", projections=_GPT2, fixed_biases=_GPT2
    )
    yield ModelClass(
        "GPTNeoXForCausalLM",
        prefix="gpt_neox.layers.",
        projections=(*_NEOX_ATTENTION, *_NEOX_MLP),
        switches=(BiasSwitch("attention_bias", _NEOX_ATTENTION),),
        fixed_biases=_NEOX_MLP,
        # vLLM runs it through its Transformers backend, which calls every decoder `model`.
        vllm_prefix="model.layers.",
    )
    yield ModelClass(
        "Starcoder2ForCausalLM",
        projections=_STARCODER2,
        switches=(BiasSwitch("use_bias", _STARCODER2, always=True),),
    )


MODEL_CLASSES: Mapping[str, ModelClass] = MappingProxyType({c.name: c for c in _classes()})
"""By name."""
