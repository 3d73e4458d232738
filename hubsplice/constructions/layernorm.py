"""The construction for blocks with LayerNorm and a plain GELU MLP.

The MLP reads x = (h' - mean(h'))/r with h' = h + a and r the deviation of h'. As in a pre-norm
block with a gated MLP, the attention bias a carries the thresholds and steadies r. But no `up`
projection gives the scale back: with u = a(h)/r and ρ = r/r₀ - 1 for some typical r₀,

    relu(a(h)) = r₀·relu(u) + r₀·relu(u)·ρ,

the first summand is one neuron, and the second, small, is a product. A neuron that is shifted by
±ερ makes one: gelu(z + ερ) - gelu(z - ερ) is 2ερ where z is well above zero and nothing where it
is well below. Neurons that open one after another, at knots along u, add up to u·ρ.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, replace

import torch
from torch import Tensor

from hubsplice.constructions.decomposition import Affine, Parts, decompose, directions
from hubsplice.constructions.injection import threshold_bias
from hubsplice.constructions.jump_ramps import JumpGates
from hubsplice.constructions.layernorm_layer import PlainLayer
from hubsplice.constructions.neurons import Neurons
from hubsplice.constructions.prenorm_constants import PreNormConstants
from hubsplice.constructions.quiet_bias import cheaper_bias
from hubsplice.constructions.ramp_gates import RampGates
from hubsplice.constructions.ramp_width import RAMP_SIGMAS
from hubsplice.constructions.sink_gate import sink_gate
from hubsplice.constructions.site_view import SiteView
from hubsplice.intervention.normalization import Normalization
from hubsplice.intervention.site import Site
from hubsplice.streams.calibration import SiteActivations


@dataclass(frozen=True)
class LayerNormConstants(PreNormConstants):
    """Constants of the construction, per serving precision.

    Attributes:
        knots: how many pairs of neurons make up u·ρ for one ramp.
    """

    knots: int = 4


CONSTANTS = {
    torch.bfloat16: LayerNormConstants(
        injection=1.2, channels=4, longest_bias=0.5, ramp_sigmas=RAMP_SIGMAS[torch.bfloat16]
    ),
    torch.float32: LayerNormConstants(
        injection=16.0,
        channels=1,
        longest_bias=32.0,
        ramp_sigmas=RAMP_SIGMAS[torch.float32],
        damping=1e-9,
    ),
}


# How fast a knot's neuron opens, in units of its argument per spacing: at 2 the steps of
# neighbours melt into a line, and little of it reaches below the threshold.
_OPENING = 2.0
# How far a typical ρ shifts the argument.
_SHIFT = 0.5
# What is left out of a pre-activation is reported from here on, in standard deviations.
_UNSEEN = 0.01


def compile_layernorm(
    site: Site,
    activations: SiteActivations,
    dtype: torch.dtype,
    *,
    activation: str,
    room: int,
    constants: LayerNormConstants | None = None,
) -> PlainLayer:
    """Compile a site's terms into one inserted layer.

    Args:
        site: what to compile; its `sink_norm` says which tokens must stay untouched.
        activations: calibration at this site, of tokens at which the two precisions agree.
        dtype: the serving precision, which the tensors are rounded to.
        activation: the MLP's, one of `GELUS`.
        room: how many neurons there are; with many terms, each gets fewer knots.
        constants: overrides `CONSTANTS[dtype]`, and the choice of the attention bias with it.
    """
    choose, constants = constants is None, constants or CONSTANTS[dtype]
    empty = PlainLayer.empty(activations.reference.shape[1], dtype, activation)
    if not site.terms:
        return empty
    ordinary = ~site.is_sink(activations.reference)
    typical_mean = float(activations.reference.double()[ordinary].mean())
    parts = _centred(decompose(site, activations), typical_mean)
    bias, chosen = threshold_bias(site, parts, activations, constants), "strong"
    # Bends need an r that varies little: their knots make up for a small ρ alone.
    bends = parts.ramps or parts.linear
    if choose and dtype is not torch.float32 and parts.jumps and not bends:
        bias, chosen = cheaper_bias(site, parts, activations, bias)
    bias = bias.to(dtype)
    out_bias = parts.constant - bias.double()
    frame = replace(empty, attention_bias=bias, out_bias=out_bias.to(dtype))
    view = SiteView.of(site, activations, frame, damping=constants.damping)
    # A line is a ramp to the right and one to the left.
    ramps = [*parts.ramps, *(half for a in parts.linear for half in (a, a.reversed()))]
    others = 2 * len(parts.jumps) + len(parts.scaled_constants) + 1 + 2 * view.has_sinks
    knots = constants.knots
    if ramps:
        knots = max(0, min(knots, ((room - others) // len(ramps) - 1) // 2))
    blocks = [
        _jumps(parts.jumps, view, constants),
        _ramps(ramps, view, constants, knots),
        *(_scaled_constant(scaled, view, constants) for scaled in parts.scaled_constants),
        _constant_remainder(out_bias, dtype, constants.saturation),
    ]
    if view.has_sinks:
        blocks.append(_sink_guard(_assembled(blocks, frame), view, constants.saturation))
    layer = _assembled(blocks, frame)
    return replace(
        layer,
        constants=asdict(constants)
        | {
            "construction": "layernorm-bias",
            "neurons": layer.neurons,
            "knots": knots,
            "bias": chosen,
        },
        jump_gates=parts.jump_gates,
        homes=parts.homes,
        approximations=tuple(_unseen_means(site, [*ramps, *parts.jumps], view)),
    )


def _unseen_means(site: Site, affines: list[Affine], view: SiteView) -> Iterator[str]:
    """Terms that read more of a token's mean channel than the rest of the stream tells."""
    readable = [a for a in affines if a.mean_weight]
    if not readable:
        return
    ordinary = ~view.is_sink
    weights, biases = view.rows(readable)
    truth = view.reference_values(readable)[ordinary]
    exact = view.activations.reference.double() + view.bias.double()
    x = (exact - exact.mean(dim=-1, keepdim=True)) / view.r[:, None]
    error = (x[ordinary] @ weights.T + biases - truth).std(dim=0) / truth.std(dim=0)
    worst: dict[int, float] = {}
    for affine, share in zip(readable, error.tolist(), strict=True):
        worst[affine.term] = max(share, worst.get(affine.term, 0.0))
    for term, share in worst.items():
        if share > _UNSEEN:
            yield (
                f"{site.terms[term].label}: its encoder reads the mean of the stream's channels, "
                f"which LayerNorm takes away; what the rest does not tell of it is {share:.1%} of "
                "the pre-activation's standard deviation"
            )


