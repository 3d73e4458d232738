"""The sandwich construction against edits written out by hand, on fresh tokens."""

from __future__ import annotations

import pytest
import torch

from hubsplice.constructions.sandwich import compile_sandwich
from hubsplice.constructions.sandwich_form import POST_NORM, SANDWICH, SandwichForm
from hubsplice.constructions.sandwich_layer import SandwichLayer
from hubsplice.intervention.normalization import Normalization
from hubsplice.intervention.site import Site
from tests.constructions.fresh_tokens import (
    assert_gives_the_edit,
    assert_is_about_as_good_as_the_hook,
    made_by,
    relative_error,
    root_mean_square,
)
from tests.constructions.streams import (
    EDITS,
    EPS,
    SHARE,
    SINKS,
    HandSite,
    calibration,
    hand_site,
    served,
    stream,
)

ROOM = 512

every_form = pytest.mark.parametrize(
    "form", [SANDWICH, POST_NORM], ids=lambda form: form.construction
)


def compiled(
    hand: HandSite, dtype: torch.dtype, room: int = ROOM, form: SandwichForm = SANDWICH
) -> SandwichLayer:
    return compile_sandwich(hand.site, calibration(dtype), dtype, room, form)


@pytest.mark.parametrize("active", [0.1, 0.9])
@pytest.mark.parametrize("kind", EDITS)
@every_form
def test_in_float32_fresh_tokens_get_the_edit(form: SandwichForm, kind: str, active: float) -> None:
    hand = hand_site(EDITS[kind], active=active)
    # One token in a thousand that comes to lie on the other side of a jump is an error of 3%.
    error = 0.04 if hand.edit.thresholds else 0.005
    assert_gives_the_edit(compiled(hand, torch.float32, form=form), hand, error=error, idle=2e-3)


@pytest.mark.parametrize("kind", EDITS)
@every_form
def test_in_bfloat16_the_splice_is_about_as_good_as_the_hook(form: SandwichForm, kind: str) -> None:
    hand = hand_site(EDITS[kind])
    layer = compiled(hand, torch.bfloat16, form=form)
    # The stream has no constant but what is injected, and 64 channels, of which one is lost.
    assert_is_about_as_good_as_the_hook(layer, hand, over=2.2, share=SHARE)


@every_form
def test_in_bfloat16_a_steer_is_rounded_little_more_than_by_the_hook(form: SandwichForm) -> None:
    hand = hand_site(EDITS["steer"])
    seen = served(stream(2), torch.bfloat16, 12)
    ordinary = hand.is_ordinary(seen)
    exact = seen.double() + hand.delta(seen)
    hook = root_mean_square((exact.to(torch.bfloat16).double() - exact)[ordinary])
    splice = compiled(hand, torch.bfloat16, form=form)(seen, EPS).double()
    # An MLP that writes all of the constant reaches 1.35, the root of 1.8.
    assert root_mean_square((splice - exact)[ordinary]) <= 1.25 * hook


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@every_form
def test_a_site_without_terms_changes_no_bit(form: SandwichForm, dtype: torch.dtype) -> None:
    layer = compile_sandwich(Site(0, ()), calibration(dtype), dtype, ROOM, form)
    assert layer.neurons == 0
    h = served(stream(4), dtype, 5)
    assert torch.equal(layer(h, EPS), h)


@pytest.mark.parametrize(("dtype", "roundings"), [(torch.float32, 16), (torch.bfloat16, 1)])
@every_form
def test_what_attention_adds_is_taken_away_again(
    form: SandwichForm, dtype: torch.dtype, roundings: int
) -> None:
    # The edit fires on next to no token, but its threshold is what attention's constant carries.
    hand = hand_site(EDITS["gated steer"], active=0.001)
    h = served(stream(2), dtype, 5)
    layer = compiled(hand, dtype, form=form)
    added = layer.attention_constant(EPS).double()
    typical = h[SINKS:].double().norm(dim=1).median()
    assert added.norm() > 0.1 * typical
    idle = (hand.distance(h) > 0.5) & (hand.delta(h).norm(dim=1) == 0)
    assert idle.sum() > 2000
    # In float32, the sums of the MLP's products are rounded, too.
    largest = roundings * torch.finfo(dtype).eps * (h.double().norm(dim=1) + added.norm())
    assert (made_by(layer, h).norm(dim=1) <= largest)[idle].all()


@pytest.mark.parametrize("kind", ["relu ablate", "jump ablate", "steer"])
def test_edits_follow_the_tokens_scale_as_far_as_it_can_be_read(kind: str) -> None:
    hand = hand_site(EDITS[kind], normalization=Normalization.CONSTANT_NORM_RESCALE)
    h = stream(2)
    layer = compiled(hand, torch.float32)
    assert any("normalises its input" in note for note in layer.approximations)
    made = made_by(layer, h)
    wanted = hand.delta(h)
    edited = (wanted.norm(dim=1) > 0) & hand.is_ordinary(h)
    error = relative_error(made, wanted, edited)
    # A norm is no linear function of the stream.
    assert error <= 0.45


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@every_form
def test_the_probes_gates_tell_where_features_count_as_active(
    form: SandwichForm, dtype: torch.dtype
) -> None:
    hand = hand_site(EDITS["two-sided ablate"])
    h = stream(2)
    layer = compiled(hand, dtype, form=form)
    assert len(layer.jump_gates) == 12
    assert layer.constants["saturation"] == 0.0
    x = layer.normalise(h.to(dtype), EPS)
    ordinary = hand.is_ordinary(h)
    p = hand.projections(h)
    for term, neuron, side in layer.jump_gates:
        deviation = hand.deviations[term]
        jump = (0.5 if side > 0 else -2.0) * deviation
        above = (layer.gates(x)[:, neuron] > layer.constants["saturation"]) ^ (side < 0)
        clear = ordinary & ((p[:, term] - jump).abs() > 0.1 * deviation)
        assert torch.equal(above[clear], (p[:, term] > jump)[clear])


def test_jumps_take_the_room_that_is_left() -> None:
    hand = hand_site(EDITS["gated steer"])
    sizes = [compiled(hand, torch.bfloat16, room).neurons for room in (10, 100, 512)]
    assert sizes[0] > 10
    assert sizes[0] < sizes[1] <= 100 < sizes[2] <= 512
