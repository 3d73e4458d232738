"""Layers whose norms a carrier has fixed: every channel but one gets the edit."""

from __future__ import annotations

import pytest
import torch

from hubsplice.constructions.held_norms import SILENT_CHANNELS, HeldNorms
from hubsplice.constructions.sandwich import compile_sandwich
from hubsplice.constructions.sandwich_form import POST_NORM, SANDWICH, SandwichForm
from hubsplice.constructions.sandwich_layer import SandwichLayer
from tests.constructions.fresh_tokens import made_by, relative_error
from tests.constructions.streams import EDITS, SINKS, D, HandSite, calibration, hand_site, stream

KINDS = ("relu ablate", "relu clamp where active", "steer")
SILENT = tuple(range(5, 5 + SILENT_CHANNELS))

every_form = pytest.mark.parametrize(
    "form", [SANDWICH, POST_NORM], ids=lambda form: form.construction
)


def compiled(hand: HandSite, form: SandwichForm, dtype: torch.dtype) -> SandwichLayer:
    held = HeldNorms.of(SILENT, D, form, dtype)
    layer = compile_sandwich(hand.site, calibration(dtype), dtype, 511, form, held=held)
    assert torch.equal(layer.attention_norm, held.attention)
    assert torch.equal(layer.output_norm, held.output)
    return layer


@pytest.mark.parametrize(("dtype", "error"), [(torch.float32, 0.005), (torch.bfloat16, 0.1)])
@pytest.mark.parametrize("kind", KINDS)
@every_form
def test_all_other_channels_get_the_edit(
    form: SandwichForm, kind: str, dtype: torch.dtype, error: float
) -> None:
    hand = hand_site(EDITS[kind])
    layer = compiled(hand, form, dtype)
    h = stream(2).to(dtype).float()
    made, wanted, ordinary = made_by(layer, h.to(dtype)), hand.delta(h), hand.is_ordinary(h)
    edited = (wanted.norm(dim=1) > 0) & ordinary
    lost = made[:, SILENT[0]].abs().max() if kind != "steer" else torch.zeros(())
    assert lost <= 1e-6 * wanted.norm(dim=1).max()
    kept = torch.arange(D) != SILENT[0]
    if hand.edit.thresholds:
        # One token on the other side of a jump outweighs what all others are off by.
        edited &= hand.distance(h) > 0.05
    found = relative_error(made[:, kept], wanted[:, kept], edited)
    print(form.construction, kind, dtype, found)  # noqa: T201
    assert found < error


@every_form
def test_what_is_constant_is_written_everywhere(form: SandwichForm) -> None:
    hand = hand_site(EDITS["steer"])
    h = stream(2)
    made = made_by(compiled(hand, form, torch.float32), h)
    wanted, ordinary = hand.delta(h), hand.is_ordinary(h)
    assert relative_error(made, wanted, ordinary) < 1e-4


@every_form
def test_sinks_are_left_alone(form: SandwichForm) -> None:
    hand = hand_site(EDITS["relu ablate"])
    h = stream(2)
    made, sinks = made_by(compiled(hand, form, torch.float32), h), ~hand.is_ordinary(h)
    assert int(sinks.sum()) == SINKS
    assert (made[sinks].norm(dim=1) <= 1e-3 * h[sinks].norm(dim=1)).all()
