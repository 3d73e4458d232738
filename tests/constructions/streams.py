"""A synthetic residual stream, features of it, and edits written out by hand."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from hubsplice.intervention.normalization import Normalization
from hubsplice.intervention.piecewise_linear import PiecewiseLinear
from hubsplice.intervention.site import Site, Term
from hubsplice.streams.calibration import SiteActivations

D = 64
EPS = 1e-5
SINKS = 6

# A served stream carries the rounding of every layer before it, not only its own: on a 135M
# model at bfloat16, about this much of a channel's standard deviation.
SERVING_NOISE = 0.02


def stream(seed: int, tokens: int = 4000) -> Tensor:
    """Correlated Gaussian tokens around a mean, the first few of them sinks, shape [tokens, D]."""
    fixed = torch.Generator().manual_seed(99)
    decay = 0.85 ** (torch.arange(D, dtype=torch.float64) / 2) + 0.1
    mix = torch.randn(D, D, generator=fixed, dtype=torch.float64) * decay
    mean = torch.randn(D, generator=fixed, dtype=torch.float64)
    towards = torch.randn(D, generator=fixed, dtype=torch.float64)
    generator = torch.Generator().manual_seed(seed)
    h = torch.randn(tokens, D, generator=generator, dtype=torch.float64) @ mix.T + mean
    size = 100 * h.norm(dim=1).median()
    jitter = 1e-3 * torch.randn(SINKS, D, generator=generator, dtype=torch.float64) / math.sqrt(D)
    h[:SINKS] = size * (towards / towards.norm() + jitter)
    return h.float()


def served(h: Tensor, dtype: torch.dtype, seed: int) -> Tensor:
    """The stream as a model at a precision has it."""
    if dtype is torch.float32:
        return h
    generator = torch.Generator().manual_seed(seed)
    noise = SERVING_NOISE * h[SINKS:].std(dim=0) * torch.randn(h.shape, generator=generator)
    return (h + noise).to(dtype)


def calibration(dtype: torch.dtype) -> SiteActivations:
    h = stream(1)
    return SiteActivations(h, served(h, dtype, 11), float(h.norm(dim=1).median()), EPS)


@dataclass(frozen=True, eq=False)
class HandEdit:
    """An edit kind on a feature whose pre-activation has standard deviation s.

    Attributes:
        function: φ for a given s, as the compiler gets it.
        formula: the same φ(p, s), written out.
        thresholds: where it jumps, in units of s.
    """

    function: Callable[[float], PiecewiseLinear]
    formula: Callable[[Tensor, float], Tensor]
    thresholds: tuple[float, ...] = ()


def _relu(p: Tensor) -> Tensor:
    return p * (p > 0)


def _jump(p: Tensor, s: float) -> Tensor:
    return p * (p > 0.3 * s)


def _either(p: Tensor, s: float) -> Tensor:
    return (p > 0.5 * s) | (p <= -2 * s)


P = PiecewiseLinear

EDITS: dict[str, HandEdit] = {
    "relu ablate": HandEdit(lambda s: P((0.0,), (0.0, -1.0), (0.0, 0.0)), lambda p, s: -_relu(p)),
    "relu scale by 4": HandEdit(
        lambda s: P((0.0,), (0.0, 3.0), (0.0, 0.0)), lambda p, s: 4 * _relu(p) - _relu(p)
    ),
    "relu cap": HandEdit(
        lambda s: P((0.4 * s,), (0.0, -1.0), (0.0, 0.4 * s)),
        lambda p, s: _relu(p).clamp(max=0.4 * s) - _relu(p),
    ),
    "relu floor": HandEdit(
        lambda s: P((0.0, 0.4 * s), (0.0, -1.0, 0.0), (0.4 * s, 0.4 * s, 0.0)),
        lambda p, s: _relu(p).clamp(min=0.4 * s) - _relu(p),
    ),
    "relu clamp": HandEdit(lambda s: P((0.0,), (0.0, -1.0), (s, s)), lambda p, s: s - _relu(p)),
    "relu clamp where active": HandEdit(
        lambda s: P((0.0,), (0.0, -1.0), (0.0, s)), lambda p, s: (s - p) * (p > 0), (0.0,)
    ),
    "jump ablate": HandEdit(
        lambda s: P((0.3 * s,), (0.0, -1.0), (0.0, 0.0)), lambda p, s: -_jump(p, s), (0.3,)
    ),
    "jump scale by 4": HandEdit(
        lambda s: P((0.3 * s,), (0.0, 3.0), (0.0, 0.0)), lambda p, s: 3 * _jump(p, s), (0.3,)
    ),
    "jump cap": HandEdit(
        lambda s: P((0.3 * s,), (0.0, -1.0), (0.0, 0.1 * s)),
        lambda p, s: _jump(p, s).clamp(max=0.1 * s) - _jump(p, s),
        (0.3,),
    ),
    "jump floor": HandEdit(
        lambda s: P((0.3 * s, 0.8 * s), (0.0, -1.0, 0.0), (0.8 * s, 0.8 * s, 0.0)),
        lambda p, s: _jump(p, s).clamp(min=0.8 * s) - _jump(p, s),
        (0.3,),
    ),
    "jump clamp": HandEdit(
        lambda s: P((0.3 * s,), (0.0, -1.0), (s, s)), lambda p, s: s - _jump(p, s), (0.3,)
    ),
    "jump clamp where active": HandEdit(
        lambda s: P((0.3 * s,), (0.0, -1.0), (0.0, s)),
        lambda p, s: (s - p) * (p > 0.3 * s),
        (0.3,),
    ),
    "gated steer": HandEdit(
        lambda s: P((0.3 * s,), (0.0, 0.0), (0.0, 2 * s)),
        lambda p, s: 2 * s * (p > 0.3 * s),
        (0.3,),
    ),
    "steer": HandEdit(lambda s: P((), (0.0,), (2 * s,)), lambda p, s: torch.full_like(p, 2 * s)),
    "project out": HandEdit(lambda s: P((), (-1.0,), (0.0,)), lambda p, s: -p),
    "gated SAE ablate": HandEdit(
        lambda s: P((0.2 * s,), (0.0, -1.0), (0.0, -0.1 * s)),
        lambda p, s: -(p + 0.1 * s) * (p > 0.2 * s),
        (0.2,),
    ),
    "two-sided ablate": HandEdit(
        lambda s: P((-2 * s, 0.5 * s), (-1.0, 0.0, -1.0), (0.0, 0.0, 0.0)),
        lambda p, s: -p * _either(p, s),
        (-2.0, 0.5),
    ),
    "two-sided clamp where active": HandEdit(
        lambda s: P((-2 * s, 0.5 * s), (-1.0, 0.0, -1.0), (s, 0.0, s)),
        lambda p, s: (s - p) * _either(p, s),
        (-2.0, 0.5),
    ),
}


@dataclass(frozen=True, eq=False)
class HandSite:
    """A site, and its edit in float64 from nothing but the formulas."""

    edit: HandEdit
    encoders: Tensor
    biases: Tensor
    deviations: tuple[float, ...]
    directions: Tensor
    normalization: Normalization
    sink_norm: float

    @property
    def site(self) -> Site:
        return Site(
            0,
            tuple(
                Term(f"feature {i}", e, float(b), self.edit.function(s), d, self.normalization)
                for i, (e, b, s, d) in enumerate(
                    zip(self.encoders, self.biases, self.deviations, self.directions, strict=True)
                )
            ),
            self.sink_norm,
        )

    def is_ordinary(self, h: Tensor) -> Tensor:
        return h.double().norm(dim=1) <= self.sink_norm

    def projections(self, h: Tensor) -> Tensor:
        return normalised(h, self.normalization)[0] @ self.encoders.double().T + self.biases

    def delta(self, h: Tensor) -> Tensor:
        scale = normalised(h, self.normalization)[1]
        values = torch.stack(
            [
                self.edit.formula(p, s).double()
                for p, s in zip(self.projections(h).T, self.deviations, strict=True)
            ],
            dim=1,
        )
        delta = scale * (values @ self.directions.double())
        return delta * self.is_ordinary(h)[:, None]

    def distance(self, h: Tensor) -> Tensor:
        """How far p is from the nearest jump, in standard deviations, the least of all terms."""
        if not self.edit.thresholds:
            return torch.full((len(h),), torch.inf, dtype=torch.float64)
        p = self.projections(h) / torch.tensor(self.deviations).double()
        jumps = torch.tensor(self.edit.thresholds).double()
        return (p[..., None] - jumps).abs().flatten(start_dim=1).min(dim=1).values

    def wrong_deltas(self, h: Tensor) -> dict[str, Tensor]:
        """What layers add that are wrong in one way each, and lose nothing beside."""
        delta = self.delta(h)
        found = {"silenced": 0 * delta, "half as strong": delta / 2, "turned round": -delta}
        if self.edit is not EDITS["steer"]:  # It reads no p.
            deviations = torch.tensor(self.deviations).double()
            late = replace(self, biases=self.biases - deviations)
            found["a deviation of p too late"] = late.delta(h)
        return found


# What a layer in bfloat16 may lose beyond what the hook loses, as a share of the edit's mean
# square. Right layers lose up to 0.0068, and those without MLP biases, which have fewer kinds of
# edits to make, up to 0.040 (three seeds of stream and features). Wrong ones lose from 0.025 and
# 0.23 on (11 seeds). Another instruction set changes a right layer's error by 0.3% at most.
SHARE = 0.013
SHARE_WITHOUT_BIASES = 0.1


def share_lost(hand: HandSite, h: Tensor, out: Tensor, seen: Tensor) -> float:
    """The part of an edit that `out` lacks, beyond what the hook in bfloat16 lacks.

    Args:
        hand: the edit.
        h: the exact stream that goes in, shape [tokens, D].
        out: the stream that comes out of a layer in bfloat16.
        seen: the stream that went into it.
    """
    ordinary, delta = hand.is_ordinary(h), hand.delta(h)
    hook = (seen.double() + hand.delta(seen)).to(torch.bfloat16)
    error, floor = (
        (x.double() - h.double() - delta)[ordinary].square().mean() for x in (out, hook)
    )
    return float((error - floor) / delta[ordinary].square().mean())


def normalised(h: Tensor, kind: Normalization) -> tuple[Tensor, Tensor]:
    h = h.double()
    if kind is Normalization.CONSTANT_NORM_RESCALE:
        scale = h.square().sum(dim=1, keepdim=True).sqrt() / math.sqrt(D)
        return h / scale, scale
    if kind is Normalization.LAYER_NORM:
        centred = h - h.sum(dim=1, keepdim=True) / D
        scale = (centred.square().sum(dim=1, keepdim=True) / (D - 1)).sqrt()
        return centred / (scale + 1e-5), scale
    return h, torch.ones(len(h), 1, dtype=torch.float64)


def hand_site(
    edit: HandEdit,
    *,
    features: int = 6,
    active: float = 0.1,
    normalization: Normalization = Normalization.NONE,
    seed: int = 5,
) -> HandSite:
    """Random features whose pre-activation is above zero on a share `active` of the tokens."""
    h = stream(1)
    generator = torch.Generator().manual_seed(seed)
    encoders = torch.nn.functional.normalize(torch.randn(features, D, generator=generator), dim=1)
    directions = torch.nn.functional.normalize(torch.randn(features, D, generator=generator), dim=1)
    products = normalised(h[SINKS:], normalization)[0] @ encoders.double().T
    # Biases that float32 holds exactly, so that both sides have the same.
    biases = -products.quantile(1 - active, dim=0).float().double()
    return HandSite(
        edit,
        encoders,
        biases,
        tuple(products.std(dim=0).tolist()),
        directions,
        normalization,
        5 * float(h.norm(dim=1).median()),
    )
