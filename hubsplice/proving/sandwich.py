"""The neurons of a layer for blocks that are normalised afterwards, each against its part.

See `hubsplice.constructions.sandwich` for what each of them is there for.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from functools import cached_property

import torch
from torch import Tensor

from hubsplice.constructions.sandwich_layer import SandwichLayer
from hubsplice.intervention.normalization import Normalization
from hubsplice.proving.gated_rows import GatedRowsCheck
from hubsplice.proving.parts import Part
from hubsplice.proving.rounding import common_factor, off, spacing
from hubsplice.proving.rows import Reading, first_unequal, solved

_GUARD = 4096.0
_CONSTANTS = 3

# From which share of its largest channel on a channel belongs to the dominant part.
_OF_DOMINANT = 0.02

# How long the read-out of a token's scale may be in a row, over its encoder.
_SCALE_READ_OUT = 8.0

# How many deviations of chance are allowed, and what is allowed where there is none.
_BY_CHANCE, _LEAST_WIDENED = 8.0, 1e-3

# How far a gate may move a threshold, over the encoder's length times the stream's.
_THRESHOLD_ROOM = 4e-3


class SandwichCheck(GatedRowsCheck[SandwichLayer]):
    """A layer of the constructions `sandwich` and `post-norm`."""

    def check(self) -> None:
        """Find everything that is wrong with the layer."""
        self._opening = self.constant("opening", 16.0)
        self._half = self.layer.form.saturation
        self._written_by_jumps: dict[int, list[tuple[float, float, float]]] = {}
        jumps = self.parts.jumps
        if self.used < len(jumps) + _CONSTANTS:
            self.wrong("gate_weight", None, f"only {self.used} neurons hold anything")
            return
        self._one = self.up[len(jumps)]
        for i, part in enumerate(jumps):
            self._probe(i, part)
        self._constant_neurons(len(jumps))
        layout = self._layout()
        if layout is None:
            self.wrong("gate_weight", None, f"{self.used} neurons do not suit these edits")
            return
        homes, guards, copies = layout
        at = len(jumps) + _CONSTANTS
        for vector in self.parts.scaled(homes).values():
            self._scaled_constant(at, vector)
            at += 1
        if guards:
            self._guard(at)
            at += 1
        lines = self.parts.lines(homes)
        level = self._ramps(at, lines, self.parts.bends, copies)
        at += copies * (len(lines) + len(self.parts.bends))
        self._level = level or self._typical_level
        for copy in range(copies if jumps else 0):
            self._jumps(at, copy, copies)
            at += 2 * len(jumps)
        self._constant(homes)
        if lines or self.parts.bends:
            self.unproven(
                "the heights of bends and lines, and the thresholds that attention's constant does "
                "not carry, go with a read-out of a constant, which was fitted to calibration"
            )

    @cached_property
    def added(self) -> Tensor:
        return self.layer.attention_constant(self.stored.eps).double()

    @cached_property
    def _gain(self) -> Tensor:
        """What a unit of the dominant part's length comes to on every channel, shape [d]."""
        return self.layer.form.gain(self.layer.output_norm) * self.width**0.5

    @cached_property
    def _dominant(self) -> Tensor:
        """The channels that the dominant part lies on, shape [d]."""
        row = self.down[len(self.parts.jumps)].abs()
        # One channel has all of it, or some share it evenly enough to tell them from the rest.
        return row > _OF_DOMINANT * row.max()

    @cached_property
    def _down_everywhere(self) -> Tensor:
        return torch.where(self._gain == 0, 0.0, 1.0 / self._gain)

    @cached_property
    def _down(self) -> Tensor:
        """What a neuron writes for one unit in a channel of the stream, shape [d]."""
        if self.dtype is torch.float32:
            return self._down_everywhere
        return self._down_everywhere.masked_fill(self._dominant, 0.0)

    @property
    def _typical_level(self) -> float:
        return self.length / self.width**0.5 if self.layer.form.normalises_input else 1.0

    def _layout(self) -> tuple[list[int], int, int] | None:
        """The homes of the terms, and how many guards and copies there are.

        Several numbers of lines and copies may come to as many neurons: what neurons share tells.
        """
        found = list(self._layouts())
        suiting = [layout for layout in found if self._suits(*layout)]
        return next(iter([*suiting, *found]), None)

    def _suits(self, homes: list[int], guards: int, copies: int) -> bool:
        """Whether lines have the gate, and bends the `up` row, that all of them have."""
        lines = copies * len(self.parts.lines(homes))
        start = len(self.parts.jumps) + _CONSTANTS + len(self.parts.scaled(homes)) + guards
        gates = self.gate[start : start + lines]
        ups = self.up[start + lines : start + lines + copies * len(self.parts.bends)]
        return bool((gates == self._opening * self._one).all() and (ups == self._one).all())

    def _layouts(self) -> Iterator[tuple[list[int], int, int]]:
        """The layouts that come to as many neurons as there are."""
        jumps, bends = self.parts.jumps, self.parts.bends
        for guards in (1, 0) if self.may_skip_sinks else (0,):
            for lines in range(len(self.site.terms) + 1):
                for scaled in range(3):
                    start = len(jumps) + _CONSTANTS + scaled + guards
                    needed = lines + len(bends) + 2 * len(jumps)
                    left = self.used - start
                    copies = left // needed if needed else 1
                    if left < 0 or copies < 1 or copies * needed != left:
                        continue
                    homes = self._homes(start + copies * lines)
                    if homes is None or len(self.parts.lines(homes)) != lines:
                        continue
                    found = len(self.parts.scaled(homes)) == scaled
                    if found and self._is_guard(start - 1) == bool(guards):
                        yield homes, guards, copies

    def _is_guard(self, neuron: int) -> bool:
        """Whether a neuron may be a guard by its size alone."""
        if neuron < len(self.parts.jumps) + _CONSTANTS:
            return False
        return float(self.down[neuron].norm()) > _GUARD / 4

    def _homes(self, start: int) -> list[int] | None:
        sides = dict(self.sides)
        for i, part in enumerate(self.parts.bends):
            assert part.index is not None
            # What stands for a bias may be longer than the encoder, and lie partly along it.
            basis = torch.stack([part.encoder, self._one], dim=1)
            side = 1 if solved(basis, self.gate[start + i])[0] > 0 else -1
            if sides.setdefault((part.term, part.index), side) != side:
                return None
        return self.parts.homes(sides)

    def _mixture(self, role: str, neuron: int, row: Tensor, part: Part, around: Tensor) -> Tensor:
        """A row as a mixture of the part's encoder and of the read-outs; their shares, [n].

        Args:
            role: whose row it is.
            neuron: whose.
            row: shape [d].
            part: what it is to read.
            around: the size of what was rounded, shape [d].
        """
        rows = [part.encoder, self._one]
        if part.kind is not Normalization.NONE:
            rows.append(self._scale_rows.get(part.kind, torch.zeros_like(row)))
        basis = torch.stack([r for r in rows if r.any()], dim=1)
        shares = solved(basis, row)
        left = (row - basis @ shares).abs()
        lengths = basis.norm(dim=0)
        # The rounding of all channels moves the shares by as much.
        moved = self.fit_slack * float((shares.abs() * lengths).sum())
        room = 0.52 * spacing(around, self.dtype) + moved * (basis.abs() / lengths).sum(dim=1)
        for i in range(1, basis.shape[1]):
            room += 0.6 * shares[i].abs() * spacing(basis[:, i], self.dtype)
        if part.kind in self._scale_rows:
            # It is half the difference of two rows, each of them rounded.
            start = self.used - 2 * len(self.parts.jumps)
            noise = spacing(self.gate[start:].abs().amax(dim=0), self.dtype)
            room += 2 * shares[-1].abs() * noise
        elif part.kind is not Normalization.NONE:
            # The read-out of its scale is in no row by itself.
            room += _SCALE_READ_OUT * shares[0].abs() * part.encoder.norm() / self.width**0.5
        if (left > room).any():
            self.wrong_at(
                role,
                (neuron, int((left - room).argmax())),
                f"is not that of {part.source.label}'s encoder and the read-out of a constant",
            )
        return shares

    @cached_property
    def _scale_rows(self) -> dict[Normalization, Tensor]:
        """Read-outs of a token's scale, from half the difference of a jump's two gates."""
        found: dict[Normalization, Tensor] = {}
        jumps = self.parts.jumps
        for i, part in enumerate(jumps):
            start = self.used - 2 * len(jumps) + i
            gap = (self.gate[start] - self.gate[start + len(jumps)]) / 2
            if part.kind is not Normalization.NONE:
                found.setdefault(part.kind, gap)
        return found

    def _probe(self, neuron: int, part: Part) -> None:
        """A neuron that writes nothing, and whose gate says on which side of a jump a token is."""
        for role, rows in (("up_weight", self.up), ("down_weight", self.down)):
            if rows[neuron].any():
                place = int(rows[neuron].nonzero()[0, 0])
                self.wrong_at(role, (neuron, place), "is not zero, and a probe writes nothing")
        row = self.gate[neuron]
        shares = self._mixture("gate_weight", neuron, row, part, row)
        self.note_side("gate_weight", neuron, part, 1 if shares[0] > 0 else -1)

    def _constant_neurons(self, start: int) -> None:
        """Three neurons, even in what they read: the constant twice, and what rounding took."""
        one = self._one
        for i, sign in enumerate((1.0, -1.0, 1.0)):
            wanted = (
                ("up_weight", self.up, sign),
                ("gate_weight", self.gate, sign * self._opening),
            )
            for role, rows, factor in wanted:
                place = first_unequal(rows[start + i], factor * one)
                if place is not None:
                    self.wrong_at(role, (start + i, place), "is not the read-out of a constant")
        place = first_unequal(self.down[start], self.down[start + 1])
        if place is not None:
            self.wrong_at("down_weight", (start + 1, place), f"differs from that of neuron {start}")
        room = spacing(self.down[start], self.dtype)
        self.check_remainder("down_weight", start + 2, self.down[start + 2], room)

    def _constant(self, homes: Sequence[int]) -> None:
        """What every token gets, attention's share with it, must be the edit's constant."""
        start = len(self.parts.jumps)
        row = self.down[start] + self.down[start + 2]
        made = self.added + row * self._gain
        weight = spacing(self.layer.output_norm, self.dtype) * self.width**0.5
        # Norms that a carrier fixed leave all of it to attention there.
        weight += spacing(self.added, self.dtype)
        room = 1e-5 * (made.abs() + self.added.abs())
        room += 2 * spacing(self.down[start + 2], self.dtype) * self._gain.abs()
        room = torch.where(self._dominant, room + weight + 1e-4 * made.abs().max(), room)
        self.check_constant("down_weight", made, homes, room)

    def _scaled_constant(self, neuron: int, vector: Tensor | None) -> None:
        self._reads_one(neuron)
        if vector is not None:
            self._written(neuron, vector * self._down, "the edits write in proportion to the scale")
        self.unproven("what an SAE makes of a token's scale, a read-out fitted to calibration")

    def _reads_one(self, neuron: int, role: str = "up_weight", factor: float = 1.0) -> None:
        rows = self.up if role == "up_weight" else self.gate
        place = first_unequal(rows[neuron], factor * self._one)
        if place is not None:
            self.wrong_at(role, (neuron, place), "is not the read-out of a constant")

    def _written(self, neuron: int, exact: Tensor, what: str) -> None:
        wrong = off(self.down[neuron], exact, self.dtype)
        if (wrong > 1).any():
            self.wrong_at(
                "down_weight", (neuron, int(wrong.argmax())), f"is not what {what}, rounded"
            )

    def _guard(self, neuron: int) -> None:
        self.findings.guard = 1
        place = first_unequal(self.gate[neuron], _GUARD * self.up[neuron])
        if place is not None:
            self.wrong_at("gate_weight", (neuron, place), "is not what the guard reads twice")
        taken = -self.added
        wanted = _GUARD * taken * self._down_everywhere
        wrong = off(self.down[neuron], wanted, self.dtype)
        wrong = wrong.masked_fill(self._dominant, 0.0)
        # Attention's constant is worked out with another library's rounding.
        wrong = wrong.masked_fill((self.down[neuron] - wanted).abs() < 1e-5 * wanted.abs(), 0.0)
        if (wrong > 1).any():
            self.wrong_at(
                "down_weight",
                (neuron, int(wrong.argmax())),
                "is not what attention adds, which a sink guard takes back",
            )
        self.unproven("where the sink guard opens, which was fitted to calibration")

    def _ramps(
        self, start: int, lines: Sequence[Part], bends: Sequence[Part], copies: int
    ) -> float | None:
        """The neurons of lines and bends; the level that their heights go with, if there are any.

        Each copy's scale is a power of two times one that its number gives.
        """
        stored, exact, readings = [], [], []
        for kind, parts in (("line", lines), ("bend", bends)):
            role = "up_weight" if kind == "line" else "gate_weight"
            rows = self.up if kind == "line" else self.gate
            factor = 1.0 if kind == "line" else self._opening
            for copy in range(copies):
                for i, part in enumerate(parts):
                    neuron = start + copy * len(parts) + i
                    row = rows[neuron]
                    shares = self._mixture(role, neuron, row, part, row)
                    multiple = float(shares[0])
                    other = "gate_weight" if kind == "line" else "up_weight"
                    self._reads_one(neuron, other, self._opening if kind == "line" else 1.0)
                    scale = _nearest_scale(multiple, copy / copies)
                    if not multiple or abs(abs(multiple) / scale - 1) > 0.02:
                        self.wrong(role, neuron, "it reads the encoder by a factor of no copy")
                    stored.append(self.down[neuron])
                    exact.append(part.written * self._down * factor / copies / scale)
                    side = 1.0 if multiple > 0 else -1.0
                    readings.append((role, neuron, part, side, shares, abs(multiple)))
                    if copy == 0:
                        reading = Reading.of(row, part.encoder, self.dtype)
                        column = self.down[neuron] * self._gain
                        self.recover(part, kind, copies, None, reading, column)
            start += copies * len(parts)
        if not stored:
            return None
        factor_found = common_factor(torch.stack(stored), torch.stack(exact), self.dtype)
        if not factor_found.holds:
            which, channel = factor_found.worst
            self.wrong_at(
                "down_weight", (readings[which][1], channel), "is not what its edit writes, rounded"
            )
        level = factor_found.value
        if level <= 0:
            self.wrong("down_weight", readings[0][1], "it writes the opposite of its edit")
        if self.layer.form.normalises_input:
            self.check_scale("down_weight", readings[0][1], level, 0.3, 3.0)
        elif abs(level - 1) > 1e-3:
            self.wrong("down_weight", readings[0][1], f"it writes {level:.4g} times its edit")
        for role, neuron, part, side, shares, multiple in readings:
            self._threshold(role, neuron, part, side, shares, multiple, level, 0.05)
        return level

    def _jumps(self, start: int, copy: int, copies: int) -> None:
        parts = self.parts.jumps
        scale = 2.0 ** (copy / copies)
        for i, part in enumerate(parts):
            upper, lower = start + i, start + i + len(parts)
            around = torch.maximum(self.gate[upper].abs(), self.gate[lower].abs())
            middle = (self.gate[upper] + self.gate[lower]) / 2
            shares = self._mixture("gate_weight", upper, middle, part, around)
            gap = (self.gate[upper] - self.gate[lower]) / 2
            if part.kind is Normalization.NONE:
                wanted = scale * self._half * self._one
                room = spacing(around, self.dtype)
                room = room + scale * self._half * spacing(self._one, self.dtype)
                if ((gap - wanted).abs() > room).any():
                    place = int(((gap - wanted).abs() - room).argmax())
                    self.wrong_at(
                        "gate_weight",
                        (lower, place),
                        f"is not apart from neuron {upper} as it is to be",
                    )
            for neuron in (upper, lower):
                self._reads_one(neuron)
            side = 1.0 if shares[0] > 0 else -1.0
            step = side * part.written * self._down * self._opening / (2 * self._half * copies)
            exact = step / scale
            # A gap that is wider once it is rounded is written by as much less.
            factor = common_factor(
                torch.stack([self.down[upper], -self.down[lower]]),
                torch.stack([exact, exact]),
                self.dtype,
            )
            wide = 0.4 if self.dtype is not torch.float32 else 0.1
            if part.kind is Normalization.NONE:
                wide = self._widened(gap, scale)
            if not factor.holds:
                which, channel = factor.worst
                self.wrong_at(
                    "down_weight",
                    ((upper, lower)[which], channel),
                    f"is not what {part.source.label} writes, rounded",
                )
            off_by = 1 / factor.value - 1 if factor.value else torch.inf
            if abs(off_by) > wide:
                self.wrong(
                    "down_weight",
                    upper,
                    f"it writes {factor.value:.3g} times what {part.source.label} does",
                )
            multiple = abs(float(shares[0]))
            self._written_by_jumps.setdefault(i, []).append((factor.value, off_by, wide))
            if copy == copies - 1:
                found, apart, limits = zip(*self._written_by_jumps[i], strict=True)
                strength = sum(found) / copies
                # Each copy was rounded by itself.
                if abs(sum(apart)) > math.hypot(*limits):
                    self.wrong(
                        "down_weight",
                        upper,
                        f"with its copies it writes {strength:.3g} times what "
                        f"{part.source.label} does",
                    )
                reading = Reading.of(middle, part.encoder, self.dtype)
                column = side * self.down[upper] * self._gain
                self.recover(part, "jump", 2 * copies, strength, reading, column)
            known = self._level != self._typical_level
            self._threshold(
                "gate_weight",
                upper,
                part,
                side,
                shares,
                multiple,
                self._level,
                0.05 if known else 0.5,
            )

    def _widened(self, gap: Tensor, scale: float) -> float:
        """How much wider or narrower rounding may make what a jump's gates are apart, of that.

        A gap [d] of two rows is as long as the read-out of a constant makes it. What rounding
        added to it, it adds by chance, and a typical stream reads some of that.
        """
        wanted = scale * self._half * self._one
        added = (gap - wanted).square() + (scale * self._half * spacing(self._one, self.dtype)) ** 2
        typical = 1.0
        if not self.layer.form.normalises_input:
            typical = self.length / self.width**0.5
        share = float(added.sum().sqrt()) * typical / (scale * self._half)
        return _BY_CHANCE * share + _LEAST_WIDENED

    def _threshold(
        self,
        role: str,
        neuron: int,
        part: Part,
        side: float,
        shares: Tensor,
        multiple: float,
        level: float,
        share: float,
    ) -> None:
        """What a row reads of a constant must be what is left of the part's threshold."""
        if part.index is None or part.kind is not Normalization.NONE or not multiple:
            return
        missing = self.missing(part, 1)
        held = side * float(shares[1]) / multiple * level
        size = float(part.encoder.norm()) * self.length
        if abs(held - missing) > share * abs(missing) + _THRESHOLD_ROOM * size:
            self.wrong(
                role,
                neuron,
                f"it moves the threshold of {part.source.label} by {abs(held - missing):.3g}",
            )


def _nearest_scale(multiple: float, fraction: float) -> float:
    """The power of two, times 2 to a fraction, that is nearest to a multiple."""
    if not multiple:
        return 1.0
    return float(2.0 ** (round(math.log2(abs(multiple)) - fraction) + fraction))
