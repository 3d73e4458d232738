"""What the checks of all constructions have in common."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from functools import cached_property
from typing import ClassVar, Generic, TypeVar, cast

import torch
from torch import Tensor

from hubsplice.constructions.compiled_layer import CompiledLayer
from hubsplice.intervention.normalization import Normalization
from hubsplice.intervention.site import Site
from hubsplice.proving.findings import Findings, Recovered
from hubsplice.proving.parts import Part, Parts
from hubsplice.proving.rounding import common_factor, off, spacing
from hubsplice.proving.rows import Reading, across, cosine, solved
from hubsplice.proving.stored_layer import StoredLayer, last_in_use

LayerT = TypeVar("LayerT", bound=CompiledLayer)

WIDE = 256
"""From so many channels on a stream is like those of real models."""

_NARROW = (
    f"how long read-outs are in a stream of fewer than {WIDE} channels, which leaves their length "
    "free, and with it heights and thresholds"
)

# What is read out of the stream for a threshold that attention's constant does not carry, in
# units of the shortest row that could: right layers need up to 13 times that.
_LONGEST_READ_OUT = 25.0

# A read-out of a scale may move as far from its typical value as so many times that value, were
# the whole stream along it. On SmolLM2 it is 1.9.
_MOST_SCALE = 20.0

# How long what a line's row reads beside its encoder may be, over that.
_BESIDE_LINES = 0.3

# How far a gate may move a threshold, over the encoder's length times the stream's.
_THRESHOLD_ROOM = 2e-3


class LayerCheck(ABC, Generic[LayerT]):
    """One inserted layer against the site that it stands for.

    Args:
        stored: the layer.
        site: the edits.
        median_norm: of the stream there, as the manifest has it; only limits depend on it.
    """

    first: ClassVar[str]
    """The role whose rows are neurons."""

    def __init__(self, stored: StoredLayer, site: Site, median_norm: float) -> None:
        self.stored, self.site = stored, site
        self.layer = cast(LayerT, stored.layer)
        self.parts = Parts.of(site)
        self.dtype = stored.dtype
        self.findings = Findings(stored.names)
        self.scales: dict[Normalization, int] = {}
        self.sides: dict[tuple[int, int], int] = {}
        self.used = last_in_use(stored.layer)
        self.findings.used = self.used
        self._norm = median_norm
        self.read_beside: list[tuple[int, Part, Reading]] = []

    @abstractmethod
    def check(self) -> None:
        """Find everything that is wrong with the layer."""

    @property
    def width(self) -> int:
        """The width of the stream."""
        return len(self.site.terms[0].direction)

    @property
    def fit_slack(self) -> float:
        """How far rounding moves the factor that a row is fitted by, relative to it."""
        return 1.5 * torch.finfo(self.dtype).eps / self.width**0.5

    @property
    def may_skip_sinks(self) -> bool:
        """Whether the edit leaves attention sinks alone."""
        return self.site.sink_norm != torch.inf

    @property
    def length(self) -> float:
        """A typical length of the stream that the norm divides, as far as it matters."""
        return max(self._norm, float(self.added.norm()), 1e-30)

    @cached_property
    def added(self) -> Tensor:
        """What attention adds to the stream, shape [d], float64."""
        constant: Tensor = self.layer.constant  # type: ignore[attr-defined]
        return constant.double()

    def constant(self, name: str, least: float) -> float:
        """One of the construction's constants, as the manifest has it."""
        value = self.stored.constants.get(name)
        if not isinstance(value, int | float) or isinstance(value, bool) or value < least:
            self.findings.problems.append(
                f"splice.json: constants.{name}: found {value!r}, expected {least:g} or more"
            )
            return least
        return float(value)

    @property
    def narrow(self) -> bool:
        """Whether the stream has so few channels that read-outs of it may have any length.

        Where little is to be read from, some direction along which next to nothing varies tells
        a little more, and the ridge lets a read-out be long along it: up to 1/(2·√damping) times
        the deviation of what is read over that of a channel, which is a factor in the hundreds.
        """
        return self.width < WIDE

    def stored_home(self, term: int) -> int | None:
        """The piece of a term that its kinks open away from, as the manifest has it.

        It is a hint, for rows that read more beside their encoder than along it. A wrong one only
        makes the rows wrong.
        """
        homes = self.stored.constants.get("homes")
        if not isinstance(homes, list) or len(homes) != len(self.site.terms):
            return None
        home = homes[term]
        pieces = len(self.site.terms[term].function.slopes)
        valid = isinstance(home, int) and not isinstance(home, bool) and 0 <= home < pieces
        return home if valid else None

    def wrong(self, role: str, neuron: int | None, what: str, *, loose: bool = False) -> None:
        self.findings.wrong(role, neuron, what, loose=loose)

    def wrong_at(self, role: str, at: Sequence[int], what: str, *, loose: bool = False) -> None:
        self.findings.wrong_at(role, at, what, loose=loose)

    def unproven(self, what: str) -> None:
        if what not in self.findings.unproven:
            self.findings.unproven.append(what)

    def missing(self, part: Part, side: int) -> float:
        """What attention's constant leaves of a part's threshold, to be read out of the stream."""
        offset = part.source.bias - part.at if part.kind is Normalization.NONE else 0.0
        return side * (offset - float(part.encoder @ self.added))

    def tolerated(self, part: Part) -> float:
        """How far the multiple of an encoder may be off, for what is read beside it."""
        return 0.01 + self._beside(part)

    def _beside(self, part: Part) -> float:
        """How long a row may be beside its encoder, in units of that."""
        if part.index is None:
            # Relative to which value the line is taken is known to calibration alone.
            return _BESIDE_LINES
        left = abs(self.missing(part, 1))
        if part.kind is not Normalization.NONE:
            # Its offset goes with the token's own scale, of which √d is the typical length.
            left += abs(part.source.bias - part.at) * self.length / self.width**0.5
        return _LONGEST_READ_OUT * left / (float(part.encoder.norm()) * self.length)

    def reads(
        self,
        role: str,
        row: Tensor,
        neuron: int,
        part: Part,
        bias: float | None,
        *,
        coarse: Tensor | None = None,
        quiet: bool = False,
    ) -> Reading:
        """What a neuron's row reads, which must be the part's encoder.

        Args:
            role: whose row it is.
            row: the row, shape [d].
            neuron: whose.
            part: what it is to read.
            bias: its bias, without what keeps a pair apart; None where it is checked elsewhere.
            coarse: the size of what was rounded, where the row is a sum, shape [d].
            quiet: whether it has been checked before.
        """
        encoder = part.encoder
        reading = Reading.of(row, encoder, self.dtype)
        if quiet:
            return reading
        rest = (row.double() - reading.multiple * encoder).abs()
        beside = self._beside(part)
        # By channels, where rounding is all there is; by its length, where something is read out.
        room = spacing(row if coarse is None else coarse, self.dtype) * 0.51
        room += abs(reading.multiple) * self.fit_slack * encoder.abs()
        room += abs(reading.multiple) * beside * float(encoder.norm())
        if (rest > room).any():
            place = int((rest - room).argmax())
            self.wrong_at(
                role,
                (neuron, place),
                f"is not that of {part.source.label}'s encoder; the row's cosine with it is "
                f"{reading.cosine:.4f}",
                loose=True,
            )
        elif coarse is None and reading.length > 2 * reading.rounding + beside + self.fit_slack:
            self.wrong(
                role,
                neuron,
                f"what it reads beside {part.source.label}'s encoder is {reading.length:.1%} as "
                "long as that",
                loose=True,
            )
        if bias is not None and reading.multiple:
            self._check_threshold(role, neuron, part, reading, bias)
            if part.kind is Normalization.NONE:
                self.read_beside.append((neuron, part, reading))
        return reading

    def note_side(self, role: str, neuron: int, part: Part, side: int) -> None:
        """All gates of a bend or jump must open to one side."""
        assert part.index is not None
        if self.sides.setdefault((part.term, part.index), side) != side:
            self.wrong(role, neuron, "it opens to the other side than others of its edit")

    def check_columns(
        self, role: str, start: int, stored: Tensor, exact: Sequence[Tensor]
    ) -> float:
        """The one factor by which neurons from `start` on write what their edits ask for, rounded.

        Args:
            role: whose columns they are.
            start: the first neuron.
            stored: what each writes, shape [n, d].
            exact: what it is to write, n of shape [d].
        """
        factor = common_factor(stored, torch.stack(list(exact)), self.dtype)
        if not factor.holds:
            row, channel = factor.worst
            self.wrong_at(role, (start + row, channel), "is not what its edit writes, rounded")
        if factor.value <= 0:
            self.wrong(role, start, "it writes the opposite of its edit")
        return factor.value

    def check_column(
        self, role: str, neuron: int, stored: Tensor, exact: Tensor, part: Part
    ) -> None:
        """A neuron's column [d] must be what its part writes, rounded once."""
        wrong = off(stored, exact, self.dtype)
        if (wrong > 1).any():
            self.wrong_at(
                role,
                (neuron, int(wrong.argmax())),
                f"is not what {part.source.label} writes, rounded",
            )

    def check_remainder(self, role: str, neuron: int, written: Tensor, room: Tensor) -> None:
        """What makes up for a constant's rounding may be no more than that, both [d]."""
        if (written.abs() > room).any():
            place = int((written.abs() - room).argmax())
            self.wrong_at(role, (neuron, place), "is more than rounding can take from a constant")

    def _check_threshold(
        self, role: str, neuron: int, part: Part, reading: Reading, bias: float
    ) -> None:
        """A gate's zero must be where the part begins, as far as no read-out has a say in it."""
        if self.narrow:
            self.unproven(_NARROW)
            return
        scale = self.length / self.width**0.5
        moved = abs(bias / reading.multiple) * scale
        missing = abs(self.missing(part, 1))
        size = float(part.encoder.norm()) * self.length
        room = 2 * missing + _THRESHOLD_ROOM * size
        if part.kind is not Normalization.NONE:
            room += 2 * abs(part.source.bias - part.at) * scale
        held = moved + reading.length * size
        if moved > room or held < missing / 2 - _THRESHOLD_ROOM * size:
            moved = max(moved, missing - held)
            bias_role = role.replace("weight", "bias")
            self.wrong(
                bias_role if bias_role in self.findings.names else role,
                neuron,
                f"it moves the threshold of {part.source.label} by about {moved:.3g}",
                loose=True,
            )

    def check_common_read_out(self, role: str) -> None:
        """What gates read beside their encoders must be multiples of one read-out of a constant.

        By how much each needs it is known: by what attention's constant leaves of its threshold.
        """
        found = [(n, p, r, self.missing(p, r.side) * r.side) for n, p, r in self.read_beside]
        total = sum(missing**2 for *_, missing in found)
        if len(found) < 2 or not total:
            return
        common = torch.zeros(self.width, dtype=torch.float64)
        for _ in range(8):
            step = torch.zeros_like(common)
            for _, part, reading, missing in found:
                step += missing * (reading.rest - missing * across(common, part.encoder))
            common = common + step / total
        for neuron, part, reading, missing in found:
            wanted = missing * across(common, part.encoder)
            left = float((reading.rest - wanted).norm() / part.encoder.norm())
            room = 3 * reading.rounding + self.fit_slack
            room += 0.25 * float(wanted.norm() / part.encoder.norm())
            if left > room:
                self.wrong(
                    role,
                    neuron,
                    f"{left:.1%} of what it reads is neither {part.source.label}'s encoder nor "
                    "what other neurons read beside theirs",
                )

    def limit_read_out(self, role: str, neuron: int, row: Tensor, level: float) -> None:
        """A read-out of a scale may not vary far beyond what scales do."""
        if self.narrow:
            self.unproven(_NARROW)
            return
        most = float(row.norm()) * self.width**0.5
        if most > _MOST_SCALE * level:
            self.wrong(
                role,
                neuron,
                f"a read-out of a scale near {level:g} varies by up to {most:.3g} with the stream",
                loose=True,
            )

    def check_scale(self, role: str, neuron: int, scale: float, least: float, most: float) -> None:
        """The scale that heights go with must be about as large as the norm's.

        Weights leave the norm's typical scale to calibration: this only finds what is far off.
        """
        if self.narrow:
            self.unproven(_NARROW)
            return
        ratio = scale / (self.length / self.width**0.5)
        if not least <= ratio <= most:
            self.wrong(
                role, neuron, f"it writes as if the norm's scale were {ratio:.3g} times what it is"
            )

    def within(self, role: str, neuron: int, column: Tensor, most: float) -> None:
        """What a guard writes must lie in what the layer writes otherwise, but for rounding.

        Args:
            role: whose column it is.
            neuron: whose.
            column: what it writes for one unit, shape [d].
            most: how many units it gives at the most.
        """
        columns = [term.direction.double() for term in self.site.terms]
        columns += [self.added, self.layer_constant]
        columns += self.rounded_columns
        basis = torch.stack([c / c.norm() for c in columns if c.any()], dim=1)
        left = column - basis @ solved(basis, column)
        room = 2 * spacing(column, self.dtype)
        # A direction in which next to nothing varies is as good as any other.
        noise = 0.2 * self.length
        size = float(left.norm())
        mixed = not (left.abs() > room).any() or size < 0.5 * float(column.norm())
        if not mixed and size * most > noise:
            self.wrong_at(
                role,
                (neuron, int((left.abs() - room).argmax())),
                f"is no mixture of what the edits write, by up to {size * most:.3g}",
            )

    @property
    def layer_constant(self) -> Tensor:
        """What the MLP adds on every token, shape [d]."""
        return torch.zeros(self.width, dtype=torch.float64)

    @property
    def rounded_columns(self) -> list[Tensor]:
        """What neurons of edits write, as it is stored."""
        return []

    def check_constant(self, role: str, made: Tensor, homes: Sequence[int], room: Tensor) -> None:
        """What the layer adds to every token must be the edit's constant."""
        wanted, free = self.parts.constant(homes)
        left = made - wanted
        parts = wanted.abs()
        if len(free):
            moved = free.T @ solved(free.T, left)
            left, parts = left - moved, parts + moved.abs()
            # The rounding of one channel moves the fit, and so the others.
            room = room + room.max() / 4 + 1e-7 * (parts + made.abs()).max()
        # The constant is put together in float32 before it is rounded.
        room = room * (1 + 1e-6) + 4 * torch.finfo(torch.float32).eps * (parts + made.abs())
        if (left.abs() > room).any():
            place = int((left.abs() - room).argmax())
            self.wrong(
                role, None, f"channel {place}: what every token gets is not the edit's constant"
            )
        if wanted.any() and not len(free):
            strength = float(made @ wanted / wanted.square().sum())
            labels = [t.label for t in self.site.terms if not t.encoder.any()]
            if labels:
                self.findings.recovered.append(
                    Recovered(
                        ", ".join(labels), "constant", 0, strength, None, None, cosine(made, wanted)
                    )
                )

    def middles(
        self, lines: Sequence[Part], made: Tensor, homes: Sequence[int], room: Tensor
    ) -> list[tuple[Part, float, float]]:
        """Each line with the value of p that it is taken relative to, and how far that may be off.

        What is written for that value is in the constant [d] that is made, which rounding may have
        moved by `room` [d].
        """
        wanted, free = self.parts.constant(homes)
        if not len(free):
            # What SAEs that scale their input need is in no constant.
            return [(part, 0.0, torch.inf) for part in lines]
        inverse = torch.linalg.pinv(free.T)
        found, off = inverse @ (made - wanted), inverse.abs() @ room
        plain = [part for part in lines if part.kind is Normalization.NONE]
        at = {
            part: (float(value) / part.size, float(error) / abs(part.size))
            for part, value, error in zip(plain, found, off, strict=True)
        }
        return [(part, *at.get(part, (0.0, torch.inf))) for part in lines]

    def recover(
        self,
        part: Part,
        what: str,
        neurons: int,
        strength: float | None,
        reading: Reading,
        column: Tensor,
    ) -> None:
        """Note what the weights make of a part."""
        at = None
        if part.index is not None and part.kind is Normalization.NONE:
            # What attention's constant makes of it, where the gates add nothing of their own.
            at = part.source.bias - float(part.encoder @ self.added)
        writes = cosine(column, part.written)
        self.findings.recovered.append(
            Recovered(part.source.label, what, neurons, strength, at, reading.cosine, writes)
        )
