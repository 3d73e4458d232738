"""What every construction's layer must do on tokens that it never saw."""

from __future__ import annotations

import torch
from torch import Tensor

from hubsplice.constructions.compiled_layer import CompiledLayer
from tests.constructions.streams import EPS, SINKS, HandSite, served, share_lost, stream


def made_by(layer: CompiledLayer, h: Tensor) -> Tensor:
    return layer(h, EPS).double() - h.double()


def root_mean_square(x: Tensor) -> float:
    return float(x.square().mean().sqrt())


def relative_error(made: Tensor, wanted: Tensor, tokens: Tensor) -> float:
    return root_mean_square((made - wanted)[tokens]) / root_mean_square(wanted[tokens])


def assert_gives_the_edit(
    layer: CompiledLayer, hand: HandSite, *, error: float, idle: float
) -> None:
    """Assert that a float32 layer makes the edit, and nothing else.

    Args:
        layer: compiled for `hand`.
        hand: the edit.
        error: the largest relative error over edited tokens.
        idle: the largest change of other tokens, relative to their norm.
    """
    h = stream(2)
    made, wanted, ordinary = made_by(layer, h), hand.delta(h), hand.is_ordinary(h)
    edited = (wanted.norm(dim=1) > 0) & ordinary
    assert edited.sum() > 300
    assert relative_error(made, wanted, edited) <= error
    # A layer that does nothing has an error of one; sinks keep to themselves.
    assert int((~ordinary).sum()) == SINKS
    assert (made[~ordinary].norm(dim=1) <= 1e-3 * h[~ordinary].norm(dim=1)).all()
    others = ordinary & ~edited & (hand.distance(h) > 0.01)
    assert (made[others].norm(dim=1) <= idle * h[others].norm(dim=1)).all()


def assert_is_about_as_good_as_the_hook(
    layer: CompiledLayer,
    hand: HandSite,
    *,
    over: float,
    share: float,
    rounded_edit: float = 0.0,
) -> None:
    """Assert that a bfloat16 layer errs little more than the hook in bfloat16.

    Args:
        layer: compiled for `hand`.
        hand: the edit.
        over: the largest squared error, in units of the hook's.
        share: the largest part of the edit that may be lost beyond what the hook loses.
        rounded_edit: what may be wrong of the edit itself, a share that counts as the hook's error.
    """
    h = stream(2)
    ordinary = hand.is_ordinary(h)
    truth = h.double() + hand.delta(h)
    seen = served(h, torch.bfloat16, 12)
    hook = (seen.double() + hand.delta(seen)).to(torch.bfloat16)
    splice = layer(seen, EPS)
    assert splice.dtype == torch.bfloat16
    floor = root_mean_square((hook.double() - truth)[ordinary]) ** 2
    error = root_mean_square((splice.double() - truth)[ordinary]) ** 2
    floor += (rounded_edit * root_mean_square(hand.delta(h)[ordinary])) ** 2
    assert error <= over * floor
    assert share_lost(hand, h, splice, seen) < share
    # What is added to a sink and taken away again costs no more than its rounding.
    change = (splice.double() - seen.double())[~ordinary].norm(dim=1)
    assert (change <= 2.0**-8 * seen.double()[~ordinary].norm(dim=1)).all()


def assert_gates_tell_sides(layer: CompiledLayer, gates: Tensor, hand: HandSite, h: Tensor) -> None:
    """Assert that every jump's gate tells on which side of its threshold a token is.

    Args:
        layer: compiled for `hand`.
        gates: of the layer on h, shape [tokens, neurons].
        hand: the edit, which has jumps.
        h: ordinary tokens, shape [tokens, d].
    """
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
