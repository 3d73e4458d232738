"""An edit that is smaller than the spacing of the stream: the hook loses it, and so may a layer."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from hubsplice.fidelity.evidence import SiteStreams, site_evidence
from hubsplice.fidelity.report import EditFidelity, PrecisionFidelity
from hubsplice.fidelity.verdict import judged
from hubsplice.intervention.piecewise_linear import PiecewiseLinear
from hubsplice.intervention.site import Site, Term
from tests.fidelity.test_verdict import edit, measured

SEQUENCES, LENGTH, D = 20, 20, 64
CHANNELS = torch.zeros(D).index_fill(0, torch.arange(8), 0.5)


def judged_on(offset: float, made: Tensor | None = None, times: float = 1.0) -> EditFidelity:
    """A steer by 2 along 8 channels of a bfloat16 stream that lies about `offset`.

    Args:
        offset: 2,048 spaces bfloat16 by 16 there, and 8 by 1/16.
        made: what the layer adds instead, shape [d].
        times: of the steer, where `made` is None.
    """
    h = torch.randn(SEQUENCES * LENGTH, D, generator=torch.Generator().manual_seed(0)) + offset
    term = Term("steer", torch.zeros(D), 0.0, PiecewiseLinear.constant(2.0), CHANNELS)
    site = Site(4, (term,), torch.inf)
    served = h.bfloat16()
    change = times * 2 * CHANNELS if made is None else made
    after = (served.float() + change).bfloat16()
    scored = torch.ones(SEQUENCES, LENGTH, dtype=torch.bool)
    (found,) = site_evidence(site, SiteStreams(h, served, served, after), scored, seed=0)
    whole = edit().model_copy(update={"site": found.site})
    precision: PrecisionFidelity = judged(measured(whole, entering_error=0.0))
    return precision.edits[0]


def test_an_edit_that_the_precision_can_hold() -> None:
    assert judged_on(8.0).outcome == "shown"


def test_an_edit_that_the_hook_loses_is_not_shown_and_not_the_layers_fault() -> None:
    found = judged_on(2048.0)
    assert found.site.hook is not None
    assert found.site.hook.strength is not None
    assert found.site.hook.strength.high < 0.5
    assert found.outcome == "not shown"
    assert "at this precision the hook itself makes" in found.reason


def test_nothing_tells_a_silent_layer_from_a_lost_edit() -> None:
    assert judged_on(2048.0, times=0.0).outcome == "not shown"


@pytest.mark.parametrize(
    "made", [-80 * CHANNELS, 80 * CHANNELS, 80 * CHANNELS.roll(8)], ids=["turned", "40x", "beside"]
)
def test_a_layer_that_makes_something_else_fails_in_a_coarse_stream_too(made: Tensor) -> None:
    assert judged_on(2048.0, made=made).outcome == "fails"


@pytest.mark.parametrize("times", [0.0, 0.5, 1.5, -1.0])
def test_what_the_precision_can_hold_is_asked_for(times: float) -> None:
    assert judged_on(8.0, times=times).outcome == "fails"
