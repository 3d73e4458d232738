"""The neurons of a layer for pre-norm blocks whose gated MLP has biases, each against its part.

See `hubsplice.constructions.prenorm` for what each of them is there for.
"""

from __future__ import annotations

from functools import cached_property

import torch
from torch import Tensor

from hubsplice.constructions.prenorm_layer import SplicedLayer
from hubsplice.intervention.normalization import Normalization
from hubsplice.proving.gated_rows import GatedRowsCheck
from hubsplice.proving.parts import Part
from hubsplice.proving.rounding import spacing
from hubsplice.proving.rows import Reading, first_unequal

_SCALE_LEVEL, _LINE_LEVEL = 4.0, 64.0

# Read-outs with a bias up to this are left as they are.
_SMALL = 1e-2


class GatedCheck(GatedRowsCheck[SplicedLayer]):
    """A layer of the construction `prenorm-bias`."""

    def check(self) -> None:
        """Find everything that is wrong with the layer."""
        self._sharpness = self.constant("sharpness", 1024.0)
        self._saturation = self.constant("saturation", 16.0)
        jumps = self.parts.jumps
        copies = 0
        if jumps:
            most = self.constant("copied_jumps", 1.0)
            copies = int(max(1, min(self.constant("jump_copies", 1.0), most // len(jumps))))
        at = 0
        for copy in range(copies):
            self._jumps(at, copy, copies)
            at += 2 * len(jumps)
        self._after_jumps = at
        self._bends(at)
        at += len(self.parts.bends)
        self.check_common_read_out("gate_weight")
        homes = self.parts.homes(self.sides)
        if homes is None:
            self.wrong("gate_weight", None, "bends and jumps of one edit open to opposite sides")
            return
        lines = self.parts.lines(homes)
        self._lines(at, lines)
        at += len(lines)
        for kind, vector in self.parts.scaled(homes).items():
            self._scaled_constant(at, kind, vector)
            at += 1
        remainder = torch.zeros(self.width, dtype=torch.float64)
        if self.used > at and not self.gate[at].any():
            remainder = self._remainder(at)
            at += 1
        self._constant(homes, remainder)
        if self.used > at:
            self._guard(at)
        elif self.used < at:
            self.wrong("gate_weight", None, f"{self.used} neurons, expected {at} for these edits")

    @cached_property
    def gate_bias(self) -> Tensor:
        return self.layer.gate_bias[: self.used].double()

    @cached_property
    def up_bias(self) -> Tensor:
        return self.layer.up_bias[: self.used].double()

    def _jumps(self, start: int, copy: int, copies: int) -> None:
        parts = self.parts.jumps
        for i, part in enumerate(parts):
            upper, lower = start + i, start + i + len(parts)
            self._pair(upper, lower)
            reading = self._gate_reads(upper, part, self._saturation)
            height = reading.side * part.written / (2 * self._saturation * copies)
            if part.kind is Normalization.NONE:
                self._constant_up(upper)
                exact = height / self.layer.multiplier
                strength = self._strength(upper, exact)
                self.check_column("down_weight", upper, self.down[upper], exact, part)
            else:
                strength = None
                self._read_out(upper, part.kind, _SCALE_LEVEL)
                self._columns(upper, [height])
            if copy == 0:
                self.recover(part, "jump", 2 * copies, strength, reading, self.down[upper])

    def _pair(self, upper: int, lower: int) -> None:
        """Two neurons that agree in all but a constant, and write the opposite."""
        for role, rows in (("gate_weight", self.gate), ("up_weight", self.up)):
            place = first_unequal(rows[upper], rows[lower])
            if place is not None:
                self.wrong_at(role, (lower, place), f"differs from that of neuron {upper}")
        place = first_unequal(self.down[upper], -self.down[lower])
        if place is not None:
            self.wrong_at("down_weight", (lower, place), f"is not the opposite of neuron {upper}")
        if self.up_bias[upper] != self.up_bias[lower]:
            self.wrong("up_bias", lower, f"differs from that of neuron {upper}")
        gap = float(self.gate_bias[upper] - self.gate_bias[lower])
        if gap != 2 * self._saturation:
            self.wrong(
                "gate_bias",
                lower,
                f"{gap:g} below neuron {upper}, expected {2 * self._saturation:g}",
            )

    def _gate_reads(self, neuron: int, part: Part, half_gap: float) -> Reading:
        bias = float(self.gate_bias[neuron]) - half_gap
        reading = self.reads("gate_weight", self.gate[neuron], neuron, part, bias)
        self.note_side("gate_weight", neuron, part, reading.side)
        return reading

    def _constant_up(self, neuron: int) -> None:
        if self.up[neuron].any():
            place = int(self.up[neuron].nonzero()[0, 0])
            self.wrong_at("up_weight", (neuron, place), "is not zero, and the neuron reads nothing")
        if self.up_bias[neuron] != 1:
            self.wrong("up_bias", neuron, f"found {float(self.up_bias[neuron]):g}, expected 1")

    def _bends(self, start: int) -> None:
        parts = self.parts.bends
        if not parts:
            return
        for i, part in enumerate(parts):
            reading = self._gate_reads(start + i, part, 0.0)
            if not abs(abs(reading.multiple) / self._sharpness - 1) < self.tolerated(part):
                self.wrong(
                    "gate_weight",
                    start + i,
                    f"found {abs(reading.multiple):g} times the encoder, expected "
                    f"{self._sharpness:g}",
                )
            self.recover(part, "bend", 1, None, reading, self.down[start + i])
        self._shared_read_out(start, len(parts), "up", _SCALE_LEVEL)
        factor = self._columns(start, [part.written / self._sharpness for part in parts])
        self._check_height(start, factor, float(self.up_bias[start]), _SCALE_LEVEL)
        self._note_scale("the heights of bends")

    def _lines(self, start: int, parts: tuple[Part, ...]) -> None:
        if not parts:
            return
        for i, part in enumerate(parts):
            # Where the line is zero is known to calibration alone, and the constant says it.
            reading = self.reads("up_weight", self.up[start + i], start + i, part, None)
            if not abs(reading.multiple - 1) < self.tolerated(part):
                self.wrong(
                    "up_weight",
                    start + i,
                    f"found {reading.multiple:g} times the encoder, expected 1",
                )
            self.recover(part, "line", 1, None, reading, self.down[start + i])
        self._shared_read_out(start, len(parts), "gate", _LINE_LEVEL)
        factor = self._columns(start, [part.written for part in parts])
        self._check_height(start, factor, float(self.gate_bias[start]), _LINE_LEVEL)
        self._note_scale("the slopes of lines")
        first = start - len(self.parts.bends)
        if self.parts.bends:
            # The same read-out of the scale, four times two apart if it was brought to a level.
            unscaled = self._unscaled(self.gate_bias[start])
            apart = 1.0 if unscaled else _LINE_LEVEL / _SCALE_LEVEL
            place = first_unequal(self.gate[start], self.up[first] * apart)
            if place is not None:
                self.wrong_at(
                    "gate_weight", (start, place), f"reads another scale than neuron {first}"
                )

    def _shared_read_out(self, start: int, count: int, side: str, level: float) -> None:
        """Neurons that all read the token's scale, by one row and one bias."""
        rows, biases = (self.up, self.up_bias) if side == "up" else (self.gate, self.gate_bias)
        for neuron in range(start, start + count):
            place = first_unequal(rows[neuron], rows[start])
            if place is not None:
                self.wrong_at(
                    f"{side}_weight", (neuron, place), f"differs from that of neuron {start}"
                )
            if biases[neuron] != (biases[start] if self._unscaled(biases[start]) else level):
                self.wrong(
                    f"{side}_bias", neuron, f"found {float(biases[neuron]):g}, expected {level:g}"
                )
        self.limit_read_out(f"{side}_weight", start, rows[start], level)

    def _unscaled(self, bias: Tensor) -> bool:
        """Whether a read-out's bias may be what it is: too small to be brought to a level."""
        return self.narrow and float(bias) <= _SMALL

    def _check_height(self, neuron: int, factor: float, bias: float, level: float) -> None:
        """By which factor what is written goes with a read-out of this bias."""
        if bias == level:
            self.check_scale("down_weight", neuron, factor * level, 0.2, 5.0)
        elif abs(factor - 1) > torch.finfo(self.dtype).eps:
            self.wrong("down_weight", neuron, f"it writes {factor:.4g} times its edit")

    def _read_out(self, neuron: int, kind: Normalization, level: float) -> None:
        first = self.scales.setdefault(kind, neuron)
        place = first_unequal(self.up[neuron], self.up[first])
        if place is not None:
            self.wrong_at("up_weight", (neuron, place), f"differs from that of neuron {first}")
        if self.up_bias[neuron] != level:
            self.wrong(
                "up_bias", neuron, f"found {float(self.up_bias[neuron]):g}, expected {level:g}"
            )
        self.limit_read_out("up_weight", neuron, self.up[neuron], level)
        self._note_scale(f"what an SAE with {kind.value} makes of a token's scale")

    def _columns(self, start: int, exact: list[Tensor]) -> float:
        """Columns that are all one factor times what is to be written, rounded."""
        stored = self.down[start : start + len(exact)]
        factor = self.check_columns("down_weight", start, stored, exact)
        return factor * self.layer.multiplier

    def _strength(self, neuron: int, exact: Tensor) -> float:
        return float(self.down[neuron] @ exact / exact.square().sum())

    def _scaled_constant(self, neuron: int, kind: Normalization, vector: Tensor | None) -> None:
        if self.gate[neuron].any() or self.gate_bias[neuron] != self._saturation:
            self.wrong("gate_weight", neuron, "it reads the stream, and is to be always open")
        self._read_out(neuron, kind, _SCALE_LEVEL)
        if vector is not None and vector.any():
            self._columns(neuron, [vector])
        else:
            self.within("down_weight", neuron, self.down[neuron], self._most(neuron))

    def _remainder(self, neuron: int) -> Tensor:
        """What an always open neuron adds to the constant, shape [d]."""
        if self.gate_bias[neuron] != self._saturation:
            self.wrong("gate_bias", neuron, f"expected {self._saturation:g}: it is always open")
        self._constant_up(neuron)
        layer = self.layer
        written = self._saturation * self.down[neuron] * layer.multiplier
        room = spacing(layer.down_bias, self.dtype) * layer.multiplier
        if layer.multiplier != 1:
            # What is stored is rounded, and its products are rounded once more.
            for stored in (layer.down_bias, layer.attention_bias):
                room += spacing(stored.double() * layer.multiplier, self.dtype) / 2
        # What is left is put together in float32.
        room += 4 * torch.finfo(torch.float32).eps * layer.down_bias.double().abs()
        self.check_remainder("down_weight", neuron, written, room)
        return written

    def _constant(self, homes: list[int], remainder: Tensor) -> None:
        """What is added to every token: the edit's constant, and nothing that attention adds."""
        layer = self.layer
        made = (layer.attention_bias * layer.multiplier).double() + remainder
        made = made + (layer.down_bias * layer.multiplier).double()
        room = 2 * spacing(remainder, self.dtype)
        if not remainder.any():
            room = spacing(layer.down_bias, self.dtype) * layer.multiplier / 2
        self.check_constant("down_bias", made, homes, room)

    def _guard(self, start: int) -> None:
        """Pairs that share one gate, and take back what is written where it opens."""
        count = self.used - start
        half = count // 2
        modes = int(self.constant("guard_modes", 0.0))
        if count % 2 or not 1 <= half <= 1 + modes or not self.may_skip_sinks:
            self.wrong(
                "gate_weight", start, f"{count} neurons more than these edits and a guard take"
            )
            return
        self.findings.guard = count
        for i in range(half):
            self._pair(start + i, start + half + i)
            place = first_unequal(self.gate[start + i], self.gate[start])
            if place is not None:
                self.wrong_at(
                    "gate_weight", (start + i, place), f"differs from that of neuron {start}"
                )
            if self.gate_bias[start + i] != self.gate_bias[start]:
                self.wrong("gate_bias", start + i, f"differs from that of neuron {start}")
            most = 2 * self._most(start + i)
            self.within("down_weight", start + i, self.down[start + i], most)
        self._constant_up(start)
        self.unproven("where the sink guard opens, which was fitted to calibration")

    def _most(self, neuron: int) -> float:
        """What an open neuron gives at the most, for any stream."""
        read = float(self.up[neuron].norm()) * self.width**0.5 + abs(float(self.up_bias[neuron]))
        return self._saturation * read * self.layer.multiplier

    @property
    def layer_constant(self) -> Tensor:
        return self.layer.down_bias.double()

    @property
    def rounded_columns(self) -> list[Tensor]:
        # Copies of a jump write the same.
        jumps = len(self.parts.jumps)
        rows = [*self.down[:jumps], *self.down[self._after_jumps : self.used - self.findings.guard]]
        return rows if len(rows) < 0.75 * self.width else []

    def _note_scale(self, what: str) -> None:
        self.unproven(
            f"{what} go with a read-out of the norm's scale, which was fitted to calibration"
        )
