"""Jumps of a gated MLP that has no biases.

A jump is the difference of two neurons that agree in everything but a constant, and in bfloat16
only what agrees bit for bit cancels. Their rows are therefore the same numbers in every channel
but one that carries the constant, and there they differ by a multiple of the float's spacing, so
that the difference is exact as well. Half of it is c = δ·x_k, which varies with the scale that the
norm divides by; `up` is a read-out of what makes that a constant again.

Far above its threshold a gate is large, and so is the spacing of what it is rounded to. Copies
that are scaled apart are rounded independently, and their mean is nearer.
"""

from __future__ import annotations

import torch
from torch import Tensor

from hubsplice.architectures.decomposition import Affine
from hubsplice.architectures.prenorm import Block, JumpGates, PreNormConstants, directions
from hubsplice.architectures.site_view import SiteView
from hubsplice.intervention import Normalization


def bias_free_jumps(
    affines: list[Affine],
    view: SiteView,
    carriers: Tensor,
    constants: PreNormConstants,
    copies: int,
) -> Block:
    """The neurons of all jumps, in `copies` times two blocks of one neuron for each.

    Args:
        affines: what jumps at zero.
        view: calibration; its `one` is given.
        carriers: the channels that hold the injected constant.
        constants: of the construction.
        copies: how many pairs make one jump.
    """
    if not affines:
        return Block.none(len(view.bias))
    common = JumpGates.of(affines, view, constants)
    kinds = [affine.normalization for affine in affines]
    down = directions(affines) / copies
    return Block.joined(
        [
            _pairs(common.scaled(2.0 ** (i / copies)), i, kinds, down, view, carriers, constants)
            for i in range(copies)
        ]
    )


def _pairs(
    common: JumpGates,
    copy: int,
    kinds: list[Normalization],
    down: Tensor,
    view: SiteView,
    carriers: Tensor,
    constants: PreNormConstants,
) -> Block:
    assert view.one is not None
    rows = (common.weights + common.biases[:, None] * view.one).to(view.dtype).double()
    # Where the rows have the least weight the float's spacing is finest.
    order = rows[:, carriers].abs().argsort(dim=1)
    chosen = order[:, copy % min(4, len(carriers))]
    ordinary = view.x[~view.is_sink]
    typical = ordinary[:, carriers].median(dim=0).values[chosen]
    at = torch.arange(len(rows)), carriers[chosen]
    middle = rows[at] - common.shift(view.x @ rows.T) / typical
    half = common.scale * constants.saturation / typical
    spacing = torch.finfo(view.dtype).eps * torch.exp2((middle.abs() + half.abs()).log2().floor())
    middle = (middle / spacing).round() * spacing
    half = half.sign() * (half.abs() / spacing).round().clamp(min=1.0) * spacing
    upper, lower = rows.clone(), rows
    upper[at], lower[at] = middle + half, middle - half
    up = torch.stack(
        [
            view.read_out(view.scale_of(kind) * level / view.x[:, channel]).weight.double()
            / common.scale
            for kind, channel, level in zip(kinds, at[1].tolist(), typical, strict=True)
        ]
    )
    height = down * (common.scale / (2 * half * typical))[:, None]
    nothing = torch.zeros_like(half)
    return Block(
        torch.cat([upper, lower]),
        torch.cat([nothing, nothing]),
        torch.cat([up, up]),
        torch.cat([nothing, nothing]),
        torch.cat([height, -height]),
    )
