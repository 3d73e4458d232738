"""The intermediate representation: algebra of piecewise-linear functions, and the hook."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch
from hypothesis import assume, example, given
from hypothesis import strategies as st

from hubsplice.intervention.intervention import Intervention
from hubsplice.intervention.normalization import Normalization
from hubsplice.intervention.piecewise_linear import PiecewiseLinear
from hubsplice.intervention.site import Site, Term

# Eighths are exact in floating point, so that what is equal on paper is equal here.
eighths = st.integers(-400, 400).map(lambda n: n / 8)


@st.composite
def piecewise(draw: st.DrawFn) -> PiecewiseLinear:
    points = sorted(draw(st.sets(eighths, max_size=4)))
    pieces = len(points) + 1
    values = st.lists(st.integers(-40, 40).map(lambda n: n / 8), min_size=pieces, max_size=pieces)
    return PiecewiseLinear(tuple(points), tuple(draw(values)), tuple(draw(values)))


def value(f: PiecewiseLinear, p: float) -> float:
    """An independent evaluation: walk to the first breakpoint that is not below p."""
    for t, slope, intercept in zip(f.breakpoints, f.slopes, f.intercepts, strict=False):
        if p <= t:
            return slope * p + intercept
    return f.slopes[-1] * p + f.intercepts[-1]


@given(piecewise(), eighths)
def test_value_at_and_around_breakpoints(f: PiecewiseLinear, p: float) -> None:
    for point in (p, *f.breakpoints):
        assert f(point) == value(f, point)


def test_a_breakpoint_belongs_to_its_left() -> None:
    step = PiecewiseLinear.step(2.0, 5.0)
    assert step(2.0) == 0.0
    assert step(math.nextafter(2.0, 3.0)) == 5.0
    assert PiecewiseLinear.jump_relu(2.0)(2.0) == 0.0
    assert PiecewiseLinear.jump_relu(2.0)(2.5) == 2.5
    assert PiecewiseLinear.jump_relu(-1.0)(-0.5) == 0.0
    assert PiecewiseLinear.relu(3.0)(5.0) == 2.0


@given(piecewise(), piecewise(), eighths)
def test_addition(f: PiecewiseLinear, g: PiecewiseLinear, p: float) -> None:
    for point in (p, *f.breakpoints, *g.breakpoints):
        assert (f + g)(point) == value(f, point) + value(g, point)


@given(piecewise(), eighths, st.integers(-8, 8))
def test_scaling(f: PiecewiseLinear, p: float, factor: int) -> None:
    assert f.scaled(factor)(p) == factor * value(f, p)


@given(piecewise(), piecewise(), eighths)
@example(PiecewiseLinear.jump_relu(2.0), PiecewiseLinear.step(0.0), 2.0)
@example(PiecewiseLinear((), (-1.0,), (0.0,)), PiecewiseLinear.step(1.0), 0.0)
def test_composition(inner: PiecewiseLinear, outer: PiecewiseLinear, p: float) -> None:
    composed = inner.then(outer)
    # Away from the points where the composition may bend: there the side is a convention.
    near = [abs(p - t) for t in composed.breakpoints]
    assume(not near or min(near) > 1e-9)
    assert composed(p) == pytest.approx(value(outer, value(inner, p)), rel=1e-12, abs=1e-9)


@given(piecewise(), eighths)
def test_rising_composition_keeps_strictness(inner: PiecewiseLinear, at: float) -> None:
    """An outer step's own strictness survives where the inner function rises continuously."""
    line = PiecewiseLinear.linear(2.0, at)
    for t in inner.breakpoints:
        assert line.then(inner)((t - at) / 2.0) == value(inner, t)


@given(piecewise(), eighths)
def test_kinks_reconstruct(f: PiecewiseLinear, p: float) -> None:
    for point in (p, *f.breakpoints):
        rebuilt = f.slopes[0] * point + f.intercepts[0]
        for kink in f.kinks:
            rebuilt += kink.slope_change * max(point - kink.at, 0.0) + kink.jump * (point > kink.at)
        assert rebuilt == pytest.approx(value(f, point), rel=1e-9, abs=1e-9)


@given(piecewise(), eighths)
def test_simplified_is_equal_and_minimal(f: PiecewiseLinear, p: float) -> None:
    simple = f.simplified()
    for point in (p, *f.breakpoints):
        assert simple(point) == value(f, point)
    pieces = list(zip(simple.slopes, simple.intercepts, strict=True))
    assert all(a != b for a, b in pairwise(pieces))


@given(
    st.floats(0.01, 100), st.floats(0.01, 100), st.floats(-100, 100).filter(lambda x: abs(x) > 0.01)
)
def test_rounding_makes_no_jump(slope: float, outer_slope: float, at: float) -> None:
    """A continuous composition whose breakpoint is a rounded quotient has no jump."""
    inner = PiecewiseLinear.linear(slope, at)
    outer = PiecewiseLinear((at / 3,), (0.0, outer_slope), (0.0, -outer_slope * (at / 3)))
    assert not inner.then(outer).has_jump


