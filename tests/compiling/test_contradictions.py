"""Edits that contradict each other, from the ridge functions that they lower to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor

from hubsplice.compiling.contradictions import Contradictions, contradictions
from hubsplice.compiling.lowered_edits import LoweredEdit
from hubsplice.edits.registry import EDITS
from hubsplice.edits.strength import Amount
from hubsplice.features.amounts import ResolvedAmount
from hubsplice.features.base import Feature, Probe
from hubsplice.features.contrast import Contrast
from hubsplice.features.examples import ContrastSource, LearnedProbe
from hubsplice.features.references import ProbeSource, SaeSource, TensorSource
from hubsplice.intervention.piecewise_linear import PiecewiseLinear

D = 32
ABLATE: dict[str, Any] = {"kind": "ablate"}
SCALE: dict[str, Any] = {"kind": "scale", "factor": 2}
VECTOR = {"path": "/v.safetensors"}


def unit(seed: int) -> Tensor:
    v = torch.randn(D, generator=torch.Generator().manual_seed(seed))
    return v / v.norm()


@dataclass(frozen=True)
class FixedSources:
    """Features with directions of their own; 102 writes nearly as 2 does; the vector is 1's."""

    threshold: float

    def feature(self, index: int) -> Feature:
        decoder = 0.7 * unit(index)
        if index == 102:
            decoder = unit(2) + 0.3 * unit(50)
        activation = PiecewiseLinear.jump_relu(self.threshold)
        return Feature(
            f"feature {index}", 3 * unit(1000 + index), 0.1, activation, self.threshold, decoder
        )

    def gate_feature(self, index: int, sae: SaeSource) -> Feature:
        raise NotImplementedError

    def vector(self, source: TensorSource) -> Tensor:
        return -2.0 * unit(1)

    def subspace(self, source: TensorSource) -> Tensor:
        return unit(1)[None]

    def contrast(self, source: ContrastSource) -> Contrast:
        raise NotImplementedError

    def probe(self, source: ProbeSource | LearnedProbe) -> Probe:
        return Probe("probe", unit(7), 0.0)

    def amount(
        self,
        amount: Amount,
        *,
        direction: Tensor,
        feature: Feature | None,
        stated_max: float | None = None,
    ) -> float:
        return amount.value


def found(edits: Sequence[dict[str, Any]], threshold: float, *, certain: bool) -> Contradictions:
    named = []
    for i, fields in enumerate(edits):
        whole = fields if {"feature", "vector"} & set(fields) else {"feature": 1, **fields}
        edit = EDITS.get(whole["kind"], "kind").model_validate(whole)
        terms = edit.lower(FixedSources(threshold))
        strength = ResolvedAmount("0.5 x max", 1.0 if certain else None)
        named.append(LoweredEdit(f"splices[0].edits[{i}]", edit, terms, (strength,)))
    return contradictions(named)


@pytest.mark.parametrize("threshold", [0.0, 0.8])
@pytest.mark.parametrize(
    ("edits", "message"),
    [
        ([ABLATE, SCALE], "change nothing"),
        ([{"kind": "add", "strength": 3}, {"kind": "add", "strength": -3}], "change nothing"),
        (
            [{"kind": "steer", "strength": 3}, {"kind": "steer", "strength": -3}],
            "change nothing",
        ),
        # The vector is -2 times a unit vector, the decoder row 0.7 times the same one.
        (
            [
                {"kind": "steer", "strength": 2},
                {"kind": "steer", "vector": VECTOR, "strength": 0.7},
            ],
            "change nothing",
        ),
        (
            [{"kind": "add", "strength": 3}, {"kind": "gated_steer", "strength": -3}],
            "change nothing",
        ),
        (
            [{"kind": "project", "factor": 0}, {"kind": "project", "factor": 2}],
            "change nothing",
        ),
        (
            [{"kind": "project"}, {"kind": "project", "vector": VECTOR, "factor": 2}],
            "change nothing",
        ),
        ([ABLATE, ABLATE], "neither says"),
        ([{"kind": "clamp", "to": 5}, {"kind": "clamp", "to": 3}], "neither says"),
        ([{"kind": "clamp", "to": 5, "when": "active"}, ABLATE], "neither says"),
        ([SCALE, {"kind": "scale", "factor": 3}], "neither says"),
        ([{"kind": "cap", "at": 2}, {"kind": "floor", "at": 3}], "neither says"),
        ([{"kind": "clamp_projection", "to": 1}, {"kind": "project"}], "neither says"),
    ],
)
def test_problems_name_both_edits(
    edits: list[dict[str, Any]], message: str, threshold: float
) -> None:
    (problem,) = found(edits, threshold, certain=True).problems
    assert problem.startswith("splices[0].edits[0] (")
    assert " and splices[0].edits[1] (" in problem
    assert message in problem
    # Strengths that are not known yet are no ground for a refusal.
    assert found(edits, threshold, certain=False).problems == ()


