"""The construction for pre-norm blocks with a gated MLP that has no biases.

It is that of `prenorm` with as little need of biases as can be. Thresholds are solved by the
injected constant. Read-outs are fitted without an intercept, and small corrections of gates come
from a read-out of 1. Jumps are in `bias_free_jumps`, and the scale of a line is SiLU's own. What is
added to the stream must be taken away again exactly, and a norm gives a constant that is exact:
the squares of what it gives add up to d, and

    silu(x)·x - silu(-x)·x = x².
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace

import torch
from torch import Tensor
from torch.nn import functional

from hubsplice.constructions.bias_free_jumps import bias_free_jumps
from hubsplice.constructions.bias_free_layer import BiasFreeLayer
from hubsplice.constructions.decomposition import Affine, decompose, directions
from hubsplice.constructions.injection import injected_constant, threshold_bias
from hubsplice.constructions.prenorm import (
    Block,
    GatedConstants,
    assembled,
    centred_rows,
    constant_remainder,
    guard_neurons,
    ramps,
    scaled_constants,
    sink_guard,
)
from hubsplice.constructions.prenorm_layer import SplicedLayer
from hubsplice.constructions.site_view import SiteView
from hubsplice.intervention.site import Site
from hubsplice.streams.calibration import SiteActivations


@dataclass(frozen=True)
class BiasFreeConstants(GatedConstants):
    """Constants of the construction, per serving precision.

    Attributes:
        copies: how many pairs of neurons make one jump, where there is room for them.
    """

    copies: int = 1

    def fitting(self, width: int) -> BiasFreeConstants:
        """The same for a narrow stream, of which only a small share may carry a constant."""
        channels = max(1, min(self.channels, width // 32))
        injection = self.injection * math.sqrt(self.channels / channels)
        return replace(self, channels=channels, injection=injection)


CONSTANTS = {
    # What is injected is taken away by a sum of squares, of which each is rounded: on many
    # channels these errors average out, to less than half the spacing of the stream there.
    torch.bfloat16: BiasFreeConstants(
        injection=0.6, channels=16, longest_bias=0.5, ramp_sigmas=4.0, copies=32
    ),
    torch.float32: BiasFreeConstants(
        injection=16.0, channels=1, longest_bias=32.0, ramp_sigmas=0.0, damping=1e-9
    ),
}

# Where SiLU goes with the reciprocal of its argument, what it gives there, and its minimum.
_BRANCH, _BRANCH_VALUE, _LEAST_SILU = -2.2177, -0.2177, -0.27846

# A read-out of the scale is reported from this relative error on.
_REPORTED = 2e-3


def compile_bias_free(
    site: Site,
    activations: SiteActivations,
    dtype: torch.dtype,
    room: int,
    constants: BiasFreeConstants | None = None,
) -> BiasFreeLayer:
    """Compile a site's terms into one inserted layer whose MLP has no biases.

    Its attention still adds a constant, and twice the width of the stream in neurons is taken by
    the constant that the layer writes.

    Args:
        site: what to compile; its `sink_norm` says which tokens must stay untouched.
        activations: calibration at this site, of tokens at which the two precisions agree.
        dtype: the serving precision, which the tensors are rounded to.
        room: how many neurons there may be; a layer of more is returned only where one copy of
            every jump does not fit.
        constants: overrides `CONSTANTS[dtype]`.
    """
    width = activations.reference.shape[1]
    constants = (constants or CONSTANTS[dtype]).fitting(width)
    if not site.terms:
        return BiasFreeLayer.empty(width, dtype)
    parts = decompose(site, activations)
    start = torch.zeros_like(parts.constant)
    if parts.read_the_stream:
        start = injected_constant(site, activations, constants)
    bias = threshold_bias(site, parts, activations, constants, start=start).to(dtype)
    frame = replace(SplicedLayer.empty(len(bias), dtype), attention_bias=bias)
    view = SiteView.of(site, activations, frame, damping=constants.damping, intercept=False)
    one = _everywhere(torch.ones_like(view.r), view, constants.damping)
    view = replace(view, one=one)
    wanted = parts.constant - view.bias.double()
    squares = _squares(wanted, dtype)
    written = squares.down[0].to(dtype).double() * len(wanted)
    blocks = [
        _folded(ramps(parts.ramps, view, constants), one),
        _folded(_linear(parts.linear, view, constants.damping), one),
        *(_folded(block, one) for block in scaled_constants(parts, view, constants)),
        squares,
        _folded(constant_remainder(wanted, written, constants.saturation), one),
    ]
    taken = sum(block.neurons for block in blocks) + guard_neurons(constants) * view.has_sinks
    copies = max(1, min(constants.copies, (room - taken) // max(1, 2 * len(parts.jumps))))
    carriers = start.nonzero()[:, 0]
    blocks.insert(0, bias_free_jumps(parts.jumps, view, carriers, constants, copies))
    if view.has_sinks:
        guard = sink_guard(assembled(blocks, frame), view, constants)
        blocks.append(_folded(guard, one))
    return replace(
        BiasFreeLayer.of(assembled(blocks, frame)),
        constants=asdict(constants)
        | {
            "construction": "prenorm-bias-free",
            "neurons": sum(b.neurons for b in blocks),
            "copies": copies if parts.jumps else 0,
        },
        jump_gates=parts.jump_gates,
        homes=parts.homes,
        approximations=tuple(_inexact_scale(site, view)) if parts.ramps or parts.jumps else (),
    )


def _inexact_scale(site: Site, view: SiteView) -> Iterator[str]:
    """How far the read-out of the norm's scale is off, which bends and jumps get their sizes by."""
    read = view.x @ view.read_out(view.r).weight.double() / view.r
    error = float((read[~view.is_sink] - 1).square().mean().sqrt())
    if error > _REPORTED:
        yield (
            f"layer {site.place}: the family's MLP has no biases; without a constant to read, the "
            f"sizes of bends and the heights of jumps err by {error:.2%} from token to token"
        )


