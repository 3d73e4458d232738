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

from dataclasses import dataclass, field

import torch
from torch import Tensor

from hubsplice.constructions.decomposition import Affine, directions
from hubsplice.constructions.jump_ramps import JumpGates
from hubsplice.constructions.prenorm import Block
from hubsplice.constructions.prenorm_constants import PreNormConstants
from hubsplice.constructions.site_view import SiteView
from hubsplice.intervention.normalization import Normalization


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
    jumps = _Jumps(
        [affine.normalization for affine in affines],
        directions(affines) / copies,
        view,
        carriers,
        constants.saturation,
    )
    scales = (2.0 ** (i / copies) for i in range(copies))
    return Block.joined(jumps.pairs(common.scaled(s), i) for i, s in enumerate(scales))


# So many channels take turns in carrying the constant of one jump's copies.
_TURNS = 4


@dataclass(frozen=True, eq=False)
class _Jumps:
    """What all copies of the jumps have in common.

    Attributes:
        kinds: of each, what its height is in proportion to.
        down: what one copy of each writes, shape [n, d].
        view: calibration.
        carriers: the channels that hold the injected constant.
        saturation: c of the copy of scale one.
        heights: what `height` has found.
    """

    kinds: list[Normalization]
    down: Tensor
    view: SiteView
    carriers: Tensor
    saturation: float
    heights: dict[tuple[Normalization, int], Tensor] = field(default_factory=dict)

    def pairs(self, common: JumpGates, copy: int) -> Block:
        """One pair of neurons for each jump, of the gates `common`."""
        view = self.view
        assert view.one is not None
        rows = (common.weights + common.biases[:, None] * view.one).to(view.dtype).double()
        # Where the rows have the least weight the float's spacing is finest.
        order = rows[:, self.carriers].abs().argsort(dim=1)
        chosen = order[:, copy % min(_TURNS, len(self.carriers))]
        ordinary = view.x[~view.is_sink]
        typical = ordinary[:, self.carriers].median(dim=0).values[chosen]
        at = torch.arange(len(rows)), self.carriers[chosen]
        middle = rows[at] - common.shift(view.x @ rows.T) / typical
        half = common.scale * self.saturation / typical
        exponent = (middle.abs() + half.abs()).log2().floor()
        spacing = torch.finfo(view.dtype).eps * torch.exp2(exponent)
        middle = (middle / spacing).round() * spacing
        half = half.sign() * (half.abs() / spacing).round().clamp(min=1.0) * spacing
        upper, lower = rows.clone(), rows
        upper[at], lower[at] = middle + half, middle - half
        keys = zip(self.kinds, at[1].tolist(), strict=True)
        up = torch.stack([self.height(*key) for key in keys])
        up *= typical[:, None] / common.scale
        down = self.down * (common.scale / (2 * half * typical))[:, None]
        nothing = torch.zeros_like(half)
        return Block(
            torch.cat([upper, lower]),
            torch.cat([nothing, nothing]),
            torch.cat([up, up]),
            torch.cat([nothing, nothing]),
            torch.cat([down, -down]),
        )

    def height(self, kind: Normalization, channel: int) -> Tensor:
        """Weights [d] that give s(h)/x_k for a channel k."""
        key = kind, channel
        if key not in self.heights:
            target = self.view.scale_of(kind) / self.view.x[:, channel]
            self.heights[key] = self.view.read_out(target).weight.double()
        return self.heights[key]
