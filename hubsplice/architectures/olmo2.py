"""OLMo 2: the MLP reads the stream as it is, and each block is normalised afterwards."""

from __future__ import annotations

from collections.abc import Mapping
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
    def norms(self) -> Mapping[str, InsertedTensor]:
        projections = self.projections
        return {
            f"self_attn.{name}_norm.weight": InsertedTensor(
                (projections[f"self_attn.{name}_proj"].outputs,), 1.0
            )
            for name in "qk"
        }
