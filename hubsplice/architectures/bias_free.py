"""The construction for pre-norm blocks with a gated MLP that has no biases.

It is that of `prenorm`, whose biases are made from what the MLP reads instead. Gates and `up`
projections get theirs from a read-out of 1, which the injected constant makes a good one. What is
added to the stream must be taken away again exactly, and a norm gives a constant that is exact:
the squares of what it gives add up to d, and

    silu(x)·x - silu(-x)·x = x².
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, replace

import torch
from torch import Tensor

from hubsplice.architectures.bias_free_layer import BiasFreeLayer
from hubsplice.architectures.decomposition import decompose
from hubsplice.architectures.injection import injected_constant, threshold_bias
from hubsplice.architectures.prenorm import (
    Block,
    PreNormConstants,
    assembled,
    constant_remainder,
    edit_blocks,
    jump_gates,
    sink_guard,
    view_through,
)
from hubsplice.architectures.site_view import SiteView
from hubsplice.architectures.spliced_layer import SplicedLayer
from hubsplice.calibration import SiteActivations
from hubsplice.intervention import Site

CONSTANTS = {
    # On few channels: what stands for biases is large there, and the rows of a jump are rounded
    # apart on each.
    torch.bfloat16: PreNormConstants(injection=2.4, channels=1, longest_bias=0.5, ramp_sigmas=2.0),
    torch.float32: PreNormConstants(
        injection=16.0, channels=1, longest_bias=32.0, ramp_sigmas=0.0, damping=1e-9
    ),
}

# A read-out of 1 is reported from this error on.
_REPORTED = 2e-3


def compile_bias_free(
    site: Site,
    activations: SiteActivations,
    dtype: torch.dtype,
    constants: PreNormConstants | None = None,
) -> BiasFreeLayer:
    """Compile a site's terms into one inserted layer whose MLP has no biases.

    Its attention still adds a constant, and twice the width of the stream in neurons is taken by
    the constant that the layer writes.

    Args:
        site: what to compile; its `sink_norm` says which tokens must stay untouched.
        activations: calibration at this site.
        dtype: the serving precision, which the tensors are rounded to.
        constants: overrides `CONSTANTS[dtype]`.
    """
    constants = constants or CONSTANTS[dtype]
    if not site.terms:
        return BiasFreeLayer.empty(activations.reference.shape[1], dtype)
    parts = decompose(site, activations)
    start = injected_constant(site, activations, constants)
    bias = threshold_bias(site, parts, activations, constants, start=start).to(dtype)
    frame = SplicedLayer.empty(len(bias), dtype).with_attention_bias(bias)
    view = view_through(frame, site, activations, constants)
    one = _one(view, constants.damping)
    view = replace(view, one=one)
    wanted = parts.constant - view.bias.double()
    squares = _squares(wanted, dtype)
    written = squares.down[0].to(dtype).double() * len(wanted)
    blocks = [_folded(block, one) for block in edit_blocks(parts, view, constants)]
    blocks.append(squares)
    blocks.append(_folded(constant_remainder(wanted, written, constants.saturation), one))
    if view.has_sinks:
        guard = sink_guard(assembled(blocks, frame), view, constants)
        blocks.append(_folded(guard, one))
    return replace(
        BiasFreeLayer.of(assembled(blocks, frame)),
        constants=asdict(constants)
        | {"construction": "prenorm-bias-free", "neurons": sum(b.neurons for b in blocks)},
        jump_gates=jump_gates(parts),
        approximations=tuple(_inexact_one(site, view)),
    )


def _inexact_one(site: Site, view: SiteView) -> Iterator[str]:
    """How far what stands for the MLP's biases is from a constant."""
    assert view.one is not None
    error = float((view.x[~view.is_sink] @ view.one - 1).square().mean().sqrt())
    if error > _REPORTED:
        yield (
            f"layer {site.place}: the family's MLP has no biases; what stands for them varies by "
            f"{error:.2%} from token to token, and heights and scales with it"
        )


def _one(view: SiteView, damping: float) -> Tensor:
    """Weights [d] whose product with x is nearly 1 on every token, sinks among them."""
    sinks = view.is_sink
    share = torch.where(sinks, 0.1 / sinks.sum().clamp(min=1), 1.0 / (~sinks).sum())
    weighted = view.x * share.double()[:, None]
    second = view.x.T @ weighted
    second.diagonal().add_(damping * second.diagonal().mean())
    return torch.linalg.solve(second, weighted.sum(dim=0))


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
