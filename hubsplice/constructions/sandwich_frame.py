"""Everything in a sandwich layer that is no neuron: its norms, and the constant of its attention.

The norm after the MLP leaves nothing of the size of what the MLP gives, and takes away whatever
lies along its dominant part. So the dominant part is a constant, far larger than any edit, and it
lies where edits write next to nothing. The norm's weights then give every channel its size back.

In a narrow float the dominant part is one channel. What edits write there is lost, and what is
constant there is not: the norm's weight gives it. In float32 it is spread over more channels than
there are directions written, at right angles to all of them, and nothing is lost; attention adds
what that leaves in the stream, with the opposite sign.

Attention adds a constant a for two more reasons. With ⟨e, a⟩ = b - t a threshold t needs no
read-out of a constant, and along the directions in which the stream varies least, a makes that
read-out better. Both cost rounding, and are weighed against it, in units of each channel's grain:
what the serving precision does to it in the base as it is. An edit that is itself a constant, in a
narrow float, is what attention adds: the MLP would round it twice more.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from hubsplice.constructions.decomposition import Affine, Parts
from hubsplice.constructions.held_norms import LENGTH_CHANNELS, HeldNorms, exact_gain
from hubsplice.constructions.jump_ramps import ramp_widths
from hubsplice.constructions.ramp_width import NARROWEST_RAMP
from hubsplice.constructions.sandwich_form import SandwichForm
from hubsplice.constructions.sandwich_layer import SandwichLayer
from hubsplice.errors import UnsupportedError
from hubsplice.intervention.normalization import Normalization
from hubsplice.intervention.site import Site
from hubsplice.streams.calibration import SiteActivations


@dataclass(frozen=True)
class SandwichConstants:
    """Constants of the construction, per serving precision.

    Attributes:
        ramp_sigmas: width of a jump's ramp, in units of the noise that the serving precision
            puts on the pre-activation.
        damping: ridge strength of the read-outs.
        spread: length of what the dominant part, spread over channels, leaves in the stream, in
            standard deviations of the channels; 0 for a dominant part of one channel.
        longest: the most that what steadies the read-out of a constant may measure, in that unit.
        steadying_modes: how many directions of least variance carry it.
        replicas: the most copies of a jump's two neurons. Each rounds otherwise.
        narrowest_ramp: the least width of a ramp, in standard deviations of the pre-activation.
        sharpness: typical size of a ramp's gate; GELU is a ReLU to within 0.17 of it, SiLU to
            within 0.28.
        opening: the gate of neurons that are always open.
        dominance: the dominant part over the largest of everything else.
    """

    ramp_sigmas: float
    damping: float
    spread: float
    longest: float
    steadying_modes: int = 6
    replicas: int = 48
    narrowest_ramp: float = NARROWEST_RAMP
    sharpness: float = 4096.0
    opening: float = 64.0
    dominance: float = 1024.0


# Channels far from zero, or far wider than others, are rounded coarsely as it is, and much reads
# them; a constant on them would cost the most.
_LARGEST_MEAN, _WIDEST = 3.0, 1.5
_SPARE_CHANNELS = 16


@dataclass(frozen=True, eq=False)
class Frame:
    """A sandwich layer without its neurons.

    Attributes:
        layer: with no neurons.
        added: what attention adds to the stream, shape [d], float64.
        written: what the layer is to add after that where no edit does anything, shape [d].
        channels: those of the dominant part, shape [m].
        dominant: the dominant part on these channels, at unit length, shape [m].
        down: what a neuron writes for one unit in a channel of the stream, shape [d]; 0 where
            it would be lost.
    """

    layer: SandwichLayer
    added: Tensor
    written: Tensor
    channels: Tensor
    dominant: Tensor
    down: Tensor

    @property
    def dtype(self) -> torch.dtype:
        """The serving precision."""
        return self.layer.attention_bias.dtype

    @property
    def form(self) -> SandwichForm:
        """How the family's block differs from others."""
        return self.layer.form

    @property
    def constant_row(self) -> Tensor:
        """What a neuron of unit size writes for everything that is the same on every token."""
        return (self.written * self.down).index_copy(0, self.channels, self.dominant)

    @property
    def sink_row(self) -> Tensor:
        """What a neuron that drowns all others writes, so that the layer adds nothing."""
        taken_back = -self.added[self.channels]
        length = taken_back.norm()
        dominant = taken_back / length if length > 0 else self.dominant
        return (-self.added * self.down).index_copy(0, self.channels, dominant)


