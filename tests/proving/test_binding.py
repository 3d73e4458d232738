"""An intervention follows from its recipe's words, for every kind of edit, or is found out."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from hubsplice.checkpoint.manifest import TermRecord
from hubsplice.compiling.lowered_edits import lowered_edits
from hubsplice.compiling.sources import SpliceSources
from hubsplice.edits.base import Edit
from hubsplice.features.amounts import Activity
from hubsplice.features.base import Feature, Probe, SiteStatistics
from hubsplice.features.examples import LearnedProbe
from hubsplice.features.references import ProbeSource, TensorSource
from hubsplice.intervention.piecewise_linear import PiecewiseLinear
from hubsplice.proving.binding import edit_problems
from hubsplice.recipe.reading import parsed_edit

NORM = 20.0


class Sources(SpliceSources):
    """Features, vectors and probes made on the spot."""

    def feature(self, index: int) -> Feature:
        encoder, decoder = random(index), random(index + 1000) / 3
        activation = PiecewiseLinear.jump_relu(1.5) if index % 2 else PiecewiseLinear.relu()
        threshold = 1.5 if index % 2 else 0.0
        return Feature(f"feature {index}", encoder, -0.3, activation, threshold, decoder)

    def vector(self, source: TensorSource) -> Tensor:
        return random(7)

    def subspace(self, source: TensorSource) -> Tensor:
        return torch.linalg.qr(torch.stack([random(8), random(9)]).T).Q.T.contiguous()

    def probe(self, source: ProbeSource | LearnedProbe) -> Probe:
        return Probe("probe p", random(6), 0.4)


def random(seed: int) -> Tensor:
    return torch.randn(16, generator=torch.Generator().manual_seed(seed))


def statistics() -> SiteStatistics:
    return SiteStatistics(NORM, {f"feature {i}": Activity(8.0, 2.0, 30, 1000) for i in range(9)})


V = {"path": "v.safetensors"}
EDITS = [
    *({"kind": "ablate", "feature": f} for f in (2, 3)),
    *({"kind": "scale", "feature": f, "factor": 4.0} for f in (2, 3)),
    {"kind": "clamp", "feature": 2, "to": 3.0},
    {"kind": "clamp", "feature": 3, "to": "0.5 x max", "when": "active"},
    {"kind": "cap", "feature": 3, "at": 2.5},
    {"kind": "floor", "feature": 2, "at": 0.7},
    {"kind": "add", "feature": 3, "strength": "0.25 x max"},
    {"kind": "steer", "vector": V, "strength": "0.3 x norm"},
    {"kind": "steer", "feature": 2, "strength": 5.0},
    {"kind": "clamp_projection", "feature": 2, "to": "0.5 x max"},
    {"kind": "clamp_projection", "vector": V, "to": 1.5},
    {"kind": "project", "vector": V, "factor": 0.5},
    {
        "kind": "gated_steer",
        "vector": V,
        "strength": "0.3 x norm",
        "gate": {"probe": {"path": "p.safetensors"}},
    },
    {"kind": "gated_steer", "feature": 2, "strength": 4.0, "gate": {"feature": 3}},
]


@pytest.mark.parametrize("content", EDITS, ids=lambda c: f"{c['kind']}-{c.get('feature')}")
def test_every_kind_of_edit(content: dict[str, object]) -> None:
    edit = parsed_edit(content)
    (lowered,), problems = lowered_edits([edit], Sources(None, 16, statistics()), "splices[0]")
    assert problems == []
    dump = edit.model_dump(mode="json", exclude_none=True)
    records = [
        TermRecord(
            label=term.label,
            kind=edit.kind,
            formula=edit.formula,
            edit=dump,
            source={},
            amounts=lowered.amounts.amounts,
        )
        for term in lowered.terms
    ]
    assert edit_problems(edit, lowered.terms, records, NORM) == []
    weaker = [replace(t, function=t.function.scaled(0.001)) for t in lowered.terms]
    assert edit_problems(edit, weaker, records, NORM)
    for field in ("factor", "strength", "to", "at"):
        if field in content:
            other = parsed_edit({**content, field: 0.123})
            assert edit_problems(other, lowered.terms, records, NORM), field


@pytest.mark.parametrize("own", [0, 3])
def test_a_condition_on_the_edited_feature_beside_another(own: int) -> None:
    def edit_with(above: float) -> Edit:
        gates = [{"feature": own, "above": 2.0}, {"probe": {"path": "p.npz"}, "above": above}]
        return parsed_edit({"kind": "ablate", "feature": own, "when": {"all": gates}})

    edit = edit_with(0.5)
    (lowered,), problems = lowered_edits([edit], Sources(None, 16, statistics()), "splices[0]")
    assert problems == []
    # The condition on the feature itself is a part of the function, and the probe's is a gate.
    assert [len(term.condition.gates) for term in lowered.terms if term.condition] == [1]
    dump = edit.model_dump(mode="json", exclude_none=True)
    records = [
        TermRecord(label=term.label, kind="ablate", formula="", edit=dump, source={})
        for term in lowered.terms
    ]
    assert edit_problems(edit, lowered.terms, records, NORM) == []
    assert edit_problems(edit_with(0.1), lowered.terms, records, NORM)


def test_an_amount_that_does_not_follow_from_its_units() -> None:
    edit = parsed_edit({"kind": "steer", "vector": V, "strength": "0.3 x norm"})
    (lowered,), _ = lowered_edits([edit], Sources(None, 16, statistics()), "splices[0]")
    (amount,) = lowered.amounts.amounts
    record = TermRecord(
        label="", kind="steer", formula="", edit={}, source={}, amounts=(replace(amount, value=9),)
    )
    assert any("expected" in p for p in edit_problems(edit, lowered.terms, [record], NORM))
