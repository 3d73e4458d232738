"""What an inserted layer did, on passes made by hand."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from hubsplice.fidelity.inserted import InsertedAt
from hubsplice.fidelity.report import SiteFidelity
from hubsplice.fidelity.runs import LayerPass
from hubsplice.fidelity.sites import site_fidelity
from hubsplice.intervention.piecewise_linear import PiecewiseLinear
from hubsplice.intervention.site import Site, Term

D, TOKENS, SINKS = 8, 200, 3
SINK_NORM = 50.0

# Three features that read channels 0 to 2 and write along 3 to 5: φ can be read off both.
AXES = torch.eye(D)
ABLATE = Term("ablate", AXES[0], 0.25, PiecewiseLinear.relu().scaled(-1.0), AXES[3])
GATED = Term("gated", AXES[1], -0.5, PiecewiseLinear.step(0.25, 4.0), 0.5 * AXES[4])
STEER = Term("steer", 0 * AXES[2], 0.0, PiecewiseLinear.constant(2.0), AXES[5] + 0.5 * AXES[3])
SITE = Site(4, (ABLATE, GATED, STEER), SINK_NORM)
INSERTED = InsertedAt(5, ((1, 0, 1),), 32.0)


def stream() -> Tensor:
    h = torch.randn(TOKENS, D, generator=torch.Generator().manual_seed(0))
    h[:SINKS] *= 1000
    return h


def changes(h: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """What each feature adds, each of shape [tokens, D], sinks left alone."""
    ablate, gated, steer = torch.zeros(3, len(h), D).unbind()
    ablate[:, 3] = -(h[:, 0] + 0.25) * (h[:, 0] > -0.25)
    gated[:, 4] = 2.0 * (h[:, 1] > 0.75)
    steer[:, 5], steer[:, 3] = 2.0, 1.0
    ordinary = (h.norm(dim=1) <= SINK_NORM)[:, None]
    return ablate * ordinary, gated * ordinary, steer * ordinary


def measured(
    h: Tensor, after: Tensor, *, site: Site = SITE, gates: Tensor | None = None
) -> SiteFidelity:
    fired = (h[:, 1] > 0.75)[:, None] if gates is None else gates
    scored = torch.ones(len(h), dtype=torch.bool)
    return site_fidelity(site, INSERTED, LayerPass(h, after, fired), h, scored)


def test_a_perfect_layer_has_no_error() -> None:
    h = stream()
    found = measured(h, h + sum(changes(h)))
    assert found.layer == 4
    assert found.edited_tokens == TOKENS - SINKS
    assert found.overall_residual_error == pytest.approx(0, abs=1e-6)
    assert found.residual_error is not None
    assert found.residual_error.max < 1e-5
    assert (found.sink_tokens, found.largest_sink_change) == (SINKS, 0.0)
    assert [f.label for f in found.features] == ["ablate", "gated", "steer"]
    ordinary = h[SINKS:]
    assert [f.edited_tokens for f in found.features] == [
        int((ordinary[:, 0] > -0.25).sum()),
        int((ordinary[:, 1] > 0.75).sum()),
        TOKENS - SINKS,
    ]
    assert all(f.residual_error == pytest.approx(0, abs=1e-5) for f in found.features)
    assert [f.gate_f1 for f in found.features] == [None, 1.0, None]


def test_a_layer_that_does_nothing_has_an_error_of_one() -> None:
    h = stream()
    found = measured(h, h)
    assert found.overall_residual_error == 1.0
    assert found.residual_error is not None
    assert (found.residual_error.median, found.residual_error.max) == (1.0, 1.0)
    assert [f.residual_error for f in found.features] == [1.0, 1.0, 1.0]


@pytest.mark.parametrize("missing", [0, 1, 2])
def test_a_missing_edit_is_the_error_of_its_own_feature(missing: int) -> None:
    h = stream()
    made = [change for i, change in enumerate(changes(h)) if i != missing]
    found = measured(h, h + sum(made))
    errors = [f.residual_error for f in found.features]
    assert errors == pytest.approx([float(i == missing) for i in range(3)], abs=1e-5)
    wrong, all_of_them = changes(h)[missing], sum(changes(h), torch.zeros(TOKENS, D))
    overall = float(wrong.norm() / all_of_them.norm())
    assert found.overall_residual_error == pytest.approx(overall, rel=1e-5)


def test_a_gate_is_compared_with_the_stream_of_the_float32_hook() -> None:
    h = stream()
    after = h + sum(changes(h))
    ordinary = h.norm(dim=1) <= SINK_NORM
    truth = h[:, 1] > 0.75
    hits = int((truth & ordinary).sum())
    always = torch.ones(TOKENS, 1, dtype=torch.bool)
    f1 = [f.gate_f1 for f in measured(h, after, gates=always).features]
    assert f1 == [None, pytest.approx(2 * hits / (hits + TOKENS - SINKS)), None]
    assert measured(h, after, gates=~truth[:, None]).features[1].gate_f1 == 0.0
    # The reference decides where the gate should be, not the stream that the layer saw.
    scored = torch.ones(TOKENS, dtype=torch.bool)
    seen = LayerPass(h, after, truth[:, None])
    elsewhere = h.clone()
    elsewhere[:, 1] = -elsewhere[:, 1] + 1.5
    assert site_fidelity(SITE, INSERTED, seen, elsewhere, scored).features[1].gate_f1 == 0.0


def test_a_sink_that_changes_is_shown_by_itself() -> None:
    h = stream()
    after = h + sum(changes(h))
    after[1] *= 1.25
    found = measured(h, after)
    assert found.largest_sink_change == pytest.approx(0.25)
    assert found.overall_residual_error == pytest.approx(0, abs=1e-6)
    everywhere = replace(SITE, sink_norm=math.inf)
    found = measured(h, after, site=everywhere)
    assert (found.sink_tokens, found.largest_sink_change) == (0, None)
    assert found.edited_tokens == TOKENS
    assert found.overall_residual_error is not None
    assert found.overall_residual_error > 1


def test_what_is_not_scored_does_not_count() -> None:
    h = stream()
    after = h + sum(changes(h))
    after[100:] = 7.0
    scored = torch.arange(TOKENS) < 100
    found = site_fidelity(SITE, INSERTED, LayerPass(h, after, (h[:, 1] > 0.75)[:, None]), h, scored)
    assert found.edited_tokens == 100 - SINKS
    assert found.overall_residual_error == pytest.approx(0, abs=1e-6)
    nothing = site_fidelity(
        SITE, INSERTED, LayerPass(h, after, (h[:, 1] > 0.75)[:, None]), h, scored & False
    )
    assert nothing.edited_tokens == 0
    assert nothing.residual_error is None
    assert nothing.overall_residual_error is None
    assert [(f.edited_tokens, f.residual_error) for f in nothing.features] == [(0, None)] * 3


@pytest.mark.parametrize("direction", [ABLATE.direction, 0 * ABLATE.direction])
def test_directions_that_cannot_be_told_apart_have_no_error_of_their_own(
    direction: Tensor,
) -> None:
    # Two features with one decoder row, or one whose decoder row is zero.
    site = replace(SITE, terms=(ABLATE, replace(GATED, direction=direction)))
    h = stream()
    found = measured(h, h, site=site)
    assert [f.residual_error for f in found.features] == [None, None]
    assert found.overall_residual_error == 1.0


def test_a_site_without_terms() -> None:
    h = stream()
    found = site_fidelity(
        Site(2, (), SINK_NORM),
        InsertedAt(3, (), 0.0),
        LayerPass(h, h, torch.zeros(TOKENS, 0, dtype=torch.bool)),
        h,
        torch.ones(TOKENS, dtype=torch.bool),
    )
    assert (found.edited_tokens, found.residual_error, found.features) == (0, None, ())
    assert found.largest_sink_change == 0.0
