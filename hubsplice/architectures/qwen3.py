"""Qwen3: queries and keys are normalised, and the MLP has no biases."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor
from typing_extensions import override

from hubsplice.architectures.bias_free import compile_bias_free
from hubsplice.architectures.bias_free_layer import BiasFreeLayer
from hubsplice.architectures.gated_prenorm import GatedPreNorm
from hubsplice.architectures.grouped_attention import ATTENTION
from hubsplice.architectures.inserted_tensor import InsertedTensor
from hubsplice.architectures.layer_fields import (
    FULL_ATTENTION,
    SLIDING_ATTENTION,
    FirstLayers,
    LayerField,
    PerLayer,
)
from hubsplice.architectures.registry import ARCHITECTURES
from hubsplice.calibration import SiteActivations
from hubsplice.intervention import Site


def _layer_types(config: Mapping[str, Any], num_layers: int) -> list[str]:
    windowed = bool(config.get("use_sliding_window")) and (
        config.get("sliding_window", 4096) is not None
    )
    first = config.get("max_window_layers", 28)
    return [
        SLIDING_ATTENTION if windowed and layer >= first else FULL_ATTENTION
        for layer in range(num_layers)
    ]


class QkNormTarget(GatedPreNorm[BiasFreeLayer]):
    """A family with Qwen3's attention.

    vLLM leaves o_proj.bias out, so the constant comes another way: attention weights add up to
    one, and so a bias of v, in one channel of the first head, passes attention unchanged; o_proj
    makes the constant of it.
    """

    absent_means: ClassVar[Mapping[str, Any]] = {"num_key_value_heads": 32, "head_dim": 128}
    rewritten: ClassVar[Mapping[str, Any]] = {"attention_bias": True}

    @property
    @override
    def biased_after(self) -> frozenset[str]:
        # transformers has o_proj.bias too, and wants it in the file: it is zero throughout.
        return ATTENTION

    @property
    @override
    def norms(self) -> Mapping[str, InsertedTensor]:
        heads = {
            f"self_attn.{name}.weight": InsertedTensor((self.head_dim,), 1.0)
            for name in ("q_norm", "k_norm")
        }
        return {**super().norms, **heads}

    @override
    def layer_tensors(self, layer: BiasFreeLayer) -> dict[str, Tensor]:
        constant = layer.attention_bias
        return {
            "self_attn.v_proj.bias": constant.any().float()[None],
            "self_attn.o_proj.weight": constant[:, None],
            "mlp.gate_proj.weight": layer.gate_weight,
            "mlp.up_proj.weight": layer.up_weight,
            "mlp.down_proj.weight": layer.down_weight,
        }

    @override
    def empty_layer(self, dtype: torch.dtype) -> BiasFreeLayer:
        return BiasFreeLayer.empty(self.hidden_size, dtype)

    @override
    def construct(
        self, site: Site, activations: SiteActivations, dtype: torch.dtype
    ) -> BiasFreeLayer:
        return compile_bias_free(site, activations, dtype, self.intermediate_size)


@ARCHITECTURES.register("qwen3")
class Qwen3(QkNormTarget):
    """Qwen3, dense."""

    class_name_before: ClassVar[str] = "Qwen3ForCausalLM"
    class_name_after: ClassVar[str] = "Qwen3ForCausalLM"
    layer_fields: ClassVar[Mapping[str, LayerField]] = {
        "layer_types": PerLayer(FULL_ATTENTION, _layer_types),
        "max_window_layers": FirstLayers(),
    }
