"""The linear maps of a decoder layer, as checkpoints store them."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Projection:
    """A linear map.

    Attributes:
        outputs: how many numbers it gives.
        inputs: how many it takes.
        transposed: whether its weight is stored as [inputs, outputs], as GPT-2's are.
    """

    outputs: int
    inputs: int
    transposed: bool = False

    @property
    def shape(self) -> tuple[int, int]:
        """The stored weight's shape."""
        return (self.inputs, self.outputs) if self.transposed else (self.outputs, self.inputs)
