"""Conditions: read-outs of the stream that say at which tokens a term is written."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class GateReadOut:
    """One read-out of the stream as it is: open where ⟨encoder, h⟩ + bias > threshold.

    Attributes:
        encoder: g, shape [d], float32.
        bias: what is added to ⟨g, h⟩.
        threshold: what the sum must exceed.
    """

    encoder: Tensor
    bias: float
    threshold: float

    def is_open(self, h: Tensor) -> Tensor:
        """At which tokens of h [..., d], float32, it is open, shape [...]."""
        return h @ self.encoder.to(h.device) + self.bias > self.threshold


@dataclass(frozen=True, eq=False)
class Condition:
    """Some gates, and how many of them must be open at a token.

    Attributes:
        gates: one to three.
        needed: all of them for "and", one for "or".
    """

    gates: tuple[GateReadOut, ...]
    needed: int

    def __post_init__(self) -> None:
        if not 1 <= self.needed <= len(self.gates):
            raise ValueError(f"{len(self.gates)} gates, of which {self.needed} must be open")

    def opened(self, h: Tensor) -> Tensor:
        """At which tokens of h [..., d], float32, each gate is open, shape [gates, ...]."""
        return torch.stack([gate.is_open(h) for gate in self.gates])

    def holds(self, h: Tensor) -> Tensor:
        """At which tokens of h [..., d], float32, it holds, shape [...]."""
        return self.opened(h).sum(dim=0) >= self.needed
