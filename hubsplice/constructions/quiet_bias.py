"""The attention bias that costs least: what it rounds away, against what it tells.

Whatever the bias adds to a channel rounds that channel of every token, acted on or not. It buys two
things: a threshold that need not be read out of the normalised stream, and a scale r that can be
told from it. A rare feature needs little of either, and many strong ones need all they can get. So
the bias is put together channel by channel, from values with few bits, as long as it saves more
than it costs. Both are in units of what the precision does anyway. Some channels cost nothing: a
sum that is no larger than the channel's own value, and a multiple of its spacing, is exact.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from hubsplice.constructions.decomposition import Affine, Parts
from hubsplice.intervention.normalization import Normalization
from hubsplice.intervention.site import Site
from hubsplice.streams.calibration import SiteActivations

# The weight of a change where nothing should change, beside an error where the edit acts: 3% of
# the precision's noise weighs as much as a quarter of the hook's own squared error.
_ELSEWHERE = 300.0
# Tokens at which a rare feature is active are unlike others: a scale is told half as well there.
_UNLIKE = 4.0
# On how many tokens the rounding of a channel is counted, and from how many acted ones on they
# say what an edit is like.
_COUNTED, _TELLING = 512, 16
_STEPS = 96
# Values of three significant bits, in units of the stream's norm; the search begins with so many
# of the powers at least.
_POWERS = 2.0 ** torch.arange(-10, 2, dtype=torch.float64)
_MANTISSAS = torch.tensor([1.0, 1.25, 1.5, 1.75], dtype=torch.float64)
_LEAST_POWERS = 6
_LEAST_GAIN = 1e-3


@dataclass(frozen=True, eq=False)
class BiasCost:
    """What a bias costs at a site.

    Attributes:
        acted: calibration tokens at the serving precision, [some, d], at which the edit acts, or
            any if it acts on too few.
        change: what the edit makes of them, same shape.
        others: tokens that the edit leaves alone, [some, d]; empty if it leaves few.
        hook: the squared error of the hook's change at an acted token.
        noise: the squared noise that the precision has put into a token.
        elsewhere: the weight of changes on the others.
        mean: of the exact stream, [d].
        precision: the inverse of the covariance of what can be read of it, [d, d].
        scaled: the squared size of what is written in proportion to r, at an acted token.
        encoders: one unit row for each direction that has a threshold, [m, d].
        thresholds: what the bias should give along each, [m].
        weights: the squared error for a unit of what is left of each threshold, [m], in units of
            the hook's.
    """

    acted: Tensor
    change: Tensor
    others: Tensor
    hook: float
    noise: float
    elsewhere: float
    mean: Tensor
    precision: Tensor
    scaled: float
    encoders: Tensor
    thresholds: Tensor
    weights: Tensor

    @staticmethod
    def of(site: Site, parts: Parts, activations: SiteActivations) -> BiasCost:
        """The cost of biases for a site's parts; it has terms."""
        ordinary = ~site.is_sink(activations.reference)
        reference, serving = activations.reference[ordinary], activations.serving[ordinary]
        delta = site.delta(reference)
        acts = delta.norm(dim=-1) > 0
        telling = int(acts.sum()) >= _TELLING
        exact, before, change = (x[acts] if telling else x for x in (reference, serving, delta))
        made = site.edit(before).float() - before.float()
        hook = (made - change).double().square().sum(dim=-1).mean().clamp(min=1e-30)
        # A change that is zero, or small, is as good as not rounded at all.
        spacing = _spacing(_some(serving)).square().mean(dim=0)
        hook = hook.clamp(min=float(spacing.sum()) / 12)
        noise = (serving.float() - reference).square().sum(dim=-1).double().mean()
        double = reference.double()
        covariance = torch.cov(serving.double().T)
        # What is read is rounded once more, and the rows that read it are as well.
        covariance.diagonal().add_(spacing / 6)
        covariance.diagonal().add_(1e-6 * covariance.diagonal().mean())
        rows, wanted, weights = _thresholds(parts, double, serving.double(), float(hook))
        return BiasCost(
            _some(before),
            _some(change),
            _some(serving[~acts]),
            float(hook),
            float(noise.clamp(min=1e-30)),
            _ELSEWHERE * float((~acts).double().mean()),
            double.mean(dim=0),
            torch.linalg.inv(covariance),
            _in_proportion([*parts.ramps, *parts.linear], exact.double(), telling=telling),
            rows,
            wanted,
            weights,
        )

    def rounding(self, values: Tensor) -> Tensor:
        """What a value on each channel costs by rounding, [d] for values [d] or [1]."""
        dtype = self.acted.dtype
        values = values.to(dtype)
        held = self.acted + values
        written = (self.change - values.float()).to(dtype)
        truth = self.acted.float() + self.change
        error = ((held + written).float() - truth).double().square()
        error -= (truth.to(dtype).float() - truth).double().square()
        cost = error.mean(dim=0) / self.hook
        if len(self.others):
            moved = ((self.others + values) - values).float() - self.others.float()
            cost += self.elsewhere * moved.double().square().mean(dim=0) / self.noise
        return cost

    def untold(self, told: Tensor) -> Tensor:
        """The squared relative error of a scale that is told as well as `told` says.

        It is of a constant c that is read out of the stream, with c = mean + bias and told =
        c·precision·c.
        """
        return _UNLIKE / (1.0 + told.clamp(min=0.0))

    def total(self, bias: Tensor) -> float:
        """What a bias [d] costs."""
        constant = self.mean + bias
        told = constant @ self.precision @ constant
        left = self.thresholds - self.encoders @ bias
        missing = self.scaled / self.hook + (self.weights * left.square()).sum()
        return float(self.untold(told) * missing + self.rounding(bias)[bias != 0].sum())


