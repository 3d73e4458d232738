"""In what blocks differ that are normalised afterwards."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from torch import Tensor
from torch.nn import functional


@dataclass(frozen=True)
class SandwichForm:
    """A kind of block, as far as the sandwich construction must know it.

    Attributes:
        construction: what manifests call the construction in this form.
        normalises_input: whether a norm stands before the MLP too; the MLP reads the stream as it
            is otherwise.
        weight_offset: what the norms add to their weights before they multiply by them.
        activate: the activation of the MLP's gates, a ReLU for large arguments.
        saturation: half the distance between a jump's two gates, a power of two beyond which
            the activation is all but a ReLU.
    """

    construction: str
    normalises_input: bool
    weight_offset: float
    activate: Callable[[Tensor], Tensor]
    saturation: float

    def gain(self, weight: Tensor) -> Tensor:
        """What a norm with this weight multiplies by, float64."""
        return weight.double() + self.weight_offset

    def weight(self, gain: Tensor) -> Tensor:
        """The weight for a gain."""
        return gain - self.weight_offset


SANDWICH = SandwichForm(
    construction="sandwich",
    normalises_input=True,
    weight_offset=1.0,
    activate=partial(functional.gelu, approximate="tanh"),
    saturation=8.0,
)
"""Norms before and after, by weights around zero; a GELU."""

POST_NORM = SandwichForm(
    construction="post-norm",
    normalises_input=False,
    weight_offset=0.0,
    activate=functional.silu,
    saturation=32.0,
)
"""Norms after blocks alone, by their weights; a SiLU."""
