"""Families with LayerNorm and a plain GELU MLP, spliced in their own class."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Mapping
from typing import ClassVar

import torch
from torch import Tensor
from typing_extensions import override

from hubsplice.architectures.base import Architecture
from hubsplice.architectures.inserted_tensor import InsertedTensor
from hubsplice.architectures.layernorm import compile_layernorm
from hubsplice.architectures.plain_layer import GELUS, PlainLayer
from hubsplice.calibration import SiteActivations
from hubsplice.intervention import Site


class LayerNormTarget(Architecture[PlainLayer]):
    """A family whose blocks have biases everywhere.

    Class variables name the parts of a layer.
    """

    attention_output: ClassVar[str]
    mlp_input: ClassVar[str]
    mlp_output: ClassVar[str]
    norm_names: ClassVar[tuple[str, str]]
    activation_field: ClassVar[str]
    default_activation: ClassVar[str]

    @property
    @abstractmethod
    def reads_attention(self) -> bool:
        """Whether the MLP reads the stream that attention has been added to."""

    @property
    def activation(self) -> str:
        """The MLP's activation, by transformers' name."""
        return str(self.config.get(self.activation_field, self.default_activation))

    @property
    @override
    def norms(self) -> Mapping[str, InsertedTensor]:
        shape = (self.hidden_size,)
        return {
            f"{norm}.{name}": InsertedTensor(shape, value)
            for norm in self.norm_names
            for name, value in (("weight", 1.0), ("bias", 0.0))
        }

    @override
    def problems(self) -> Iterator[str]:
        yield from super().problems()
        if self.activation not in GELUS:
            yield (
                f"{self.activation_field}: found {self.activation!r}, expected one of "
                f"{', '.join(sorted(GELUS))}: the construction is made of GELU"
            )

    @override
    def layer_tensors(self, layer: PlainLayer) -> dict[str, Tensor]:
        weights = {self.mlp_input: layer.in_weight, self.mlp_output: layer.out_weight}
        filled = {
            f"{name}.weight": weight.T.contiguous() if self.projections[name].transposed else weight
            for name, weight in weights.items()
        }
        filled[f"{self.mlp_input}.bias"] = layer.in_bias
        filled[f"{self.mlp_output}.bias"] = layer.out_bias
        if self.reads_attention:
            filled[f"{self.attention_output}.bias"] = layer.attention_bias
        return filled

    @override
    def empty_layer(self, dtype: torch.dtype) -> PlainLayer:
        return PlainLayer.empty(self.hidden_size, dtype, self.activation)

    @override
    def construct(self, site: Site, activations: SiteActivations, dtype: torch.dtype) -> PlainLayer:
        return compile_layernorm(
            site,
            activations,
            dtype,
            activation=self.activation,
            room=self.intermediate_size,
        )
