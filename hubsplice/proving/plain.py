"""The neurons of a layer for blocks with LayerNorm and a plain GELU MLP, each against its part.

See `hubsplice.constructions.layernorm` for what each of them is there for.
"""

from __future__ import annotations

from dataclasses import replace
from functools import cached_property

import torch
from torch import Tensor

from hubsplice.constructions.layernorm_layer import PlainLayer
from hubsplice.intervention.normalization import Normalization
from hubsplice.proving.layer_check import LayerCheck
from hubsplice.proving.parts import Part
from hubsplice.proving.rounding import common_factor, spacing
from hubsplice.proving.rows import Reading, first_unequal
from hubsplice.proving.shared_read_outs import Row, wrong_rows

# How long the read-out of a mean is, in units of what the encoder reads of it.
_MEAN_READ_OUT = 6.0

_SCALING = tuple(kind for kind in Normalization if kind is not Normalization.NONE)

# From which share of the encoders' length on what is read beside them is told of.
_LONG = 0.1

# What the read-out of a knot is limited by, beside the one or so that it typically gives.
_SHIFTED = 10.0


class PlainCheck(LayerCheck[PlainLayer]):
    """A layer of the construction `layernorm-bias`."""

    first = "in_weight"

    def check(self) -> None:
        """Find everything that is wrong with the layer."""
        self._sharpness = self.constant("sharpness", 1024.0)
        self._saturation = self.constant("saturation", 8.0)
        self._read: list[Row] = []
        self._longest = 0.0
        jumps, bends = self.parts.jumps, self.parts.bends
        for i, part in enumerate(jumps):
            self.note_side("in_weight", i, part, self._side(part, self._middle(i, part)))
        at = 2 * len(jumps)
        for i, part in enumerate(bends):
            self.note_side("in_weight", at + i, part, self._side(part, self.rows[at + i]))
        homes = self.parts.homes(self.sides)
        if homes is None:
            self.wrong("in_weight", None, "bends and jumps of one edit open to opposite sides")
            return
        lines = self.parts.lines(homes)
        halves = [(part, side) for part in lines for side in (1, -1)]
        ramps = [(part, 1) for part in bends] + halves
        knots = int(self.constant("knots", 0.0)) if ramps else 0
        behind = at + len(ramps) * (1 + 2 * knots) + len(self.parts.scaled(homes))
        remainder = self._remainder(behind)
        made = (self.layer.attention_bias.double() + self.layer.out_bias.double()) + remainder
        room = 2 * spacing(remainder, self.dtype)
        if not remainder.any():
            room = spacing(self.layer.out_bias, self.dtype) / 2
        self.check_constant("out_bias", made, homes, room)
        for i, part in enumerate(jumps):
            self._jump(i, part)
        for i, part in enumerate(bends):
            self._opens(at + i, part, at + i)
        middles = self.middles(lines, made, homes, room)
        for i, (part, middle, unsure) in enumerate(middles):
            self._line(at + len(bends) + 2 * i, part, middle, unsure)
        self._check_read_outs()
        # A line's half to the left writes the opposite of the one to the right.
        exact = [side * part.written / self._sharpness for part, side in ramps]
        if ramps:
            self.check_scale("out_weight", at, self._columns(at, exact), 0.3, 3.0)
            self._knots(at, ramps, knots)
            self.unproven(
                "the heights of bends and lines go with a typical scale of the norm and read-outs "
                "of what it differs by, which were fitted to calibration"
            )
        for i, part in enumerate(bends):
            neuron = at + i
            reading = Reading.of(self.rows[neuron], part.encoder, self.dtype)
            self.recover(part, "bend", 1 + 2 * knots, None, reading, self.columns[neuron])
        at += len(ramps) * (1 + 2 * knots)
        for _ in self.parts.scaled(homes):
            self.limit_read_out("in_weight", at, self.rows[at], self._saturation)
            self.within("out_weight", at, self.columns[at], self._most(at))
            at += 1
        if remainder.any():
            at += 1
        if self.used == at + 2 and self.may_skip_sinks:
            self.findings.guard = 2
            self._pair(at, at + 1)
            self.within("out_weight", at, self.columns[at], 2 * self._saturation)
            self.unproven("where the sink guard opens, which was fitted to calibration")
        elif self.used != at:
            self.wrong("in_weight", None, f"{self.used} neurons, expected {at} for these edits")

    @cached_property
    def rows(self) -> Tensor:
        return self.layer.in_weight[: self.used].double()

    @cached_property
    def biases(self) -> Tensor:
        return self.layer.in_bias[: self.used].double()

    @cached_property
    def columns(self) -> Tensor:
        """What every neuron writes, a row for each, [neurons, d]."""
        return self.layer.out_weight[:, : self.used].double().T.contiguous()

    @property
    def layer_constant(self) -> Tensor:
        return self.layer.out_bias.double()

    @property
    def rounded_columns(self) -> list[Tensor]:
        rows = [*self.columns[: self.used - self.findings.guard]]
        return rows if len(rows) < 0.75 * self.width else []

    def missing(self, part: Part, side: int) -> float:
        offset = part.source.bias - part.at if part.kind is Normalization.NONE else 0.0
        encoder = part.encoder - part.encoder.mean()
        return side * (offset - float(encoder @ self.added))

    def _beside(self, part: Part) -> float:
        # The norm takes the mean of a token's channels away: it is read out of the others.
        encoder = part.source.encoder.double()
        mean = abs(float(encoder.sum())) / (self.width**0.5 * float(encoder.norm()))
        return super()._beside(part) + _MEAN_READ_OUT * mean

    def _side(self, part: Part, row: Tensor) -> int:
        """To which side of its threshold a part opens."""
        home = self.stored_home(part.term)
        if home is None or part.index is None:
            return Reading.of(row, part.encoder, self.dtype).side
        return 1 if part.index >= home else -1

    def _middle(self, upper: int, part: Part) -> Tensor:
        """What both neurons of a jump read, but for what keeps them apart."""
        if part.kind is Normalization.NONE:
            return self.rows[upper]
        return (self.rows[upper] + self.rows[upper + len(self.parts.jumps)]) / 2

    def _opens(self, neuron: int, part: Part, others: int) -> None:
        """A bend's neuron, or the upper one of a jump's two: what they read, and from where on."""
        assert part.index is not None
        jump = neuron != others
        row = self._middle(neuron, part) if jump else self.rows[neuron]
        side = self.sides[part.term, part.index]
        half = (spacing(self.rows[neuron], self.dtype) + spacing(self.rows[others], self.dtype)) / 4
        self._note(neuron, part, row, side, half, None if jump else self._sharpness)
        if self.narrow:
            return
        bias = float(self.biases[neuron]) - (self._saturation if jump else 0.0)
        reading = self.reads("in_weight", row, neuron, part, bias)
        if not jump:
            self._check_sharpness(neuron, part, reading)

    def _check_sharpness(self, neuron: int, part: Part, reading: Reading) -> None:
        found = abs(reading.multiple)
        if not abs(found / self._sharpness - 1) < self.tolerated(part):
            self.wrong(
                "in_weight",
                neuron,
                f"found {found:g} times the encoder, expected {self._sharpness:g}",
                loose=True,
            )

    def _line(self, right: int, part: Part, middle: float, unsure: float) -> None:
        """The neurons of a line's two halves, which read the opposite of each other."""
        place = first_unequal(self.rows[right], -self.rows[right + 1])
        if place is not None:
            self.wrong_at("in_weight", (right + 1, place), f"is not the opposite of neuron {right}")
        row, known = self.rows[right], replace(part, at=middle)
        half = spacing(row, self.dtype) / 2
        self._note(right, known, row, 1, half, self._sharpness, unsure)
        if not self.narrow:
            reading = self.reads("in_weight", row, right, part, None)
            self._check_sharpness(right, part, reading)

    def _note(
        self,
        neuron: int,
        part: Part,
        row: Tensor,
        side: int,
        half: Tensor,
        steepness: float | None,
        moved: float = 0.0,
    ) -> None:
        """Keep a row, to be compared with what all others read beside their encoders."""
        plain = part.kind is Normalization.NONE
        amounts = [self.missing(part, side), side * float(part.encoder.sum())]
        amounts += [
            side * (part.source.bias - part.at) if kind is part.kind and not plain else 0.0
            for kind in _SCALING
        ]
        encoder = side * (part.encoder - part.encoder.mean())
        of = torch.tensor(amounts, dtype=torch.float64)
        # The compiler has amounts in float32, before it takes what attention adds from them.
        sizes = of.abs()
        sizes[0] += 2 * abs(part.source.bias - part.at) + abs(float(encoder @ self.added))
        unsure = torch.finfo(torch.float32).eps * sizes
        unsure[0] += moved
        self._read.append(Row(neuron, part.source.label, row, encoder, of, half, unsure, steepness))
        multiple = steepness or abs(Reading.of(row, encoder, self.dtype).multiple)
        if multiple:
            rest = float((row / multiple - encoder).norm() / encoder.norm())
            self._longest = max(self._longest, rest)

    def _check_read_outs(self) -> None:
        for row, channel in wrong_rows(self._read, self.dtype):
            self.wrong_at(
                "in_weight",
                (row.neuron, channel),
                f"is not that of {row.label}'s encoder and of what other neurons read beside "
                "theirs",
            )
        if self.narrow and self._longest > _LONG:
            self.unproven(
                f"what rows read beside their encoders, up to {self._longest:.2g} times as long as "
                "those"
            )

    def _jump(self, upper: int, part: Part) -> None:
        assert part.index is not None
        lower = upper + len(self.parts.jumps)
        side = self.sides[part.term, part.index]
        self._opens(upper, part, lower)
        exact = side * part.written / (2 * self._saturation)
        if part.kind is Normalization.NONE:
            self._pair(upper, lower)
            self.check_column("out_weight", upper, self.columns[upper], exact, part)
            strength = float(self.columns[upper] @ exact / exact.square().sum())
        else:
            strength = None
            self._columns(upper, [exact])
            self._opposite(upper, lower)
        reading = Reading.of(self.rows[upper], part.encoder, self.dtype)
        self.recover(part, "jump", 2, strength, reading, self.columns[upper])

    def _pair(self, upper: int, lower: int) -> None:
        place = first_unequal(self.rows[upper], self.rows[lower])
        if place is not None:
            self.wrong_at("in_weight", (lower, place), f"differs from that of neuron {upper}")
        self._opposite(upper, lower)
        gap = float(self.biases[upper] - self.biases[lower])
        if gap != 2 * self._saturation:
            self.wrong(
                "in_bias", lower, f"{gap:g} below neuron {upper}, expected {2 * self._saturation:g}"
            )

    def _opposite(self, upper: int, lower: int) -> None:
        place = first_unequal(self.columns[upper], -self.columns[lower])
        if place is not None:
            self.wrong_at("out_weight", (lower, place), f"is not the opposite of neuron {upper}")

    def _columns(self, start: int, exact: list[Tensor]) -> float:
        stored = self.columns[start : start + len(exact)]
        return self.check_columns("out_weight", start, stored, exact)

    def _knots(self, start: int, ramps: list[tuple[Part, int]], knots: int) -> None:
        """Pairs along each ramp, which make up for what the norm's scale differs by.

        Args:
            start: the first ramp's own neuron.
            ramps: what each of them stands for, and whether it writes that or the opposite.
            knots: how many pairs each of them has.
        """
        count = len(ramps)
        apart: list[tuple[int, Tensor, Tensor]] = []
        for i, (part, side) in enumerate(ramps):
            exact, own = side * part.written, self.rows[start + i]
            heights = set()
            for knot in range(knots):
                upper = start + count + 2 * knot * count + i
                lower = upper + count
                self._opposite(upper, lower)
                factor = common_factor(self.columns[upper], exact, self.dtype)
                if not factor.holds:
                    self.wrong_at(
                        "out_weight",
                        (upper, factor.worst[0]),
                        f"is not what {part.source.label} writes, rounded",
                    )
                heights.add(tuple(self.columns[upper].tolist()))
                # Half their sum is the ramp's own gate; half their difference reads the scale.
                self._like(upper, lower, own)
                half = (self.rows[upper] - self.rows[lower]) / 2
                apart.append((upper, half, self.rows[upper].abs() + self.rows[lower].abs()))
            if len(heights) > 1:
                self.wrong("out_weight", start + i, "the knots of one bend differ in height")
        if apart:
            first, common, around = apart[0]
            self.limit_read_out("in_weight", first, common, _SHIFTED)
            for upper, half, size in apart[1:]:
                room = spacing(size, self.dtype) + spacing(around, self.dtype)
                if ((half - common).abs() > room).any():
                    place = int(((half - common).abs() - room).argmax())
                    self.wrong_at(
                        "in_weight", (upper, place), f"reads another scale than neuron {first}"
                    )

    def _like(self, upper: int, lower: int, own: Tensor) -> None:
        """The mean of two rows must be a multiple of the ramp's own row [d], but for rounding."""
        mean = (self.rows[upper] + self.rows[lower]) / 2
        multiple = float(mean @ own / own.square().sum().clamp(min=1e-300))
        room = (spacing(self.rows[upper], self.dtype) + spacing(self.rows[lower], self.dtype)) / 4
        room = room + abs(multiple) * (spacing(own, self.dtype) / 2 + self.fit_slack * own.abs())
        left = (mean - multiple * own).abs() - 1.02 * room
        if multiple <= 0 or (left > 0).any():
            self.wrong_at(
                "in_weight", (upper, int(left.argmax())), "does not read what its bend reads"
            )

    def _remainder(self, neuron: int) -> Tensor:
        """What a neuron that is always open adds to the constant, [d]; zero where there is none."""
        if self.used <= neuron or self.rows[neuron].any():
            return torch.zeros(self.width, dtype=torch.float64)
        if self.biases[neuron] != self._saturation:
            self.wrong("in_bias", neuron, f"expected {self._saturation:g}: it is always open")
        written = self._saturation * self.columns[neuron]
        room = spacing(self.layer.out_bias, self.dtype)
        self.check_remainder("out_weight", neuron, written, room)
        return written

    def _most(self, neuron: int) -> float:
        return float(self.rows[neuron].norm()) * self.width**0.5 + abs(float(self.biases[neuron]))
