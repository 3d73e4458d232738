"""GPT-2, and what calls itself so: DistilGPT-2, GPT-2 medium to XL."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from typing_extensions import override

from hubsplice.architectures.layer_fields import LayerField, MustBeAbsent
from hubsplice.architectures.layernorm_target import LayerNormTarget
from hubsplice.architectures.projection import Projection
from hubsplice.architectures.registry import ARCHITECTURES


@ARCHITECTURES.register("gpt2")
class GPT2(LayerNormTarget):
    """GPT-2: fused qkv, and weights stored transposed."""

    class_name_before: ClassVar[str] = "GPT2LMHeadModel"
    class_name_after: ClassVar[str] = "GPT2LMHeadModel"
    # The published checkpoints hold the bare decoder's names.
    layer_prefixes: ClassVar[tuple[str, ...]] = ("transformer.h.", "h.")
    attention_modules: ClassVar[tuple[str, ...]] = ("attn", "ln_1")
    gate_module: ClassVar[str] = "mlp.c_fc"
    attention_output: ClassVar[str] = "attn.c_proj"
    mlp_input: ClassVar[str] = "mlp.c_fc"
    mlp_output: ClassVar[str] = "mlp.c_proj"
    norm_names: ClassVar[tuple[str, str]] = ("ln_1", "ln_2")
    activation_field: ClassVar[str] = "activation_function"
    default_activation: ClassVar[str] = "gelu_new"
    tied_when_absent: ClassVar[bool] = True
    layer_fields: ClassVar[Mapping[str, LayerField]] = {
        "scale_attn_by_inverse_layer_idx": MustBeAbsent(
            "found true, expected false: attention would be scaled by another layer's index, and "
            "vLLM refuses it"
        ),
        "add_cross_attention": MustBeAbsent(
            "found true, expected false: only decoders by themselves can be spliced"
        ),
        "reorder_and_upcast_attn": MustBeAbsent("found true, expected false: vLLM refuses it"),
    }

    @property
    @override
    def layer_count_field(self) -> str:
        return "n_layer"

    @property
    @override
    def hidden_size(self) -> int:
        return self.size("n_embd")

    @property
    @override
    def intermediate_size(self) -> int:
        return 4 * self.hidden_size if self.config.get("n_inner") is None else self.size("n_inner")

    @property
    @override
    def norm_eps(self) -> float:
        return float(self.config.get("layer_norm_epsilon", 1e-5))

    @property
    @override
    def reads_attention(self) -> bool:
        return True

    @property
    @override
    def projections(self) -> Mapping[str, Projection]:
        hidden, width = self.hidden_size, self.intermediate_size
        return {
            "attn.c_attn": Projection(3 * hidden, hidden, transposed=True),
            "attn.c_proj": Projection(hidden, hidden, transposed=True),
            "mlp.c_fc": Projection(width, hidden, transposed=True),
            "mlp.c_proj": Projection(hidden, width, transposed=True),
        }

    @property
    @override
    def biased_before(self) -> frozenset[str]:
        return frozenset(self.projections)
