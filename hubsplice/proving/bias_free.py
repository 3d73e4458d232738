"""The neurons of a layer whose gated MLP has no biases, each against its part.

See `hubsplice.constructions.bias_free` for what each of them is there for. Where other layers have
a bias, these have a multiple of a read-out of one, which is in the rows themselves.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

import torch
from torch import Tensor

from hubsplice.constructions.bias_free_layer import BiasFreeLayer
from hubsplice.proving.gated_rows import GatedRowsCheck
from hubsplice.proving.parts import Part
from hubsplice.proving.rounding import common_factor, spacing
from hubsplice.proving.rows import first_unequal

# How long the multiple of the read-out of one may be that centres a gate, over the encoder.
_SMALL_BIASES = 0.02


class BiasFreeCheck(GatedRowsCheck[BiasFreeLayer]):
    """A layer of the construction `prenorm-bias-free`."""

    def check(self) -> None:
        """Find everything that is wrong with the layer."""
        self._sharpness = self.constant("sharpness", 1024.0)
        self._saturation = self.constant("saturation", 16.0)
        jumps, bends = self.parts.jumps, self.parts.bends
        copies = int(self.constant("copies", 1.0)) if jumps else 0
        if self.used < 2 * copies * len(jumps) + len(bends):
            self.wrong("gate_weight", None, f"only {self.used} neurons hold anything")
            return
        at = 0
        for _copy in range(copies):
            self._jumps(at, copies)
            at += 2 * len(jumps)
        for i, part in enumerate(bends):
            self._opens(at + i, part)
        homes = self.parts.homes(self.sides)
        if homes is None:
            self.wrong("gate_weight", None, "bends and jumps of one edit open to opposite sides")
            return
        at = self._ramps(at, bends, "gate")
        at = self._ramps(at, self.parts.lines(homes), "up")
        for _vector in self.parts.scaled(homes).values():
            if at < self.used:
                self.within("down_weight", at, self.down[at], self._most(at))
            at += 1
        self._edits_end = at
        if self.used > at:
            at = self._constant(at, homes)
        guards = self.used - at
        if guards > 0:
            self._guard(at, guards)
        elif guards < 0:
            self.wrong("gate_weight", None, f"{self.used} neurons, expected {at} for these edits")
        self.unproven(
            "the heights of jumps and bends go with read-outs of a scale, and what small biases "
            "are made of is a read-out of one; they were fitted to calibration"
        )

    @cached_property
    def added(self) -> Tensor:
        return self.layer.attention_bias.double()

    @property
    def rounded_columns(self) -> list[Tensor]:
        rows = [*self.down[: self._edits_end]]
        return rows if len(rows) < 0.75 * self.width else []

    def _beside(self, part: Part) -> float:
        # What stands for the biases that centre a gate is in its row.
        return super()._beside(part) + _SMALL_BIASES

    def _opens(self, neuron: int, part: Part, row: Tensor | None = None) -> int:
        row = self.gate[neuron] if row is None else row
        reading = self.reads("gate_weight", row, neuron, part, 0.0)
        self.note_side("gate_weight", neuron, part, reading.side)
        return reading.side

    def _jumps(self, start: int, copies: int) -> None:
        parts = self.parts.jumps
        for i, part in enumerate(parts):
            upper, lower = start + i, start + i + len(parts)
            middle = (self.gate[upper] + self.gate[lower]) / 2
            side = self._opens(upper, part, middle)
            differing = (self.gate[upper] != self.gate[lower]).nonzero()[:, 0]
            if len(differing) != 1:
                self.wrong(
                    "gate_weight",
                    lower,
                    f"differs from that of neuron {upper} in {len(differing)} channels, "
                    "expected the one that carries a constant",
                )
            elif not self.added[differing[0]]:
                self.wrong_at(
                    "gate_weight",
                    (lower, int(differing[0])),
                    f"differs from that of neuron {upper}, and carries no constant",
                )
            for role, rows, sign in (("up_weight", self.up, 1.0), ("down_weight", self.down, -1.0)):
                place = first_unequal(rows[upper], sign * rows[lower])
                if place is not None:
                    self.wrong_at(role, (lower, place), f"does not suit that of neuron {upper}")
            self._column(upper, side * part.written, part)
            if start == 0:
                reading = self.reads("gate_weight", middle, upper, part, None, quiet=True)
                self.recover(part, "jump", 2 * copies, None, reading, side * self.down[upper])

    def _column(self, neuron: int, exact: Tensor, part: Part) -> None:
        factor = common_factor(self.down[neuron], exact, self.dtype)
        sign = 1.0
        if part.index is not None and factor.value < 0 and self._may_turn(neuron):
            # A carrier that holds a negative constant turns a jump's two gates round.
            sign = -1.0
        if not factor.holds:
            self.wrong_at(
                "down_weight",
                (neuron, factor.worst[0]),
                f"is not what {part.source.label} writes, rounded",
            )
        if sign * factor.value <= 0:
            self.wrong("down_weight", neuron, "it writes the opposite of its edit")

    def _may_turn(self, neuron: int) -> bool:
        """Whether the first gate of a jump's pair is the lower one, by what its channel carries."""
        count = len(self.parts.jumps)
        if neuron + count >= self.used:
            return False
        gap = self.gate[neuron] - self.gate[neuron + count]
        return bool((gap * self.added).sum() < 0)

    def _ramps(self, start: int, parts: Sequence[Part], side: str) -> int:
        if not parts:
            return start
        shared, other = ("up", self.up) if side == "gate" else ("gate", self.gate)
        exact = []
        for i, part in enumerate(parts):
            neuron = start + i
            if neuron >= self.used:
                break
            row = self.gate[neuron] if side == "gate" else self.up[neuron]
            wanted = self._sharpness if side == "gate" else 1.0
            reading = self.reads(f"{side}_weight", row, neuron, part, None, quiet=side == "gate")
            if not abs(abs(reading.multiple) / wanted - 1) < self.tolerated(part):
                self.wrong(
                    f"{side}_weight",
                    neuron,
                    f"found {abs(reading.multiple):g} times the encoder, expected {wanted:g}",
                )
            place = first_unequal(other[neuron], other[start])
            if place is not None:
                self.wrong_at(
                    f"{shared}_weight", (neuron, place), f"differs from that of neuron {start}"
                )
            exact.append(part.written)
            what = "bend" if side == "gate" else "line"
            self.recover(part, what, 1, None, reading, self.down[neuron])
        stored = self.down[start : start + len(exact)]
        factor = common_factor(stored, torch.stack(exact), self.dtype)
        if not factor.holds:
            row_at, channel = factor.worst
            self.wrong_at(
                "down_weight", (start + row_at, channel), "is not what its edit writes, rounded"
            )
        # A line's scale lies on the branch where SiLU is negative.
        if factor.value * (1 if side == "gate" else -1) <= 0:
            self.wrong("down_weight", start, "it writes the opposite of its edit")
        if side == "gate":
            self.limit_read_out("up_weight", start, other[start], 4.0)
        return start + len(parts)

    def _constant(self, start: int, homes: Sequence[int]) -> int:
        """Pairs of neurons that add up the squares of the norm's output, and the remainder."""
        d = self.width
        at, squares = start, torch.zeros(d, dtype=torch.float64)
        if self.used - start >= 2 * d:
            eye = torch.eye(d, dtype=torch.float64)
            rows = torch.cat([eye, -eye])
            for role, stored in (("gate_weight", self.gate), ("up_weight", self.up)):
                wrong = (stored[start : start + 2 * d] != rows).nonzero()
                if len(wrong):
                    neuron, channel = wrong[0].tolist()
                    self.wrong_at(role, (start + neuron, channel), "is not that of a square")
            block = self.down[start : start + 2 * d]
            wrong = (block != block[0]).nonzero()
            if len(wrong):
                neuron, channel = wrong[0].tolist()
                self.wrong_at(
                    "down_weight", (start + neuron, channel), f"differs from that of neuron {start}"
                )
            squares = block[0] * d
            at += 2 * d
        made = self.added + squares
        # A neuron that is always open makes up for what rounding takes: at most half a spacing.
        room = spacing(squares / d, self.dtype) * d / 2
        self.check_constant("down_weight", made, homes, room)
        if at < self.used and squares.any() and (self.used - at) % 2 != 0:
            written = self._saturation * self.down[at]
            self.check_remainder("down_weight", at, written, 1.1 * room)
            self.limit_read_out("gate_weight", at, self.gate[at], self._saturation)
            self.limit_read_out("up_weight", at, self.up[at], 1.0)
            at += 1
        return at

    def _guard(self, start: int, count: int) -> None:
        modes = int(self.constant("guard_modes", 0.0))
        half = count // 2
        if count % 2 or half > 1 + modes or not self.may_skip_sinks:
            self.wrong(
                "gate_weight", start, f"{count} neurons more than these edits and a guard take"
            )
            return
        self.findings.guard = count
        for i in range(half):
            upper, lower = start + i, start + half + i
            for role, rows, sign in (("up_weight", self.up, 1.0), ("down_weight", self.down, -1.0)):
                place = first_unequal(rows[upper], sign * rows[lower])
                if place is not None:
                    self.wrong_at(role, (lower, place), f"does not suit that of neuron {upper}")
            for neuron, first in ((upper, start), (lower, start + half)):
                place = first_unequal(self.gate[neuron], self.gate[first])
                if place is not None:
                    self.wrong_at(
                        "gate_weight", (neuron, place), f"differs from that of neuron {first}"
                    )
            self.within("down_weight", upper, self.down[upper], 2 * self._most(upper))
        self.unproven("where the sink guard opens, which was fitted to calibration")

    def _most(self, neuron: int) -> float:
        return self._saturation * float(self.up[neuron].norm()) * self.width**0.5
