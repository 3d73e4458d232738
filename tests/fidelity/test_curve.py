"""Response curves of right and wrong layers, each compiled honestly for one edit or another."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from hubsplice.fidelity.curve import Response, respond, responses
from hubsplice.fidelity.sweep import moved, sweeps
from hubsplice.fidelity.verdict import curve_failures
from hubsplice.intervention.normalization import Normalization
from hubsplice.intervention.piecewise_linear import PiecewiseLinear
from hubsplice.intervention.site import Site, Term
from hubsplice.streams.calibration import SiteActivations
from hubsplice.streams.model import loaded
from tests.compiling.trained import Train, Trained
from tests.families.variants import Variant
from tests.fidelity.compiled import (
    FLOAT32,
    VARIANTS,
    Splice,
    enough,
    every_case,
    spliced,
)
from tests.fidelity.test_wrong_layers import (
    moved as another_threshold,
)
from tests.fidelity.test_wrong_layers import (
    scaled,
)

WRONG = {
    "silenced": scaled(0.0),
    "half": scaled(0.5),
    "turned": scaled(-1.0),
    "threshold raised": another_threshold(1.0),
    "threshold lowered": another_threshold(-1.0),
}
TOLD_IN_FLOAT32 = {"1.1 times": scaled(1.1)}
KINDS = ["relu ablate", "jump ablate", "jump clamp where active", "gated steer"]


@dataclass(frozen=True, eq=False)
class Bench:
    """A trained model with an edit, and a way to have layers in its place."""

    folder: Path
    held_out: Tensor
    dtype: torch.dtype
    site: Site
    activations: SiteActivations
    stream: Tensor

    @staticmethod
    def of(trained: Trained, kind: str, dtype: torch.dtype) -> Bench:
        activations = trained.activations(dtype)
        stream = trained.streams(trained.held_out)[FLOAT32]
        site = enough(trained.site(kind, activations), stream)
        return Bench(trained.folders[dtype], trained.held_out, dtype, site, activations, stream)

    def curves(self, splice: Splice, compiled: Site, name: str) -> tuple[Response, ...]:
        """The curves that a layer for `compiled` shows of the edit that it stands for."""
        folder, at = spliced(splice, self.folder, compiled, self.activations, self.dtype, name)
        scored = torch.ones(self.held_out.shape, dtype=torch.bool)
        scored[:, 0] = False
        with loaded(folder, self.dtype) as model:
            streams = {self.site.place: self.stream}
            return responses(model, [self.site], [at], streams, scored, self.held_out)


def failing(found: Sequence[Response], dtype: torch.dtype) -> list[str]:
    return [reason for r in found for reason in curve_failures(r.figures, str(dtype)[6:])]


@pytest.fixture(scope="module")
def bench(train: Train) -> Callable[..., Bench]:
    @cache
    def made(index: int, kind: str, dtype: torch.dtype) -> Bench:
        return Bench.of(train(VARIANTS[index]), kind, dtype)

    return lambda variant, kind, dtype: made(VARIANTS.index(variant), kind, dtype)


def told(kind: str, dtype: torch.dtype) -> bool:
    """Whether tiny models can show such a curve; see `test_wrong_layers.told`."""
    return dtype is FLOAT32 or kind == "relu ablate"


def fast(variant: Variant, _kind: str, _dtype: torch.dtype) -> bool:
    return variant.family == "llama"


@pytest.mark.parametrize(("variant", "kind", "dtype"), every_case(KINDS, told, fast))
def test_the_curve_of_a_right_layer_passes_and_those_of_wrong_ones_fail(
    bench: Callable[..., Bench], splice: Splice, variant: Variant, kind: str, dtype: torch.dtype
) -> None:
    judged = bench(variant, kind, dtype)
    wrong = WRONG | (TOLD_IN_FLOAT32 if dtype is torch.float32 else {})
    found = {"right": judged.curves(splice, judged.site, "right")}
    for name, change in wrong.items():
        site = change(judged.site, judged.activations)
        found[name] = judged.curves(splice, site, name.replace(" ", "-"))
    passing = {name for name, curves in found.items() if not failing(curves, dtype)}
    assert passing == {"right"}, {n: [r.figures for r in c] for n, c in found.items()}


SINKS = 4


def stream(*, tokens: int = 400, d: int = 32) -> Tensor:
    """Tokens around a mean, the first of them sinks, shape [tokens, d]."""
    generator = torch.Generator().manual_seed(1)
    h = torch.randn(tokens, d, generator=generator) + 2 * torch.randn(d, generator=generator)
    h[:SINKS] *= 50
    return h


def term(function: PiecewiseLinear, *, number: int = 0, **fields: Any) -> Term:
    """A feature that no token of `stream` activates."""
    generator = torch.Generator().manual_seed(7 + number)
    encoder, direction = torch.randn(2, 32, generator=generator) / 4
    bias = -float((stream()[SINKS:] @ encoder).max()) - 1
    return Term(f"feature {number}", encoder, bias, function, direction, **fields)


def site_of(*terms: Term, sink_norm: float = 60.0) -> Site:
    return Site(3, terms, sink_norm)


def exactly(site: Site) -> Callable[[Tensor], Tensor]:
    return lambda h: h + site.delta(h).to(h.dtype)


ABLATE = PiecewiseLinear.jump_relu(0.5).scaled(-1.0)


@pytest.mark.parametrize("sink_norm", [60.0, float("inf")])
def test_an_edit_that_no_token_has_is_swept_from_below_its_threshold(sink_norm: float) -> None:
    site = site_of(term(ABLATE), sink_norm=sink_norm)
    assert not site.delta(stream()[SINKS:]).any()
    (sweep,) = sweeps(site, stream())
    spread = float(site.projections(stream()[SINKS:]).std())
    assert float(sweep.p[0]) == pytest.approx(0.5 - 3 * spread, rel=0.02)
    assert float(sweep.p[-1]) == pytest.approx(0.5 + 3 * spread, rel=0.02)
    assert len(sweep.p) > 25
    # Every stream is where it should be, and none of them is a sink.
    assert sweep.ordinary.all()
    assert (site.projections(sweep.streams)[..., 0] - sweep.p[:, None]).abs().max() < 1e-3
    assert sweep.streams.norm(dim=-1).max() < 40


def test_a_stream_is_moved_no_farther_than_it_must() -> None:
    edit = term(ABLATE)
    h = stream()[SINKS:]
    (there,) = moved(edit, h, torch.tensor([5.0], dtype=torch.float64))
    way = there - h
    assert torch.allclose(
        way.norm(dim=1), (5 - (h @ edit.encoder + edit.bias)).abs() / edit.encoder.norm(), rtol=1e-4
    )


@pytest.mark.parametrize("kind", Normalization)
def test_normalised_streams_get_where_they_should(kind: Normalization) -> None:
    edit = term(ABLATE, normalization=kind)
    edit = replace(edit, bias=0.0)
    p = torch.linspace(-1, 3, 5, dtype=torch.float64)
    found = site_of(edit).projections(moved(edit, stream()[SINKS:], p))[..., 0]
    assert (found - p[:, None]).abs().max() < 1e-2


def test_no_curve_where_nothing_depends_on_the_stream() -> None:
    constant = term(PiecewiseLinear.constant(3.0))
    assert not list(sweeps(site_of(constant), stream()))
    found = list(sweeps(site_of(constant, term(ABLATE, number=1)), stream()))
    assert [sweep.term.label for sweep in found] == ["feature 1"]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_an_edit_is_looked_at_alone(dtype: torch.dtype) -> None:
    edits = [term(ABLATE), replace(term(ABLATE.scaled(3.0), number=1), bias=0.0)]
    # The second is active on every other token, and where it should be.
    edits.append(term(PiecewiseLinear.constant(5.0), number=2))
    whole = site_of(*edits)
    first, second = sweeps(whole, stream())
    for sweep, other in ((first, second), (second, first)):
        right = respond(sweep, exactly(whole), dtype)
        missing = replace(whole, terms=(other.term, edits[2]))
        without = respond(sweep, exactly(missing), dtype)
        assert right.figures.beyond < (1e-4 if dtype is FLOAT32 else 0.1)
        assert right.figures.height == pytest.approx(1, abs=1e-4 if dtype is FLOAT32 else 0.02)
        assert without.figures.deviation == pytest.approx(1, abs=0.2)
        assert without.figures.height == pytest.approx(0, abs=0.02)


def test_the_hook_band_is_the_rounding_of_the_stream() -> None:
    (sweep,) = sweeps(site_of(term(ABLATE)), stream())
    for dtype, least, most in ((torch.bfloat16, 1e-3, 0.2), (FLOAT32, 0.0, 1e-4)):
        found = respond(sweep, exactly(sweep.site), dtype)
        widths = [high - low for low, high in zip(found.hook.low, found.hook.high, strict=True)]
        active = [w for w, exact in zip(widths, found.exact, strict=True) if exact < -1]
        assert active
        assert all(least <= width <= most for width in active)


@pytest.mark.parametrize(("factor", "threshold"), [(0.0, 0.5), (0.5, 0.5), (1.0, 2.0), (1.0, -2.5)])
def test_a_wrong_layer_fails_on_a_feature_that_is_never_active(
    factor: float, threshold: float
) -> None:
    site = site_of(term(ABLATE))
    (sweep,) = sweeps(site, stream())
    # A threshold is moved by where the jump is, and the slope stays.
    function = PiecewiseLinear((threshold,), (0.0, -factor), (0.0, 0.0))
    wrong = site_of(term(function))
    assert failing([respond(sweep, exactly(site), torch.bfloat16)], torch.bfloat16) == []
    assert failing([respond(sweep, exactly(wrong), torch.bfloat16)], torch.bfloat16)


def test_many_edits_share_the_effort() -> None:
    few = list(sweeps(site_of(*(term(ABLATE, number=n) for n in range(3))), stream()))
    many = list(sweeps(site_of(*(term(ABLATE, number=n) for n in range(150))), stream()))
    assert len(many) == 150
    assert {s.streams.shape[1] for s in few} == {64}
    assert sum(s.streams.shape[0] * s.streams.shape[1] for s in many) < 2 * 2**17