@pytest.mark.parametrize("threshold", [0.0, 0.8])
@pytest.mark.parametrize(
    "edits",
    [
        [ABLATE, {**ABLATE, "feature": 2}],
        [{**ABLATE, "feature": 2}, {**ABLATE, "feature": 102}],
        [{"kind": "cap", "at": 5}, {"kind": "floor", "at": 1}],
        [{"kind": "scale", "factor": 1}, ABLATE],
        [SCALE, {"kind": "add", "strength": 2}],
        [{"kind": "steer", "strength": 3}, {"kind": "steer", "feature": 2, "strength": -3}],
        [ABLATE],
        [],
    ],
)
def test_what_goes_together(edits: list[dict[str, Any]], threshold: float) -> None:
    together = found(edits, threshold, certain=True)
    assert together == Contradictions((), ())


@pytest.mark.parametrize(
    ("edits", "words"),
    [
        (
            [{"kind": "clamp", "to": 5}, {"kind": "steer", "strength": 2}],
            ["cosine 1.00", "so that splices[0].edits[0] does not hold"],
        ),
        (
            [
                {"kind": "add", "feature": 2, "strength": 2},
                {"kind": "clamp", "feature": 102, "to": 5},
            ],
            ["cosine 0.9", "so that splices[0].edits[1] does not hold"],
        ),
        (
            [
                {"kind": "steer", "feature": 2, "strength": 2},
                {"kind": "steer", "feature": 102, "strength": 2},
            ],
            ["cosine 0.9"],
        ),
        (
            [{"kind": "steer", "strength": 3}, {"kind": "steer", "strength": -2}],
            ["cosine 1.00"],
        ),
        (
            [
                {"kind": "steer", "strength": 3},
                {"kind": "clamp_projection", "vector": VECTOR, "to": 1},
            ],
            ["cosine -1.00", "so that splices[0].edits[1] does not hold"],
        ),
    ],
)
def test_doubts_name_both_edits(edits: list[dict[str, Any]], words: list[str]) -> None:
    together = found(edits, 0.8, certain=True)
    assert together.problems == ()
    (doubt,) = together.doubts
    for word in ("splices[0].edits[0] (", "splices[0].edits[1] (", *words):
        assert word in doubt


def test_only_the_pairs_that_contradict_are_named() -> None:
    others = [{**ABLATE, "feature": i} for i in range(10, 40)]
    together = found([*others, ABLATE, {**ABLATE, "feature": 50}, SCALE], 0.8, certain=True)
    (problem,) = together.problems
    assert "splices[0].edits[30] (" in problem
    assert "splices[0].edits[32] (" in problem


def test_a_kind_of_an_unknown_role_can_still_cancel() -> None:
    sources = FixedSources(0.8)
    edits = [
        EDITS.get(f["kind"], "kind").model_validate({"feature": 1, **f}) for f in (ABLATE, SCALE)
    ]
    unknown: Any = type("Unknown", (type(edits[1]),), {"role": None})
    edits[1] = unknown.model_validate({"feature": 1, **SCALE})
    assert edits[1].role is None
    named = [LoweredEdit(f"edits[{i}]", e, e.lower(sources)) for i, e in enumerate(edits)]
    assert "change nothing" in contradictions(named).problems[0]
