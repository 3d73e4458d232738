"""A layer said as a change of low rank to an empty layer that already has something.

A LoRA adapter changes weights and no biases. So a carrier's empty layer has neurons whose biases
are fixed, the slots, and one channel of attention that gives exactly 1. An edit's layer is put into
them: each neuron takes the slot whose biases are nearest to its own, and what is left of its biases
is a multiple of a read-out of 1 from the normalised stream. Where an MLP has no biases, the empty
layer has the neurons instead whose outputs are the squares of what it reads: they add up to a
constant, which one rank writes, and all other slots are plain. Where norms stand behind blocks, the
empty layer has them, and all slots are plain. The numbers are the layer's own, so
that the layer can be read back out of them, bit for bit.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from hubsplice.constructions.bias_free_layer import BiasFreeLayer
from hubsplice.constructions.compiled_layer import CompiledLayer
from hubsplice.constructions.prenorm_layer import SplicedLayer
from hubsplice.constructions.sandwich_layer import SandwichLayer
from hubsplice.constructions.site_view import SiteView
from hubsplice.errors import CheckpointError, UnsupportedError
from hubsplice.intervention.site import Site
from hubsplice.streams.calibration import SiteActivations

# What silu gives at this argument is the argument, exactly, in every precision.
_OPEN = 32.0

BIASES = {
    "above": (_OPEN, 1.0),
    "below": (-_OPEN, 1.0),
    "bends": (0.0, 4.0),
    "lines": (64.0, 0.0),
    "squares": (0.0, 0.0),
    "plain": (0.0, 0.0),
}
"""The gate's and the up projection's bias of each kind of slot."""

GATE, UP, DOWN, ATTENTION = "gate", "up", "down", "attention"
"""The linear maps that an edit changes."""

_SHARES = {"above": 3 / 8, "below": 2 / 8, "bends": 2 / 8, "lines": 1 / 8}
_MOST = 512

MOST_PLAIN = 511
"""The most plain slots: an adapter's rank is one more, and 512 is the most that is served."""


@dataclass(frozen=True)
class Slots:
    """How many neurons of each kind a carrier's layer has; they stand in this order.

    Attributes:
        above, below: the two sides of a jump; constants take one of `above`.
        bends: what ramps are made of.
        lines: what has no bend.
        squares: where the MLP has no biases, neurons that read one channel each, with both signs.
        plain: there, all others.
        silent: where norms stand behind blocks, the channels that those of the layer silence.
    """

    above: int = 0
    below: int = 0
    bends: int = 0
    lines: int = 0
    squares: int = 0
    plain: int = 0
    silent: tuple[int, ...] = ()

    @staticmethod
    def fitting(room: int, total: int | None = None) -> Slots:
        """So many in all, or as many as common recipes need, in a layer of `room` neurons."""
        total = min(room, _MOST if total is None else total)
        counts = {kind: int(total * share) for kind, share in _SHARES.items()}
        return Slots(counts["above"], counts["below"], counts["bends"], counts["lines"])

    @staticmethod
    def bias_free(width: int, room: int, total: int | None = None) -> Slots:
        """The same in a layer without biases, of which squares take twice the stream's width."""
        left = room - 2 * width
        return Slots(squares=2 * width, plain=min(left, MOST_PLAIN if total is None else total))

    @staticmethod
    def behind_norms(silent: Sequence[int], room: int, total: int | None = None) -> Slots:
        """The same in a layer without biases whose norms stand behind its blocks."""
        most = MOST_PLAIN if total is None else total
        return Slots(plain=min(room, most), silent=tuple(silent))

    @property
    def of_bias_free(self) -> bool:
        """Whether all of them are of kinds that layers without biases have."""
        return {kind for kind, count in self.counts.items() if count} <= {"squares", "plain"}

    @property
    def total(self) -> int:
        """How many neurons they take."""
        return sum(self.counts.values())

    @property
    def counts(self) -> dict[str, int]:
        """How many there are of each kind, in order."""
        return {kind: getattr(self, kind) for kind in BIASES}

    def ranges(self) -> dict[str, range]:
        """The neurons of each kind."""
        found, start = {}, 0
        for kind, count in self.counts.items():
            found[kind] = range(start, start + count)
            start += count
        return found

    def biases(self) -> tuple[Tensor, Tensor]:
        """The biases of gate and up projection, shape [total] each, float32."""
        pairs = [BIASES[kind] for kind, count in self.counts.items() for _ in range(count)]
        both = torch.tensor(pairs, dtype=torch.float32).reshape(-1, 2)
        return both[:, 0].contiguous(), both[:, 1].contiguous()


