"""What Gemma 2 and Gemma 3 have in common: sandwich norms, and attention of two kinds."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

from typing_extensions import override

from hubsplice.architectures.inserted_tensor import InsertedTensor
from hubsplice.architectures.sandwich_form import GEMMA, SandwichForm
from hubsplice.architectures.sandwich_target import SandwichTarget


class GemmaTarget(SandwichTarget):
    """A family whose blocks are normalised before and after, by weights around zero."""

    form: ClassVar[SandwichForm] = GEMMA
    attention_modules: ClassVar[tuple[str, ...]] = (
        "self_attn",
        "input_layernorm",
        "post_attention_layernorm",
    )
    activation_field: ClassVar[str] = "hidden_activation"
    needed_activation: ClassVar[str] = "gelu_pytorch_tanh"
    silent_attention: ClassVar[Mapping[str, float]] = {"post_attention_layernorm.weight": -1.0}

    defaults: ClassVar[Mapping[str, int]]
    """The sizes that the family's class takes where config.json leaves them out, as the
    checkpoints on the Hub do."""

    @override
    def size(self, name: str) -> int:
        if name not in self.decoder_config and name in self.defaults:
            return self.defaults[name]
        return super().size(name)

    @property
    @override
    def head_dim(self) -> int:
        # Its classes derive no size from others.
        return self.size("head_dim")

    @property
    @override
    def num_key_value_heads(self) -> int:
        return self.size("num_key_value_heads")

    @property
    @override
    def activation(self) -> Any:
        # Null means the same as nothing.
        return super().activation or self.needed_activation

    @property
    @override
    def norm_eps(self) -> float:
        return float(self.decoder_config.get("rms_norm_eps", 1e-6))

    @property
    @override
    def tied(self) -> bool:
        fields = {**self.decoder_config, **self.config}
        return bool(fields.get("tie_word_embeddings", True))

    @override
    def problems(self) -> Iterator[str]:
        yield from super().problems()
        if self.decoder_config.get("use_bidirectional_attention"):
            yield (
                "use_bidirectional_attention: found true, expected false: only causal language "
                "models can be spliced"
            )

    @property
    @override
    def norms(self) -> Mapping[str, InsertedTensor]:
        names = ("input_layernorm", "pre_feedforward_layernorm")
        return {f"{name}.weight": InsertedTensor((self.hidden_size,), 0.0) for name in names}
