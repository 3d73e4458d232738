"""Gemma 3: the text models, and the text decoders of those that see."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from typing_extensions import override

from hubsplice.architectures.gemma_target import GemmaTarget
from hubsplice.architectures.inserted_tensor import InsertedTensor
from hubsplice.architectures.layer_fields import (
    FULL_ATTENTION,
    SLIDING_ATTENTION,
    LayerField,
    PerLayer,
)
from hubsplice.architectures.registry import ARCHITECTURES

# The field as released, and as transformers stores it since layer_types exists.
_PATTERN = ("sliding_window_pattern", "_sliding_window_pattern")


def _layer_types(config: Mapping[str, Any], num_layers: int) -> list[str]:
    # transformers acts on the released name alone.
    period = config.get(_PATTERN[0], 6)
    return [
        SLIDING_ATTENTION if (layer + 1) % period else FULL_ATTENTION for layer in range(num_layers)
    ]


class _Gemma3Decoder(GemmaTarget):
    """Gemma 3's decoder, which normalises queries and keys as well.

    Each kind of attention has its own rotary frequencies, so that a layer that changed its kind
    would read positions wrongly, too.
    """

    layer_fields: ClassVar[Mapping[str, LayerField]] = {
        "layer_types": PerLayer(SLIDING_ATTENTION, _layer_types)
    }
    # With layer_types written out they mean nothing, and would be wrong.
    dropped: ClassVar[frozenset[str]] = frozenset(_PATTERN)
    defaults: ClassVar[Mapping[str, int]] = {
        "hidden_size": 2304,
        "intermediate_size": 9216,
        "num_hidden_layers": 26,
        "num_attention_heads": 8,
        "num_key_value_heads": 4,
        "head_dim": 256,
    }

    @property
    @override
    def norms(self) -> Mapping[str, InsertedTensor]:
        heads = {
            f"self_attn.{name}.weight": InsertedTensor((self.size("head_dim"),), 0.0)
            for name in ("q_norm", "k_norm")
        }
        return {**super().norms, **heads}


@ARCHITECTURES.register("gemma3_text")
class Gemma3Text(_Gemma3Decoder):
    """Gemma 3 for text alone."""

    class_name_before: ClassVar[str] = "Gemma3ForCausalLM"
    class_name_after: ClassVar[str] = "Gemma3ForCausalLM"


@ARCHITECTURES.register("gemma3")
class Gemma3(_Gemma3Decoder):
    """Gemma 3 with a vision tower, whose text decoder is spliced."""

    class_name_before: ClassVar[str] = "Gemma3ForConditionalGeneration"
    class_name_after: ClassVar[str] = "Gemma3ForConditionalGeneration"
    decoder_key: ClassVar[str | None] = "text_config"
    layer_prefixes: ClassVar[tuple[str, ...]] = (
        "model.language_model.layers.",
        "language_model.model.layers.",
    )
