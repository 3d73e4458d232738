"""Pre-norm families with a gated SiLU MLP, under the names that Llama gave to tensors."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import ClassVar, Generic, TypeVar

import torch
from torch import Tensor
from typing_extensions import override

from hubsplice.architectures.base import Architecture
from hubsplice.architectures.compiled_layer import CompiledLayer
from hubsplice.architectures.inserted_tensor import InsertedTensor
from hubsplice.architectures.prenorm import compile_prenorm
from hubsplice.architectures.projection import Projection
from hubsplice.architectures.spliced_layer import SplicedLayer
from hubsplice.calibration import SiteActivations
from hubsplice.intervention import Site

ATTENTION_INPUTS = frozenset({"self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"})
_OUTPUT = "self_attn.o_proj"
ATTENTION = ATTENTION_INPUTS | {_OUTPUT}
MLP = frozenset({"mlp.gate_proj", "mlp.up_proj", "mlp.down_proj"})
FULL_ATTENTION = "full_attention"

_NORMS = ("input_layernorm", "post_attention_layernorm")


L = TypeVar("L", bound=CompiledLayer)


class GatedPreNorm(Architecture[L], Generic[L]):
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
    def head_dim(self) -> int:
        """The width of one attention head."""
        name = "head_dim"
        if self.config.get(name) is not None:
            return self.size(name)
        if name not in self.config and name in self.absent_means:
            return int(self.absent_means[name])
        return self.hidden_size // self.size("num_attention_heads")

    @property
    def _num_key_value_heads(self) -> int:
        name = "num_key_value_heads"
        if self.config.get(name) is not None:
            return self.size(name)
        if name not in self.config and name in self.absent_means:
            return int(self.absent_means[name])
        return self.size("num_attention_heads")

    @property
    @override
    def projections(self) -> Mapping[str, Projection]:
        hidden, width = self.hidden_size, self.intermediate_size
        queries = self.size("num_attention_heads") * self.head_dim
        keys = self._num_key_value_heads * self.head_dim
        return {
            "self_attn.q_proj": Projection(queries, hidden),
            "self_attn.k_proj": Projection(keys, hidden),
            "self_attn.v_proj": Projection(keys, hidden),
            "self_attn.o_proj": Projection(hidden, queries),
            "mlp.gate_proj": Projection(width, hidden),
            "mlp.up_proj": Projection(width, hidden),
            "mlp.down_proj": Projection(hidden, width),
        }

    @override
    def problems(self) -> Iterator[str]:
        yield from super().problems()
        if self.config.get("hidden_act", "silu") != "silu":
            yield (
                f"hidden_act: found {self.config['hidden_act']!r}, expected 'silu': the "
                "construction is made of SiLU, and vLLM has no other for the family"
            )

    @property
    @override
    def norms(self) -> Mapping[str, InsertedTensor]:
        return {f"{norm}.weight": InsertedTensor((self.hidden_size,), 1.0) for norm in _NORMS}


class BiasedPreNorm(GatedPreNorm[SplicedLayer]):
    """A family whose result has every bias."""

    @property
    @override
    def carrier(self) -> str | None:
        return None if _OUTPUT in self.biased_before else _OUTPUT

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
            f"{_OUTPUT}.bias": layer.attention_bias,
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
