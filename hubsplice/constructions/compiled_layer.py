"""What the rest of hubsplice knows of a compiled layer, whatever its construction."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field, fields, replace
from typing import Any, Self

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False, kw_only=True)
class CompiledLayer(ABC):
    """One inserted decoder layer, by role rather than by a family's tensor names.

    A construction adds its tensors as fields annotated `Tensor`.

    Attributes:
        constants: what was chosen, for the manifest. `construction` names the construction, and
            `saturation` is the gate pre-activation at a jump.
        jump_gates: (term, neuron, side) of every jump. The neuron's gate pre-activation is above
            `saturation` (see `constants`) where p is above the threshold, or below it if side
            is -1.
        homes: the piece of each term's φ that most of calibration lies on, numbered from below.
            Neurons of bends and jumps open away from it.
        approximations: what the construction cannot reach, one sentence each, for reports.
    """

    constants: dict[str, Any] = field(default_factory=dict)
    jump_gates: tuple[tuple[int, int, int], ...] = ()
    homes: tuple[int, ...] = ()
    approximations: tuple[str, ...] = ()

    @property
    @abstractmethod
    def neurons(self) -> int:
        """How many of the MLP's neurons the layer uses."""

    @abstractmethod
    def __call__(self, h: Tensor, eps: float) -> Tensor:
        """The layer's output for the stream h [..., d], rounding where a served model rounds.

        Args:
            h: the stream that comes in; it is turned to the layer's dtype.
            eps: the epsilon of the family's norm.
        """

    @classmethod
    def tensor_names(cls) -> tuple[str, ...]:
        """The names of the tensors among the attributes."""
        return tuple(f.name for f in fields(cls) if f.type == "Tensor")

    def tensors(self) -> dict[str, Tensor]:
        """The tensors, by the attribute's name."""
        return {name: getattr(self, name) for name in self.tensor_names()}

    def written(self) -> dict[str, Tensor]:
        """What a checkpoint stores of the layer, by role; families say where each role lies.

        A tensor that is smaller than the one that it is stored in is the beginning of that in
        every dimension, and zeros are the rest.
        """
        return self.tensors()

    def to(self, dtype: torch.dtype) -> Self:
        """The layer with every tensor rounded to `dtype`."""
        rounded: dict[str, Any] = {name: t.to(dtype) for name, t in self.tensors().items()}
        return replace(self, **rounded)