def _centred(parts: Parts, typical_mean: float) -> Parts:
    return replace(
        parts,
        ramps=[a.centred(typical_mean) for a in parts.ramps],
        jumps=[a.centred(typical_mean) for a in parts.jumps],
        linear=[a.centred(typical_mean) for a in parts.linear],
    )


@dataclass(frozen=True, eq=False)
class _Block(Neurons):
    """Neurons: rows [n, d] with biases [n], and what each writes, [n, d]."""

    weight: Tensor
    bias: Tensor
    out: Tensor

    @staticmethod
    def none(hidden_size: int) -> _Block:
        rows = torch.zeros(0, hidden_size).double()
        return _Block(rows, torch.zeros(0).double(), rows)


def _assembled(blocks: Iterable[_Block], frame: PlainLayer) -> PlainLayer:
    """The layer `frame` with these neurons, rounded to its precision."""
    block, dtype = _Block.joined(blocks), frame.attention_bias.dtype
    return replace(
        frame,
        in_weight=block.weight.to(dtype),
        in_bias=block.bias.to(dtype),
        out_weight=block.out.to(dtype).T.contiguous(),
    )


def _ramps(
    affines: list[Affine], view: SiteView, constants: LayerNormConstants, knots: int
) -> _Block:
    """r₀·gelu(K·u)/K ≈ r₀·relu(u), one neuron each, and the knots of r₀·relu(u)·ρ."""
    if not affines:
        return _Block.none(len(view.bias))
    sharpness = constants.sharpness
    gates = RampGates.of(affines, view, sharpness)
    weights, biases = gates.weights, gates.biases
    mass = (gates.values * gates.active).sum(dim=1)
    typical = float((mass * view.r).sum() / mass.sum()) if mass.any() else float(view.r.median())
    main = _Block(
        sharpness * weights, sharpness * biases, typical * directions(affines) / sharpness
    )
    if not knots:
        return main
    deviation = view.r / typical - 1
    readout = view.read_out(deviation)
    spread = float((deviation[~view.is_sink].square().mean()).sqrt())
    # Some room beyond what calibration saw; farther up, ρ counts for the last knot's u alone.
    spacing = 1.25 * gates.values.masked_fill(~gates.active, 0.0).amax(dim=0) / knots
    spacing = spacing.clamp(min=1e-12)
    opening = _OPENING / spacing
    shift = _SHIFT / max(spread, 1e-12)
    rows, offsets, outs = [], [], []
    for knot in range(knots):
        for sign in (1.0, -1.0):
            rows.append(opening[:, None] * weights + sign * shift * readout.weight.double())
            offsets.append(
                opening * (biases - (knot + 0.5) * spacing) + sign * shift * readout.bias
            )
            outs.append(sign * typical * (spacing / (2 * shift))[:, None] * directions(affines))
    return _Block.joined([main, _Block(torch.cat(rows), torch.cat(offsets), torch.cat(outs))])


