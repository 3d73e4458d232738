"""What is known of the programs that serve models: which parts of a checkpoint each ignores.

A program that ignores a bias loads a spliced model without an error and serves another one. The
entries say how each is known; what is not listed is not known, and never taken to work. To add a
class, add an entry to the engines that were examined.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from hubsplice.serving.model_classes import ATTENTION, MLP


class EngineKey(enum.StrEnum):
    """What the command line calls the engines."""

    VLLM = "vllm"
    TRANSFORMERS = "transformers"
    SGLANG = "sglang"
    TGI = "tgi"
    LLAMA_CPP = "llama.cpp"


class Evidence(enum.StrEnum):
    """How it is known what an engine does with a class."""

    RUN = "spliced models were run through it"
    READ = "read in its source"


@dataclass(frozen=True)
class Support:
    """What one engine does with one class.

    Attributes:
        evidence: how it is known.
        ignored_biases: linear maps whose bias it leaves out, by name in the layer.
        ignored_fields: fields of config.json that go by layers and that it does not act on.
        note: what else there is to say.
    """

    evidence: Evidence
    ignored_biases: frozenset[str] = frozenset()
    ignored_fields: frozenset[str] = frozenset()
    note: str = ""


@dataclass(frozen=True)
class Engine:
    """A program that serves models.

    Attributes:
        key: what the command line calls it.
        name: what texts call it.
        version: the version that was examined.
        classes: what it does with each class that was examined.
        needs: what has to be done to a checkpoint before it can be served; empty for nothing.
    """

    key: EngineKey
    name: str
    version: str
    classes: Mapping[str, Support] = field(default_factory=dict)
    needs: str = ""


_RUN, _READ = Support(Evidence.RUN), Support(Evidence.READ)
_BACKEND = Support(Evidence.RUN, note="through its Transformers backend")
_OUTPUT_BIAS = frozenset(ATTENTION[3:])

VLLM = Engine(
    EngineKey.VLLM,
    "vLLM",
    "0.32.0",
    MappingProxyType(
        {
            "LlamaForCausalLM": _RUN,
            "GraniteForCausalLM": _RUN,
            "SmolLM3ForCausalLM": _BACKEND,
            "SeedOssForCausalLM": _BACKEND,
            "Qwen3ForCausalLM": Support(
                Evidence.RUN,
                ignored_biases=_OUTPUT_BIAS,
                ignored_fields=frozenset({"layer_types"}),
                note="where some layers have a window and others have none, it fails or gives "
                "all of them everything",
            ),
            "Qwen3MoeForCausalLM": Support(Evidence.RUN, ignored_biases=_OUTPUT_BIAS),
            "Gemma2ForCausalLM": _RUN,
            "Gemma3ForCausalLM": _RUN,
            "Gemma3ForConditionalGeneration": Support(
                Evidence.READ,
                note="its decoder is that of Gemma3ForCausalLM; not run, since vLLM imports the "
                "class with its image processor, which needs torchvision, and PyPI has no build of "
                "that for the torch of vLLM's build for CPUs",
            ),
            "Olmo2ForCausalLM": _BACKEND,
            "Olmo3ForCausalLM": _BACKEND,
            "GPT2LMHeadModel": _RUN,
            "GPTNeoXForCausalLM": _BACKEND,
            "Starcoder2ForCausalLM": _BACKEND,
        }
    ),
)
TRANSFORMERS = Engine(
    EngineKey.TRANSFORMERS,
    "transformers",
    "5.23",
    MappingProxyType(dict.fromkeys(VLLM.classes, _RUN)),
)
SGLANG = Engine(
    EngineKey.SGLANG,
    "SGLang",
    "0.5.23",
    MappingProxyType(
        {
            "LlamaForCausalLM": Support(Evidence.READ, ignored_biases=frozenset(MLP)),
            "GraniteForCausalLM": Support(
                Evidence.READ, ignored_biases=frozenset((*ATTENTION, *MLP))
            ),
            "Qwen3ForCausalLM": _READ,
            "Qwen3MoeForCausalLM": Support(
                Evidence.READ, ignored_fields=frozenset({"mlp_only_layers"})
            ),
            "Gemma2ForCausalLM": Support(
                Evidence.READ,
                ignored_fields=frozenset({"layer_types"}),
                note="it takes every other layer for one with a window",
            ),
            "Gemma3ForCausalLM": _READ,
            "GPT2LMHeadModel": _READ,
        }
    ),
)
TGI = Engine(
    EngineKey.TGI,
    "TGI",
    "5d14a7f",
    MappingProxyType(
        {
            "LlamaForCausalLM": Support(
                Evidence.READ, note="a version of 2025; those of 2024 ignore self_attn.o_proj.bias"
            )
        }
    ),
)
LLAMA_CPP = Engine(
    EngineKey.LLAMA_CPP,
    "llama.cpp",
    "0c1e570",
    MappingProxyType(
        {
            "LlamaForCausalLM": Support(
                Evidence.RUN, note="converted by it, and served by xllamacpp 2026.10.11549"
            ),
            "GraniteForCausalLM": _READ,
            "SmolLM3ForCausalLM": Support(
                Evidence.READ,
                ignored_biases=frozenset((*ATTENTION[3:], *MLP)),
                ignored_fields=frozenset({"no_rope_layers"}),
                note="it leaves out every fourth layer's rotation, and does not load such biases",
            ),
            "GPT2LMHeadModel": _READ,
            "GPTNeoXForCausalLM": _READ,
        }
    ),
    needs="a GGUF file, which its convert_hf_to_gguf.py makes of the checkpoint",
)

ENGINES: Mapping[EngineKey, Engine] = MappingProxyType(
    {engine.key: engine for engine in (VLLM, TRANSFORMERS, SGLANG, TGI, LLAMA_CPP)}
)
"""By what the command line calls them."""
