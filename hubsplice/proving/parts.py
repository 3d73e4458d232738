"""The bends, jumps and lines of a site's terms, in the order in which layers hold them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from hubsplice.intervention.normalization import Normalization
from hubsplice.intervention.site import Site, Term


@dataclass(frozen=True, eq=False)
class Part:
    """One bend, jump or line of a term.

    Attributes:
        term: the term's index at the site.
        source: the term.
        at: the p at which it begins; of a line, where the weights have it zero, and not known.
        size: the bend's change of slope, the jump's height, or the line's slope.
        index: which kink of the term it is; None for a line.
    """

    term: int
    source: Term
    at: float
    size: float
    index: int | None = None

    @property
    def encoder(self) -> Tensor:
        """What it reads, shape [d], float64, centred where the SAE centres its input."""
        encoder = self.source.encoder.double()
        if self.source.normalization is Normalization.LAYER_NORM:
            return encoder - encoder.mean()
        return encoder

    @property
    def written(self) -> Tensor:
        """What it writes for one unit, shape [d], float64."""
        return self.size * self.source.direction.double()

    @property
    def kind(self) -> Normalization:
        """How its SAE scales its input."""
        return self.source.normalization


@dataclass(frozen=True, eq=False)
class Parts:
    """The bends and jumps of a site; its lines follow from which side each of them opens to."""

    site: Site
    jumps: tuple[Part, ...]
    bends: tuple[Part, ...]

    @staticmethod
    def of(site: Site) -> Parts:
        """The parts of a site, in the order in which constructions take them."""
        jumps, bends = [], []
        for number, term in enumerate(site.terms):
            if not term.encoder.any():
                continue
            for index, kink in enumerate(term.function.kinks):
                if kink.slope_change:
                    bends.append(Part(number, term, kink.at, kink.slope_change, index))
                if kink.jump:
                    jumps.append(Part(number, term, kink.at, kink.jump, index))
        return Parts(site, tuple(jumps), tuple(bends))

    def homes(self, sides: Mapping[tuple[int, int], int]) -> list[int] | None:
        """The piece of each term that its kinks open away from; None where no piece is.

        Args:
            sides: by term and kink, 1 for one that opens as p rises, and -1 for one as p falls.
        """
        found = []
        for number, term in enumerate(self.site.terms):
            count = len(term.function.kinks) if term.encoder.any() else 0
            own = [sides[number, i] for i in range(count) if (number, i) in sides]
            if own != sorted(own):
                return None
            home = own.count(-1)
            # A kink at which nothing changes has no side; there is none in a simplified function.
            found.append(home)
        return found

    def lines(self, homes: Sequence[int]) -> tuple[Part, ...]:
        """The lines that are written everywhere."""
        return tuple(
            Part(number, term, 0.0, term.function.slopes[home])
            for number, (term, home) in enumerate(zip(self.site.terms, homes, strict=True))
            if term.encoder.any() and term.function.slopes[home]
        )

    def levels(self, homes: Sequence[int]) -> list[tuple[int, Term, float]]:
        """What each term writes for p = 0 on the piece that its kinks open away from."""
        found = []
        for number, (term, home) in enumerate(zip(self.site.terms, homes, strict=True)):
            if not term.encoder.any():
                found.append((number, term, term.function(term.bias)))
            else:
                found.append((number, term, term.function.intercepts[home]))
        return found

    def constant(self, homes: Sequence[int]) -> tuple[Tensor, Tensor]:
        """What is written on every token, shape [d], and the directions that it may be off by.

        A line is taken relative to a value of p that only calibration knows, so that a multiple
        of its direction moves from the line to the constant.
        """
        width = len(self.site.terms[0].direction)
        total = torch.zeros(width, dtype=torch.float64)
        for _, term, level in self.levels(homes):
            if term.normalization is Normalization.NONE:
                # As the compiler has it: multiplied in float32, added in float64.
                total += level * term.direction
        free = [
            part.source.direction.double()
            for part in self.lines(homes)
            if part.kind is Normalization.NONE
        ]
        return total, torch.stack(free) if free else torch.zeros(0, width, dtype=torch.float64)

    def scaled(self, homes: Sequence[int]) -> dict[Normalization, Tensor | None]:
        """What is written in proportion to a token's scale, by what gives it; None if not known."""
        found: dict[Normalization, Tensor | None] = {}
        lines = {part.term for part in self.lines(homes)}
        for number, term, level in self.levels(homes):
            kind = term.normalization
            if kind is Normalization.NONE or not (level or number in lines):
                continue
            so_far = found.get(kind, torch.zeros_like(term.direction, dtype=torch.float64))
            if so_far is None or number in lines:
                found[kind] = None
            else:
                found[kind] = so_far + level * term.direction
        return found
