"""Qwen2 and Qwen2.5, re-expressed as Llama: their own class has no bias after attention."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

from typing_extensions import override

from hubsplice.architectures.grouped_attention import ATTENTION_INPUTS
from hubsplice.architectures.llama_target import LlamaTarget
from hubsplice.architectures.registry import ARCHITECTURES


@ARCHITECTURES.register("qwen2")
class Qwen2(LlamaTarget):
    """Qwen2 without a sliding window, which is Llama with biases on q, k and v alone."""

    class_name_before: ClassVar[str] = "Qwen2ForCausalLM"
    dropped: ClassVar[frozenset[str]] = frozenset(
        {"use_sliding_window", "sliding_window", "max_window_layers", "layer_types"}
    )
    absent_means: ClassVar[Mapping[str, Any]] = {
        "vocab_size": 151936,
        "max_position_embeddings": 32768,
        "num_key_value_heads": 32,
        # Llama's own would stop a generation at token 2.
        "bos_token_id": None,
        "eos_token_id": None,
    }

    @property
    @override
    def biased_before(self) -> frozenset[str]:
        return ATTENTION_INPUTS

    @override
    def problems(self) -> Iterator[str]:
        yield from super().problems()
        if self.config.get("use_sliding_window"):
            yield (
                "use_sliding_window: found true, expected false: the model would be served as a "
                "Llama, which has no window"
            )
        if self.config.get("dual_chunk_attention_config"):
            yield (
                "dual_chunk_attention_config: vLLM's Qwen2 acts on it and its Llama does not; "
                "remove it to splice the model for contexts that do not need it"
            )
