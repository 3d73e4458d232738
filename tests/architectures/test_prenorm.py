"""The pre-norm construction against edits written out by hand, on tokens it never saw."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from hubsplice.architectures.prenorm import compile_prenorm
from hubsplice.architectures.spliced_layer import SplicedLayer
from hubsplice.intervention import Normalization, Site, Term
from tests.architectures.streams import (
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
    share_lost,
    stream,
)

# Mostly off, and mostly on: in the second the piece that most tokens lie on is the right one.
SHARES = [0.1, 0.9]


def compiled(hand: HandSite, dtype: torch.dtype) -> SplicedLayer:
    return compile_prenorm(hand.site, calibration(dtype), dtype)


def made_by(layer: SplicedLayer, h: Tensor) -> Tensor:
    return layer(h, EPS).double() - h.double()


def root_mean_square(x: Tensor) -> float:
    return float(x.square().mean().sqrt())


@pytest.mark.parametrize("active", SHARES)
@pytest.mark.parametrize("kind", EDITS)
def test_in_float32_fresh_tokens_get_the_edit(kind: str, active: float) -> None:
    hand = hand_site(EDITS[kind], active=active)
    h = stream(2)
    made, wanted, ordinary = (
        made_by(compiled(hand, torch.float32), h),
        hand.delta(h),
        hand.is_ordinary(h),
    )
    edited = (wanted.norm(dim=1) > 0) & ordinary
    assert edited.sum() > 300
    error = root_mean_square((made - wanted)[edited]) / root_mean_square(wanted[edited])
    assert error <= (0.03 if hand.edit.thresholds else 0.005)
    # A layer that does nothing has an error of one; sinks keep to themselves.
    assert int((~ordinary).sum()) == SINKS
    assert (made[~ordinary].norm(dim=1) <= 1e-3 * h[~ordinary].norm(dim=1)).all()
    idle = ordinary & ~edited & (hand.distance(h) > 0.01)
    assert (made[idle].norm(dim=1) <= 1e-3 * h[idle].norm(dim=1)).all()


@pytest.mark.parametrize("active", SHARES)
@pytest.mark.parametrize("kind", [kind for kind, edit in EDITS.items() if edit.thresholds])
def test_in_float32_every_token_beyond_the_ramp_is_on_its_side(kind: str, active: float) -> None:
    hand = hand_site(EDITS[kind], active=active)
    h = stream(3)
    layer = compiled(hand, torch.float32)
    h = h[hand.is_ordinary(h)]
    gates = layer.gates(layer.normalise(h, EPS))
    p = hand.projections(h)
    seen = set()
    for term, neuron, side in layer.jump_gates:
        above = (gates[:, neuron] > layer.constants["saturation"]) ^ (side < 0)
        # The jumps of one term are told apart by which of them agrees.
        deviation = hand.deviations[term]
        wrong = {
            t: ((p[:, term] > t * deviation) != above) & ((p[:, term] / deviation - t).abs() > 0.01)
            for t in hand.edit.thresholds
        }
        right = [t for t, tokens in wrong.items() if not tokens.any()]
        assert len(right) == 1, f"term {term}, neuron {neuron}"
        seen.add((term, right[0]))
    assert seen == {(i, t) for i in range(len(p.T)) for t in hand.edit.thresholds}


@pytest.mark.parametrize("active", SHARES)
@pytest.mark.parametrize("kind", EDITS)
def test_in_bfloat16_the_layer_is_about_as_good_as_the_hook(kind: str, active: float) -> None:
    hand = hand_site(EDITS[kind], active=active)
    h = stream(2)
    ordinary = hand.is_ordinary(h)
    truth = h.double() + hand.delta(h)
    seen = served(h, torch.bfloat16, 12)
    hook = (seen.double() + hand.delta(seen)).to(torch.bfloat16)
    splice = compiled(hand, torch.bfloat16)(seen, EPS)
    assert splice.dtype == torch.bfloat16
    floor = root_mean_square((hook.double() - truth)[ordinary]) ** 2
    error = root_mean_square((splice.double() - truth)[ordinary]) ** 2
    if active == 0.9 and kind.endswith("by 4"):
        # An edit longer than the stream itself multiplies the rounding of x and of the rows, and
        # not only the noise that the stream brings.
        floor += (0.02 * root_mean_square(hand.delta(h)[ordinary])) ** 2
    assert error <= 1.3 * floor
    assert share_lost(hand, h, splice, seen) < SHARE
    # What is added to a sink and taken away again costs no more than its rounding.
    change = (splice.double() - seen.double())[~ordinary].norm(dim=1)
    assert (change <= 2.0**-8 * seen.double()[~ordinary].norm(dim=1)).all()


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
    error = root_mean_square((made - wanted)[edited]) / root_mean_square(wanted[edited])
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
        error = root_mean_square((made - wanted)[edited]) / root_mean_square(wanted[edited])
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