def choose_frame(
    site: Site,
    parts: Parts,
    activations: SiteActivations,
    dtype: torch.dtype,
    form: SandwichForm,
    constants: SandwichConstants,
    held: HeldNorms | None = None,
) -> Frame:
    """Choose a frame for a site's parts.

    Raises:
        UnsupportedError: the edit is too large for norms that are held.
    """
    stream = _Stream.of(site, parts, activations, dtype)
    if held is not None:
        return _held_frame(stream, parts, activations.eps, form, constants, held)
    if not (constants.spread or _affines(parts) or parts.scaled_constants):
        return _constant_frame(stream, activations.eps, form, constants)
    added = torch.zeros_like(stream.mean)
    if constants.spread:
        channels = stream.quietest(len({_key(a) for a in _affines(parts)}) + _SPARE_CHANNELS)
        added[channels] = constants.spread * stream.across(channels)
    else:
        channels = stream.energy.argmin()[None]
    rest = stream.steady.clone()
    rest[channels] = False
    if rest.any() and _affines(parts):
        added += _cheapest(stream, parts, rest, added, constants)
    build = _spread_frame if constants.spread else _steadied_frame
    return build(stream, added, channels, activations.eps, form, constants)


def _affines(parts: Parts) -> list[Affine]:
    return [*parts.jumps, *parts.ramps, *parts.linear]


def _key(affine: Affine) -> bytes:
    return affine.direction.float().numpy().tobytes()


