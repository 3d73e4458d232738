"""A layer in a carrier's slots gives what the layer itself gives, on tokens it never saw."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from hubsplice.constructions.bias_free import compile_bias_free
from hubsplice.constructions.prenorm import compile_prenorm
from hubsplice.constructions.slots import (
    ATTENTION,
    DOWN,
    GATE,
    UP,
    Factors,
    Slots,
    SlottedLayer,
    read_out_of_one,
    recovered,
    square_rows,
)
from hubsplice.errors import UnsupportedError
from tests.constructions.streams import EDITS, EPS, D, calibration, hand_site, served, stream

ROOM = 256
SLOTS = Slots.fitting(ROOM)


def written_by(found: SlottedLayer, x: Tensor) -> Tensor:
    """What the factors add to the stream, in float64, from what the MLP reads."""
    factors = found.factors(SLOTS, ROOM, D)
    empty = torch.zeros(ROOM - SLOTS.total, dtype=torch.float64)
    given = []
    for role, bias in zip((GATE, UP), SLOTS.biases(), strict=True):
        a, b = factors[role].a.double(), factors[role].b.double()
        given.append(x.double() @ a.T @ b.T + torch.cat([bias.double(), empty]))
    hidden = functional.silu(given[0]) * given[1]
    down, attention = factors[DOWN], factors[ATTENTION]
    return hidden @ down.a.double().T @ down.b.double().T + attention.b[:, 0].double()


def full(factors: Factors) -> Tensor:
    """The whole change of a weight, float64."""
    return factors.b.double() @ factors.a.double()


@pytest.mark.parametrize(
    "kind",
    ["relu ablate", "relu clamp", "jump clamp where active", "gated steer", "project out"],
)
@pytest.mark.parametrize(
    ("dtype", "most"), [(torch.float32, 1e-6), (torch.bfloat16, 1e-2)], ids=["float32", "bfloat16"]
)
def test_slots_give_what_the_layer_gives(kind: str, dtype: torch.dtype, most: float) -> None:
    hand, activations = hand_site(EDITS[kind]), calibration(dtype)
    layer = compile_prenorm(hand.site, activations, dtype)
    one = read_out_of_one(hand.site, activations.agreeing(), layer, SLOTS)
    h = served(stream(2), dtype, 12)
    x = layer.normalise(h, EPS)
    exact = layer.to(torch.float64)
    hidden = functional.silu(exact.gates(x.double())) * functional.linear(
        x.double(), exact.up_weight, exact.up_bias
    )
    wanted = hidden @ exact.down_weight.T + exact.down_bias + exact.attention_bias
    error = (written_by(SlottedLayer.of(layer, one, SLOTS), x) - wanted).norm(dim=1)
    delta = hand.delta(stream(2))
    scale = delta[hand.is_ordinary(stream(2))].norm(dim=1).square().mean().sqrt()
    assert error.square().mean().sqrt() < most * scale
    # A sink is a hundred times as long as other tokens, and what comes behind it hears of it.
    assert error.max() < 10 * most * scale


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("kind", ["relu clamp", "jump clamp where active", "project out"])
def test_a_layer_without_biases_comes_out_again(kind: str, dtype: torch.dtype) -> None:
    hand, room = hand_site(EDITS[kind], features=2), 512
    layer = compile_bias_free(hand.site, calibration(dtype), dtype, room)
    slots = Slots.bias_free(D, room)
    found = SlottedLayer.of_bias_free(layer, slots)
    factors = found.factors(slots, room, D)
    again = recovered(factors, slots, found.neurons, found.constant, found.squares).compiled
    assert again.tensors().keys() == layer.tensors().keys()
    assert all(torch.equal(t, again.tensors()[name]) for name, t in layer.tensors().items())
    x = layer.with_biases.normalise(served(stream(2), dtype, 12), EPS).double()
    rows = functional.pad(square_rows(D, torch.float64), (0, 0, 0, room - 2 * D))
    hidden = functional.silu(x @ (rows + full(factors[GATE])).T) * (
        x @ (rows + full(factors[UP])).T
    )
    exact = layer.to(torch.float64)
    neurons = functional.silu(x @ exact.gate_weight.T) * (x @ exact.up_weight.T)
    wanted, made = neurons @ exact.down_weight.T, hidden @ full(factors[DOWN]).T
    assert (made - wanted).norm(dim=1).max() < 1e-9 * wanted.norm(dim=1).max()
    with pytest.raises(UnsupportedError, match="of kind plain and there are 3"):
        SlottedLayer.of_bias_free(layer, Slots.bias_free(D, room, 3))
