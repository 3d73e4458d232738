"""Seed-OSS: Llama with a switch of its own for the bias after attention."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from typing_extensions import override

from hubsplice.architectures.gated_prenorm import BiasedPreNorm
from hubsplice.architectures.gated_target import MLP
from hubsplice.architectures.grouped_attention import ATTENTION_INPUTS
from hubsplice.architectures.registry import ARCHITECTURES


@ARCHITECTURES.register("seed_oss")
class SeedOss(BiasedPreNorm):
    """Seed-OSS: its own class has every bias."""

    class_name_before: ClassVar[str] = "SeedOssForCausalLM"
    class_name_after: ClassVar[str] = "SeedOssForCausalLM"
    absent_means: ClassVar[Mapping[str, Any]] = {"num_key_value_heads": 8, "head_dim": 128}
    rewritten: ClassVar[Mapping[str, Any]] = {
        "attention_bias": True,
        "attention_out_bias": True,
        "mlp_bias": True,
    }

    @property
    @override
    def biased_before(self) -> frozenset[str]:
        found: frozenset[str] = frozenset()
        if self.config.get("attention_bias", True):
            found |= ATTENTION_INPUTS
        if self.config.get("attention_out_bias"):
            found |= {"self_attn.o_proj"}
        return found | MLP if self.config.get("mlp_bias") else found