@dataclass(frozen=True, eq=False)
class Factors:
    """A change of low rank, b·a, with a of shape [rank, inputs] and b of shape [outputs, rank].

    Of a carrier's layer the weight itself is zero.
    """

    a: Tensor
    b: Tensor


@dataclass(frozen=True, eq=False)
class SlottedLayer:
    """A layer in the slots of a carrier's.

    Attributes:
        layer: what it computes; where the MLP has no biases, with some that are zero.
        neurons: the slot of each of the layer's neurons, but of the squares.
        constant: the slot that writes what `down_bias` does; None where squares do.
        one: weights [d] whose product with the normalised stream is nearly 1.
        squares: which neuron of the layer is the first of the squares; None where there are none.
        behind: where norms stand behind blocks, a layer of no neurons that has them.
    """

    layer: SplicedLayer
    neurons: tuple[int, ...]
    constant: int | None
    one: Tensor
    squares: int | None = None
    behind: SandwichLayer | None = None

    @property
    def compiled(self) -> CompiledLayer:
        """The layer as a direct build has it."""
        if self.behind is not None:
            maps = ("attention_bias", "gate_weight", "up_weight", "down_weight")
            return replace(self.behind, **{name: getattr(self.layer, name) for name in maps})
        return BiasFreeLayer.of(self.layer) if self.constant is None else self.layer

    @property
    def record(self) -> dict[str, Any]:
        """What reads the layer back out of an adapter, for its manifest."""
        if self.constant is not None:
            return {"slots": list(self.neurons), "constant_slot": self.constant}
        return {"slots": list(self.neurons), "squares_at": self.squares}

    def rounded_biases(self, slots: Slots) -> int:
        """How many of the layer's biases an adapter can only give a little off."""
        if self.constant is None:
            return 0
        held, dtype = slots.biases(), self.layer.gate_weight.dtype
        at = torch.tensor(self.neurons, dtype=torch.int64)
        found = 0
        for there, bias in zip(held, (self.layer.gate_bias, self.layer.up_bias), strict=True):
            rest = (bias.double() - there[at].double()).to(dtype).double()
            found += int(((there[at].double() + rest).to(dtype) != bias).sum())
        return found

    @staticmethod
    def of(layer: SplicedLayer, one: Tensor, slots: Slots) -> SlottedLayer:
        """The layer in the nearest slots.

        Raises:
            UnsupportedError: there are too few of a kind.
        """
        constant, *neurons = _taken(["above", *_kinds(layer)], slots)
        return SlottedLayer(layer, tuple(neurons), constant, one.to(layer.gate_weight.dtype))

    @staticmethod
    def of_bias_free(layer: BiasFreeLayer, slots: Slots) -> SlottedLayer:
        """The layer in plain slots, and its squares in theirs.

        Raises:
            UnsupportedError: there are too few plain ones.
        """
        squares = _first_square(layer)
        plain = layer.neurons - (slots.squares if squares is not None else 0)
        neurons = _taken(["plain"] * plain, slots)
        nothing = torch.zeros_like(layer.attention_bias)
        return SlottedLayer(layer.with_biases, tuple(neurons), None, nothing, squares)

    @staticmethod
    def of_sandwich(layer: SandwichLayer, slots: Slots) -> SlottedLayer:
        """The layer in plain slots; its norms are to be the empty layer's.

        Raises:
            UnsupportedError: there are too few.
        """
        maps = BiasFreeLayer(
            layer.attention_bias, layer.gate_weight, layer.up_weight, layer.down_weight
        )
        neurons = _taken(["plain"] * layer.neurons, slots)
        nothing = torch.zeros_like(layer.attention_bias)
        return SlottedLayer(
            maps.with_biases, tuple(neurons), None, nothing, behind=layer.without_neurons
        )

    def factors(self, slots: Slots, room: int, attention_width: int) -> dict[str, Factors]:
        """The change to each linear map, all of one rank.

        Args:
            slots: the carrier's.
            room: how many neurons its layer has.
            attention_width: how many numbers its attention's output projection takes.
        """
        layer, d = self._without_squares(slots), len(self.one)
        units = _units(layer)
        rank = 1 + len(units)
        dtype = layer.gate_weight.dtype
        gate_slots, up_slots = (b.double() for b in slots.biases())
        at = torch.tensor(self.neurons, dtype=torch.int64)

        def zeros(*shape: int) -> Tensor:
            return torch.zeros(shape, dtype=dtype)

        reads = {}
        for name, weight, bias, held in (
            (GATE, layer.gate_weight, layer.gate_bias, gate_slots),
            (UP, layer.up_weight, layer.up_bias, up_slots),
        ):
            a, b = zeros(rank, d), zeros(room, rank)
            a[0] = self.one
            b[at, 0] = (bias.double() - held[at]).to(dtype)
            for unit, members in enumerate(units, start=1):
                a[unit] = weight[members[0][0]]
                for neuron, _ in members:
                    b[self.neurons[neuron], unit] = 1.0
            reads[name] = Factors(a, b)
        a, b = zeros(rank, room), zeros(d, rank)
        if self.constant is not None:
            # A power of two: what is divided by it is exact.
            a[0, self.constant], b[:, 0] = 1.0, layer.down_bias / _OPEN
        elif self.squares is not None:
            a[0, : slots.squares] = 1.0
            b[:, 0] = self.layer.down_weight[:, self.squares]
        for unit, members in enumerate(units, start=1):
            b[:, unit] = layer.down_weight[:, members[0][0]]
            for neuron, sign in members:
                a[unit, self.neurons[neuron]] = sign
        write = Factors(a, b)
        a, b = zeros(rank, attention_width), zeros(d, rank)
        a[0, 0], b[:, 0] = 1.0, layer.attention_bias
        return {ATTENTION: Factors(a, b), **reads, DOWN: write}

    def _without_squares(self, slots: Slots) -> SplicedLayer:
        """The layer's other neurons."""
        if self.squares is None:
            return self.layer
        layer = self.layer
        kept = torch.ones(layer.neurons, dtype=torch.bool)
        kept[self.squares : self.squares + slots.squares] = False
        return replace(
            layer,
            gate_weight=layer.gate_weight[kept],
            gate_bias=layer.gate_bias[kept],
            up_weight=layer.up_weight[kept],
            up_bias=layer.up_bias[kept],
            down_weight=layer.down_weight[:, kept],
        )