def _jumps(affines: list[Affine], view: SiteView, constants: LayerNormConstants) -> _Block:
    """gelu(g + c) - gelu(g - c) rises from 0 to 2c around g = 0; c may be a read-out of s(h)."""
    if not affines:
        return _Block.none(len(view.bias))
    weights, biases = JumpGates.of(affines, view, constants).on_grid(view, constants.saturation)
    lift_weights, lift_biases, unit = _heights(affines, view, constants.saturation)
    height = directions(affines) * (unit / (2 * constants.saturation))[:, None]
    return _Block(
        torch.cat([weights + lift_weights, weights - lift_weights]),
        torch.cat([biases + lift_biases, biases - lift_biases]),
        torch.cat([height, -height]),
    )


def _heights(
    affines: list[Affine], view: SiteView, saturation: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Rows and biases of s(h)·saturation/unit, and the unit that makes it near saturation."""
    weights = torch.zeros(len(affines), len(view.bias)).double()
    biases = torch.full((len(affines),), saturation).double()
    units = torch.ones(len(affines)).double()
    for kind in {a.normalization for a in affines} - {Normalization.NONE}:
        chosen = torch.tensor([a.normalization is kind for a in affines])
        scale = view.scale_of(kind)
        unit = float(scale[~view.is_sink].mean())
        readout = view.read_out(saturation * scale / unit)
        weights[chosen], biases[chosen] = readout.weight.double(), readout.bias
        units[chosen] = unit
    return weights, biases, units


def _scaled_constant(
    scaled: tuple[Normalization, Tensor], view: SiteView, constants: LayerNormConstants
) -> _Block:
    """s(h)·c for an SAE that normalises its input: a neuron far above zero gives its argument."""
    kind, vector = scaled
    scale = view.scale_of(kind)
    unit = float(scale[~view.is_sink].mean()) / constants.saturation
    readout = view.read_out(scale / unit)
    return _Block(
        readout.weight.double()[None],
        torch.tensor([readout.bias], dtype=torch.float64),
        unit * vector[None],
    )


def _constant_remainder(exact: Tensor, dtype: torch.dtype, saturation: float) -> _Block:
    """What rounding takes from a constant vector, written by a neuron that is always open."""
    rest = exact - exact.to(dtype).double()
    if not rest.any():
        return _Block.none(len(exact))
    bias = torch.full((1,), saturation, dtype=torch.float64)
    return _Block(torch.zeros_like(rest)[None], bias, rest[None] / saturation)


def _sink_guard(layer: PlainLayer, view: SiteView, saturation: float) -> _Block:
    """A pair of neurons that fires on sinks alone, and takes back what the layer writes there."""
    exact = layer.to(torch.float32)
    hidden = exact.hidden(view.x[view.is_sink].float())
    written = hidden @ exact.out_weight.T + exact.out_bias + exact.attention_bias
    mean = written.double().mean(dim=0) / (2 * saturation)
    weight, bias = sink_gate(view, saturation)
    return _Block(
        torch.cat([weight, weight]),
        torch.cat([bias + saturation, bias - saturation]),
        torch.stack([-mean, mean]),
    )
