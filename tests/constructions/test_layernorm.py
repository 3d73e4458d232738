"""The LayerNorm construction against edits written out by hand, on tokens it never saw."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from hubsplice.constructions.layernorm import compile_layernorm
from hubsplice.constructions.layernorm_layer import GELUS, PlainLayer
from hubsplice.intervention.normalization import Normalization
from hubsplice.intervention.site import Site
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
    HandSite,
    calibration,
    hand_site,
    normalised,
    served,
    stream,
)

# Mostly off, and mostly on: in the second the piece that most tokens lie on is the right one.
SHARES = [0.1, 0.9]
ROOM = 1024


def compiled(
    hand: HandSite, dtype: torch.dtype, *, activation: str = "gelu_new", room: int = ROOM
) -> PlainLayer:
    return compile_layernorm(hand.site, calibration(dtype), dtype, activation=activation, room=room)


def centred(hand: HandSite) -> HandSite:
    """The same features without what they read of the mean of a token's channels."""
    encoders = hand.encoders - hand.encoders.mean(dim=1, keepdim=True)
    return replace(hand, encoders=encoders)


@pytest.mark.parametrize("active", SHARES)
@pytest.mark.parametrize("kind", EDITS)
def test_in_float32_fresh_tokens_get_the_edit(kind: str, active: float) -> None:
    hand = centred(hand_site(EDITS[kind], active=active))
    error = 0.035 if hand.edit.thresholds else 0.005
    assert_gives_the_edit(compiled(hand, torch.float32), hand, error=error, idle=2e-3)


@pytest.mark.parametrize("active", SHARES)
@pytest.mark.parametrize("kind", EDITS)
def test_in_bfloat16_the_layer_is_about_as_good_as_the_hook(kind: str, active: float) -> None:
    hand = centred(hand_site(EDITS[kind], active=active))
    layer = compiled(hand, torch.bfloat16)
    # An edit longer than the stream itself multiplies the rounding of x and of the rows, and not
    # only the noise that the stream brings.
    rounded = 0.02 if active == 0.9 and kind.endswith("by 4") else 0.0
    assert_is_about_as_good_as_the_hook(layer, hand, over=1.3, rounded_edit=rounded, share=SHARE)


@pytest.mark.parametrize("activation", sorted(GELUS))
def test_every_gelu_will_do(activation: str) -> None:
    hand = centred(hand_site(EDITS["jump scale by 4"]))
    h = stream(2)
    made = made_by(compiled(hand, torch.float32, activation=activation), h)
    wanted = hand.delta(h)
    edited = (wanted.norm(dim=1) > 0) & hand.is_ordinary(h)
    assert relative_error(made, wanted, edited) <= 0.02


@pytest.mark.parametrize("kind", [kind for kind, edit in EDITS.items() if edit.thresholds])
def test_every_token_beyond_a_jump_is_on_its_side(kind: str) -> None:
    hand = centred(hand_site(EDITS[kind]))
    h = stream(3)
    layer = compiled(hand, torch.float32)
    h = h[hand.is_ordinary(h)]
    gates = layer.gates(layer.normalise(h, EPS))
    assert_gates_tell_sides(layer, gates, hand, h)


@pytest.mark.parametrize("kind", ["relu ablate", "jump ablate"])
def test_what_an_encoder_reads_of_the_mean_is_read_out(kind: str) -> None:
    # The mean of a token's channels is one direction of D, which LayerNorm takes away: what the
    # other directions tell of it is what can be had.
    hand = hand_site(EDITS[kind])
    assert (hand.encoders.sum(dim=1).abs() > 0.1).any()
    h = stream(2)
    layer = compiled(hand, torch.float32)
    wanted = hand.delta(h)
    edited = (wanted.norm(dim=1) > 0) & hand.is_ordinary(h)
    error = relative_error(made_by(layer, h), wanted, edited)
    # Without the read-out, the mean counts as what it is on average.
    blind = replace(
        hand,
        encoders=centred(hand).encoders,
        biases=hand.biases + hand.encoders.sum(dim=1).double() * float(stream(1)[SINKS:].mean()),
    )
    assert error <= 0.2 * relative_error(blind.delta(h), wanted, edited)
    assert not layer.approximations


def test_a_mean_that_nothing_tells_is_reported() -> None:
    known = calibration(torch.float32)
    generator = torch.Generator().manual_seed(8)
    own = 0.5 * torch.randn(len(known.reference), 1, generator=generator)
    activations = replace(known, reference=known.reference + own, serving=known.reference + own)
    hand = hand_site(EDITS["relu ablate"])
    notes = {}
    for name, features in (("as it is", hand), ("centred", centred(hand))):
        layer = compile_layernorm(
            features.site, activations, torch.float32, activation="gelu", room=ROOM
        )
        notes[name] = layer.approximations
    assert not notes["centred"]
    assert {note.split(":")[0] for note in notes["as it is"]} == {f"feature {i}" for i in range(6)}


@pytest.mark.parametrize("kind", ["relu ablate", "relu clamp", "jump ablate", "gated steer"])
@pytest.mark.parametrize("normalization", [k for k in Normalization if k is not Normalization.NONE])
def test_an_sae_that_normalises_its_input(kind: str, normalization: Normalization) -> None:
    hand = centred(hand_site(EDITS[kind], normalization=normalization))
    h = stream(2)
    wanted, ordinary = hand.delta(h), hand.is_ordinary(h)
    edited = ordinary & (wanted.norm(dim=1) > 0)
    assert edited.sum() > 300
    error = relative_error(made_by(compiled(hand, torch.float32), h), wanted, edited)
    scale = normalised(h[edited], normalization)[1]
    spread = float(scale.std() / scale.mean())
    assert spread > 0.15
    assert error <= 0.9 * spread


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_site_without_terms_changes_no_bit(dtype: torch.dtype) -> None:
    layer = compile_layernorm(Site(0, ()), calibration(dtype), dtype, activation="gelu", room=ROOM)
    assert layer.neurons == 0
    h = served(stream(4), dtype, 5)
    assert torch.equal(layer(h, EPS), h)


@pytest.mark.parametrize("features", [1, 100])
def test_knots_make_room_for_features(features: int) -> None:
    hand = centred(hand_site(EDITS["relu ablate"], features=features))
    roomy = compiled(hand, torch.bfloat16)
    tight = compiled(hand, torch.bfloat16, room=5 * features + 4)
    assert roomy.neurons > tight.neurons
    assert tight.neurons <= 5 * features + 4
    # One neuron for each feature is the least there can be.
    assert compiled(hand, torch.bfloat16, room=features // 2).neurons >= features
    h = stream(2)
    wanted = hand.delta(h)
    edited = (wanted.norm(dim=1) > 0) & hand.is_ordinary(h)
    for layer in (roomy, tight):
        made = made_by(layer, h.bfloat16())
        assert relative_error(made, wanted, edited) <= 0.3