def _taken(wanted: Sequence[str], slots: Slots) -> list[int]:
    """A slot of each kind that is wanted."""
    free = {kind: iter(range_) for kind, range_ in slots.ranges().items()}
    needed = {kind: wanted.count(kind) for kind in BIASES}
    counts = slots.counts
    if any(needed[kind] > counts[kind] for kind in needed):
        raise NoRoomError(needed, counts)
    return [next(free[kind]) for kind in wanted]


def square_rows(width: int, dtype: torch.dtype) -> Tensor:
    """What the gates and the up projection of squares read, shape [2 * width, width]."""
    return torch.cat([torch.eye(width), -torch.eye(width)]).to(dtype)


def _first_square(layer: BiasFreeLayer) -> int | None:
    """Which neuron is the first of the squares."""
    rows = square_rows(width := len(layer.attention_bias), layer.gate_weight.dtype)
    for first in (layer.gate_weight == rows[0]).all(dim=1).nonzero()[:, 0].tolist():
        block = slice(first, first + 2 * width)
        if torch.equal(layer.gate_weight[block], rows) and torch.equal(
            layer.up_weight[block], rows
        ):
            return int(first)
    return None


def of_one_rank(changes: Mapping[int, Mapping[str, Factors]]) -> dict[int, dict[str, Factors]]:
    """The changes of several layers, all of the largest rank: an adapter has one."""
    rank = max(f.a.shape[0] for roles in changes.values() for f in roles.values())

    def padded(factors: Factors) -> Factors:
        more = rank - factors.a.shape[0]
        rows = factors.a.new_zeros(more, factors.a.shape[1])
        columns = factors.b.new_zeros(factors.b.shape[0], more)
        return Factors(torch.cat([factors.a, rows]), torch.cat([factors.b, columns], dim=1))

    return {
        splice: {role: padded(factors) for role, factors in roles.items()}
        for splice, roles in changes.items()
    }


