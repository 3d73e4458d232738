"""Llama, and what calls itself so: SmolLM 1 and 2, Yi, TinyLlama, spliced models."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

from typing_extensions import override

from hubsplice.architectures.llama_target import LlamaTarget
from hubsplice.architectures.registry import ARCHITECTURES


@ARCHITECTURES.register("llama")
class Llama(LlamaTarget):
    """Llama: its own target."""

    class_name_before: ClassVar[str] = "LlamaForCausalLM"

    @override
    def problems(self) -> Iterator[str]:
        yield from super().problems()
        slices = self.config.get("pretraining_tp")
        if slices not in (None, 1):
            yield (
                f"pretraining_tp: found {slices!r}, expected 1: servers that still act on it "
                "leave the biases out; with 1 the model computes the same up to rounding"
            )