def cheaper_bias(
    site: Site, parts: Parts, activations: SiteActivations, strong: Tensor
) -> tuple[Tensor, str]:
    """The cheaper of a given bias [d] and the quiet one, and which it is, for the manifest."""
    cost = BiasCost.of(site, parts, activations)
    quiet = quiet_bias(cost)
    if cost.total(quiet) < cost.total(strong):
        return quiet, "quiet"
    return strong, "strong"


def quiet_bias(cost: BiasCost) -> Tensor:
    """A bias [d] that costs little, found channel by channel.

    The search begins anew for several bounds on what one channel may hold: many small values may
    be better than the large one that seems best at first.
    """
    longest = float(cost.acted.float().norm(dim=-1).median())
    unit = 2.0 ** math.floor(math.log2(max(longest, 1e-30)))
    sizes = (_POWERS[:, None] * _MANTISSAS).flatten() * unit
    values = torch.cat([torch.zeros(1).double(), torch.stack([sizes, -sizes], dim=1).flatten()])
    table = torch.stack([cost.rounding(v.expand(len(cost.mean))) for v in values], dim=1)
    table[:, 0] = 0.0
    per_power = 2 * len(_MANTISSAS)
    found = [
        _search(cost, values[: 1 + per_power * power], table)
        for power in range(_LEAST_POWERS, len(_POWERS) + 1)
    ]
    return min(found, key=cost.total)


def _search(cost: BiasCost, values: Tensor, table: Tensor) -> Tensor:
    """The best bias [d] of some values [n], the first zero, by what each costs a channel [d, n]."""
    table = table[:, : len(values)]
    chosen = torch.zeros(len(cost.mean), dtype=torch.int64)
    bias = torch.zeros_like(cost.mean)
    squares = cost.weights @ cost.encoders.square()
    towards = cost.precision @ cost.mean
    told = cost.mean @ towards
    left = cost.thresholds.clone()
    spent, total = 0.0, cost.total(bias)
    for _ in range(_STEPS):
        steps = values - bias[:, None]
        slopes = cost.encoders.T @ (cost.weights * left)
        missing = (cost.weights * left.square()).sum() + cost.scaled / cost.hook
        missing = missing - 2 * steps * slopes[:, None] + steps.square() * squares[:, None]
        scales = told + 2 * steps * towards[:, None]
        scales = scales + steps.square() * cost.precision.diagonal()[:, None]
        rounding = spent + table - table.gather(1, chosen[:, None])
        totals = cost.untold(scales) * missing + rounding
        channel, value = divmod(int(totals.argmin()), len(values))
        if not float(totals[channel, value]) < (1 - _LEAST_GAIN) * total:
            break
        total, spent = float(totals[channel, value]), float(rounding[channel, value])
        step, told = steps[channel, value], scales[channel, value]
        bias[channel], chosen[channel] = values[value], value
        left = left - step * cost.encoders[:, channel]
        towards = towards + step * cost.precision[:, channel]
    return bias


def _spacing(x: Tensor) -> Tensor:
    """How far apart floats of the size of x are, in its dtype; float64."""
    info = torch.finfo(x.dtype)
    return torch.exp2(x.double().abs().clamp(min=info.tiny).log2().floor()) * info.eps


def _some(x: Tensor) -> Tensor:
    """At most `_COUNTED` of the rows of x, evenly spread."""
    return x[:: max(1, -(-len(x) // _COUNTED))]


def _in_proportion(affines: Sequence[Affine], h: Tensor, *, telling: bool) -> float:
    """The mean square of what ramps and lines write, at tokens h [some, d]."""
    affines = [a for a in affines if a.normalization is Normalization.NONE]
    if not affines:
        return 0.0
    encoders = torch.stack([a.encoder for a in affines], dim=1)
    values = h @ encoders + torch.tensor([a.offset + a.mean_constant for a in affines]).double()
    sizes = torch.stack([a.direction for a in affines]).norm(dim=-1)
    # Where no token tells: as far beyond the bend as tokens lie in front of it, on average.
    far = (values.mean(dim=0).abs() + values.std(dim=0))[None]
    values = values.clamp(min=0) if telling else far
    return float((values * sizes).square().sum(dim=-1).mean())


def _thresholds(
    parts: Parts, reference: Tensor, serving: Tensor, hook: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Unit rows [m, d], what a bias should give along each, and what a unit missing costs."""
    found: dict[bytes, tuple[Tensor, float, float]] = {}
    for affine in (*parts.jumps, *parts.ramps, *parts.linear):
        encoder, offset = affine.threshold
        key = encoder.float().numpy().tobytes()
        weight = float(affine.encoder.norm() * affine.direction.norm()) ** 2 / hook
        if any(affine is jump for jump in parts.jumps):
            # A gate that is off by what noise puts it off anyway costs as much as the hook's.
            noise = ((serving - reference) @ encoder).square().mean()
            weight = float(1.0 / noise.clamp(min=1e-30))
        before = found.get(key, (encoder, offset, 0.0))
        found[key] = (before[0], before[1], before[2] + weight)
    if not found:
        nothing = torch.zeros(0, dtype=torch.float64)
        return nothing.expand(0)[:, None].expand(0, reference.shape[1]), nothing, nothing
    return (
        torch.stack([encoder for encoder, _, _ in found.values()]),
        torch.tensor([offset for _, offset, _ in found.values()]).double(),
        torch.tensor([weight for _, _, weight in found.values()]).double(),
    )
