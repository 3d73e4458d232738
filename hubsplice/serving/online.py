"""The quantisations that vLLM does while it loads a model."""

from __future__ import annotations

import enum


class OnlineQuantization(enum.StrEnum):
    """Their names on vLLM's command line; `fp8` is an old one of `fp8_per_tensor`."""

    FP8 = "fp8"
    FP8_PER_TENSOR = "fp8_per_tensor"
    FP8_PER_CHANNEL = "fp8_per_channel"
    FP8_PER_BLOCK = "fp8_per_block"