def _linear(affines: list[Affine], view: SiteView, damping: float) -> Block:
    """silu of a multiple of what gives 1/r is one of r, on the branch where SiLU goes to zero.

    There, around -2.22, silu(g) goes with 1/g: a weight on the injected constant gives 1/r far
    better than any weights give r, for which a constant has to be read out as well.
    """
    if not affines:
        return Block.none(len(view.bias))
    typical = view.r[~view.is_sink].median()
    scale = _BRANCH_VALUE / typical
    wanted = _inverse_silu((scale * view.r).clamp(min=_LEAST_SILU, max=-1e-3))
    wanted = torch.where(view.is_sink, _BRANCH * typical / view.r, wanted)
    weights, biases = centred_rows(affines, view)
    nothing = torch.zeros_like(biases)
    return Block(
        _everywhere(wanted, view, damping).expand(len(affines), -1),
        nothing,
        weights,
        biases,
        directions(affines) / scale,
    )


def _inverse_silu(values: Tensor) -> Tensor:
    """The g below SiLU's minimum whose silu(g) are the values, which lie above it, by bisection."""
    low, high = torch.full_like(values, -32.0), torch.full_like(values, -1.2784645)
    for _ in range(60):
        middle = (low + high) / 2
        above = functional.silu(middle) > values
        low, high = torch.where(above, middle, low), torch.where(above, high, middle)
    return low


def _everywhere(target: Tensor, view: SiteView, damping: float) -> Tensor:
    """Weights [d] whose product with x is nearly `target` [tokens], on sinks as well."""
    sinks = view.is_sink
    share = torch.where(sinks, 0.1 / sinks.sum().clamp(min=1), 1.0 / (~sinks).sum())
    weighted = view.x * share.double()[:, None]
    second = view.x.T @ weighted
    second.diagonal().add_(damping * second.diagonal().mean())
    return torch.linalg.solve(second, weighted.T @ target)


def _folded(block: Block, one: Tensor) -> Block:
    """The block with every bias turned into a multiple of the read-out of 1."""
    nothing = torch.zeros_like(block.gate_bias)
    return Block(
        block.gate_weight + block.gate_bias[:, None] * one,
        nothing,
        block.up_weight + block.up_bias[:, None] * one,
        nothing,
        block.down,
    )


def _squares(vector: Tensor, dtype: torch.dtype) -> Block:
    """A constant vector [d], as d times the mean square of what the norm gives, near enough."""
    d = len(vector)
    if not vector.any():
        return Block.none(d)
    rows = torch.cat([torch.eye(d), -torch.eye(d)]).double()
    nothing = torch.zeros(2 * d).double()
    down = (vector / d).to(dtype).double()
    return Block(rows, nothing, rows, nothing, down.expand(2 * d, -1))
