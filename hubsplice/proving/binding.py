"""Whether an intervention is the edits that a recipe asks for, by what the recipe's words say.

The features themselves are taken from the intervention, since nothing else of them is there: their
encoders, directions and thresholds are the author's word. What is then worked out from the recipe
is every factor and value, and what `x max` and `x norm` come to in the recorded units.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from hubsplice.checkpoint.manifest import TermRecord
from hubsplice.edits.base import Edit
from hubsplice.edits.strength import Amount, parse_amount
from hubsplice.edits.when import Above
from hubsplice.errors import HubspliceError
from hubsplice.features.amounts import ResolvedAmount
from hubsplice.features.base import Feature, Probe
from hubsplice.features.contrast import Contrast
from hubsplice.features.examples import ContrastSource, LearnedProbe
from hubsplice.features.references import ProbeSource, SaeSource, TensorSource
from hubsplice.intervention.piecewise_linear import PiecewiseLinear
from hubsplice.intervention.site import Term

# Strengths are read back from JSON, and lengths are of float32 vectors.
_RELATIVE = 1e-5

# How far from one the slope of a gated SAE's activation may be.
_STEEPEST = 20.0


def edit_problems(
    edit: Edit, terms: Sequence[Term], records: Sequence[TermRecord], median_norm: float | None
) -> list[str]:
    """In what an edit of the recipe and the terms that stand for it differ.

    Args:
        edit: as the recipe has it.
        terms: of the intervention.
        records: the manifest's, of the same terms.
        median_norm: what `x norm` counts in, as the manifest has it.
    """
    amounts = records[0].amounts
    problems = list(_amount_problems(amounts, median_norm))
    tried = []
    for activation, threshold in _activations(terms[0].function):
        sources = _Sources(terms, activation, threshold, amounts, _of_conditions(edit, terms))
        try:
            made = edit.terms(sources)
        except HubspliceError as error:
            return [*problems, str(error)]
        if sources.unused:
            problems.append("the manifest records more strengths than the edit has")
        missed = _differences(made, terms) or _other_conditions(edit, made, terms)
        if missed is None:
            return problems
        tried.append(missed)
    return [*problems, min(tried, key=len)]


def _amount_problems(amounts: Sequence[ResolvedAmount], median_norm: float | None) -> Iterator[str]:
    """Recorded strengths that do not follow from what they are said to be counted in."""
    for amount in amounts:
        try:
            stated = parse_amount(amount.stated)
        except ValueError:
            yield f"the strength {amount.stated!r} is no number"
            continue
        expected = stated.value
        if stated.unit == "max":
            activity = amount.activity
            most = amount.stated_max or (activity.maximum if activity else None)
            if most is None:
                yield f"{amount.stated}: the manifest does not say what the maximum is"
                continue
            expected *= most
        elif stated.unit == "norm":
            if not amount.direction_norm or median_norm is None:
                yield f"{amount.stated}: the manifest does not say what the norms are"
                continue
            expected *= median_norm / amount.direction_norm
        if amount.value is None or not _close(amount.value, expected, 1e-4):
            yield f"the manifest says that {amount.stated} is {amount.value}, expected {expected:g}"


def _activations(function: PiecewiseLinear) -> Iterator[tuple[PiecewiseLinear, float]]:
    """What the activation of the feature may be, and its threshold, by where φ bends."""
    yield PiecewiseLinear.relu(), 0.0
    for point in function.breakpoints:
        yield PiecewiseLinear.jump_relu(point), point
    for point in function.breakpoints:
        if point > 0:
            sides = PiecewiseLinear((-point, point), (1.0, 0.0, 1.0), (0.0, 0.0, 0.0))
            yield sides, point
    yield PiecewiseLinear.linear(1.0), 0.0
    yield from _gated(function)


def _gated(function: PiecewiseLinear) -> Iterator[tuple[PiecewiseLinear, float]]:
    """Activations of gated SAEs, whose slope and intercept are their own: as φ has them.

    One without an intercept is a JumpReLU with another slope, which is no SAE's.
    """
    for point in function.breakpoints:
        slope = next((s for s in function.slopes if s), 0.0)
        if not slope:
            continue
        piece = function.slopes.index(slope)
        for own in {abs(slope), 1.0}:
            intercept = function.intercepts[piece] * own / slope
            if intercept and 1 / _STEEPEST <= own <= _STEEPEST:
                yield PiecewiseLinear((point,), (0.0, own), (0.0, intercept)), point


@dataclass(eq=False)
class _Sources:
    """What an edit looks up, as the intervention's terms and the manifest have it."""

    terms: Sequence[Term]
    activation: PiecewiseLinear
    threshold: float
    amounts: Sequence[ResolvedAmount]
    of_conditions: frozenset[int] = frozenset()
    asked: int = 0

    @property
    def unused(self) -> bool:
        return self.asked < len(self.amounts)

    def _direction(self) -> Tensor:
        """What is written, at the length that it has in its source."""
        direction = self.terms[0].direction
        recorded = next((a.direction_norm for a in self.amounts if a.direction_norm), None)
        return direction if recorded is None else direction * (recorded / float(direction.norm()))

    def feature(self, index: int) -> Feature:
        term = self.terms[0]
        # What a condition reads has a threshold of its own, which is the author's word; it can't
        # lie below what the recipe says.
        plain = index in self.of_conditions
        return Feature(
            f"feature {index}",
            term.encoder,
            term.bias,
            PiecewiseLinear.relu() if plain else self.activation,
            0.0 if plain else self.threshold,
            self._direction(),
            term.normalization,
        )

    def gate_feature(self, index: int, sae: SaeSource) -> Feature:
        # Its threshold, too, is the author's word.
        return Feature(
            f"feature {index} of {sae.title}",
            self.terms[0].encoder,
            self.terms[0].bias,
            PiecewiseLinear.relu(),
            0.0,
            self._direction(),
        )

    def vector(self, source: TensorSource) -> Tensor:  # noqa: ARG002
        return self._direction()

    def subspace(self, source: TensorSource) -> Tensor:  # noqa: ARG002
        return torch.stack([term.direction for term in self.terms])

    def contrast(self, source: ContrastSource) -> Contrast:  # noqa: ARG002
        points = self.terms[0].function.breakpoints
        return Contrast(self._direction(), points[0] if points else 0.0)

    def probe(self, source: ProbeSource | LearnedProbe) -> Probe:  # noqa: ARG002
        return Probe("probe", self.terms[0].encoder, self.terms[0].bias)

    def amount(
        self,
        amount: Amount,
        *,
        direction: Tensor,  # noqa: ARG002
        feature: Feature | None,  # noqa: ARG002
        stated_max: float | None = None,  # noqa: ARG002
    ) -> float:
        self.asked += 1
        for recorded in self.amounts:
            if recorded.stated == str(amount) and recorded.value is not None:
                return recorded.value
        return amount.value