class NoRoomError(UnsupportedError):
    """A layer needs more slots than there are.

    Args:
        needed: of each kind.
        there: of each kind.
    """

    def __init__(self, needed: dict[str, int], there: dict[str, int]) -> None:
        self.needed, self.there = needed, there
        missing = ", ".join(
            f"{needed[kind]} of kind {kind} and there are {there[kind]}"
            for kind in needed
            if needed[kind] > there[kind]
        )
        super().__init__(f"the edits need {missing}")

    @property
    def total(self) -> int:
        """How many slots in all are enough."""
        if self.needed["plain"]:
            return self.needed["plain"]
        return max(math.ceil(self.needed[kind] / share) for kind, share in _SHARES.items())


def in_slots(
    layer: CompiledLayer, site: Site, activations: SiteActivations, slots: Slots
) -> SlottedLayer:
    """The layer that a site was compiled to, in a carrier's slots.

    Args:
        layer: of a family that has carriers.
        site: what it was compiled for.
        activations: what it was compiled on.
        slots: the carrier's.

    Raises:
        NoRoomError: there are too few.
    """
    if isinstance(layer, BiasFreeLayer):
        return SlottedLayer.of_bias_free(layer, slots)
    if isinstance(layer, SandwichLayer):
        return SlottedLayer.of_sandwich(layer, slots)
    assert isinstance(layer, SplicedLayer)
    one = torch.zeros_like(layer.attention_bias)
    if layer.neurons:
        one = read_out_of_one(site, activations.agreeing(), layer, slots)
    return SlottedLayer.of(layer, one, slots)


def read_out_of_one(
    site: Site, activations: SiteActivations, layer: SplicedLayer, slots: Slots
) -> Tensor:
    """Weights [d] whose product with what the layer's MLP reads is nearly 1.

    A token counts by what the layer would write wrong there, relative to the stream, if the product
    were off: by how much the biases that the slots leave over tell there, at sinks as well.
    """
    view = SiteView.of(site, activations, layer, damping=0.0)
    x = view.x
    held = slots.biases()
    at = torch.tensor(SlottedLayer.of(layer, view.bias, slots).neurons, dtype=torch.int64)
    gate_rest, up_rest = (
        bias.double() - there.double()[at]
        for bias, there in zip((layer.gate_bias, layer.up_bias), held, strict=True)
    )
    gates = x @ layer.gate_weight.double().T + layer.gate_bias.double()
    ups = x @ layer.up_weight.double().T + layer.up_bias.double()
    opened = gates.sigmoid()
    slope = opened * (1 + gates * (1 - opened))
    told = slope * ups * gate_rest + gates * opened * up_rest
    energy = (told @ layer.down_weight.double().T).square().sum(dim=-1) / view.r.square()
    share = energy / energy.mean().clamp(min=1e-300)
    # Where few tokens tell, sinks as a rule, few of the channels are spent on them.
    weights = 0.01 + share
    weighted = x * (weights / weights.sum())[:, None]
    second = x.T @ weighted
    second.diagonal().add_(1e-6 * second.diagonal().mean() + 1e-30)
    return torch.linalg.solve(second, weighted.sum(dim=0))


