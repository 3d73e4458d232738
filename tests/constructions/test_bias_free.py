"""The construction without MLP biases against edits written out by hand, on fresh tokens."""

from __future__ import annotations

import pytest
import torch

from hubsplice.constructions.bias_free import compile_bias_free
from hubsplice.constructions.bias_free_layer import BiasFreeLayer
from hubsplice.intervention.site import Site
from tests.constructions.fresh_tokens import (
    assert_gives_the_edit,
    assert_is_about_as_good_as_the_hook,
    made_by,
)
from tests.constructions.streams import (
    EDITS,
    EPS,
    SHARE_WITHOUT_BIASES,
    SINKS,
    D,
    HandSite,
    calibration,
    hand_site,
    served,
    stream,
)

SHARES = [0.1, 0.9]
# Three times the width, as Qwen3 has it.
ROOM = 3 * D


def compiled(hand: HandSite, dtype: torch.dtype) -> BiasFreeLayer:
    return compile_bias_free(hand.site, calibration(dtype), dtype, ROOM)


@pytest.mark.parametrize("active", SHARES)
@pytest.mark.parametrize("kind", EDITS)
def test_in_float32_fresh_tokens_get_the_edit(kind: str, active: float) -> None:
    hand = hand_site(EDITS[kind], active=active)
    error = 0.035 if hand.edit.thresholds else 0.01
    assert_gives_the_edit(compiled(hand, torch.float32), hand, error=error, idle=2e-3)


@pytest.mark.parametrize("kind", ["relu ablate", "jump ablate", "gated steer", "steer"])
def test_in_bfloat16_what_is_rounded_and_not_constant_stays_small(kind: str) -> None:
    hand = hand_site(EDITS[kind])
    layer = compiled(hand, torch.bfloat16)
    # There is no constant but what the stream tells of one, and the report says how good it is.
    assert_is_about_as_good_as_the_hook(layer, hand, over=1.8, share=SHARE_WITHOUT_BIASES)
    assert any("no biases" in note for note in layer.approximations) == (kind != "steer")


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_site_without_terms_changes_no_bit(dtype: torch.dtype) -> None:
    layer = compile_bias_free(Site(0, ()), calibration(dtype), dtype, ROOM)
    assert layer.neurons == 0
    h = served(stream(4), dtype, 5)
    assert torch.equal(layer(h, EPS), h)


def test_what_is_injected_is_taken_away_from_every_token() -> None:
    # The edit fires on no token: what is left of the layer adds up to nothing, sinks included.
    hand = hand_site(EDITS["gated steer"], active=0.001)
    h = stream(2)
    layer = compiled(hand, torch.float32)
    idle = hand.distance(h) > 0.01
    idle &= hand.delta(h).norm(dim=1) == 0
    assert idle.sum() > 3000
    assert float(layer.attention_bias.norm()) > 5 * float(h[SINKS:].norm(dim=1).median())
    made = made_by(layer, h)[idle]
    assert (made.norm(dim=1) <= 3e-4 * layer.attention_bias.norm()).all()
    assert layer.neurons >= 2 * D