def _differences(made: Sequence[Term], terms: Sequence[Term]) -> str | None:
    """In what φ differs from what the recipe makes of it; None where it does not."""
    if len(made) != len(terms):
        return f"it makes {len(made)} terms, and the intervention has {len(terms)}"
    for expected, found in zip(made, terms, strict=True):
        a, b = expected.function, found.function
        pairs = (
            (a.breakpoints, b.breakpoints),
            (a.slopes, b.slopes),
            (a.intercepts, b.intercepts),
        )
        size = max(map(abs, (*b.intercepts, *b.breakpoints, 1e-30)))
        for ours, theirs in pairs:
            same = len(ours) == len(theirs) and all(
                _close(x, y, _RELATIVE) or abs(x - y) < 1e-6 * size
                for x, y in zip(ours, theirs, strict=True)
            )
            if not same:
                return f"the recipe makes {_shown(a)} of it, and the intervention has {_shown(b)}"
    return None


def _of_conditions(edit: Edit, terms: Sequence[Term]) -> frozenset[int]:
    """Features that only the conditions of terms read."""
    if edit.condition is None or terms[0].condition is None:
        return frozenset()
    return frozenset(edit.condition.feature_indices()) - frozenset(edit.feature_indices())


def _other_conditions(edit: Edit, made: Sequence[Term], terms: Sequence[Term]) -> str | None:
    """In what conditions differ from what the recipe makes of them; None where they do not."""
    for expected, found in zip(made, terms, strict=True):
        ours, theirs = expected.condition, found.condition
        if ours is None and theirs is None:
            continue
        if ours is None or theirs is None:
            return (
                f"{found.label}: only one of the recipe and the intervention has a condition there"
            )
        assert edit.condition is not None
        if (len(ours.gates), ours.needed) != (len(theirs.gates), theirs.needed):
            return (
                f"the recipe asks for {ours.needed} of {len(ours.gates)} conditions, and the "
                f"intervention for {theirs.needed} of {len(theirs.gates)}"
            )
        parts: Sequence[Above] = edit.condition.members
        if edit.condition.needed == len(parts):
            # A condition on the feature that the edit reads is a part of its function.
            own = edit.read_feature
            parts = [p for p in parts if own is None or (p.feature, p.sae) != (own, None)]
        for part, gate, other in zip(parts, ours.gates, theirs.gates, strict=True):
            if part.contrast is not None and part.above is None:
                continue
            near = 1e-6 * max(1.0, abs(gate.threshold))
            low = other.threshold < gate.threshold - near
            if low or (part.feature is None and other.threshold > gate.threshold + near):
                return (
                    f"a condition of the recipe is above {gate.threshold:.4g}, and the "
                    f"intervention's begins at {other.threshold:.4g}"
                )
    return None


def _close(a: float, b: float, relative: float) -> bool:
    return abs(a - b) <= relative * max(abs(a), abs(b))


def _shown(function: PiecewiseLinear) -> str:
    edges = ", ".join(f"{p:.4g}" for p in function.breakpoints)
    pieces = "; ".join(
        f"{s:.4g}·p + {c:.4g}" for s, c in zip(function.slopes, function.intercepts, strict=True)
    )
    return pieces + (f" (parted at {edges})" if edges else "")
