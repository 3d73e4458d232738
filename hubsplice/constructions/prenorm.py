"""The construction for pre-norm blocks whose linear layers may carry biases.

The MLP reads x = h'/r with h' = h + a and r = rms(h'): the norm has removed the scale that
thresholds and outputs need. The attention bias a is chosen so that ⟨e, a⟩ = b - t for the
threshold t of every term: then the sign of ⟨e, x⟩ is the sign of p - t, whatever r is. The `up`
projection of a ramp is a linear read-out of r, which gives the scale back; a jump's height is a
constant and needs no scale. What a adds to the stream, `down_bias` takes away.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields, replace

import torch
from torch import Tensor
from torch.nn import functional

from hubsplice.constructions.bias_grid import on_grid
from hubsplice.constructions.decomposition import Affine, Parts, decompose
from hubsplice.constructions.injection import threshold_bias
from hubsplice.constructions.jump_ramps import JumpGates
from hubsplice.constructions.prenorm_layer import SplicedLayer
from hubsplice.constructions.readout import RidgeFitter
from hubsplice.constructions.site_view import SiteView
from hubsplice.intervention.normalization import Normalization
from hubsplice.intervention.site import Site
from hubsplice.streams.calibration import SiteActivations


@dataclass(frozen=True)
class PreNormConstants:
    """Constants of the construction, per serving precision.

    Attributes:
        injection: the most that the constant on one channel measures, in units of the median
            residual norm. It steadies r.
        channels: how many channels carry it.
        longest_bias: the most that the rest of the attention bias may measure, in that unit.
        sharpness: factor on a ramp's gate; SiLU is a ReLU to within 0.28/sharpness of it.
        ramp_sigmas: width of a jump's ramp, in units of the noise that the serving precision
            puts on the pre-activation, in the stream and inside the layer.
        narrowest_ramp: the least such width, in standard deviations of the pre-activation.
        saturation: half the distance between a jump's two gates; a power of two, so that the
            rounding of the two gates cancels.
        damping: ridge strength of the read-outs.
        guard_modes: how many directions of what is written at sinks are followed from sink to
            sink, beside its mean.
    """

    injection: float
    channels: int
    longest_bias: float
    ramp_sigmas: float
    narrowest_ramp: float = 1e-3
    sharpness: float = 8192.0
    saturation: float = 32.0
    damping: float = 1e-6
    guard_modes: int = 3


CONSTANTS = {
    torch.bfloat16: PreNormConstants(injection=1.2, channels=4, longest_bias=0.5, ramp_sigmas=3.0),
    torch.float32: PreNormConstants(
        injection=16.0, channels=1, longest_bias=32.0, ramp_sigmas=0.0, damping=1e-9
    ),
}


def compile_prenorm(
    site: Site,
    activations: SiteActivations,
    dtype: torch.dtype,
    constants: PreNormConstants | None = None,
    *,
    multiplier: float = 1.0,
) -> SplicedLayer:
    """Compile a site's terms into one inserted layer.

    Args:
        site: what to compile; its `sink_norm` says which tokens must stay untouched.
        activations: calibration at this site, of tokens at which the two precisions agree.
        dtype: the serving precision, which the tensors are rounded to.
        constants: overrides `CONSTANTS[dtype]`.
        multiplier: of what a block adds to the stream, in families that have one.
    """
    constants = constants or CONSTANTS[dtype]
    empty = replace(
        SplicedLayer.empty(activations.reference.shape[1], dtype), multiplier=multiplier
    )
    if not site.terms:
        return empty
    parts = decompose(site, activations)
    bias = threshold_bias(site, parts, activations, constants)
    frame = empty.with_attention_bias((bias / multiplier).to(dtype))
    view = view_through(frame, site, activations, constants)
    wanted = parts.constant - frame.constant.double()
    # In these terms what attention adds is taken away exactly, whatever the factor rounds it to.
    taken = parts.constant / multiplier - frame.attention_bias.double()
    frame = replace(frame, down_bias=taken.to(dtype))
    blocks = [
        *edit_blocks(parts, view, constants),
        constant_remainder(wanted, (frame.down_bias * multiplier).double(), constants.saturation),
    ]
    if view.has_sinks:
        blocks.append(sink_guard(assembled(blocks, frame), view, constants))
    layer = assembled(blocks, frame)
    return replace(
        layer,
        constants=asdict(constants) | {"construction": "prenorm-bias", "neurons": layer.neurons},
        jump_gates=jump_gates(parts),
    )


def view_through(
    frame: SplicedLayer,
    site: Site,
    activations: SiteActivations,
    constants: PreNormConstants,
    *,
    intercept: bool = True,
) -> SiteView:
    """Calibration as the MLP of a layer sees it that adds the constant of `frame`."""
    shifted = activations.reference.double() + frame.constant.double()
    return SiteView.of(
        site,
        activations,
        frame.constant,
        x=frame.normalise(activations.serving, activations.eps),
        r=(shifted.pow(2).mean(dim=-1) + activations.eps).sqrt(),
        damping=constants.damping,
        intercept=intercept,
    )


def edit_blocks(parts: Parts, view: SiteView, constants: PreNormConstants) -> list[Block]:
    """The neurons of everything but constants; those of jumps come first."""
    return [
        _jumps(parts.jumps, view, constants),
        ramps(parts.ramps, view, constants),
        _linear(parts.linear, view),
        *scaled_constants(parts, view, constants),
    ]


def jump_gates(parts: Parts) -> tuple[tuple[int, int, int], ...]:
    """See `CompiledLayer`, for a layer that begins with `edit_blocks`."""
    return tuple((affine.term, i, affine.side) for i, affine in enumerate(parts.jumps))


@dataclass(frozen=True, eq=False)
class Block:
    """Neurons: gate and up rows [n, d] with biases [n], and what each writes, [n, d]."""

    gate_weight: Tensor
    gate_bias: Tensor
    up_weight: Tensor
    up_bias: Tensor
    down: Tensor

    @property
    def neurons(self) -> int:
        return len(self.gate_bias)

    @staticmethod
    def none(hidden_size: int) -> Block:
        rows, biases = torch.zeros(0, hidden_size).double(), torch.zeros(0).double()
        return Block(rows, biases, rows, biases, rows)

    @staticmethod
    def joined(blocks: Sequence[Block]) -> Block:
        """The neurons of several blocks, of one at least, in order."""
        return Block(
            **{
                f.name: torch.cat([getattr(block, f.name) for block in blocks])
                for f in fields(Block)
            }
        )


def assembled(blocks: Sequence[Block], frame: SplicedLayer) -> SplicedLayer:
    """The layer `frame` with these neurons, rounded to its precision."""
    block, dtype = Block.joined(blocks), frame.attention_bias.dtype
    return replace(
        frame,
        gate_weight=block.gate_weight.to(dtype),
        gate_bias=block.gate_bias.to(dtype),
        up_weight=block.up_weight.to(dtype),
        up_bias=block.up_bias.to(dtype),
        down_weight=(block.down / frame.multiplier).to(dtype).T.contiguous(),
    )


def directions(affines: list[Affine]) -> Tensor:
    return torch.stack([a.direction for a in affines])


def _scaled_rows(
    target: Tensor, view: SiteView, count: int, level: float
) -> tuple[Tensor, Tensor, float]:
    """A read-out as `count` equal rows and biases, and the factor that they were scaled by.

    The factor makes the bias exactly `level`, a power of two: rounding it would scale every output
    alike. Where neurons have no biases, `level` is what rows typically give.
    """
    readout = view.read_out(target)
    typical = readout.bias if view.one is None else float(target[~view.is_sink].median())
    factor = level / typical if typical > 1e-2 else 1.0
    return (
        factor * readout.weight.double().expand(count, -1),
        torch.full((count,), factor * readout.bias, dtype=torch.float64),
        factor,
    )


def ramps(affines: list[Affine], view: SiteView, constants: PreNormConstants) -> Block:
    """silu(K·a/r)·r/K ≈ relu(a), one neuron each."""
    if not affines:
        return Block.none(len(view.bias))
    weights, biases = view.rows(affines)
    sharpness = constants.sharpness
    truth = view.reference_values(affines)
    error = view.arguments(sharpness * weights, sharpness * biases) / sharpness - truth
    active = (truth > 0) & ~view.is_sink[:, None]
    biases = biases - (error * active).sum(dim=0) / active.sum(dim=0).clamp(min=16)
    up_weights, up_biases, factor = _scaled_rows(view.r, view, len(affines), 4.0)
    return Block(
        sharpness * weights,
        sharpness * biases,
        up_weights,
        up_biases,
        directions(affines) / (sharpness * factor),
    )


def _linear(affines: list[Affine], view: SiteView) -> Block:
    """silu of a large multiple of r is that multiple: r·(a/r) = a, one neuron each, no kink."""
    if not affines:
        return Block.none(len(view.bias))
    gate_weights, gate_biases, factor = _scaled_rows(view.r, view, len(affines), 64.0)
    weights, biases = centred_rows(affines, view)
    return Block(gate_weights, gate_biases, weights, biases, directions(affines) / factor)


def centred_rows(affines: list[Affine], view: SiteView) -> tuple[Tensor, Tensor]:
    """Rows [n, d] and biases [n] that give a(h)/r, right on average for all that is rounded."""
    weights, biases = view.rows(affines)
    error = view.arguments(weights, biases) - view.reference_values(affines)
    return weights, biases - error[~view.is_sink].mean(dim=0)


def _jumps(affines: list[Affine], view: SiteView, constants: PreNormConstants) -> Block:
    """silu(g + c) - silu(g - c) rises from 0 to 2c around g = 0; `up` is s(h), mostly one."""
    if not affines:
        return Block.none(len(view.bias))
    weights, biases = JumpGates.of(affines, view, constants).on_grid(view, constants.saturation)
    up_weights, up_biases, factors = _heights(affines, view)
    height = directions(affines) / (2 * constants.saturation * factors[:, None])
    return Block(
        torch.cat([weights, weights]),
        torch.cat([biases + constants.saturation, biases - constants.saturation]),
        torch.cat([up_weights, up_weights]),
        torch.cat([up_biases, up_biases]),
        torch.cat([height, -height]),
    )


def _heights(affines: list[Affine], view: SiteView) -> tuple[Tensor, Tensor, Tensor]:
    """Rows [n, d] and biases [n] that give s(h), and the factors [n] they were scaled by.

    Without input normalisation s is one, and exactly so.
    """
    weights = torch.zeros(len(affines), len(view.bias)).double()
    biases, factors = torch.ones(len(affines)).double(), torch.ones(len(affines)).double()
    for kind in {a.normalization for a in affines} - {Normalization.NONE}:
        chosen = torch.tensor([a.normalization is kind for a in affines])
        scale, count = view.scale_of(kind), int(chosen.sum())
        weights[chosen], biases[chosen], factor = _scaled_rows(scale, view, count, 4.0)
        factors[chosen] = factor
    return weights, biases, factors


def scaled_constants(parts: Parts, view: SiteView, constants: PreNormConstants) -> list[Block]:
    """s(h)·c for SAEs that normalise their input: gates that are always open, up = s."""
    return [
        _scaled_constant(kind, vector, view, constants) for kind, vector in parts.scaled_constants
    ]


def _scaled_constant(
    kind: Normalization, vector: Tensor, view: SiteView, constants: PreNormConstants
) -> Block:
    up_weights, up_biases, factor = _scaled_rows(view.scale_of(kind), view, 1, 4.0)
    return Block(
        torch.zeros_like(vector)[None],
        torch.full((1,), constants.saturation, dtype=torch.float64),
        up_weights,
        up_biases,
        vector[None] / (constants.saturation * factor),
    )


def constant_remainder(exact: Tensor, written: Tensor, saturation: float) -> Block:
    """What rounding takes from a constant vector, written by a neuron that is always open."""
    rest = exact - written
    if not rest.any():
        return Block.none(len(exact))
    nothing, one = torch.zeros_like(exact)[None], torch.ones(1, dtype=torch.float64)
    return Block(nothing, saturation * one, nothing, one, rest[None] / saturation)


def guard_neurons(constants: PreNormConstants) -> int:
    """How many neurons the sink guard has at most."""
    return 2 * (1 + constants.guard_modes)


def sink_guard(layer: SplicedLayer, view: SiteView, constants: PreNormConstants) -> Block:
    """Neurons that fire on sinks alone and take back what the layer writes there.

    A pair takes back the mean, and further pairs the directions in which what is written varies
    most from sink to sink, each by as much as x tells.
    """
    balance = torch.where(view.is_sink, 1 / view.is_sink.sum(), 1 / (~view.is_sink).sum())
    detector = RidgeFitter(view.x, balance.double(), damping=1e-4).fit(view.is_sink.double())
    gain, saturation = 256.0, constants.saturation
    x = view.x[view.is_sink]
    exact = layer.to(torch.float32)
    hidden = functional.silu(exact.gates(x.float())) * functional.linear(
        x.float(), exact.up_weight, exact.up_bias
    )
    written = (hidden @ exact.down_weight.T + exact.down_bias + exact.attention_bias).double()
    written = written * layer.multiplier
    mean = written.mean(dim=0)
    modes = torch.linalg.svd(written - mean, full_matrices=False).Vh[: constants.guard_modes]
    fitter = RidgeFitter(x, torch.ones(len(x)).double(), damping=1e-2)
    shares = [fitter.fit((written - mean) @ mode) for mode in modes]
    up_weight = torch.stack([torch.zeros_like(mean), *(s.weight.double() for s in shares)])
    up_bias = torch.tensor([1.0, *(share.bias for share in shares)], dtype=torch.float64)
    down = torch.cat([mean[None], modes]) / (2 * saturation)
    weight = (gain * detector.weight.double()).expand_as(up_weight)
    bias = torch.full_like(up_bias, gain * (detector.bias - 0.5))
    bias = on_grid(bias, saturation, view.dtype)
    return Block(
        torch.cat([weight, weight]),
        torch.cat([bias + saturation, bias - saturation]),
        torch.cat([up_weight, up_weight]),
        torch.cat([up_bias, up_bias]),
        torch.cat([-down, down]),
    )
