"""Tiny checkpoints of every family, with what makes one layer differ from another."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM

from hubsplice.families.architecture import Architecture
from hubsplice.families.registry import FAMILIES
from tests.constructions.streams import D


@dataclass(frozen=True)
class Variant:
    """A configuration of a family.

    Attributes:
        family: its `model_type`.
        fields: beside the sizes.
    """

    family: str
    fields: dict[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        return "-".join([self.family, *(f"{k}={v}" for k, v in self.fields.items())])


SIZES: dict[str, Any] = {
    "vocab_size": 320,
    "hidden_size": 64,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "max_position_embeddings": 512,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
    "initializer_range": 0.1,
}

GATED: dict[str, Any] = {"intermediate_size": 192, "num_key_value_heads": 2}
EXPERTS: dict[str, Any] = {
    "num_experts": 4,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 32,
    "head_dim": 16,
}

WINDOWED: dict[str, Any] = {"sliding_window": 8, "head_dim": 16}

VARIANTS = [
    Variant("gpt2"),
    Variant("gpt2", {"activation_function": "gelu", "tie_word_embeddings": False}),
    Variant("gpt_neox", {"use_parallel_residual": False, "intermediate_size": 128}),
    Variant(
        "gpt_neox",
        {"use_parallel_residual": False, "intermediate_size": 128, "attention_bias": False},
    ),
    Variant("gpt_neox", {"intermediate_size": 128}),
    Variant("granite", GATED | {"residual_multiplier": 0.22, "logits_scaling": 8.0}),
    Variant("gemma2", GATED | WINDOWED),
    Variant("gemma3_text", GATED | WINDOWED),
    Variant(
        "gemma3_text",
        GATED
        | WINDOWED
        | {"sliding_window_pattern": 3, "tie_word_embeddings": False, "attention_bias": True},
    ),
    Variant("olmo2", GATED),
    Variant("olmo2", GATED | {"num_key_value_heads": 4, "attention_bias": True}),
    Variant("olmo3", GATED | {"sliding_window": 8}),
    Variant(
        "olmo3",
        GATED
        | {"sliding_window": 8, "layer_types": ["full_attention", *["sliding_attention"] * 3]},
    ),
    Variant("gemma3", GATED | WINDOWED | {"sliding_window_pattern": 2}),
    Variant("seed_oss", GATED | {"head_dim": 16}),
    Variant("seed_oss", GATED | {"head_dim": 16, "attention_bias": False, "mlp_bias": True}),
    Variant("smollm3", GATED),
    Variant("smollm3", GATED | {"use_sliding_window": True, "sliding_window": 8}),
    Variant("smollm3", GATED | {"no_rope_layers": [0, 1, 1, 0], "mlp_bias": True}),
    Variant("starcoder2", GATED | {"sliding_window": 8}),
    Variant("starcoder2", GATED | {"use_bias": False, "tie_word_embeddings": False}),
    Variant("qwen3", GATED | {"head_dim": 24}),
    Variant(
        "qwen3",
        GATED | {"use_sliding_window": True, "sliding_window": 8, "max_window_layers": 2},
    ),
    Variant("qwen3", GATED | {"attention_bias": True, "tie_word_embeddings": True}),
    Variant("qwen3_moe", GATED | EXPERTS),
    Variant("qwen3_moe", GATED | EXPERTS | {"mlp_only_layers": [2], "decoder_sparse_step": 2}),
]

TRAINED = [
    Variant("llama", {"intermediate_size": 256}),
    Variant("gpt2"),
    Variant("gpt_neox", {"use_parallel_residual": False, "intermediate_size": 256}),
    Variant("gpt_neox", {"intermediate_size": 256}),
    Variant("smollm3", {"intermediate_size": 256}),
    Variant("granite", {"intermediate_size": 256, "residual_multiplier": 0.22}),
    Variant("qwen3", GATED | {"intermediate_size": 256, "head_dim": 16}),
    Variant("olmo2", {"intermediate_size": 256}),
    Variant("phi3", GATED | {"intermediate_size": 256}),
    Variant("starcoder2", GATED | {"intermediate_size": 256}),
]


def config_of(variant: Variant) -> Any:
    """The variant's configuration, in which the decoder of a model that sees is one part."""
    fields = SIZES | variant.fields
    if variant.family != "gemma3":
        return AutoConfig.for_model(variant.family, **fields)
    sizes = {name: fields[name] for name in ("hidden_size", "num_attention_heads")}
    return AutoConfig.for_model(
        variant.family,
        text_config=fields,
        vision_config=sizes
        | {"intermediate_size": 96, "num_hidden_layers": 1, "image_size": 28, "patch_size": 14},
        mm_tokens_per_image=1,
        image_token_index=319,
        boi_token_index=318,
        eoi_token_index=317,
    )


def architecture_for(family: str) -> Architecture:
    """A family at the width of the synthetic streams, with room for many neurons."""
    fields = {"hidden_size": D, "intermediate_size": 512}
    config = config_of(Variant(family, fields)).to_dict()
    return Architecture(dict(FAMILIES.items())[family], config)


def save_tiny(
    variant: Variant, folder: Path, dtype: torch.dtype, *, seed: int = 0, mean: float = 0.0
) -> Path:
    """Save a random checkpoint of a variant, and give its folder.

    `mean` is the size, in each channel, of a vector that all embeddings have in common: trained
    models' streams have such a part, and random ones have not.
    """
    config = config_of(variant)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = AutoModelForCausalLM.from_config(config, dtype=dtype)
        # Norm weights and biases start as ones and zeros, which would hide that they are lost.
        with torch.no_grad():
            for parameter in model.parameters():
                if parameter.dim() == 1:
                    parameter.add_(0.1 * torch.randn_like(parameter))
            if mean:
                embeddings = model.get_input_embeddings().weight
                embeddings.add_(mean * torch.randn(embeddings.shape[1]).sign())
    model.save_pretrained(folder)
    return folder
