"""GPT-NeoX: Pythia, GPT-NeoX-20B, Dolly, StableLM alpha."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, ClassVar

import torch
from typing_extensions import override

from hubsplice.architectures.layernorm_target import LayerNormTarget
from hubsplice.architectures.plain_layer import PlainLayer
from hubsplice.architectures.projection import Projection
from hubsplice.architectures.registry import ARCHITECTURES
from hubsplice.checkpoint.layer_map import LayerMap
from hubsplice.checkpoint.manifest import INJECTION
from hubsplice.errors import UnsupportedError
from hubsplice.place import Block, Place


@ARCHITECTURES.register("gpt_neox")
class GPTNeoX(LayerNormTarget):
    """GPT-NeoX: fused qkv, and mostly an MLP that reads beside the attention."""

    class_name_before: ClassVar[str] = "GPTNeoXForCausalLM"
    class_name_after: ClassVar[str] = "GPTNeoXForCausalLM"
    layer_prefixes: ClassVar[tuple[str, ...]] = ("gpt_neox.layers.",)
    attention_modules: ClassVar[tuple[str, ...]] = ("attention", "input_layernorm")
    gate_module: ClassVar[str] = "mlp.dense_h_to_4h"
    attention_output: ClassVar[str] = "attention.dense"
    mlp_input: ClassVar[str] = "mlp.dense_h_to_4h"
    mlp_output: ClassVar[str] = "mlp.dense_4h_to_h"
    norm_names: ClassVar[tuple[str, str]] = ("input_layernorm", "post_attention_layernorm")
    activation_field: ClassVar[str] = "hidden_act"
    default_activation: ClassVar[str] = "gelu"

    @property
    @override
    def norm_eps(self) -> float:
        return float(self.config.get("layer_norm_eps", 1e-5))

    @property
    @override
    def reads_attention(self) -> bool:
        return not self.config.get("use_parallel_residual", True)

    @override
    def require_place(self, place: Place) -> None:
        super().require_place(place)
        if place.block is Block.ATTENTION and not self.reads_attention:
            raise UnsupportedError(
                f"{place.field}: found {place.layer}, expected after_layer: with "
                "use_parallel_residual the MLP reads the stream beside the attention, and what "
                "attention adds joins it only after the MLP: there is no stream between the two"
            )

    @override
    def layers_per_splice(self, place: Place) -> int:
        return super().layers_per_splice(place) if self.reads_attention else 2

    @override
    def stacked(self, layer: PlainLayer, place: Place) -> tuple[PlainLayer, ...]:
        """Beside the attention, the MLP reads a constant only if a layer before has added it."""
        if self.reads_attention:
            return super().stacked(layer, place)
        constant = replace(
            self.empty_layer(layer.attention_bias.dtype),
            out_bias=layer.attention_bias,
            constants={"construction": INJECTION, "neurons": 0},
        )
        return constant, layer

    @property
    @override
    def projections(self) -> Mapping[str, Projection]:
        hidden, width = self.hidden_size, self.intermediate_size
        return {
            "attention.query_key_value": Projection(3 * hidden, hidden),
            "attention.dense": Projection(hidden, hidden),
            "mlp.dense_h_to_4h": Projection(width, hidden),
            "mlp.dense_4h_to_h": Projection(hidden, width),
        }

    @property
    @override
    def biased_before(self) -> frozenset[str]:
        if self.config.get("attention_bias", True):
            return frozenset(self.projections)
        return frozenset({self.mlp_input, self.mlp_output})

    @property
    @override
    def biased_after(self) -> frozenset[str]:
        return frozenset(self.projections) if self.reads_attention else self.biased_before

    @override
    def spliced_config(self, layers: LayerMap, dtype: torch.dtype) -> dict[str, Any]:
        config = super().spliced_config(layers, dtype)
        if self.biased_after != self.biased_before:
            config["attention_bias"] = True
        return config
