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
    default_window: ClassVar[int] = 4096

    @property
    @override
    def biased_before(self) -> frozenset[str]:
        return frozenset()

    @override
    def problems(self) -> Iterator[str]:
        yield from super().problems()
        window = self.config.get("sliding_window", self.default_window)
        name = "max_position_embeddings"
        positions = self.size(name) if name in self.config else self.absent_means[name]
        # A window that no position reaches beyond changes nothing.
        if window is not None and window < positions:
            found = "nothing, which means" if "sliding_window" not in self.config else "found"
            yield (
                f"sliding_window: {found} {window!r}, expected null or at least "
                f"max_position_embeddings ({positions}): the model would be served as a Llama, "
                "which has no window"
            )