def recovered(
    factors: dict[str, Factors],
    slots: Slots,
    neurons: Sequence[int],
    constant: int | None,
    squares: int | None = None,
    behind: SandwichLayer | None = None,
) -> SlottedLayer:
    """The layer that an adapter's factors say; `SlottedLayer.factors` gives the same ones of it.

    Args:
        factors: as `SlottedLayer.factors` gives them.
        slots: the carrier's.
        neurons, constant, squares, behind: see `SlottedLayer`.

    Raises:
        CheckpointError: they are no such factors.
    """
    gate, up, down, attention = (factors[name] for name in (GATE, UP, DOWN, ATTENTION))
    dtype, room = gate.a.dtype, down.a.shape[1]
    taken = [*neurons] if constant is None else [*neurons, constant]
    if len({*taken}) != len(taken) or not all(
        slots.squares <= slot < min(slots.total, room) for slot in taken
    ):
        raise CheckpointError(f"slots: found {list(neurons)}, expected different ones of the kinds")
    if (constant is None) != slots.of_bias_free or (
        squares is not None and not (slots.squares and 0 <= squares <= len(neurons))
    ):
        raise CheckpointError("slots: they are not what writes the constant in this carrier")
    at = torch.tensor(list(neurons), dtype=torch.int64)
    owners = gate.b[at, 1:]
    if len(at) and not (owners.sum(dim=1) == 1).all():
        raise CheckpointError("gate: a neuron does not read one row alone")
    unit = owners.float().argmax(dim=1) + 1 if len(at) else at
    gate_slots, up_slots = (b.double() for b in slots.biases())
    signs = down.a[unit, at]
    written = down.b[:, 0]
    layer = SplicedLayer(
        attention.b[:, 0].clone(),
        gate.a[unit],
        (gate_slots[at] + gate.b[at, 0].double()).to(dtype),
        up.a[unit],
        (up_slots[at] + up.b[at, 0].double()).to(dtype),
        (down.b[:, unit] * signs).contiguous(),
        torch.zeros_like(written) if constant is None else (written * _OPEN).to(dtype),
    )
    if squares is not None:
        layer = _with_squares(layer, squares, written)
    return SlottedLayer(layer, tuple(neurons), constant, gate.a[0].clone(), squares, behind)


def _with_squares(layer: SplicedLayer, first: int, column: Tensor) -> SplicedLayer:
    """The layer with squares as its neurons from `first` on, all of which write `column`."""
    rows = square_rows(len(column), column.dtype)
    nothing = torch.zeros(len(rows), dtype=column.dtype)

    def inserted(tensor: Tensor, more: Tensor) -> Tensor:
        return torch.cat([tensor[:first], more, tensor[first:]])

    return replace(
        layer,
        gate_weight=inserted(layer.gate_weight, rows),
        gate_bias=inserted(layer.gate_bias, nothing),
        up_weight=inserted(layer.up_weight, rows),
        up_bias=inserted(layer.up_bias, nothing),
        down_weight=inserted(layer.down_weight.T, column.expand(len(rows), -1)).T.contiguous(),
    )


def _kinds(layer: SplicedLayer) -> list[str]:
    """The kind of slot that each neuron takes: one of its levels is exactly the slot's.

    What a ramp's gate is off by is small beside its row, whatever the slot's is; what its `up` is
    off by would scale what it writes. Two sides of a jump are off by the same wherever it lies, if
    one takes a slot above and the other one below: then the height of the jump is exact.
    """
    kinds = list(_nearest(layer))
    for unit in _units(layer):
        neurons = sorted((neuron for neuron, _ in unit), key=lambda i: float(layer.gate_bias[i]))
        if len(neurons) == 2 and {kinds[neuron] for neuron in neurons} <= {"above", "below"}:
            kinds[neurons[0]], kinds[neurons[1]] = "below", "above"
    return kinds


def _nearest(layer: SplicedLayer) -> Iterator[str]:
    for gate, up in zip(layer.gate_bias.tolist(), layer.up_bias.tolist(), strict=True):
        if math.isclose(gate, BIASES["lines"][0], rel_tol=1e-4):
            yield "lines"
        elif math.isclose(up, BIASES["bends"][1], rel_tol=1e-4):
            yield "bends"
        else:
            yield "above" if abs(gate - _OPEN) <= abs(gate + _OPEN) else "below"


def _units(layer: SplicedLayer) -> list[list[tuple[int, float]]]:
    """Neurons that read the same rows and write the same direction, with the sign of each.

    One rank serves them all: the two sides of a jump take one between them.
    """
    found: dict[bytes, list[tuple[int, float]]] = {}
    for neuron in range(layer.neurons):
        column = layer.down_weight[:, neuron]
        nonzero = column[column != 0]
        sign = -1.0 if len(nonzero) and bool(nonzero[0] < 0) else 1.0
        parts = (layer.gate_weight[neuron], layer.up_weight[neuron], column * sign)
        key = b"".join(part.float().numpy().tobytes() for part in parts)
        members = found.setdefault(key, [])
        members.append((neuron, sign))
    return [
        [(neuron, sign * members[0][1]) for neuron, sign in members] for members in found.values()
    ]
