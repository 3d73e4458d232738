"""The construction for pre-norm blocks whose linear layers may carry biases.

The MLP reads x = h'/r with h' = h + a and r = rms(h'): the norm has removed the scale that
thresholds and outputs need. The attention bias a is chosen so that ⟨e, a⟩ = b - t for the
threshold t of every term: then the sign of ⟨e, x⟩ is the sign of p - t, whatever r is. The `up`
projection of a ramp is a linear read-out of r, which gives the scale back; a jump's height is a
constant and needs no scale. What a adds to the stream, `down_bias` takes away.

Many strong features want a strong a, and a rare one a quiet one: see `quiet_bias`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace

import torch
from torch import Tensor
from torch.nn import functional

from hubsplice.constructions.decomposition import Affine, Parts, decompose, directions
from hubsplice.constructions.injection import threshold_bias
from hubsplice.constructions.jump_ramps import JumpGates
from hubsplice.constructions.neurons import Neurons
from hubsplice.constructions.prenorm_constants import PreNormConstants
from hubsplice.constructions.prenorm_layer import SplicedLayer
from hubsplice.constructions.quiet_bias import cheaper_bias
from hubsplice.constructions.ramp_gates import RampGates
from hubsplice.constructions.ramp_width import RAMP_SIGMAS
from hubsplice.constructions.readout import RidgeFitter
from hubsplice.constructions.sink_gate import sink_gate
from hubsplice.constructions.site_view import SiteView
from hubsplice.intervention.normalization import Normalization
from hubsplice.intervention.site import Site
from hubsplice.streams.calibration import SiteActivations


@dataclass(frozen=True)
class GatedConstants(PreNormConstants):
    """Constants of the construction, per serving precision.

    Attributes:
        guard_modes: how many directions of what is written at sinks are followed from sink to
            sink, beside its mean.
        jump_copies: how many pairs of neurons make a jump, at the most.
        copied_jumps: how many pairs all jumps together may have for that.
    """

    guard_modes: int = 3
    jump_copies: int = 8
    copied_jumps: int = 16


CONSTANTS = {
    torch.bfloat16: GatedConstants(
        injection=1.2, channels=4, longest_bias=0.5, ramp_sigmas=RAMP_SIGMAS[torch.bfloat16]
    ),
    torch.float32: GatedConstants(
        injection=16.0,
        channels=1,
        longest_bias=32.0,
        ramp_sigmas=RAMP_SIGMAS[torch.float32],
        damping=1e-9,
        jump_copies=1,
    ),
}


def compile_prenorm(
    site: Site,
    activations: SiteActivations,
    dtype: torch.dtype,
    constants: GatedConstants | None = None,
    *,
    multiplier: float = 1.0,
) -> SplicedLayer:
    """Compile a site's terms into one inserted layer.

    Args:
        site: what to compile; its `sink_norm` says which tokens must stay untouched.
        activations: calibration at this site, of tokens at which the two precisions agree.
        dtype: the serving precision, which the tensors are rounded to.
        constants: overrides `CONSTANTS[dtype]`, and the choice of the attention bias with it.
        multiplier: of what a block adds to the stream, in families that have one.
    """
    choose, constants = constants is None, constants or CONSTANTS[dtype]
    empty = replace(
        SplicedLayer.empty(activations.reference.shape[1], dtype), multiplier=multiplier
    )
    if not site.terms:
        return empty
    parts = decompose(site, activations)
    bias, chosen = threshold_bias(site, parts, activations, constants), "strong"
    if choose and dtype is not torch.float32 and parts.read_the_stream:
        bias, chosen = cheaper_bias(site, parts, activations, bias)
    frame = replace(empty, attention_bias=(bias / multiplier).to(dtype))
    view = SiteView.of(site, activations, frame, damping=constants.damping)
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
        constants=asdict(constants)
        | {
            "construction": "prenorm-bias",
            "neurons": layer.neurons,
            "bias": chosen,
            "bias_channels": int((frame.attention_bias != 0).sum()),
        },
        jump_gates=parts.jump_gates,
        homes=parts.homes,
    )


def edit_blocks(parts: Parts, view: SiteView, constants: GatedConstants) -> list[Block]:
    """The neurons of everything but constants; those of jumps come first."""
    return [
        _jumps(parts.jumps, view, constants),
        ramps(parts.ramps, view, constants),
        _linear(parts.linear, view),
        *scaled_constants(parts, view, constants),
    ]


@dataclass(frozen=True, eq=False)
class Block(Neurons):
    """Neurons: gate and up rows [n, d] with biases [n], and what each writes, [n, d]."""

    gate_weight: Tensor
    gate_bias: Tensor
    up_weight: Tensor
    up_bias: Tensor
    down: Tensor

    @staticmethod
    def none(hidden_size: int) -> Block:
        rows, biases = torch.zeros(0, hidden_size).double(), torch.zeros(0).double()
        return Block(rows, biases, rows, biases, rows)


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


def ramps(affines: list[Affine], view: SiteView, constants: GatedConstants) -> Block:
    """silu(K·a/r)·r/K ≈ relu(a), one neuron each."""
    if not affines:
        return Block.none(len(view.bias))
    sharpness = constants.sharpness
    gates = RampGates.of(affines, view, sharpness)
    up_weights, up_biases, factor = _scaled_rows(view.r, view, len(affines), 4.0)
    return Block(
        sharpness * gates.weights,
        sharpness * gates.biases,
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


def _jumps(affines: list[Affine], view: SiteView, constants: GatedConstants) -> Block:
    """silu(g + c) - silu(g - c) rises from 0 to 2c around g = 0; `up` is s(h), mostly one.

    Far above the jump it is a difference of large numbers, which round alike unless a power of two
    lies between them. The mean over copies at scales of their own makes that rare and small.
    """
    if not affines:
        return Block.none(len(view.bias))
    gates = JumpGates.of(affines, view, constants)
    copies = max(1, min(constants.jump_copies, constants.copied_jumps // len(affines)))
    up_weights, up_biases, factors = _heights(affines, view)
    height = directions(affines) / (2 * constants.saturation * copies * factors[:, None])
    rows = [
        gates.scaled(2.0 ** (copy / copies)).on_grid(view, constants.saturation)
        for copy in range(copies)
    ]
    return Block.joined(
        _pairs(weights, biases, up_weights, up_biases, height, constants.saturation)
        for weights, biases in rows
    )


def _pairs(
    weights: Tensor,
    biases: Tensor,
    up_weights: Tensor,
    up_biases: Tensor,
    down: Tensor,
    half_gap: float,
) -> Block:
    """Two neurons for each gate, `half_gap` above it and below, which write the opposite."""
    return Block(
        torch.cat([weights, weights]),
        torch.cat([biases + half_gap, biases - half_gap]),
        torch.cat([up_weights, up_weights]),
        torch.cat([up_biases, up_biases]),
        torch.cat([down, -down]),
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


def scaled_constants(parts: Parts, view: SiteView, constants: GatedConstants) -> list[Block]:
    """s(h)·c for SAEs that normalise their input: gates that are always open, up = s."""
    return [
        _scaled_constant(kind, vector, view, constants) for kind, vector in parts.scaled_constants
    ]


def _scaled_constant(
    kind: Normalization, vector: Tensor, view: SiteView, constants: GatedConstants
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


def guard_neurons(constants: GatedConstants) -> int:
    """How many neurons the sink guard has at most."""
    return 2 * (1 + constants.guard_modes)


def sink_guard(layer: SplicedLayer, view: SiteView, constants: GatedConstants) -> Block:
    """Neurons that fire on sinks alone and take back what the layer writes there.

    A pair takes back the mean, and further pairs the directions in which what is written varies
    most from sink to sink, each by as much as x tells.
    """
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
    # Brought to a bias of exactly 1, as that of the mean: a bias of a thousand is rounded coarsely.
    levels = torch.tensor([1.0, *(share.bias or 1.0 for share in shares)], dtype=torch.float64)
    up_weight = torch.stack([torch.zeros_like(mean), *(s.weight.double() for s in shares)])
    up_weight = up_weight / levels[:, None]
    up_bias = torch.tensor([1.0, *(float(share.bias != 0) for share in shares)]).double()
    saturation = constants.saturation
    taken_back = torch.cat([mean[None], modes]) * levels[:, None] / (2 * saturation)
    weight, bias = sink_gate(view, saturation)
    weights, biases = weight.expand_as(up_weight), bias.expand_as(up_bias)
    return _pairs(weights, biases, up_weight, up_bias, -taken_back, saturation)
