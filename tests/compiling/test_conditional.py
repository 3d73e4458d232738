"""Edits under conditions in two layers of every construction, on fresh synthetic tokens."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from hubsplice.compiling.conditional import two_layers
from hubsplice.constructions.bias_free import compile_bias_free
from hubsplice.constructions.compiled_layer import CompiledLayer
from hubsplice.constructions.layernorm import compile_layernorm
from hubsplice.constructions.marking import Mark, marks_of, require_markable, staged
from hubsplice.constructions.prenorm import compile_prenorm
from hubsplice.constructions.sandwich import compile_sandwich
from hubsplice.constructions.sandwich_form import POST_NORM, SANDWICH
from hubsplice.errors import UnsupportedError
from hubsplice.intervention.condition import Condition, GateReadOut
from hubsplice.intervention.piecewise_linear import PiecewiseLinear
from hubsplice.intervention.site import Site, Term
from hubsplice.streams.calibration import SiteActivations
from tests.constructions.streams import EPS, SINKS, D, calibration, served, stream

ROOM = 1024
Compile = Callable[[Site, SiteActivations, torch.dtype], CompiledLayer]
CONSTRUCTIONS: dict[str, Compile] = {
    "biases": compile_prenorm,
    "no biases": lambda site, h, dtype: compile_bias_free(site, h, dtype, ROOM),
    "layernorm": lambda site, h, dtype: compile_layernorm(
        site, h, dtype, activation="gelu_new", room=ROOM
    ),
    "sandwich": lambda site, h, dtype: compile_sandwich(site, h, dtype, ROOM, SANDWICH),
    "post-norm": lambda site, h, dtype: compile_sandwich(site, h, dtype, ROOM, POST_NORM),
}


def axis(seed: int) -> Tensor:
    v = torch.randn(D, generator=torch.Generator().manual_seed(seed))
    return v / v.norm()


def gate(seed: int) -> GateReadOut:
    """Open at three of ten tokens."""
    h = stream(1)[SINKS:]
    return GateReadOut(axis(seed), 0.0, float((h @ axis(seed)).quantile(0.7)))


def edited(function: Callable[[float], PiecewiseLinear], gates: int, needed: int) -> Site:
    h = stream(1)
    p = h[SINKS:] @ axis(11)
    spread = float(p.std())
    condition = Condition(tuple(gate(20 + i) for i in range(gates)), needed)
    phi = function(spread)
    encoder = axis(11) if phi.breakpoints or any(phi.slopes) else torch.zeros(D)
    term = Term("B", encoder, -float(p.quantile(0.8)), phi, axis(12), condition=condition)
    plain = Term("C", axis(13), 0.0, PiecewiseLinear.relu(spread), axis(14))
    return Site(0, (term, plain), 5 * float(h.norm(dim=1).median()))


P = PiecewiseLinear
EDITS: dict[str, tuple[Callable[[float], PiecewiseLinear], int, int]] = {
    "ablate": (lambda s: P((0.3 * s,), (0.0, -1.0), (0.0, 0.0)), 1, 1),
    "clamp": (lambda s: P((0.3 * s,), (0.0, -1.0), (2 * s, 2 * s)), 1, 1),
    "project": (lambda s: P((), (-1.0,), (0.5 * s,)), 1, 1),
    "clamp, and": (lambda s: P((0.3 * s,), (0.0, -1.0), (2 * s, 2 * s)), 2, 2),
    "steer, and": (lambda s: P.constant(2 * s), 2, 2),
    "steer, or": (lambda s: P.constant(2 * s), 3, 1),
}


@pytest.mark.parametrize("kind", EDITS)
def test_two_plain_sites_are_the_edit(kind: str) -> None:
    """In exact arithmetic, but for the tokens next to a threshold."""
    site, h = edited(*EDITS[kind]), stream(2)
    ordinary = stream(1)[SINKS:]
    marks = [replace(mark, early=(0.0,) * 3) for mark in marks_of(site, ordinary, ordinary)]
    marks = [replace(m, early=m.early[: EDITS[kind][1]]) for m in marks]
    marking, editing = staged(site, marks)
    assert all(term.condition is None for term in (*marking.terms, *editing.terms))
    made = editing.edit(marking.edit(h)) - h
    wrong = ((made - site.delta(h)).norm(dim=1) > 1e-3 * h.norm(dim=1)).sum()
    assert int(wrong) <= 4


# Of a stream of 64 channels, in which noise is larger than in a model's.
BARS = {torch.float32: (0.2, 0.2), torch.bfloat16: (0.4, 0.3)}


@pytest.mark.parametrize("dtype", list(BARS), ids=str)
@pytest.mark.parametrize("name", CONSTRUCTIONS)
def test_every_construction_clamps_under_a_condition(name: str, dtype: torch.dtype) -> None:
    site, h = edited(*EDITS["clamp"]), stream(2)
    make = CONSTRUCTIONS[name]
    layer = two_layers(site, calibration(dtype), lambda part, seen: make(part, seen, dtype))
    x = served(h, dtype, 12)
    made, wanted = layer(x, EPS).float() - x.float(), site.delta(h)
    term = site.terms[0]
    assert term.condition is not None
    opened = term.condition.holds(h)
    ordinary = torch.arange(len(h)) >= SINKS
    own = replace(site, terms=(term,)).delta(h)
    size = own[opened & ordinary].square().sum().sqrt()

    def error(change: Tensor, tokens: Tensor) -> float:
        return float((change - wanted)[tokens & ordinary].square().sum().sqrt() / size)

    at_open, elsewhere = BARS[dtype]
    assert error(made, opened) < at_open
    assert error(made, ~opened) < elsewhere
    assert float((made[:SINKS].norm(dim=1) / h[:SINKS].norm(dim=1)).max()) < 0.01
    # What the bars are worth: an edit that ignores its condition, and a layer that is silent.
    everywhere = replace(site, terms=(replace(term, condition=None), site.terms[1]))
    assert error(everywhere.delta(h), ~opened) > 2 * elsewhere
    assert error(torch.zeros_like(made), opened) > 2 * at_open


def test_what_another_edit_reads_as_well_is_refused() -> None:
    site = edited(*EDITS["clamp"])
    other = Term("other", axis(11), 0.0, PiecewiseLinear.relu(), axis(15))
    with pytest.raises(UnsupportedError, match="B: what it reads, other reads too"):
        require_markable((*site.terms, other))


def test_or_is_for_constants() -> None:
    site = edited(EDITS["clamp"][0], 2, 1)
    with pytest.raises(UnsupportedError, match="`any` is for edits that write a constant"):
        require_markable(site.terms)


def test_what_is_a_mixture_of_the_gates_is_refused() -> None:
    site = edited(*EDITS["clamp"])
    term = site.terms[0]
    assert term.condition is not None
    alike = term.condition.gates[0].encoder + 0.01 * axis(30)
    near = replace(site, terms=(replace(term, encoder=alike),))
    with pytest.raises(UnsupportedError, match="nearly a mixture"):
        staged(near, [Mark(0, 3.0, early=(0.0,))])
