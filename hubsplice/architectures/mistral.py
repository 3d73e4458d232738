"""Mistral, re-expressed as Llama: its own class has no biases."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

from typing_extensions import override

from hubsplice.architectures.llama_target import LlamaTarget
from hubsplice.architectures.registry import ARCHITECTURES


@ARCHITECTURES.register("mistral")
class Mistral(LlamaTarget):
    """Mistral without a sliding window, which is Llama without biases."""

    class_name_before: ClassVar[str] = "MistralForCausalLM"
    dropped: ClassVar[frozenset[str]] = frozenset({"sliding_window", "layer_types"})
    absent_means: ClassVar[Mapping[str, Any]] = {
        "max_position_embeddings": 131072,
        "num_key_value_heads": 8,
    }
    default_window: ClassVar[int | None] = 4096

    @property
    @override
    def biased_before(self) -> frozenset[str]:
        return frozenset()

    @override
    def problems(self) -> Iterator[str]:
        yield from super().problems()
        yield from self.window_problems()
