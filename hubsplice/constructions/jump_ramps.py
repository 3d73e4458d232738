"""How steep the ramp is that stands for a jump, and the arguments that rise along it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Protocol

import torch
from torch import Tensor

from hubsplice.constructions.bias_grid import on_grid
from hubsplice.constructions.decomposition import Affine
from hubsplice.constructions.prenorm_constants import PreNormConstants
from hubsplice.constructions.site_view import SiteView


class RampConstants(Protocol):
    """How wide a ramp is.

    Attributes:
        ramp_sigmas: width of a jump's ramp, in units of the noise that the serving precision
            puts on the pre-activation.
        narrowest_ramp: the least such width, in standard deviations of the pre-activation.
    """

    @property
    def ramp_sigmas(self) -> float: ...
    @property
    def narrowest_ramp(self) -> float: ...


def ramp_widths(
    values: Tensor, noise: Tensor, constants: RampConstants, dtype: torch.dtype
) -> Tensor:
    """How wide the ramp of a jump at zero is made, shape [n].

    The larger of `ramp_sigmas` deviations of the noise and two floors: `narrowest_ramp` deviations
    of the values, which is what counts in float32, and the spacing of floats of the size of the
    largest value. Where that is wider than the ramp, so is the spacing of the two gates wider than
    the gap between them, and a jump that was passed by far would be none.

    Args:
        values: of the pre-activations, shape [tokens, n].
        noise: what the serving precision adds to them, same shape.
        constants: of the construction.
        dtype: what gates are rounded to.
    """
    widths = torch.stack(
        [
            constants.ramp_sigmas * noise.std(dim=0),
            constants.narrowest_ramp * values.std(dim=0),
            torch.finfo(dtype).eps * values.amax(dim=0),
        ]
    )
    return widths.amax(dim=0).clamp(min=1e-12)


@dataclass(frozen=True, eq=False)
class JumpGates:
    """The common part of the two gates of every jump, before it is rounded.

    Attributes:
        weights, biases: rows [n, d] and biases [n].
        wanted: what they should give, shape [tokens, n].
        nearest: the tokens nearest to every jump, shape [some, n].
        scale: what everything but these is multiplied by.
    """

    weights: Tensor
    biases: Tensor
    wanted: Tensor
    nearest: Tensor
    scale: float = 1.0

    @staticmethod
    def of(affines: list[Affine], view: SiteView, constants: PreNormConstants) -> JumpGates:
        """Gates that are as steep as the noise of the serving precision asks for."""
        ordinary = ~view.is_sink
        truth = view.reference_values(affines) * view.r[:, None]
        weights, biases = view.rows(affines)
        # All that keeps the argument from being the reference's: what the served stream has
        # gathered before, the rounding of the constant's sum and of x, and that of the rows.
        noise = (view.arguments(weights, biases) * view.r[:, None] - truth)[ordinary]
        width = ramp_widths(truth[ordinary], noise, constants, view.dtype)
        slope = 2 * constants.saturation * view.r[ordinary].median() / width
        near = truth.abs().masked_fill(view.is_sink[:, None], torch.inf)
        return JumpGates(
            slope[:, None] * weights,
            slope * biases,
            slope * truth / view.r[:, None],
            near.topk(min(256, int(ordinary.sum())), dim=0, largest=False).indices,
        )

    def scaled(self, factor: float) -> JumpGates:
        """The same, with everything that gates give multiplied."""
        return replace(
            self,
            weights=factor * self.weights,
            biases=factor * self.biases,
            wanted=factor * self.wanted,
            scale=factor * self.scale,
        )

    def shift(self, gates: Tensor) -> Tensor:
        """By how much gates [tokens, n] are too large around their jumps, [n].

        The rounding of the rows and of x moves a threshold; this takes it back.
        """
        return (gates - self.wanted).gather(0, self.nearest).mean(dim=0)

    def on_grid(self, view: SiteView, half_gap: float) -> tuple[Tensor, Tensor]:
        """Rows [n, d] and biases [n] around which two gates lie, `half_gap` above and below."""
        biases = self.biases - self.shift(view.arguments(self.weights, self.biases))
        return self.weights, on_grid(biases, half_gap, view.dtype)
