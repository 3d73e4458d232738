"""Edits of one splice that say different things of one direction.

All edits of a splice read the same stream, and what they write is added up. Two edits that are
right by themselves can so cancel, or do together what neither says. It is decided on the ridge
functions, which say what an edit does; of a kind, only its role is asked.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch

from hubsplice.compiling.lowered_edits import LoweredEdit
from hubsplice.edits.base import Role
from hubsplice.intervention.piecewise_linear import PiecewiseLinear
from hubsplice.intervention.site import Term

_PARALLEL = 0.9
_EQUAL = 1.0 - 1e-5
_ROUNDING = 1e-5
_ROWS_AT_ONCE = 1024


@dataclass(frozen=True)
class Contradictions:
    """What is wrong with the edits of a splice, taken together.

    Attributes:
        problems: pairs that do nothing, or what neither of the two says.
        doubts: pairs that may not do what was meant.
    """

    problems: tuple[str, ...]
    doubts: tuple[str, ...]


def contradictions(edits: Sequence[LoweredEdit]) -> Contradictions:
    """Look at all pairs of edits that write along nearly the same direction."""
    problems: dict[tuple[int, int], str] = {}
    doubts: dict[tuple[int, int], str] = {}
    for i, j, one, other, cosine in _parallel(edits):
        first, second = edits[i], edits[j]
        if problem := _problem(first, second, one, other, cosine):
            problems.setdefault((i, j), problem)
        elif doubt := _doubt(first, second, cosine):
            doubts.setdefault((i, j), doubt)
    return Contradictions(
        tuple(problems.values()),
        tuple(doubt for pair, doubt in doubts.items() if pair not in problems),
    )


def _parallel(edits: Sequence[LoweredEdit]) -> Iterator[tuple[int, int, Term, Term, float]]:
    """Terms of two different edits along nearly the same direction, and their cosine."""
    owned = [(i, term) for i, edit in enumerate(edits) for term in edit.terms]
    if len(owned) < 2:
        return
    directions = torch.stack([term.direction for _, term in owned]).double()
    directions /= directions.norm(dim=1, keepdim=True).clamp_min(1e-300)
    # A splice may have thousands of edits, whose cosines are not needed all at once.
    for start in range(0, len(owned), _ROWS_AT_ONCE):
        cosines = directions[start : start + _ROWS_AT_ONCE] @ directions.T
        for row, column in (cosines.abs() > _PARALLEL).nonzero().tolist():
            (i, one), (j, other) = owned[start + row], owned[column]
            if i < j:
                yield i, j, one, other, float(cosines[row, column])


def _problem(
    first: LoweredEdit, second: LoweredEdit, one: Term, other: Term, cosine: float
) -> str | None:
    if abs(cosine) < _EQUAL or not (first.certain and second.certain):
        return None
    functions = _same_reading(one, other)
    if functions is None:
        return None
    mine = functions[0].scaled(float(one.direction.norm()))
    theirs = functions[1].scaled(math.copysign(float(other.direction.norm()), cosine))
    if _cancel(mine, theirs):
        return (
            f"{first} and {second} cancel: what edits write is added up, and together these two "
            "change nothing"
        )
    says = (Role.HOLDS, Role.SCALES)
    if first.edit.role in says and second.edit.role in says and _overlap(mine, theirs):
        return (
            f"{first} and {second} edit the same thing, and what edits write is added up: together "
            "they do what neither says; give one edit for it"
        )
    return None


def _doubt(first: LoweredEdit, second: LoweredEdit, cosine: float) -> str | None:
    roles = {first.edit.role, second.edit.role}
    if Role.ADDS not in roles or Role.SCALES in roles:
        return None
    held = next((e for e in (first, second) if e.edit.role is Role.HOLDS), None)
    follows = f", so that {held.field} does not hold" if held else ""
    return (
        f"{first} and {second} write along nearly the same direction (cosine {cosine:.2f}), and "
        f"what they write is added up{follows}"
    )


def _same_reading(one: Term, other: Term) -> tuple[PiecewiseLinear, PiecewiseLinear] | None:
    """Both φ as functions of one number of the token; None where they read different ones."""
    if one.condition is not None or other.condition is not None:
        return None
    if one.normalization is not other.normalization:
        return None
    lengths = float(one.encoder.double().norm()), float(other.encoder.double().norm())
    if 0.0 in lengths:
        if lengths != (0.0, 0.0):
            return None
        constants = (PiecewiseLinear.constant(t.function(t.bias)) for t in (one, other))
        return next(constants), next(constants)
    cosine = float(one.encoder.double() @ other.encoder.double()) / lengths[0] / lengths[1]
    if abs(cosine) < _EQUAL:
        return None
    signed = math.copysign(lengths[1], cosine)
    return (
        PiecewiseLinear.linear(lengths[0], one.bias).then(one.function),
        PiecewiseLinear.linear(signed, other.bias).then(other.function),
    )


def _cancel(one: PiecewiseLinear, other: PiecewiseLinear) -> bool:
    """Whether two functions add up to nothing, and are something by themselves."""
    slope = max(map(abs, (*one.slopes, *other.slopes)))
    intercept = max(map(abs, (*one.intercepts, *other.intercepts)))
    return bool(slope or intercept) and all(
        abs(s) <= _ROUNDING * slope and abs(c) <= _ROUNDING * intercept
        for s, c in _pieces(one + other)
    )


def _overlap(one: PiecewiseLinear, other: PiecewiseLinear) -> bool:
    """Whether there are tokens at which both functions are something."""
    edges = (-math.inf, *sorted({*one.breakpoints, *other.breakpoints}), math.inf)
    return any(
        all(_piece_in(f, low, high) != (0.0, 0.0) for f in (one, other))
        for low, high in pairwise(edges)
        if _wide(low, high)
    )


def _pieces(function: PiecewiseLinear) -> Iterator[tuple[float, float]]:
    """Slope and intercept of all pieces that are no slips between two roundings of one edge."""
    edges = (-math.inf, *function.breakpoints, math.inf)
    for (low, high), slope, intercept in zip(
        pairwise(edges), function.slopes, function.intercepts, strict=True
    ):
        if _wide(low, high):
            yield slope, intercept


def _piece_in(function: PiecewiseLinear, low: float, high: float) -> tuple[float, float]:
    """The piece that covers an interval between breakpoints."""
    piece = sum(t <= low for t in function.breakpoints if t < high)
    return function.slopes[piece], function.intercepts[piece]


def _wide(low: float, high: float) -> bool:
    ends = [abs(end) for end in (low, high) if math.isfinite(end)]
    return len(ends) < 2 or high - low > _ROUNDING * max(1.0, *ends)
