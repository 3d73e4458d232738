"""The neurons of a layer for blocks with LayerNorm and a plain GELU MLP, each against its part.

See `hubsplice.constructions.layernorm` for what each of them is there for.
"""

from __future__ import annotations

from functools import cached_property

import torch
from torch import Tensor

from hubsplice.constructions.layernorm_layer import PlainLayer
from hubsplice.intervention.normalization import Normalization
from hubsplice.proving.layer_check import LayerCheck
from hubsplice.proving.parts import Part
from hubsplice.proving.rounding import common_factor, spacing
from hubsplice.proving.rows import first_unequal

# How long the read-out of a mean is, in units of what the encoder reads of it.
_MEAN_READ_OUT = 6.0

# What the read-out of a knot is limited by, beside the one or so that it typically gives.
_SHIFTED = 10.0


class PlainCheck(LayerCheck[PlainLayer]):
    """A layer of the construction `layernorm-bias`."""

    first = "in_weight"

    def check(self) -> None:
        """Find everything that is wrong with the layer."""
        self._sharpness = self.constant("sharpness", 1024.0)
        self._saturation = self.constant("saturation", 8.0)
        jumps, bends = self.parts.jumps, self.parts.bends
        at = 2 * len(jumps)
        for i, part in enumerate(jumps):
            self._jump(i, len(jumps), part)
        for i, part in enumerate(bends):
            self._opens(at + i, part, self._sharpness)
        homes = self.parts.homes(self.sides)
        if homes is None:
            self.wrong("in_weight", None, "bends and jumps of one edit open to opposite sides")
            return
        halves = [(part, side) for part in self.parts.lines(homes) for side in (1, -1)]
        for i, (part, side) in enumerate(halves):
            neuron = at + len(bends) + i
            reading = self.reads("in_weight", self.rows[neuron], neuron, part, None)
            if reading.side != side:
                self.wrong("in_weight", neuron, "it opens to the other side than a line's half")
        ramps = [(part, 1) for part in bends] + halves
        knots = int(self.constant("knots", 0.0)) if ramps else 0
        # A line's half to the left writes the opposite of the one to the right.
        exact = [side * part.written / self._sharpness for part, side in ramps]
        if ramps:
            self.check_scale("out_weight", at, self._columns(at, exact), 0.3, 3.0)
            self._knots(at + len(ramps), ramps, knots)
            self.unproven(
                "the heights of bends and lines go with a typical scale of the norm and read-outs "
                "of what it differs by, which were fitted to calibration"
            )
        for i, part in enumerate(bends):
            neuron = at + i
            reading = self.reads("in_weight", self.rows[neuron], neuron, part, None, quiet=True)
            self.recover(part, "bend", 1 + 2 * knots, None, reading, self.columns[neuron])
        at += len(ramps) * (1 + 2 * knots)
        for _ in self.parts.scaled(homes):
            self.limit_read_out("in_weight", at, self.rows[at], self._saturation)
            self.within("out_weight", at, self.columns[at], self._most(at))
            at += 1
        remainder = torch.zeros(self.width, dtype=torch.float64)
        if self.used > at and not self.rows[at].any():
            remainder = self._remainder(at)
            at += 1
        made = (self.layer.attention_bias.double() + self.layer.out_bias.double()) + remainder
        room = 2 * spacing(remainder, self.dtype)
        if not remainder.any():
            room = spacing(self.layer.out_bias, self.dtype) / 2
        self.check_constant("out_bias", made, homes, room)
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

    def _opens(self, neuron: int, part: Part, multiple: float | None) -> int:
        half = 0.0 if multiple is not None else self._saturation
        bias = float(self.biases[neuron]) - half
        reading = self.reads("in_weight", self.rows[neuron], neuron, part, bias)
        if multiple is not None and not (
            abs(abs(reading.multiple) / multiple - 1) < self.tolerated(part)
        ):
            self.wrong(
                "in_weight",
                neuron,
                f"found {abs(reading.multiple):g} times the encoder, expected {multiple:g}",
            )
        self.note_side("in_weight", neuron, part, reading.side)
        return reading.side

    def _jump(self, upper: int, count: int, part: Part) -> None:
        lower = upper + count
        side = self._opens(upper, part, None)
        exact = side * part.written / (2 * self._saturation)
        if part.kind is Normalization.NONE:
            self._pair(upper, lower)
            self.check_column("out_weight", upper, self.columns[upper], exact, part)
            strength = float(self.columns[upper] @ exact / exact.square().sum())
        else:
            strength = None
            self._columns(upper, [exact])
            self._opposite(upper, lower)
        reading = self.reads("in_weight", self.rows[upper], upper, part, None, quiet=True)
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
        """Pairs along each ramp, which make up for what the norm's scale differs by."""
        count = len(ramps)
        apart: list[tuple[int, Tensor, Tensor]] = []
        for i, (part, side) in enumerate(ramps):
            exact = side * part.written
            heights = set()
            for knot in range(knots):
                upper = start + 2 * knot * count + i
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
                self.reads(
                    "in_weight",
                    (self.rows[upper] + self.rows[lower]) / 2,
                    upper,
                    part,
                    None,
                    coarse=self.rows[upper].abs() + self.rows[lower].abs(),
                )
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

    def _remainder(self, neuron: int) -> Tensor:
        if self.biases[neuron] != self._saturation:
            self.wrong("in_bias", neuron, f"expected {self._saturation:g}: it is always open")
        written = self._saturation * self.columns[neuron]
        room = spacing(self.layer.out_bias, self.dtype)
        self.check_remainder("out_weight", neuron, written, room)
        return written

    def _most(self, neuron: int) -> float:
        return float(self.rows[neuron].norm()) * self.width**0.5 + abs(float(self.biases[neuron]))
