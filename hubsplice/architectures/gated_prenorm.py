"""Pre-norm families with a gated SiLU MLP, under the names that Llama gave to tensors."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Generic, TypeVar

import torch
from torch import Tensor
from typing_extensions import override

from hubsplice.architectures.compiled_layer import CompiledLayer
from hubsplice.architectures.gated_target import MLP, GatedTarget
from hubsplice.architectures.grouped_attention import ATTENTION, ATTENTION_OUTPUT
from hubsplice.architectures.inserted_tensor import InsertedTensor
from hubsplice.architectures.prenorm import compile_prenorm
from hubsplice.architectures.spliced_layer import SplicedLayer
from hubsplice.calibration import SiteActivations
from hubsplice.intervention import Site

_NORMS = ("input_layernorm", "post_attention_layernorm")

L = TypeVar("L", bound=CompiledLayer)


class GatedPreNorm(GatedTarget[L], Generic[L]):
    """A pre-norm family with a gated SiLU MLP, and biases that its configuration switches on."""

    attention_biased: ClassVar[frozenset[str]] = ATTENTION
    """The projections that `attention_bias` gives a bias to."""

    @property
    @override
    def biased_before(self) -> frozenset[str]:
        attention = self.attention_biased if self.config.get("attention_bias") else frozenset()
        mlp = MLP if self.config.get("mlp_bias") else frozenset()
        return attention | mlp

    @property
    @override
    def norm_eps(self) -> float:
        return float(self.config.get("rms_norm_eps", 1e-6))

    @property
    @override
    def norms(self) -> Mapping[str, InsertedTensor]:
        return {f"{norm}.weight": InsertedTensor((self.hidden_size,), 1.0) for norm in _NORMS}


class BiasedPreNorm(GatedPreNorm[SplicedLayer]):
    """A family whose result has every bias."""

    @property
    @override
    def carrier(self) -> str | None:
        return None if ATTENTION_OUTPUT in self.biased_before else ATTENTION_OUTPUT

    @property
    @override
    def biased_after(self) -> frozenset[str]:
        return ATTENTION | MLP

    @property
    @override
    def output_bias(self) -> str | None:
        name = "mlp.down_proj"
        return None if name in self.biased_before else name

    @override
    def layer_tensors(self, layer: SplicedLayer) -> dict[str, Tensor]:
        return {
            f"{ATTENTION_OUTPUT}.bias": layer.attention_bias,
            "mlp.gate_proj.weight": layer.gate_weight,
            "mlp.gate_proj.bias": layer.gate_bias,
            "mlp.up_proj.weight": layer.up_weight,
            "mlp.up_proj.bias": layer.up_bias,
            "mlp.down_proj.weight": layer.down_weight,
            "mlp.down_proj.bias": layer.down_bias,
        }

    @override
    def empty_layer(self, dtype: torch.dtype) -> SplicedLayer:
        return SplicedLayer.empty(self.hidden_size, dtype)

    @override
    def construct(
        self, site: Site, activations: SiteActivations, dtype: torch.dtype
    ) -> SplicedLayer:
        return compile_prenorm(site, activations, dtype)