def test_neighbouring_floats() -> None:
    a = 1.0
    b = math.nextafter(a, 2.0)
    window = PiecewiseLinear.step(a) + PiecewiseLinear.step(b, -1.0)
    assert (window(a), window(b), window(2.0)) == (0.0, 1.0, 0.0)
    doubled = PiecewiseLinear.linear(1.0).then(window).scaled(2.0)
    assert (doubled(a), doubled(b), doubled(2.0)) == (0.0, 2.0, 0.0)


@pytest.mark.parametrize(
    ("points", "slopes", "intercepts"),
    [
        ((1.0,), (0.0,), (0.0,)),
        ((1.0, 1.0), (0.0,) * 3, (0.0,) * 3),
        ((2.0, 1.0), (0.0,) * 3, (0.0,) * 3),
        ((), (math.nan,), (0.0,)),
        ((math.inf,), (0.0, 1.0), (0.0, 0.0)),
    ],
)
def test_malformed_functions_are_refused(
    points: tuple[float, ...], slopes: tuple[float, ...], intercepts: tuple[float, ...]
) -> None:
    with pytest.raises(ValueError, match=r"breakpoint|finite"):
        PiecewiseLinear(points, slopes, intercepts)


def term(d: int, function: PiecewiseLinear, kind: Normalization = Normalization.NONE) -> Term:
    return Term("t", torch.randn(d), 0.3, function, torch.randn(d), kind)


@pytest.mark.parametrize("kind", list(Normalization))
def test_site_is_the_sum_of_its_terms(kind: Normalization) -> None:
    torch.manual_seed(0)
    d = 12
    functions = [
        PiecewiseLinear.jump_relu(0.5).scaled(-1.0),
        PiecewiseLinear.constant(3.0),
        PiecewiseLinear((-1.0, 1.0), (1.0, 0.0, 1.0), (0.0, 0.0, 0.0)),
    ]
    terms = [term(d, f, kind) for f in functions] + [term(d, functions[0])]
    site = Site(0, tuple(terms))
    h = torch.randn(2, 5, d) * 3
    expected = torch.zeros(2, 5, d, dtype=torch.float64)
    values = torch.zeros(2, 5, len(terms), dtype=torch.float64)
    for row, column in [(i, j) for i in range(2) for j in range(5)]:
        x = h[row, column].double()
        for k, t in enumerate(terms):
            scale, normed = 1.0, x
            if t.normalization is Normalization.CONSTANT_NORM_RESCALE:
                scale = float((x**2).sum().sqrt()) / math.sqrt(d)
                normed = x / scale
            elif t.normalization is Normalization.LAYER_NORM:
                centred = x - x.sum() / d
                scale = math.sqrt(float((centred**2).sum()) / (d - 1))
                normed = centred / (scale + 1e-5)
            values[row, column, k] = value(t.function, float(normed @ t.encoder.double()) + t.bias)
            expected[row, column] += scale * values[row, column, k] * t.direction.double()
    torch.testing.assert_close(site.delta(h).double(), expected, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(site.activations(h).double(), values, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(site.edit(h).double(), h.double() + expected, rtol=1e-5, atol=1e-5)


def test_the_hook_is_strict_at_a_threshold() -> None:
    """A pre-activation of exactly θ is not active, in the hook as in SAELens."""
    axis = torch.tensor([1.0, 0.0])
    gate = Term("t", axis, 0.0, PiecewiseLinear.jump_relu(0.5), axis)
    wide = Term("u", axis, 0.0, PiecewiseLinear((-1.0, 0.5, 2.0), (0.0,) * 4, (0, 1, 2, 3)), axis)
    h = torch.tensor([[0.5, 0.0], [0.50001, 0.0], [-1.0, 0.0], [2.0, 0.0]])
    values = Site(0, (gate, wide)).activations(h)
    assert values[:, 0].tolist() == pytest.approx([0.0, 0.50001, 0.0, 2.0])
    assert values[:, 1].tolist() == [1.0, 2.0, 0.0, 2.0]


def test_sinks_are_left_alone() -> None:
    torch.manual_seed(0)
    h = torch.randn(6, 8)
    h[2] *= 1000
    site = Site(0, (term(8, PiecewiseLinear.constant(5.0)),), sink_norm=50.0)
    assert site.is_sink(h).tolist() == [False, False, True, False, False, False]
    assert torch.equal(site.edit(h)[2], h[2])
    assert not torch.equal(site.edit(h)[1], h[1])


def test_edit_keeps_the_dtype_and_computes_in_float32() -> None:
    torch.manual_seed(0)
    h = torch.randn(4, 8).bfloat16()
    site = Site(0, (term(8, PiecewiseLinear.relu()),))
    assert site.edit(h).dtype is torch.bfloat16
    assert site.delta(h).dtype is torch.float32
    assert torch.equal(site.edit(h), (h.float() + site.delta(h)).bfloat16())


def test_an_empty_site_changes_nothing() -> None:
    h = torch.randn(3, 8)
    assert torch.equal(Site(0, ()).edit(h), h)


def test_sites_are_in_layer_order() -> None:
    with pytest.raises(ValueError, match="layer order"):
        Intervention((Site(3, ()), Site(2, ())))
    with pytest.raises(ValueError, match="layer order"):
        Intervention((Site(3, ()), Site(3, ())))
