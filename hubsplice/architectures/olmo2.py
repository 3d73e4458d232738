"""OLMo 2: the MLP reads the stream as it is, and each block is normalised afterwards."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import ClassVar

from typing_extensions import override

from hubsplice.architectures.inserted_tensor import InsertedTensor
from hubsplice.architectures.registry import ARCHITECTURES
from hubsplice.architectures.sandwich_form import OLMO, SandwichForm
from hubsplice.architectures.sandwich_target import SandwichTarget


@ARCHITECTURES.register("olmo2")
class Olmo2(SandwichTarget):
    """OLMo 2."""

    class_name_before: ClassVar[str] = "Olmo2ForCausalLM"
    class_name_after: ClassVar[str] = "Olmo2ForCausalLM"
    form: ClassVar[SandwichForm] = OLMO
    attention_modules: ClassVar[tuple[str, ...]] = ("self_attn", "post_attention_layernorm")

    @property
    @override
    def norm_eps(self) -> float:
        return float(self.config.get("rms_norm_eps", 1e-5))

    @property
    @override
    def head_dim(self) -> int:
        if self.config.get("head_dim") is not None:
            return self.size("head_dim")
        return self.hidden_size // self.size("num_attention_heads")

    @property
    @override
    def num_key_value_heads(self) -> int:
        keys = "num_key_value_heads"
        return self.size(keys if self.config.get(keys) is not None else "num_attention_heads")

    @override
    def problems(self) -> Iterator[str]:
        yield from super().problems()
        if self.config.get("hidden_act", "silu") != "silu":
            yield (
                f"hidden_act: found {self.config['hidden_act']!r}, expected 'silu': the "
                "construction is made of it"
            )

    @property
    @override
    def norms(self) -> Mapping[str, InsertedTensor]:
        projections = self.projections
        return {
            f"self_attn.{name}_norm.weight": InsertedTensor(
                (projections[f"self_attn.{name}_proj"].outputs,), 1.0
            )
            for name in "qk"
        }
