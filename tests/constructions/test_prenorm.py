"""The pre-norm construction against edits written out by hand, on tokens it never saw."""

from __future__ import annotations

import pytest
import torch

from hubsplice.constructions.prenorm import compile_prenorm
from hubsplice.constructions.prenorm_layer import SplicedLayer
from hubsplice.intervention.normalization import Normalization
from hubsplice.intervention.site import Site, Term
from tests.constructions.fresh_tokens import (
    assert_gates_tell_sides,
    assert_gives_the_edit,
    assert_is_about_as_good_as_the_hook,
    made_by,
    relative_error,
)
from tests.constructions.streams import (
    EDITS,
    EPS,
    SHARE,
    SINKS,
    D,
    HandSite,
    calibration,
    hand_site,
    normalised,
    served,
    stream,
)

# Mostly off, and mostly on: in the second the piece that most tokens lie on is the right one.
SHARES = [0.1, 0.9]


def compiled(hand: HandSite, dtype: torch.dtype) -> SplicedLayer:
    return compile_prenorm(hand.site, calibration(dtype), dtype)


@pytest.mark.parametrize("active", SHARES)
@pytest.mark.parametrize("kind", EDITS)
def test_in_float32_fresh_tokens_get_the_edit(kind: str, active: float) -> None:
    hand = hand_site(EDITS[kind], active=active)
    error = 0.03 if hand.edit.thresholds else 0.005
    assert_gives_the_edit(compiled(hand, torch.float32), hand, error=error, idle=1e-3)


@pytest.mark.parametrize("active", SHARES)
@pytest.mark.parametrize("kind", [kind for kind, edit in EDITS.items() if edit.thresholds])
def test_in_float32_every_token_beyond_the_ramp_is_on_its_side(kind: str, active: float) -> None:
    hand = hand_site(EDITS[kind], active=active)
    h = stream(3)
    layer = compiled(hand, torch.float32)
    h = h[hand.is_ordinary(h)]
    gates = layer.gates(layer.normalise(h, EPS))
    assert_gates_tell_sides(layer, gates, hand, h)


@pytest.mark.parametrize("active", SHARES)
@pytest.mark.parametrize("kind", EDITS)
def test_in_bfloat16_the_layer_is_about_as_good_as_the_hook(kind: str, active: float) -> None:
    hand = hand_site(EDITS[kind], active=active)
    layer = compiled(hand, torch.bfloat16)
    # An edit longer than the stream itself multiplies the rounding of x and of the rows, and not
    # only the noise that the stream brings.
    rounded = 0.02 if active == 0.9 and kind.endswith("by 4") else 0.0
    assert_is_about_as_good_as_the_hook(layer, hand, over=1.3, rounded_edit=rounded, share=SHARE)


@pytest.mark.parametrize("kind", ["relu ablate", "relu clamp", "jump ablate", "gated steer"])
@pytest.mark.parametrize("normalization", [k for k in Normalization if k is not Normalization.NONE])
def test_an_sae_that_normalises_its_input(kind: str, normalization: Normalization) -> None:
    hand = hand_site(EDITS[kind], normalization=normalization)
    h = stream(2)
    ordinary, wanted = hand.is_ordinary(h), hand.delta(h)
    edited = ordinary & (wanted.norm(dim=1) > 0)
    assert edited.sum() > 300
    layer = compiled(hand, torch.float32)
    made = made_by(layer, h)
    # The MLP's input has lost the token's scale, and with no injected constant only part of it
    # can be told. Thresholds need none: they are exact where the MLP's norm is the SAE's own, and
    # nearly so where the SAE leaves out the mean of a token's channels.
    error = relative_error(made, wanted, edited)
    scale = normalised(h[edited], normalization)[1]
    spread = float(scale.std() / scale.mean())
    assert spread > 0.15
    assert error <= 0.9 * spread
    p = hand.projections(h)[ordinary]
    gates = layer.gates(layer.normalise(h[ordinary], EPS))
    assert len(layer.jump_gates) == len(hand.edit.thresholds) * p.shape[1]
    for term, neuron, side in layer.jump_gates:
        above = (gates[:, neuron] > layer.constants["saturation"]) ^ (side < 0)
        beyond = p[:, term] / hand.deviations[term] - hand.edit.thresholds[0]
        wrong = above != (beyond > 0)
        if normalization is Normalization.LAYER_NORM:
            assert wrong.double().mean() <= 0.01
        else:
            assert not wrong[beyond.abs() > 0.01].any()
    assert (made[~ordinary].norm(dim=1) <= 1e-3 * h[~ordinary].norm(dim=1)).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_site_without_terms_changes_no_bit(dtype: torch.dtype) -> None:
    layer = compile_prenorm(Site(0, ()), calibration(dtype), dtype)
    assert layer.neurons == 0
    for name in SplicedLayer.tensor_names():
        tensor, expected = getattr(layer, name), getattr(SplicedLayer.empty(D, dtype), name)
        assert tensor.dtype == dtype
        assert torch.equal(tensor, expected)
    h = served(stream(4), dtype, 5)
    assert torch.equal(layer(h, EPS), h)


@pytest.mark.parametrize("kind", ["relu ablate", "jump ablate", "jump clamp where active"])
@pytest.mark.parametrize("features", [1, 200])
def test_one_feature_and_more_than_there_are_dimensions(kind: str, features: int) -> None:
    hand = hand_site(EDITS[kind], features=features)
    h = stream(2)
    h = h[hand.is_ordinary(h)]
    wanted = hand.delta(h)
    edited = wanted.norm(dim=1) > 0
    for dtype, bar in ((torch.float32, 0.1), (torch.bfloat16, 0.25)):
        layer = compiled(hand, dtype)
        assert all(torch.isfinite(getattr(layer, n)).all() for n in SplicedLayer.tensor_names())
        made = made_by(layer, h.to(dtype))
        error = relative_error(made, wanted, edited)
        assert error <= bar


@pytest.mark.parametrize("bias", [-1.0, 0.0, 2.0])
def test_a_feature_that_reads_nothing_is_a_constant(bias: float) -> None:
    function = EDITS["jump clamp where active"].function(1.0)
    site = Site(0, (Term("dead", torch.zeros(D), bias, function, torch.eye(D)[3]),))
    layer = compile_prenorm(site, calibration(torch.float32), torch.float32)
    h = stream(2)[SINKS:]
    made = made_by(layer, h)
    wanted = torch.zeros(D).double()
    wanted[3] = 1.0 - bias if bias > 0.3 else 0.0
    torch.testing.assert_close(made, wanted.expand_as(made), rtol=0, atol=1e-5)


def test_a_constant_is_written_more_finely_than_a_bias_can_hold_it() -> None:
    hand = hand_site(EDITS["steer"])
    h = stream(2)[SINKS:]
    # The stored tensors are rounded; evaluated exactly, they still add up to the constant.
    made = made_by(compiled(hand, torch.bfloat16).to(torch.float32), h)
    wanted = hand.delta(h)
    coarse = (wanted.to(torch.bfloat16).double() - wanted).abs().max()
    assert (made - wanted).abs().max() <= 0.05 * coarse
