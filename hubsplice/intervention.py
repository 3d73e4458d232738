"""The intermediate representation: an edit as a sum of ridge functions, and its exact hook.

At a site (the residual stream after one block of a decoder layer) the edited stream is

    h + s(h) · Σ_k φ_k(⟨e_k, h̃⟩ + b_k) · d_k,

where h̃ is the stream as the SAE normalises it and s(h) undoes that scale. Each φ_k is a
`PiecewiseLinear`. The compiler and the reference hook read the same objects, so that their
distance is the fidelity of the compiled layer and of nothing else.
"""

from __future__ import annotations

import enum
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import pairwise

import torch
from torch import Tensor

from hubsplice.place import Block, Place


@dataclass(frozen=True)
class Kink:
    """A place where φ bends or jumps: `slope_change·relu(p - at) + jump·1[p > at]`."""

    at: float
    slope_change: float
    jump: float


@dataclass(frozen=True)
class PiecewiseLinear:
    """A piecewise-linear scalar function, which may jump.

    On the i-th interval the value is `slopes[i]·p + intercepts[i]`. A breakpoint belongs to
    the interval on its left, as SAE thresholds do (a JumpReLU feature is active for p > θ).
    """

    breakpoints: tuple[float, ...]
    slopes: tuple[float, ...]
    intercepts: tuple[float, ...]

    def __post_init__(self) -> None:
        pieces = len(self.breakpoints) + 1
        if len(self.slopes) != pieces or len(self.intercepts) != pieces:
            raise ValueError(f"{pieces - 1} breakpoints need {pieces} slopes and intercepts")
        if any(b <= a for a, b in pairwise(self.breakpoints)):
            raise ValueError(f"breakpoints must increase: {self.breakpoints}")
        if not all(map(math.isfinite, (*self.breakpoints, *self.slopes, *self.intercepts))):
            raise ValueError("breakpoints, slopes and intercepts must be finite")

    @staticmethod
    def constant(value: float) -> PiecewiseLinear:
        """The function with one value everywhere."""
        return PiecewiseLinear((), (0.0,), (value,))

    @staticmethod
    def linear(slope: float, intercept: float = 0.0) -> PiecewiseLinear:
        """The function `slope·p + intercept`."""
        return PiecewiseLinear((), (slope,), (intercept,))

    @staticmethod
    def relu(threshold: float = 0.0) -> PiecewiseLinear:
        """`relu(p - threshold)`."""
        return PiecewiseLinear((threshold,), (0.0, 1.0), (0.0, -threshold))

    @staticmethod
    def jump_relu(threshold: float) -> PiecewiseLinear:
        """`p·1[p > threshold]`, and `relu(p)` where the threshold is below zero."""
        return PiecewiseLinear((max(threshold, 0.0),), (0.0, 1.0), (0.0, 0.0))

    @staticmethod
    def step(threshold: float, height: float = 1.0) -> PiecewiseLinear:
        """`height·1[p > threshold]`."""
        return PiecewiseLinear((threshold,), (0.0, 0.0), (0.0, height))

    def __call__(self, p: float) -> float:
        """The value at one point."""
        piece = sum(p > t for t in self.breakpoints)
        return self.slopes[piece] * p + self.intercepts[piece]

    def __add__(self, other: PiecewiseLinear) -> PiecewiseLinear:
        points = tuple(sorted({*self.breakpoints, *other.breakpoints}))
        slopes, intercepts = [], []
        for left in (-math.inf, *points):
            mine, theirs = self._piece_right_of(left), other._piece_right_of(left)
            slopes.append(mine[0] + theirs[0])
            intercepts.append(mine[1] + theirs[1])
        return PiecewiseLinear(points, tuple(slopes), tuple(intercepts)).simplified()

    def scaled(self, factor: float) -> PiecewiseLinear:
        """`factor` times this function."""
        return replace(
            self,
            slopes=tuple(factor * s for s in self.slopes),
            intercepts=tuple(factor * i for i in self.intercepts),
        ).simplified()

    def then(self, outer: PiecewiseLinear) -> PiecewiseLinear:
        """The composition `outer(self(p))`.

        Where this function falls through a jump of `outer`, the value at that single point is
        taken from the other side; no real stream hits it.
        """
        points: list[float] = []
        slopes: list[float] = []
        intercepts: list[float] = []
        edges = (-math.inf, *self.breakpoints, math.inf)
        for (low, high), slope, intercept in zip(
            pairwise(edges), self.slopes, self.intercepts, strict=True
        ):
            preimages = [(y - intercept) / slope for y in outer.breakpoints] if slope else []
            inner = sorted({t for t in preimages if low < t < high})
            for left, right in pairwise((low, *inner, high)):
                # Which piece of outer applies is counted, not probed at a point in between:
                # two breakpoints may be neighbouring floats.
                if slope > 0:
                    piece = sum(t <= left for t in preimages)
                elif slope < 0:
                    piece = sum(t >= right for t in preimages)
                else:
                    piece = sum(intercept > y for y in outer.breakpoints)
                slopes.append(outer.slopes[piece] * slope)
                intercepts.append(outer.slopes[piece] * intercept + outer.intercepts[piece])
                points.append(right)
        return PiecewiseLinear(tuple(points[:-1]), tuple(slopes), tuple(intercepts)).simplified()

    def simplified(self) -> PiecewiseLinear:
        """The same function without breakpoints at which nothing changes."""
        points: list[float] = []
        slopes, intercepts = [self.slopes[0]], [self.intercepts[0]]
        for t, slope, intercept in zip(
            self.breakpoints, self.slopes[1:], self.intercepts[1:], strict=True
        ):
            if slope != slopes[-1] or intercept != intercepts[-1]:
                points.append(t)
                slopes.append(slope)
                intercepts.append(intercept)
        return PiecewiseLinear(tuple(points), tuple(slopes), tuple(intercepts))

    @property
    def kinks(self) -> tuple[Kink, ...]:
        """The bends and jumps that, added to the leftmost piece, give this function."""
        found = []
        for i, t in enumerate(self.breakpoints):
            summands = (
                self.slopes[i + 1] * t,
                self.intercepts[i + 1],
                -self.slopes[i] * t,
                -self.intercepts[i],
            )
            jump = math.fsum(summands)
            # A difference this small is the rounding of the summands, as where a composition's
            # breakpoint is the solution of an equation, and not a jump.
            scale = max(map(abs, summands))
            found.append(
                Kink(
                    t,
                    self.slopes[i + 1] - self.slopes[i],
                    0.0 if abs(jump) <= 1e-9 * scale else jump,
                )
            )
        return tuple(found)

    @property
    def has_jump(self) -> bool:
        """Whether the function is discontinuous anywhere."""
        return any(kink.jump for kink in self.kinks)

    def _piece_right_of(self, edge: float) -> tuple[float, float]:
        """Slope and intercept of the piece that begins at `edge`, or holds there."""
        piece = sum(t <= edge for t in self.breakpoints)
        return self.slopes[piece], self.intercepts[piece]


