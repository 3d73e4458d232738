"""The tensors of a decoder layer, by name and by the sizes that config.json gives."""

from __future__ import annotations

import enum
from dataclasses import dataclass


class Size(enum.Enum):
    """A size that a family's configuration gives."""

    HIDDEN = enum.auto()
    """The width of the residual stream."""

    MLP = enum.auto()
    """The number of neurons."""

    HEAD = enum.auto()
    """The width of one attention head."""

    QUERIES = enum.auto()
    """The width of all heads' queries together."""

    KEYS = enum.auto()
    """The width of all heads' keys together, which is that of the values."""

    FUSED_QKV = enum.auto()
    """Queries, keys and values in one tensor, each of the width of the stream."""


@dataclass(frozen=True)
class LinearMap:
    """A linear map of a layer.

    Attributes:
        name: in the layer.
        outputs: how many numbers it gives.
        inputs: how many it takes.
        transposed: whether its weight is stored as [inputs, outputs], as GPT-2's are.
    """

    name: str
    outputs: Size
    inputs: Size
    transposed: bool = False


@dataclass(frozen=True)
class NormTensor:
    """A tensor of a norm.

    Attributes:
        name: in the layer.
        neutral: what it holds throughout where the norm is to change nothing but the scale.
        size: its length.
    """

    name: str
    neutral: float
    size: Size = Size.HIDDEN


@dataclass(frozen=True)
class Projection:
    """A linear map with the sizes of one model.

    Attributes:
        outputs: how many numbers it gives.
        inputs: how many it takes.
        transposed: see `LinearMap`.
    """

    outputs: int
    inputs: int
    transposed: bool = False

    @property
    def shape(self) -> tuple[int, int]:
        """The stored weight's shape."""
        return (self.inputs, self.outputs) if self.transposed else (self.outputs, self.inputs)


@dataclass(frozen=True)
class InsertedTensor:
    """A tensor of any inserted layer, known without the edit.

    Attributes:
        shape: the tensor's shape.
        value: the number that it holds throughout, whatever the edit; None for what edits fill.
    """

    shape: tuple[int, ...]
    value: float | None


ATTENTION_INPUTS = ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj")
ATTENTION_OUTPUT = "self_attn.o_proj"
ATTENTION = (*ATTENTION_INPUTS, ATTENTION_OUTPUT)
MLP = ("mlp.gate_proj", "mlp.up_proj", "mlp.down_proj")

GROUPED_ATTENTION = (
    LinearMap("self_attn.q_proj", Size.QUERIES, Size.HIDDEN),
    LinearMap("self_attn.k_proj", Size.KEYS, Size.HIDDEN),
    LinearMap("self_attn.v_proj", Size.KEYS, Size.HIDDEN),
    LinearMap(ATTENTION_OUTPUT, Size.HIDDEN, Size.QUERIES),
)
"""Attention whose heads share keys and values in groups, under the names that Llama gave to it."""

GATED_MLP = (
    LinearMap("mlp.gate_proj", Size.MLP, Size.HIDDEN),
    LinearMap("mlp.up_proj", Size.MLP, Size.HIDDEN),
    LinearMap("mlp.down_proj", Size.HIDDEN, Size.MLP),
)
"""A gated MLP, under the names that Llama gave to it."""
