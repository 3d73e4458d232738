"""The model families: one declaration each, and nothing that computes.

Input: a config.json. Output: an `Architecture`, which says what the layers are called, which biases
they can have, which construction fits, and why the model can't be spliced. Importing this package
registers all families that hubsplice has. May import `checkpoint` and what is above it, and no
construction.
"""

from __future__ import annotations

from hubsplice.families import (
    gemma2,
    gemma3,
    gpt2,
    gpt_neox,
    granite,
    llama,
    mistral,
    olmo2,
    olmo3,
    phi3,
    qwen2,
    qwen3,
    qwen3_moe,
    seed_oss,
    smollm3,
    starcoder2,
)

__all__ = [
    "gemma2",
    "gemma3",
    "gpt2",
    "gpt_neox",
    "granite",
    "llama",
    "mistral",
    "olmo2",
    "olmo3",
    "phi3",
    "qwen2",
    "qwen3",
    "qwen3_moe",
    "seed_oss",
    "smollm3",
    "starcoder2",
]
