"""StarCoder2: rotary embeddings and few key heads, beside a plain MLP and LayerNorm."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from typing_extensions import override

from hubsplice.architectures.grouped_attention import ATTENTION_OUTPUT, GroupedAttention
from hubsplice.architectures.layernorm_target import LayerNormTarget
from hubsplice.architectures.plain_layer import PlainLayer
from hubsplice.architectures.projection import Projection
from hubsplice.architectures.registry import ARCHITECTURES


@ARCHITECTURES.register("starcoder2")
class Starcoder2(GroupedAttention[PlainLayer], LayerNormTarget):
    """StarCoder2, all of whose layers attend alike, within a window or without."""

    class_name_before: ClassVar[str] = "Starcoder2ForCausalLM"
    class_name_after: ClassVar[str] = "Starcoder2ForCausalLM"
    gate_module: ClassVar[str] = "mlp.c_fc"
    attention_output: ClassVar[str] = ATTENTION_OUTPUT
    mlp_input: ClassVar[str] = "mlp.c_fc"
    mlp_output: ClassVar[str] = "mlp.c_proj"
    norm_names: ClassVar[tuple[str, str]] = ("input_layernorm", "post_attention_layernorm")
    activation_field: ClassVar[str] = "hidden_act"
    default_activation: ClassVar[str] = "gelu_pytorch_tanh"
    tied_when_absent: ClassVar[bool] = True
    rewritten: ClassVar[Mapping[str, Any]] = {"use_bias": True}

    @property
    @override
    def norm_eps(self) -> float:
        return float(self.config.get("norm_epsilon", 1e-5))

    @property
    @override
    def reads_attention(self) -> bool:
        return True

    @property
    @override
    def num_key_value_heads(self) -> int:
        # The class takes two where config.json does not say.
        name = "num_key_value_heads"
        return self.size(name) if name in self.config else 2

    @property
    @override
    def projections(self) -> Mapping[str, Projection]:
        hidden, width = self.hidden_size, self.intermediate_size
        return {
            **self.attention_projections,
            "mlp.c_fc": Projection(width, hidden),
            "mlp.c_proj": Projection(hidden, width),
        }

    @property
    @override
    def biased_before(self) -> frozenset[str]:
        return frozenset(self.projections) if self.config.get("use_bias", True) else frozenset()

    @property
    @override
    def biased_after(self) -> frozenset[str]:
        return frozenset(self.projections)
