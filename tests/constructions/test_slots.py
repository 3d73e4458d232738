"""A layer in a carrier's slots gives what the layer itself gives, on tokens it never saw."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from hubsplice.constructions.prenorm import compile_prenorm
from hubsplice.constructions.slots import (
    ATTENTION,
    DOWN,
    GATE,
    UP,
    SlottedLayer,
    Slots,
    read_out_of_one,
)
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
