"""A constant edit that needs no layer: a bias on what the MLP of an existing layer writes."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from typing_extensions import override

from hubsplice.constructions.compiled_layer import CompiledLayer
from hubsplice.intervention.site import Site

OUTPUT_BIAS = "output-bias"
"""What manifests call the construction."""


@dataclass(frozen=True, eq=False)
class OutputBias(CompiledLayer):
    """The constant that a site adds to every token, sinks among them.

    Attributes:
        bias: shape [d].
        multiplier: of what a block adds to the stream, in families that have one.
    """

    bias: Tensor
    multiplier: float = 1.0

    @staticmethod
    def of(site: Site, dtype: torch.dtype, multiplier: float) -> OutputBias:
        """The bias of a site, rounded to `dtype`.

        Raises:
            ValueError: a term reads the stream.
        """
        if any(term.encoder.any() for term in site.terms):
            raise ValueError(f"layer {site.layer}: a bias can't read the stream")
        total = torch.zeros(len(site.terms[0].direction), dtype=torch.float64)
        for term in site.terms:
            total += term.function(term.bias) * term.direction.double()
        return OutputBias(
            (total / multiplier).to(dtype), multiplier, constants={"construction": OUTPUT_BIAS}
        )

    @property
    @override
    def neurons(self) -> int:
        return 0

    @override
    def __call__(self, h: Tensor, eps: float) -> Tensor:
        return h.to(self.bias.dtype) + self.bias * self.multiplier
