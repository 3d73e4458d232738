"""Ridge functions at one place of the residual stream, and the exact hook that evaluates them."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from hubsplice.intervention.condition import Condition
from hubsplice.intervention.normalization import Normalization
from hubsplice.intervention.piecewise_linear import PiecewiseLinear
from hubsplice.intervention.place import Block, Place


@dataclass(frozen=True, eq=False)
class Term:
    """One ridge function: s(h)·φ(⟨encoder, h̃⟩ + bias)·direction, where its condition holds.

    Attributes:
        label: what the user calls it, for reports and cards.
        encoder: e, shape [d], float32. Zero for a constant term.
        bias: b, with every constant of the SAE's input already folded in.
        function: φ.
        direction: d, shape [d], float32.
        normalization: how h̃ and s(h) come from h.
        condition: at which tokens it is written; None for all.
    """

    label: str
    encoder: Tensor
    bias: float
    function: PiecewiseLinear
    direction: Tensor
    normalization: Normalization = Normalization.NONE
    condition: Condition | None = None


@dataclass(frozen=True, eq=False)
class Site:
    """All terms that read and write the residual stream at one place.

    Attributes:
        layer: the base model's layer in which or after which the site lies, counted from 0.
        terms: every term reads the same h.
        sink_norm: a token whose residual norm exceeds this is left alone; infinite to edit all.
        block: the block of that layer after which the site lies.
    """

    layer: int
    terms: tuple[Term, ...]
    sink_norm: float = math.inf
    block: Block = Block.MLP

    @property
    def place(self) -> Place:
        """Where the site is."""
        return Place(self.layer, self.block)

    @cached_property
    def _groups(self) -> tuple[tuple[Normalization, _TermGroup], ...]:
        kinds = dict.fromkeys(term.normalization for term in self.terms)
        return tuple(
            (kind, _TermGroup.of([t for t in self.terms if t.normalization is kind]))
            for kind in kinds
        )

    def is_sink(self, h: Tensor) -> Tensor:
        """Which tokens of h [..., d] the site leaves alone, shape [...]."""
        return h.float().norm(dim=-1) > self.sink_norm

    def delta(self, h: Tensor) -> Tensor:
        """The change that the edit makes to h [..., d], in float32, same shape."""
        h = h.float()
        total = torch.zeros_like(h)
        for kind, group in self._groups:
            normalised, scale = kind.apply(h)
            total += scale * group.change(normalised, h)
        return total.masked_fill(self.is_sink(h)[..., None], 0.0)

    def edit(self, h: Tensor) -> Tensor:
        """The edited stream, computed in float32 and returned in h's dtype, shape [..., d]."""
        return (h.float() + self.delta(h)).to(h.dtype)

    def projections(self, h: Tensor) -> Tensor:
        """The pre-activation p_k of every term, in the order of `terms`, shape [..., terms]."""
        return self._columns(h, lambda group, normalised, _: group.projections(normalised))

    def activations(self, h: Tensor) -> Tensor:
        """φ_k(p_k) of every term, in the order of `terms`, shape [..., terms].

        It is zero where a term's condition does not hold.
        """
        return self._columns(h, _TermGroup.written)

    def _columns(self, h: Tensor, of: Callable[[_TermGroup, Tensor, Tensor], Tensor]) -> Tensor:
        h = h.float()
        columns = h.new_zeros((*h.shape[:-1], len(self.terms)))
        for kind, group in self._groups:
            index = [i for i, t in enumerate(self.terms) if t.normalization is kind]
            columns[..., index] = of(group, kind.apply(h)[0], h)
        return columns


@dataclass(frozen=True, eq=False)
class _TermGroup:
    """Terms of one normalisation, stacked so that a thousand evaluate as one product."""

    encoder: Tensor  # [d, n]
    bias: Tensor  # [n]
    direction: Tensor  # [n, d]
    breakpoints: Tensor  # [n, m], padded with +inf
    slopes: Tensor  # [n, m + 1]
    intercepts: Tensor  # [n, m + 1]
    conditions: dict[int, Condition]  # by the term's number in the group

    @staticmethod
    def of(terms: Sequence[Term]) -> _TermGroup:
        width = max(len(t.function.breakpoints) for t in terms)

        def padded(values: tuple[float, ...], length: int, fill: float) -> list[float]:
            return [*values, *[fill] * (length - len(values))]

        return _TermGroup(
            encoder=torch.stack([t.encoder for t in terms], dim=1).float(),
            bias=torch.tensor([t.bias for t in terms]),
            direction=torch.stack([t.direction for t in terms]).float(),
            breakpoints=torch.tensor(
                [padded(t.function.breakpoints, width, math.inf) for t in terms]
            ).reshape(len(terms), width),
            slopes=torch.tensor([padded(t.function.slopes, width + 1, 0.0) for t in terms]),
            intercepts=torch.tensor([padded(t.function.intercepts, width + 1, 0.0) for t in terms]),
            conditions={i: t.condition for i, t in enumerate(terms) if t.condition is not None},
        )

    def projections(self, h: Tensor) -> Tensor:
        return h @ self.encoder.to(h.device) + self.bias.to(h.device)

    def values(self, h: Tensor) -> Tensor:
        place = h.device
        p = self.projections(h)
        piece = torch.zeros_like(p, dtype=torch.long)
        for column in self.breakpoints.to(place).unbind(dim=1):
            piece += p > column
        row = torch.arange(p.shape[-1], device=place)
        return self.slopes.to(place)[row, piece] * p + self.intercepts.to(place)[row, piece]

    def written(self, normalised: Tensor, h: Tensor) -> Tensor:
        """φ of the normalised stream where the conditions, which read h itself, hold."""
        values = self.values(normalised)
        for number, condition in self.conditions.items():
            values[..., number] *= condition.holds(h)
        return values

    def change(self, normalised: Tensor, h: Tensor) -> Tensor:
        return self.written(normalised, h) @ self.direction.to(h.device)