class Normalization(enum.StrEnum):
    """How an SAE scales its input: the names that SAELens gives to `normalize_activations`."""

    NONE = "none"
    CONSTANT_NORM_RESCALE = "constant_norm_rescale"
    LAYER_NORM = "layer_norm"

    def apply(self, h: Tensor) -> tuple[Tensor, Tensor]:
        """The normalised stream h̃ [..., d] and the scale s(h) [..., 1] that undoes it.

        The formulas are SAELens's own: `layer_norm` divides by the unbiased standard deviation
        plus 1e-5 and multiplies back by the standard deviation alone.
        """
        if self is Normalization.CONSTANT_NORM_RESCALE:
            scale = h.norm(dim=-1, keepdim=True) / math.sqrt(h.shape[-1])
            return h / scale, scale
        if self is Normalization.LAYER_NORM:
            centred = h - h.mean(dim=-1, keepdim=True)
            scale = centred.std(dim=-1, keepdim=True)
            return centred / (scale + 1e-5), scale
        return h, torch.ones_like(h[..., :1])


@dataclass(frozen=True, eq=False)
class Term:
    """One ridge function: s(h)·φ(⟨encoder, h̃⟩ + bias)·direction.

    Attributes:
        label: what the user calls it, for reports and cards.
        encoder: e, shape [d], float32. Zero for a constant term.
        bias: b, with every constant of the SAE's input already folded in.
        function: φ.
        direction: d, shape [d], float32.
        normalization: how h̃ and s(h) come from h.
    """

    label: str
    encoder: Tensor
    bias: float
    function: PiecewiseLinear
    direction: Tensor
    normalization: Normalization = Normalization.NONE


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
            total += scale * group.change(normalised)
        return total.masked_fill(self.is_sink(h)[..., None], 0.0)

    def edit(self, h: Tensor) -> Tensor:
        """The edited stream, computed in float32 and returned in h's dtype, shape [..., d]."""
        return (h.float() + self.delta(h)).to(h.dtype)

    def projections(self, h: Tensor) -> Tensor:
        """The pre-activation p_k of every term, in the order of `terms`, shape [..., terms]."""
        return self._columns(h, _TermGroup.projections)

    def activations(self, h: Tensor) -> Tensor:
        """φ_k(p_k) of every term, in the order of `terms`, shape [..., terms]."""
        return self._columns(h, _TermGroup.values)

    def _columns(self, h: Tensor, of: Callable[[_TermGroup, Tensor], Tensor]) -> Tensor:
        h = h.float()
        columns = h.new_zeros((*h.shape[:-1], len(self.terms)))
        for kind, group in self._groups:
            index = [i for i, t in enumerate(self.terms) if t.normalization is kind]
            columns[..., index] = of(group, kind.apply(h)[0])
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

    def change(self, h: Tensor) -> Tensor:
        return self.values(h) @ self.direction.to(h.device)


@dataclass(frozen=True, eq=False)
class Intervention:
    """The sites of one recipe, in the order of their places; later sites see earlier edits."""

    sites: tuple[Site, ...]

    def __post_init__(self) -> None:
        places = [site.place for site in self.sites]
        if places != sorted(set(places)):
            raise ValueError(
                "sites must be in layer order, one per layer and block: after layer "
                f"{', '.join(map(str, places))}"
            )
