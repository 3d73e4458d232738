"""A site's ridge functions, taken apart into lines, bends, jumps and constants.

Every construction builds the same parts, out of what its family's layer offers.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from hubsplice.intervention.normalization import Normalization
from hubsplice.intervention.piecewise_linear import PiecewiseLinear
from hubsplice.intervention.site import Site, Term
from hubsplice.streams.calibration import SiteActivations


@dataclass(frozen=True, eq=False)
class Affine:
    """a(h) of one of the site's terms, and what is written with it.

    a(h) = ⟨encoder, h⟩ + offset·s(h), and where a norm takes the mean of a token's channels away,
    a(h) = ⟨encoder, h⟩ + offset·s(h) + mean_weight·(mean(h) - m) + mean_constant for a typical m.

    Attributes:
        term: the term's index at the site.
        encoder: shape [d], float64.
        offset: what is added, in units of the token's scale.
        normalization: what gives that scale.
        direction: what is written for each unit of a(h) or of a jump, shape [d], float64.
        side: 1, or -1 where a(h) falls as the term's pre-activation rises.
        mean_weight: what the encoder's entries add up to, where they have been centred.
        mean_constant: mean_weight·m.
    """

    term: int
    encoder: Tensor
    offset: float
    normalization: Normalization
    direction: Tensor
    side: int
    mean_weight: float = 0.0
    mean_constant: float = 0.0

    @staticmethod
    def of(index: int, term: Term, at: float, factor: float, *, side: int = 1) -> Affine:
        """side·(p - at), for p the term's pre-activation; side is 1 or -1."""
        encoder = term.encoder.double()
        if term.normalization is Normalization.LAYER_NORM:
            encoder = encoder - encoder.mean()
        return Affine(
            index,
            side * encoder,
            side * (term.bias - at),
            term.normalization,
            factor * term.direction.double(),
            side,
        )

    def centred(self, typical_mean: float) -> Affine:
        """The same a(h), with an encoder whose entries add up to zero."""
        total = float(self.encoder.sum())
        return replace(
            self,
            encoder=self.encoder - self.encoder.mean(),
            mean_weight=total,
            mean_constant=total * typical_mean,
        )

    def reversed(self) -> Affine:
        """-a(h), with what is written turned round."""
        return replace(
            self,
            encoder=-self.encoder,
            offset=-self.offset,
            direction=-self.direction,
            mean_weight=-self.mean_weight,
            mean_constant=-self.mean_constant,
        )

    @property
    def threshold(self) -> tuple[Tensor, float]:
        """The encoder at unit length and the bias it wants, the same for a(h) and -a(h)."""
        length = self.encoder.norm() * self.encoder[self.encoder != 0][0].sign()
        offset = self.offset if self.normalization is Normalization.NONE else 0.0
        offset += self.mean_constant
        return self.encoder / length, offset / float(length)


def directions(affines: list[Affine]) -> Tensor:
    """What is written with each, shape [n, d]."""
    return torch.stack([a.direction for a in affines])


def offsets(affines: list[Affine], kind: Normalization) -> Tensor:
    """The offset of each under one normalisation, and zero for the others, shape [n]."""
    return torch.tensor([a.offset if a.normalization is kind else 0.0 for a in affines]).double()


@dataclass(frozen=True, eq=False)
class Parts:
    """A site's terms, sorted by what a layer needs for them.

    Attributes:
        ramps: relu(a) times its direction, each.
        jumps: 1[a > 0] times the token's scale and the direction, each.
        linear: a times its direction, each.
        constant: a vector for every token, shape [d], float64.
        scaled_constants: vectors, each times the token's scale under a normalisation.
        homes: the piece of each term's φ that the others are taken relative to.
    """

    ramps: list[Affine]
    jumps: list[Affine]
    linear: list[Affine]
    constant: Tensor
    scaled_constants: list[tuple[Normalization, Tensor]]
    homes: tuple[int, ...] = ()

    @property
    def read_the_stream(self) -> bool:
        """Whether what is written depends on the token."""
        return bool(self.ramps or self.jumps or self.linear or self.scaled_constants)

    @property
    def jump_gates(self) -> tuple[tuple[int, int, int], ...]:
        """See `CompiledLayer`, for a layer that begins with one neuron for every jump."""
        return tuple((affine.term, i, affine.side) for i, affine in enumerate(self.jumps))


def decompose(site: Site, activations: SiteActivations) -> Parts:
    """Sort every φ of a site, outward from the piece that most tokens lie on.

    The site has terms.

    Starting where the tokens are keeps what they get free of differences of large numbers; and a
    line is taken relative to its mean, which is a constant and so costs no precision.
    """
    h = activations.reference[~site.is_sink(activations.reference)].double()
    projections = site.projections(h.float()).double()
    ramps, jumps, linear, homes = [], [], [], []
    constant = torch.zeros_like(site.terms[0].direction, dtype=torch.float64)
    scaled: dict[Normalization, Tensor] = {}
    for number, (term, p) in enumerate(zip(site.terms, projections.unbind(dim=1), strict=True)):
        function = term.function
        if not term.encoder.any():
            # Nothing is read, and φ has one value.
            function = PiecewiseLinear.constant(function(term.bias))
        edges = torch.tensor(function.breakpoints, dtype=torch.float64)
        home = int(torch.bincount((p[:, None] > edges).sum(dim=1)).argmax())
        homes.append(home)
        level, slope = function.intercepts[home], function.slopes[home]
        if slope:
            middle = float(p.mean())
            linear.append(Affine.of(number, term, middle, slope))
            level += slope * middle
        if level and term.normalization is Normalization.NONE:
            constant += level * term.direction
        elif level:
            so_far = scaled.get(term.normalization, torch.zeros_like(constant))
            scaled[term.normalization] = so_far + level * term.direction
        for index, kink in enumerate(function.kinks):
            side = 1 if index >= home else -1
            if kink.slope_change:
                ramps.append(Affine.of(number, term, kink.at, kink.slope_change, side=side))
            if kink.jump:
                jumps.append(Affine.of(number, term, kink.at, side * kink.jump, side=side))
    return Parts(ramps, jumps, linear, constant, list(scaled.items()), tuple(homes))
