"""A site that takes two layers, as one compiled layer."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Self

import torch
from torch import Tensor
from typing_extensions import override

from hubsplice.constructions.compiled_layer import CompiledLayer


@dataclass(frozen=True, eq=False)
class TwoLayers(CompiledLayer):
    """A layer that marks tokens and the one behind it, which edits.

    Attributes:
        first: marks.
        second: edits, and takes the marks back.
    """

    first: CompiledLayer
    second: CompiledLayer

    @property
    @override
    def neurons(self) -> int:
        return max(self.first.neurons, self.second.neurons)

    @override
    def __call__(self, h: Tensor, eps: float) -> Tensor:
        return self.second(self.first(h, eps), eps)

    @override
    def tensors(self) -> dict[str, Tensor]:
        return {
            f"{name}.{role}": tensor
            for name, layer in (("first", self.first), ("second", self.second))
            for role, tensor in layer.tensors().items()
        }

    @override
    def to(self, dtype: torch.dtype) -> Self:
        return replace(self, first=self.first.to(dtype), second=self.second.to(dtype))
