"""Terms under conditions as two plain sites, one behind the other.

A layer adds up functions of one read-out each, and a product of two read-outs is none of these:
1[g > 0]·relu(p) changes its slope along half a line, and whatever a neuron does along half of a
line it does along all of it. Two layers can do it. The first one *marks* the tokens at which a gate
is open: it adds M·v, where v moves p by one and no other read-out of the site at all. In front of
the second layer p is larger by M there, and M is more than p ever is on other tokens: so one
function of p + M tells both whether the gate is open and what to write. The second layer reads the
gate once more, which v has not moved, and takes the mark back.

With several gates each of them marks, and p is larger by M for every one that is open.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
from pydantic import ConfigDict, TypeAdapter, ValidationError
from torch import Tensor

from hubsplice.constructions.ramp_width import NARROWEST_RAMP, RAMP_SIGMAS
from hubsplice.errors import UnsupportedError
from hubsplice.intervention.condition import GateReadOut
from hubsplice.intervention.normalization import Normalization
from hubsplice.intervention.piecewise_linear import PiecewiseLinear
from hubsplice.intervention.site import Site, Term

# How far p may go beyond what calibration has seen, over its distance from φ's first bend.
_BEYOND = 1.5
# The same on either side, where φ has no flat end: in units of the whole range of p.
_ROOM = 0.25
# How much of a read-out must be its own, beside all others of the site.
_LEAST_OWN = 0.05
# How much of a jump's ramp is to lie below the threshold, beside the half that does.
_OF_RAMP = 0.25
# How alike two read-outs are that are one.
_SAME = 1 - 1e-6


@dataclass(frozen=True)
class Mark:
    """How the tokens of one term are marked.

    Attributes:
        term: its index at the site.
        height: M, by which each open gate moves the term's pre-activation.
        low: what the pre-activation of a token that is not marked stays above, where φ is not the
            same everywhere to the left; None where it is.
        channel: the channel of the stream that is read in the place of a pre-activation, for a
            term that reads none.
        early: how far below its threshold each gate begins to mark, in the order of the gates.
    """

    __pydantic_config__ = ConfigDict(extra="forbid", allow_inf_nan=False)

    term: int
    height: float
    low: float | None = None
    channel: int | None = None
    early: tuple[float, ...] = ()

    @property
    def record(self) -> dict[str, Any]:
        """For the manifest."""
        return {**asdict(self), "early": list(self.early)}

    @staticmethod
    def of_records(records: Any) -> tuple[Mark, ...]:
        """Marks as a manifest has them.

        Raises:
            ValueError: they are none.
        """
        try:
            return tuple(_MARKS.validate_python(records, strict=False))
        except ValidationError as error:
            problem = error.errors(include_url=False)[0]
            where = ".".join(map(str, problem["loc"]))
            raise ValueError(f"{where}: {problem['msg']}") from None


_MARKS = TypeAdapter(list[Mark])


def is_conditional(site: Site) -> bool:
    """Whether a site needs two layers."""
    return any(term.condition is not None for term in site.terms)


class UnmarkableError(UnsupportedError):
    """Marks would move what a term reads.

    Args:
        term: which one.
        reason: what is in the way.
    """

    def __init__(self, term: Term, reason: str) -> None:
        super().__init__(f"{term.label}: {reason}")
        self.term = term


def require_markable(terms: Sequence[Term]) -> None:
    """Refuse terms of one site whose marks would move what other terms read.

    Raises:
        UnmarkableError: the message names the two edits.
    """
    conditional = [term for term in terms if term.condition is not None]
    if not conditional:
        return
    for term in terms:
        if term.normalization is not Normalization.NONE:
            raise UnmarkableError(
                term,
                f"its SAE normalises its input ({term.normalization.value}), and "
                f"what marks the tokens of {conditional[0].label} would change the scale; put it "
                "after another layer",
            )
    for term in conditional:
        assert term.condition is not None
        count = len(term.condition.gates)
        steps = not any(term.function.slopes) and not term.encoder.any()
        if term.condition.needed < count and not steps:
            raise UnmarkableError(
                term,
                "`any` is for edits that write a constant (`steer`): where two "
                "gates are open a token would be marked twice, and at the edge of the second one "
                "its pre-activation could not be told; give a probe that reads both",
            )
        if not term.encoder.any():
            continue
        for other in terms:
            gates = () if other.condition is None else other.condition.gates
            if other is term and any(_same(term.encoder, gate.encoder) for gate in gates):
                raise UnmarkableError(
                    term,
                    "its condition reads what the edit itself reads; give a condition on "
                    "something else",
                )
            shared = other is not term and _same(term.encoder, other.encoder)
            if shared or any(_same(term.encoder, gate.encoder) for gate in gates):
                raise UnmarkableError(
                    term,
                    f"what it reads, {other.label} reads too, and the first of "
                    "its two layers has to move that; give the other edit after another layer",
                )


def marks_of(site: Site, h: Tensor, serving: Tensor) -> tuple[Mark, ...]:
    """Marks for the conditional terms of a site, as high as the text asks for.

    Args:
        site: with terms under conditions.
        h: the stream there that is no attention sink, shape [tokens, d], float32.
        serving: the same tokens at the serving precision.
    """
    projections = site.projections(h)
    spreads = h.std(dim=0)
    found = []
    for number, term in enumerate(site.terms):
        if term.condition is None:
            continue
        channel = None if term.encoder.any() else int(spreads.argmin())
        p = (projections[:, number] if channel is None else h[:, channel]).double()
        low = None
        if _is_flat(term):
            first = term.function.breakpoints[0]
            height = _BEYOND * max(float(p.max()) - first, float(p.std()))
        else:
            reach = max(float(p.max() - p.min()), 1e-6)
            low = float(p.min()) - _ROOM * reach
            height = (1 + 2 * _ROOM) * reach
        early = tuple(_early(gate, h, serving) for gate in term.condition.gates)
        found.append(Mark(number, height, low, channel, early))
    return tuple(found)


def limits_of(site: Site, marks: Sequence[Mark]) -> tuple[str, ...]:
    """Between which pre-activations marks tell tokens apart, one sentence for each edit."""
    found = []
    for mark in marks:
        term = site.terms[mark.term]
        if mark.low is None:
            end = term.function.breakpoints[0] + mark.height
            found.append(
                f"{term.label}: where the condition does not hold, the edit acts on a token whose "
                f"pre-activation is above {end:.4g} all the same, {_BEYOND:g} times as far as "
                "calibration text reaches"
            )
        elif mark.channel is None:
            found.append(
                f"{term.label}: it is told from other tokens where its pre-activation is between "
                f"{mark.low:.4g} and {mark.low + mark.height:.4g}, {1 + 2 * _ROOM:g} times what "
                "calibration text takes up"
            )
    return tuple(found)


def staged(site: Site, marks: Sequence[Mark]) -> tuple[Site, Site]:
    """The site of the layer that marks, and that of the layer that edits and takes marks back.

    The terms of the second one are those of the site, in their order, and after them what gates do
    by themselves.

    Raises:
        UnsupportedError: a read-out is too much like the others to be moved by itself.
        ValueError: the marks are not those of the site's terms.
    """
    conditional = [i for i, term in enumerate(site.terms) if term.condition is not None]
    if [mark.term for mark in marks] != conditional:
        raise ValueError(f"marks: of the terms {[m.term for m in marks]}, expected {conditional}")
    marking, taking_back, levels = _Steps("mark"), _Steps("mark taken back"), _Steps("level")
    edited = list(site.terms)
    read = [_read(site.terms[mark.term], mark) for mark in marks]
    others = [term.encoder for i, term in enumerate(site.terms) if i not in conditional]
    others += [gate.encoder for i in conditional for gate in _gates(site.terms[i])]
    for number, mark in enumerate(marks):
        term, encoder = site.terms[mark.term], read[number]
        own = _own(encoder, [*others, *(r for i, r in enumerate(read) if i != number)], term.label)
        function, level = _behind_marks(term, mark)
        for gate, early in zip(_gates(term), mark.early, strict=True):
            moved = replace(gate, threshold=gate.threshold - early)
            marking.add(moved, mark.height * own)
            taking_back.add(moved, -mark.height * own)
            if level:
                levels.add(gate, level * term.direction.double())
        edited[mark.term] = replace(
            term,
            encoder=encoder,
            bias=term.bias if mark.channel is None else 0.0,
            function=function,
            condition=None,
        )
    return (
        replace(site, terms=tuple(marking.terms)),
        replace(site, terms=(*edited, *taking_back.terms, *levels.terms)),
    )


class _Steps:
    """Steps of gates, each gate once, with all that is written where it is open."""

    def __init__(self, what: str) -> None:
        self._what = what
        self._found: dict[tuple[bytes, float, float], tuple[GateReadOut, Tensor]] = {}

    def add(self, gate: GateReadOut, written: Tensor) -> None:
        key = (gate.encoder.numpy().tobytes(), gate.bias, gate.threshold)
        before = self._found.get(key)
        self._found[key] = (gate, written if before is None else before[1] + written)

    @property
    def terms(self) -> list[Term]:
        return [
            Term(
                f"{self._what} {number}",
                gate.encoder,
                gate.bias,
                PiecewiseLinear.step(gate.threshold),
                written.float(),
            )
            for number, (gate, written) in enumerate(self._found.values(), start=1)
        ]


def _behind_marks(term: Term, mark: Mark) -> tuple[PiecewiseLinear, float]:
    """φ of the moved pre-activation, and the level that one open gate gives by itself."""
    assert term.condition is not None
    function, level = term.function, 0.0
    if not term.encoder.any():
        function = PiecewiseLinear.constant(function(term.bias))
    count, needed = len(term.condition.gates), term.condition.needed
    if mark.low is None:
        level = function.intercepts[0]
        function = function + PiecewiseLinear.constant(-level)
        return function.shifted(needed * mark.height), level
    total = PiecewiseLinear.constant(0.0)
    for opened in range(needed, count + 1):
        band = function.shifted(opened * mark.height)
        begin = mark.low + opened * mark.height
        total = total + band.above(begin)
        if opened < count:
            total = total + band.above(begin + mark.height).scaled(-1.0)
    return total, 0.0


def _early(gate: GateReadOut, h: Tensor, serving: Tensor) -> float:
    """How far below a gate's threshold marking begins.

    In weights the step of a gate is a ramp. A token is edited as soon as nearly all of its mark is
    there, which without this would be at the ramp's upper end.
    """
    values = h.double() @ gate.encoder.double()
    noise = serving.double() @ gate.encoder.double() - values
    sigmas = RAMP_SIGMAS[serving.dtype]
    width = max(sigmas * float(noise.std()), NARROWEST_RAMP * float(values.std()))
    return _OF_RAMP * width


def _is_flat(term: Term) -> bool:
    """Whether φ is one value far to the left, which the gates themselves can write."""
    assert term.condition is not None
    function, condition = term.function, term.condition
    if not term.encoder.any() or not function.breakpoints or function.slopes[0]:
        return False
    count = len(condition.gates)
    return condition.needed == count and (count == 1 or not function.intercepts[0])


def _gates(term: Term) -> tuple[GateReadOut, ...]:
    return () if term.condition is None else term.condition.gates


def _read(term: Term, mark: Mark) -> Tensor:
    """What is moved by a mark, shape [d]."""
    if mark.channel is None:
        return term.encoder
    axis = torch.zeros_like(term.encoder)
    axis[mark.channel] = 1.0
    return axis


def _own(encoder: Tensor, others: Sequence[Tensor], label: str) -> Tensor:
    """The shortest vector [d] that moves one read-out by 1 and the others not at all, float64."""
    encoder = encoder.double()
    rows = [other.double() for other in others if other.any()]
    rest = encoder
    if rows:
        stacked = torch.stack([row / row.norm() for row in rows])
        _, sizes, basis = torch.linalg.svd(stacked, full_matrices=False)
        basis = basis[sizes > 1e-6 * sizes.max()]
        for _ in range(2):
            rest = rest - basis.T @ (basis @ rest)
    if float(rest.norm()) < _LEAST_OWN * float(encoder.norm()):
        raise UnsupportedError(
            f"{label}: what it reads is nearly a mixture of what the condition and the other edits "
            "there read, so that its tokens can't be marked"
        )
    return rest / (rest @ encoder)


def _same(one: Tensor, other: Tensor) -> bool:
    lengths = float(one.double().norm()) * float(other.double().norm())
    return lengths > 0 and abs(float(one.double() @ other.double())) >= _SAME * lengths
