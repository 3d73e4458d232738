"""Qwen3-MoE: the inserted layer is one of the dense layers that the family can have."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from typing_extensions import override

from hubsplice.architectures.gated_target import MLP
from hubsplice.architectures.layer_fields import LayerField, LayerIndices
from hubsplice.architectures.projection import Projection
from hubsplice.architectures.qwen3 import QkNormTarget
from hubsplice.architectures.registry import ARCHITECTURES


def _dense(config: Mapping[str, Any], num_layers: int) -> list[int]:
    """The layers that are dense by their index, beside those listed."""
    step = config.get("decoder_sparse_step", 1)
    if config.get("num_experts", 128) == 0:
        return list(range(num_layers))
    return [layer for layer in range(num_layers) if (layer + 1) % step]


@ARCHITECTURES.register("qwen3_moe")
class Qwen3Moe(QkNormTarget):
    """Qwen3 with mixtures of experts."""

    class_name_before: ClassVar[str] = "Qwen3MoeForCausalLM"
    class_name_after: ClassVar[str] = "Qwen3MoeForCausalLM"
    absent_means: ClassVar[Mapping[str, Any]] = {"num_key_value_heads": 4}
    layer_fields: ClassVar[Mapping[str, LayerField]] = {
        "mlp_only_layers": LayerIndices(inserted=True, implied=_dense),
    }
    # Dense layers are all listed, so that none goes by its index any more.
    rewritten: ClassVar[Mapping[str, Any]] = {"attention_bias": True, "decoder_sparse_step": 1}

    @override
    def base_projections(self, layer: int) -> Mapping[str, Projection]:
        listed = {
            *(self.config.get("mlp_only_layers") or []),
            *_dense(self.config, self.num_layers),
        }
        if layer in listed:
            return self.projections
        return {name: sizes for name, sizes in self.projections.items() if name not in MLP}
