"""Every family that vLLM is asked to serve, as tiny models; a new one is one more line."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from hubsplice.families.registry import FAMILIES
from tests.families.variants import EXPERTS, Variant

WINDOW = 8


@dataclass(frozen=True)
class Family:
    """A tiny model that vLLM serves.

    Attributes:
        variant: the model.
        process: which of vLLM's processes serves it; families with one name share one.
        options: further arguments of `vllm.LLM`.
    """

    variant: Variant
    process: str = "native"
    options: tuple[tuple[str, Any], ...] = ()

    def __str__(self) -> str:
        parallel = self.variant.fields.get("use_parallel_residual")
        kind = "" if parallel is None else "parallel " if parallel else "sequential "
        windowed = "windowed " if self.variant.fields.get("max_window_layers") == 0 else ""
        return kind + windowed + self.variant.family

    @property
    def has_kinds(self) -> bool:
        """Whether config.json says of its layers what they are, as it does where they differ."""
        return not {"sliding_window", "no_rope_layers", "mlp_only_layers"}.isdisjoint(
            self.variant.fields
        )

    @property
    def class_name(self) -> str:
        """The class that vLLM is asked to serve."""
        return dict(FAMILIES.items())[self.variant.family].becomes.name


# vLLM's attention on CPUs takes heads of 32 dimensions and more.
_HEADS: dict[str, Any] = {"num_attention_heads": 2}
_GATED = _HEADS | {"intermediate_size": 256, "num_key_value_heads": 1, "head_dim": 32}
_WINDOWED = _GATED | {"sliding_window": WINDOW}
_PLAIN = _HEADS | {"intermediate_size": 256}

SERVED = (
    Family(Variant("llama", _GATED)),
    Family(Variant("mistral", _GATED)),
    Family(Variant("qwen2", _GATED)),
    Family(Variant("qwen3", _GATED)),
    Family(Variant("qwen3", _WINDOWED | {"use_sliding_window": True, "max_window_layers": 0})),
    Family(Variant("qwen3_moe", _GATED | EXPERTS | {"head_dim": 32, "mlp_only_layers": [2]})),
    Family(Variant("gemma2", _WINDOWED)),
    Family(Variant("gemma3_text", _WINDOWED | {"sliding_window_pattern": 3})),
    Family(Variant("olmo2", _GATED)),
    Family(Variant("olmo3", _WINDOWED)),
    Family(Variant("phi3", _GATED)),
    Family(Variant("granite", _GATED | {"residual_multiplier": 0.22, "logits_scaling": 8.0})),
    Family(
        Variant("smollm3", _WINDOWED | {"use_sliding_window": True, "no_rope_layers": [1, 0, 0, 1]})
    ),
    Family(Variant("seed_oss", _GATED)),
    Family(Variant("gpt2", _HEADS)),
    Family(Variant("starcoder2", _PLAIN | {"num_key_value_heads": 1})),
    Family(Variant("gpt_neox", _PLAIN | {"use_parallel_residual": False}), "gpt_neox"),
    Family(Variant("gpt_neox", _PLAIN | {"use_parallel_residual": True}), "gpt_neox"),
)

NOT_SERVED = {
    "gemma3": "vLLM imports the class with its image processor, which needs torchvision, and PyPI "
    "has no build of that for the torch of vLLM's build for CPUs",
}
"""Families that vLLM does not run on a CPU, with the reason."""