@dataclass(frozen=True, eq=False)
class _Stream:
    """The stream at the site without its sinks, and what the edit writes there.

    Attributes:
        h, noise: the stream and what the serving precision adds to it, shape [tokens, d].
        mean, sd: of each channel, shape [d].
        grain: the standard deviation of what the serving precision adds to each, shape [d].
        precision: the inverse covariance, shape [d, d].
        steady: the channels that may carry a constant, shape [d].
        constant: what the edit writes on every token, shape [d].
        varying: the rest of what it writes, shape [tokens, d].
        dtype: the serving precision.
    """

    h: Tensor
    noise: Tensor
    mean: Tensor
    sd: Tensor
    grain: Tensor
    precision: Tensor
    steady: Tensor
    constant: Tensor
    varying: Tensor
    dtype: torch.dtype

    @staticmethod
    def of(site: Site, parts: Parts, activations: SiteActivations, dtype: torch.dtype) -> _Stream:
        ordinary = ~site.is_sink(activations.reference)
        h = activations.reference[ordinary].double()
        noise = activations.serving[ordinary].double() - h
        mean, covariance = h.mean(dim=0), torch.cov(h.T)
        variances = covariance.diagonal()
        variances.add_(1e-8 * variances.median() + 1e-30)
        sd = variances.sqrt()
        grain = (noise.var(dim=0) + (torch.finfo(dtype).eps * sd).pow(2) / 16).sqrt()
        # The noise that is there, and as much again from what the layer itself rounds.
        variances.add_(2 * grain.pow(2))
        steady = (mean.abs() < _LARGEST_MEAN * sd) & (sd < _WIDEST * sd.median())
        # The norm after attention is set through channels that attention adds nothing to.
        steady[sd.topk(max(4, len(sd) // 32)).indices] = False
        return _Stream(
            h,
            noise,
            mean,
            sd,
            grain,
            torch.linalg.inv(covariance),
            steady,
            parts.constant,
            site.delta(activations.reference[ordinary]).double() - parts.constant,
            dtype,
        )

    @property
    def rounding(self) -> float:
        """The variance of one rounding of a number of size one."""
        return (0.2 * torch.finfo(self.dtype).eps) ** 2

    @property
    def energy(self) -> Tensor:
        """The mean square of what the edit writes, over each channel's grain, squared, [d]."""
        return self.varying.pow(2).mean(dim=0) / self.grain.pow(2)

    @property
    def roundings(self) -> float:
        """How often a constant is rounded: on the way in, and where edits write, twice more."""
        return 1.0 + 2.0 * float((self.varying.norm(dim=1) > 0).double().mean())

    def quietest(self, count: int) -> Tensor:
        """The steady channels that the edit writes least to, at most half of them."""
        count = max(1, min(count, int(self.steady.sum()) // 2))
        energy = self.energy.masked_fill(~self.steady, torch.inf)
        return energy.topk(count, largest=False).indices.sort().values

    def across(self, channels: Tensor) -> Tensor:
        """A vector on channels at right angles to all that the edit writes, of whitened length 1.

        As even as that allows; shape [channels].
        """
        sd = self.sd[channels]
        everything = torch.cat([self.varying, self.constant[None]])
        written = everything[:, channels] * sd
        values, vectors = torch.linalg.eigh(written.T @ written)
        silent = 1e-12 / (values.clamp(min=0) / values.sum().clamp(min=1e-30) + 1e-12)
        even = vectors @ (silent * vectors.sum(dim=0))
        return sd * even / even.norm()


def _cheapest(
    stream: _Stream, parts: Parts, rest: Tensor, added: Tensor, constants: SandwichConstants
) -> Tensor:
    """A constant [d] that steadies the read-out of a constant and carries thresholds.

    A relative error ε of the read-out costs ε² of what is edited, and of thresholds that are left
    to it. A constant of q grains costs q² times the variance of a rounding.

    Args:
        stream: the stream.
        parts: what is to be compiled.
        rest: which channels may carry it, shape [d].
        added: what is added already, shape [d].
        constants: of the construction.
    """
    unit, slope = _steadiest(stream, rest, constants)
    natural = float(stream.mean @ stream.precision @ stream.mean)
    thresholds = _Thresholds.of(stream, parts, constants)
    cost = stream.rounding * stream.roundings
    best, best_cost = torch.zeros_like(added), math.inf
    longest = constants.longest / float((stream.grain * unit / stream.sd).norm())
    for length in (0.0, *(longest * 2.0 ** (-i / 2) for i in range(24))):
        error = 1.0 / (natural + slope * length**2)
        steadying = length * stream.grain * unit
        solved, left = thresholds.solved(stream, rest, added + steadying, cost / error)
        total = steadying + solved
        price = cost * float((total / stream.grain).pow(2).sum())
        price += error * (float(stream.energy.sum()) + left)
        if price < best_cost:
            best, best_cost = total, price
    return best


def _steadiest(stream: _Stream, rest: Tensor, constants: SandwichConstants) -> tuple[Tensor, float]:
    """A vector [d] of one grain along which little varies, and how much it tells of a constant."""
    grain = stream.grain[rest]
    precision = stream.precision[rest][:, rest] * grain * grain[:, None]
    # With channels in grains, the directions of least variance given everything else.
    modes = torch.linalg.eigh(precision).eigenvectors[:, -constants.steadying_modes :]
    pull = modes.T @ (grain * (stream.precision @ stream.mean)[rest])
    unit = modes @ torch.where(pull < 0, -1.0, 1.0).double()
    unit /= unit.norm()
    return torch.zeros_like(stream.mean).masked_scatter(rest, unit), float(unit @ precision @ unit)


@dataclass(frozen=True, eq=False)
class _Thresholds:
    """What attention's constant would have to give each encoder, and how much that matters.

    Attributes:
        encoders: shape [n, d].
        wanted: shape [n].
        weight: what a unit of squared error costs, shape [n].
    """

    encoders: Tensor
    wanted: Tensor
    weight: Tensor

    @staticmethod
    def of(stream: _Stream, parts: Parts, constants: SandwichConstants) -> _Thresholds:
        affines = _affines(parts)
        encoders = torch.stack([a.encoder for a in affines])
        plain = torch.tensor([a.normalization is Normalization.NONE for a in affines])
        wanted = torch.tensor([a.offset for a in affines]).double() * plain
        values = stream.h @ encoders.T + wanted
        width = ramp_widths(values, stream.noise @ encoders.T, constants, stream.dtype)
        jumps, ramps = len(parts.jumps), len(parts.ramps)
        # Where an error is seen: on a ramp's way up, above a bend, and on a line everywhere.
        seen = torch.ones(len(affines)).double()
        seen[:jumps] = ((values.abs() < width / 2).double().mean(dim=0) / width.pow(2))[:jumps]
        seen[jumps : jumps + ramps] = (values > 0).double().mean(dim=0)[jumps : jumps + ramps]
        size = torch.stack([(a.direction / stream.grain).pow(2).sum() for a in affines])
        weight = seen * size
        counts = weight > 1e-12 * weight.max()
        return _Thresholds(encoders[counts], wanted[counts], weight[counts])

    def solved(
        self, stream: _Stream, rest: Tensor, added: Tensor, damping: float
    ) -> tuple[Tensor, float]:
        """A constant [d] that carries the thresholds beside what is added, and the error left."""
        result = torch.zeros_like(added)
        if not len(self.wanted):
            return result, 0.0
        rows = self.encoders[:, rest] * stream.grain[rest]
        missing = self.wanted - self.encoders @ added
        gram = rows @ rows.T
        gram.diagonal().add_(damping / self.weight)
        grains = rows.T @ torch.linalg.solve(gram, missing)
        result[rest] = stream.grain[rest] * grains
        return result, float((self.weight * (missing - rows @ grains).pow(2)).sum())


def _spread_frame(
    stream: _Stream,
    added: Tensor,
    channels: Tensor,
    eps: float,
    form: SandwichForm,
    constants: SandwichConstants,
) -> Frame:
    root, dtype = math.sqrt(len(added)), torch.float32
    # What is added on the channels is taken back at the length that the norm's weight gives.
    length = float((stream.constant - added)[channels].norm())
    gain = float(form.gain(form.weight(torch.tensor(length / root).double()).to(dtype)))
    for _ in range(4):
        added[channels] *= gain * root / float((stream.constant - added)[channels].norm())
    gains = _gains(stream, added, constants, 1.0)
    gains[channels] = gain
    output_norm = form.weight(gains).to(dtype)
    layer = _with_attention(added, output_norm, eps, form)
    added = layer.attention_constant(eps).double()
    written = stream.constant - added
    dominant = written[channels] / written[channels].norm()
    return Frame(layer, added, written, channels, dominant, _down(form.gain(output_norm)))


def _steadied_frame(
    stream: _Stream,
    added: Tensor,
    channels: Tensor,
    eps: float,
    form: SandwichForm,
    constants: SandwichConstants,
) -> Frame:
    output_norm = _single_channel_norm(stream, added, channels, form, constants)
    carried = _carried(stream, added, form.gain(output_norm))
    carried[channels] = 0.0
    return _single_channel_frame(output_norm, stream, carried, channels, eps, form)


def _carried(stream: _Stream, added: Tensor, gains: Tensor) -> Tensor:
    """What attention is to carry of what it would add [d], as the norm takes it back exactly.

    A power of two times the dominant part is rounded as that is, and the norm takes their common
    rounding away: what attention added is taken back to the last bit.
    """
    constant = stream.constant
    unit = gains * math.sqrt(len(added))
    nearest = torch.exp2(((constant - added) / unit).abs().clamp(min=1e-300).log2().round())
    exact = (constant - added).sign() * unit * nearest
    carries = (added.abs() > constant.abs()) & (added.abs() > 1e-3 * stream.sd)
    return torch.where(carries, constant - exact, 0.0)


def _held_frame(
    stream: _Stream,
    parts: Parts,
    eps: float,
    form: SandwichForm,
    constants: SandwichConstants,
    held: HeldNorms,
) -> Frame:
    """A frame of norms that are there already.

    What edits write on one channel is lost, but for what is constant: attention adds that.
    """
    silent = torch.tensor(held.silent)
    channels, lengths = silent[:1], silent[1:]
    output_norm = held.output.to(stream.dtype)
    gains = form.gain(output_norm)
    added = torch.zeros_like(stream.constant)
    rest = stream.steady.index_fill(0, silent, value=False)
    varies = bool(_affines(parts) or parts.scaled_constants)
    if rest.any() and _affines(parts):
        added = _cheapest(stream, parts, rest, added, constants)
    if float(_gains(stream, added, constants, 1.0)[0]) > float(gains.max()):
        raise UnsupportedError(
            "an edit is so large that the norms of the carrier's empty layer can't write it; build "
            "a merged checkpoint"
        )
    carried = _carried(stream, added, gains) if varies else stream.constant.clone()
    carried[channels], carried[lengths] = stream.constant[channels], 0.0
    layer = _with_attention(carried, output_norm, eps, form, held)
    added = layer.attention_constant(eps).double()
    down = _down(gains).index_fill(0, channels, 0.0)
    dominant = torch.ones(1, dtype=torch.float64)
    return Frame(layer, added, stream.constant - added, channels, dominant, down)


def _constant_frame(
    stream: _Stream, eps: float, form: SandwichForm, constants: SandwichConstants
) -> Frame:
    """Attention adds an edit that is a constant, but on the channels that hear it least."""
    constant = stream.constant
    least = (constant.abs() / stream.grain).topk(LENGTH_CHANNELS + 1, largest=False).indices
    channels = least[:1]
    nothing = torch.zeros_like(constant)
    output_norm = _single_channel_norm(stream, nothing, channels, form, constants)
    carried = constant.index_fill(0, least, 0.0)
    return _single_channel_frame(output_norm, stream, carried, channels, eps, form)


def _single_channel_norm(
    stream: _Stream,
    added: Tensor,
    channels: Tensor,
    form: SandwichForm,
    constants: SandwichConstants,
) -> Tensor:
    """The weight of the norm after the MLP, [d], which gives the dominant channel's constant."""
    root, dtype = math.sqrt(len(added)), torch.bfloat16
    gains = _gains(stream, added, constants, exact_gain(root, dtype))
    gains[channels] = stream.constant[channels].abs() / root
    return form.weight(gains).to(dtype)


def _single_channel_frame(
    output_norm: Tensor,
    stream: _Stream,
    carried: Tensor,
    channels: Tensor,
    eps: float,
    form: SandwichForm,
) -> Frame:
    """A frame with a dominant part of one channel, whose attention adds what is carried, [d]."""
    layer = _with_attention(carried, output_norm, eps, form)
    added = layer.attention_constant(eps).double()
    dominant = torch.where(stream.constant[channels] < 0, -1.0, 1.0).double()
    down = _down(form.gain(output_norm)).index_fill(0, channels, 0.0)
    return Frame(layer, added, stream.constant - added, channels, dominant, down)


def _gains(stream: _Stream, added: Tensor, constants: SandwichConstants, mantissa: float) -> Tensor:
    """What a norm is to multiply by, [d], so that all is small beside a dominant part of one."""
    reach = float((stream.constant - added).norm() + stream.varying.norm(dim=1).max())
    smallest = constants.dominance * max(reach, 1e-30) / math.sqrt(len(added))
    return torch.full_like(added, mantissa * 2.0 ** math.ceil(math.log2(smallest)))


def _down(gains: Tensor) -> Tensor:
    return torch.where(gains == 0, 0.0, 1.0 / (gains * math.sqrt(len(gains))))


def _with_attention(
    added: Tensor,
    output_norm: Tensor,
    eps: float,
    form: SandwichForm,
    held: HeldNorms | None = None,
) -> SandwichLayer:
    """A layer whose attention adds a vector [d], as closely as its dtype allows.

    The norm after attention fixes the length of what attention adds. Channels that its weight
    silences make up for what the others lack of that length, so that these are exact.
    """
    dtype, d = output_norm.dtype, len(added)
    layer = replace(SandwichLayer.empty(d, dtype, form), output_norm=output_norm)
    if held is not None:
        layer = replace(layer, attention_norm=held.attention.to(dtype))
    carries = added != 0
    if not carries.any():
        return layer
    if held is None:
        scale = 2.0 ** math.ceil(math.log2(float(added.norm()) / math.sqrt(d)) + 1e-3)
        weight = form.weight(torch.where(carries, scale, 0.0).double()).to(dtype)
        lengths = (~carries).nonzero()[:LENGTH_CHANNELS, 0].tolist()
    else:
        scale, weight, lengths = held.scale, layer.attention_norm, list(held.silent[1:])
    bias = (added / scale).to(dtype)
    gain = float(form.gain(weight)[carries][0])
    left = d * ((gain / scale) ** 2 - eps) - float(bias.double().pow(2).sum())
    for channel in lengths:
        if left <= 0:
            break
        value = torch.tensor(math.sqrt(left), dtype=dtype)
        if float(value) ** 2 > left:
            value = torch.nextafter(value, torch.zeros_like(value))
        bias[channel] = value
        left -= float(value) ** 2
    return replace(layer, attention_bias=bias, attention_norm=weight)
