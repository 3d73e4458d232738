"""Every edit against its formula, written out with the feature's activation f and p."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor

from hubsplice.compiling.sources import SpliceSources
from hubsplice.edits.base import Edit
from hubsplice.edits.recording import Recording
from hubsplice.edits.registry import EDITS
from hubsplice.edits.strength import Amount
from hubsplice.errors import RecipeError, UnsupportedError
from hubsplice.features.amounts import Activity
from hubsplice.features.base import Feature, Probe, SiteStatistics
from hubsplice.features.contrast import Contrast
from hubsplice.features.examples import ContrastSource, LearnedProbe
from hubsplice.features.references import ProbeSource, SaeSource, TensorSource
from hubsplice.intervention.normalization import Normalization
from hubsplice.intervention.piecewise_linear import PiecewiseLinear
from hubsplice.intervention.site import Site

D = 8
FILE = Path("/vectors.safetensors")
MEDIAN_NORM, LARGEST = 20.0, 6.0


def unit(seed: int, length: float) -> Tensor:
    v = torch.randn(D, generator=torch.Generator().manual_seed(seed))
    return v / v.norm() * length


VECTOR, ENCODER, DECODER, PROBE = unit(1, 2.0), unit(2, 1.5), unit(3, 0.7), unit(4, 1.0)
BIAS, PROBE_BIAS = 0.25, -0.5
SUBSPACE = torch.linalg.qr(torch.stack([unit(5, 1.0), unit(6, 1.0)]).T)[0].T


@dataclass(frozen=True)
class Kind:
    """An activation function twice: as hubsplice's object, and as plain Python."""

    function: PiecewiseLinear
    threshold: float
    plain: Callable[[float], float]


def gated(p: float) -> float:
    return max(1.5 * p - 0.6, 0.0) if p > 0 else 0.0


KINDS = {
    "relu": Kind(PiecewiseLinear.relu(), 0.0, lambda p: max(p, 0.0)),
    "jumprelu": Kind(PiecewiseLinear.jump_relu(0.8), 0.8, lambda p: p if p > 0.8 else 0.0),
    "gated": Kind(PiecewiseLinear((0.4,), (0.0, 1.5), (0.0, -0.6)), 0.4, gated),
    "gated_jump": Kind(
        PiecewiseLinear((0.0,), (0.0, 1.5), (0.0, 0.6)),
        0.0,
        lambda p: 1.5 * p + 0.6 if p > 0 else 0,
    ),
    "two_sided": Kind(
        PiecewiseLinear((-0.8, 0.8), (1.0, 0.0, 1.0), (0.0, 0.0, 0.0)),
        0.8,
        lambda p: p if abs(p) > 0.8 else 0.0,
    ),
}


@dataclass(frozen=True)
class FixedSources:
    """Sources that hold one feature, one vector, one subspace and one probe."""

    activation: Kind
    normalization: Normalization = Normalization.NONE

    def feature(self, index: int) -> Feature:
        kind = self.activation
        return Feature(
            f"feature {index}",
            ENCODER,
            BIAS,
            kind.function,
            kind.threshold,
            DECODER,
            self.normalization,
        )

    def gate_feature(self, index: int, sae: SaeSource) -> Feature:
        raise NotImplementedError

    def vector(self, source: TensorSource) -> Tensor:
        return VECTOR

    def subspace(self, source: TensorSource) -> Tensor:
        return SUBSPACE

    def contrast(self, source: ContrastSource) -> Contrast:
        raise NotImplementedError

    def probe(self, source: ProbeSource | LearnedProbe) -> Probe:
        return Probe("probe", PROBE, PROBE_BIAS)

    def amount(
        self,
        amount: Amount,
        *,
        direction: Tensor,
        feature: Feature | None,
        stated_max: float | None = None,
    ) -> float:
        activity = Activity(LARGEST, 2.0, 50, 1000)
        statistics = SiteStatistics(MEDIAN_NORM, {"feature 3": activity})
        return Recording(SpliceSources(None, D, statistics)).amount(
            amount, direction=direction, feature=feature, stated_max=stated_max
        )


def parse(**fields: Any) -> Edit:
    return EDITS.get(fields["kind"], "kind").model_validate(fields)


def stream() -> Tensor:
    h = torch.randn(400, D, generator=torch.Generator().manual_seed(0)) * 1.5
    p = h @ ENCODER + BIAS
    assert (p < -1).any()
    assert (p > 2).any()
    return h


def change(edit: Edit, sources: FixedSources, h: Tensor) -> Tensor:
    return Site(0, edit.lower(sources)).delta(h)


FEATURE_EDITS: list[tuple[dict[str, Any], Callable[[float], float]]] = [
    ({"kind": "ablate"}, lambda f: -f),
    ({"kind": "scale", "factor": 4}, lambda f: 3 * f),
    ({"kind": "scale", "factor": -1}, lambda f: -2 * f),
    ({"kind": "scale", "factor": 1}, lambda f: 0.0),
    ({"kind": "add", "strength": 2}, lambda f: 2.0 if f else 0.0),
    ({"kind": "add", "strength": "0.5 x max"}, lambda f: 3.0 if f else 0.0),
    ({"kind": "clamp", "to": 5}, lambda f: 5 - f),
    ({"kind": "clamp", "to": 0}, lambda f: -f),
    ({"kind": "clamp", "to": "0.5 x max", "when": "active"}, lambda f: 3 - f if f else 0.0),
    ({"kind": "add", "strength": "0.5 x max", "max": 9.0}, lambda f: 4.5 if f else 0.0),
    ({"kind": "clamp", "to": "0.5 x max", "max": 9.0}, lambda f: 4.5 - f),
    ({"kind": "cap", "at": "0.1 x max", "max": 9.0}, lambda f: min(f, 0.9) - f),
    ({"kind": "floor", "at": "0.1 x max", "max": 9.0}, lambda f: max(f, 0.9) - f),
    ({"kind": "clamp", "to": "0.1 x norm"}, lambda f: 0.1 * MEDIAN_NORM / 0.7 - f),
    ({"kind": "cap", "at": 1.2}, lambda f: min(f, 1.2) - f),
    ({"kind": "cap", "at": "0.1 x max"}, lambda f: min(f, 0.6) - f),
    ({"kind": "floor", "at": 1.2}, lambda f: max(f, 1.2) - f),
    ({"kind": "floor", "at": 0.0}, lambda f: max(f, 0.0) - f),
]


@pytest.mark.parametrize("activation", list(KINDS))
@pytest.mark.parametrize(
    ("fields", "phi"), FEATURE_EDITS, ids=lambda x: str(x)[:50] if isinstance(x, dict) else "phi"
)
def test_edits_of_one_feature(
    fields: dict[str, Any], phi: Callable[[float], float], activation: str
) -> None:
    kind, h = KINDS[activation], stream()
    edit = parse(feature=3, **fields)
    readings = [kind.plain(p) for p in (h.double() @ ENCODER.double() + BIAS).tolist()]
    expected = torch.tensor([phi(f) for f in readings])[:, None] * DECODER
    actual = change(edit, FixedSources(kind), h)
    torch.testing.assert_close(actual, expected, rtol=1e-5, atol=1e-5)
    assert edit.feature_indices() == (3,)


def project_on(v: Tensor, h: Tensor) -> Tensor:
    v = v / v.norm()
    return (h @ v)[:, None] * v


VECTOR_FIELD = {"path": str(FILE), "tensor": "v"}
P = stream() @ ENCODER + BIAS

DIRECTED_EDITS: list[tuple[dict[str, Any], Callable[[Tensor], Tensor]]] = [
    ({"kind": "steer", "feature": 3, "strength": 8}, lambda h: (8 * DECODER).expand_as(h)),
    (
        {"kind": "steer", "feature": 3, "strength": "0.5 x max"},
        lambda h: (3 * DECODER).expand_as(h),
    ),
    (
        {"kind": "steer", "feature": 3, "strength": "0.5 x max", "max": 9.0},
        lambda h: (4.5 * DECODER).expand_as(h),
    ),
    (
        {"kind": "gated_steer", "feature": 3, "strength": "0.5 x max", "max": 9.0},
        lambda h: 4.5 * DECODER * (P > 0.8)[:, None],
    ),
    (
        {"kind": "clamp_projection", "feature": 3, "to": "0.5 x max", "max": 9.0},
        lambda h: 4.5 * DECODER - project_on(DECODER, h),
    ),
    (
        {"kind": "clamp_projection", "feature": 3, "to": "0.5 x norm"},
        lambda h: 10 * DECODER / DECODER.norm() - project_on(DECODER, h),
    ),
    (
        {"kind": "steer", "vector": VECTOR_FIELD, "strength": "-0.5 x norm"},
        lambda h: (-10 * VECTOR / 2.0).expand_as(h),
    ),
    (
        {"kind": "gated_steer", "feature": 3, "strength": 8},
        lambda h: 8 * DECODER * (P > 0.8)[:, None],
    ),
    (
        {
            "kind": "gated_steer",
            "feature": 3,
            "strength": 8,
            "gate": {"feature": 4, "threshold": -0.2},
        },
        lambda h: 8 * DECODER * (P > -0.2)[:, None],
    ),
    (
        {
            "kind": "gated_steer",
            "feature": 3,
            "strength": 8,
            "gate": {"feature": 3, "threshold": 0.3, "read": "raw"},
        },
        lambda h: 8 * DECODER * (h @ ENCODER > 0.3)[:, None],
    ),
    (
        {
            "kind": "gated_steer",
            "vector": VECTOR_FIELD,
            "strength": 2,
            "gate": {"vector": VECTOR_FIELD, "threshold": 1.0},
        },
        lambda h: 2 * VECTOR * (h @ VECTOR > 1.0)[:, None],
    ),
    (
        {
            "kind": "gated_steer",
            "vector": VECTOR_FIELD,
            "strength": "0.2 x norm",
            "gate": {"probe": {"path": str(FILE)}},
        },
        lambda h: 4 * VECTOR / 2.0 * (h @ PROBE + PROBE_BIAS > 0)[:, None],
    ),
    ({"kind": "project", "feature": 3}, lambda h: -project_on(DECODER, h)),
    ({"kind": "project", "feature": 3, "factor": 2.5}, lambda h: 1.5 * project_on(DECODER, h)),
    (
        {"kind": "project", "vector": VECTOR_FIELD},
        lambda h: -h @ SUBSPACE.T @ SUBSPACE,
    ),
    (
        {"kind": "clamp_projection", "vector": VECTOR_FIELD, "to": 7},
        lambda h: 7 * VECTOR / 2.0 - project_on(VECTOR, h),
    ),
    (
        {"kind": "clamp_projection", "vector": VECTOR_FIELD, "to": "0.5 x norm"},
        lambda h: 10 * VECTOR / 2.0 - project_on(VECTOR, h),
    ),
    (
        {"kind": "clamp_projection", "feature": 3, "to": "0.5 x max"},
        lambda h: 3 * DECODER - project_on(DECODER, h),
    ),
]


@pytest.mark.parametrize(
    ("fields", "formula"),
    DIRECTED_EDITS,
    ids=lambda x: str(x)[:60] if isinstance(x, dict) else "formula",
)
def test_edits_along_a_direction(
    fields: dict[str, Any], formula: Callable[[Tensor], Tensor]
) -> None:
    h = stream()
    actual = change(parse(**fields), FixedSources(KINDS["jumprelu"]), h)
    torch.testing.assert_close(actual, formula(h), rtol=1e-5, atol=2e-5)


def test_gate_of_a_two_sided_feature_opens_on_both_sides() -> None:
    h = stream()
    edit = parse(kind="gated_steer", feature=3, strength=1)
    actual = change(edit, FixedSources(KINDS["two_sided"]), h)
    torch.testing.assert_close(actual, DECODER * (P.abs() > 0.8)[:, None])


@pytest.mark.parametrize("name", list(KINDS))
def test_active_agrees_with_the_threshold(name: str) -> None:
    feature = FixedSources(KINDS[name]).feature(0)
    for p in (-3.0, -0.5, 0.1, 0.39, 0.41, 0.79, 0.81, 3.0):
        above = p > feature.threshold or (name == "two_sided" and p < -feature.threshold)
        assert feature.active(p) == float(above)


def test_constants_need_no_input_and_projections_no_jump() -> None:
    sources = FixedSources(KINDS["jumprelu"])
    (steer,) = parse(kind="steer", feature=3, strength=8).lower(sources)
    assert not steer.encoder.any()
    assert not steer.function.breakpoints
    for fields in (
        {"kind": "project", "feature": 3},
        {"kind": "clamp_projection", "feature": 3, "to": 2},
    ):
        (term,) = parse(**fields).lower(sources)
        assert not term.function.breakpoints


def test_continuity_is_known_to_the_compiler() -> None:
    """Cap, floor and clamp-always bend a ReLU feature; clamp-where-active jumps."""
    sources = FixedSources(KINDS["relu"])

    def jumps(**fields: Any) -> bool:
        return parse(feature=3, **fields).lower(sources)[0].function.has_jump

    assert not jumps(kind="cap", at=1.1)
    assert not jumps(kind="floor", at=1.1)
    assert not jumps(kind="clamp", to=2)
    assert jumps(kind="clamp", to=2, when="active")
    assert jumps(kind="gated_steer", strength=2)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (
            {"kind": "steer", "strength": 1},
            "exactly one of feature, vector and contrast; found none",
        ),
        (
            {"kind": "steer", "strength": 1, "feature": 1, "vector": VECTOR_FIELD},
            "found feature and vector",
        ),
        ({"kind": "project"}, "exactly one of feature, vector and contrast"),
        (
            {"kind": "gated_steer", "vector": VECTOR_FIELD, "strength": 1},
            "give a gate that says where to act",
        ),
        (
            {"kind": "gated_steer", "feature": 1, "strength": 1, "gate": {}},
            "exactly one of feature, vector, contrast and probe; found none",
        ),
        (
            {
                "kind": "gated_steer",
                "feature": 1,
                "strength": 1,
                "gate": {"vector": VECTOR_FIELD},
            },
            "needs a threshold",
        ),
        (
            {
                "kind": "gated_steer",
                "feature": 1,
                "strength": 1,
                "gate": {"probe": {"path": "p"}, "read": "raw"},
            },
            "read: raw",
        ),
        (
            {
                "kind": "gated_steer",
                "feature": 1,
                "strength": 1,
                "gate": {"feature": 1, "threshold": math.inf},
            },
            "finite",
        ),
        ({"kind": "scale", "feature": 1, "factor": math.nan}, "finite"),
        ({"kind": "scale", "feature": 1}, "factor"),
        ({"kind": "project", "feature": 1, "factor": math.inf}, "finite"),
        ({"kind": "add", "feature": 1, "strength": math.inf}, "expected a number"),
        ({"kind": "clamp", "feature": 1, "to": "5 x mean"}, "expected a number"),
        ({"kind": "clamp", "feature": 1, "to": 5, "when": "sometimes"}, "always"),
        ({"kind": "add", "feature": 1, "strength": "1 x max", "max": 0}, "greater than 0"),
        ({"kind": "add", "feature": 1, "strength": "1 x max", "max": math.inf}, "finite"),
        ({"kind": "ablate", "feature": 1, "max": 3}, "Extra inputs"),
        ({"kind": "ablate", "feature": -1}, "greater than or equal to 0"),
        ({"kind": "ablate", "feature": 1, "factor": 2}, "Extra inputs"),
    ],
)
def test_malformed_edits_are_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        parse(**fields)


def test_gate_features_are_looked_up_too() -> None:
    edit = parse(kind="gated_steer", feature=3, strength=1, gate={"feature": 5})
    assert edit.feature_indices() == (3, 5)
    edit = parse(kind="gated_steer", feature=3, strength=1, gate={"feature": 3})
    assert edit.feature_indices() == (3,)


class TestNormalisedInputs:
    """Activations at each token's own scale, and lengths in the stream, don't mix."""

    sources = FixedSources(KINDS["jumprelu"], Normalization.CONSTANT_NORM_RESCALE)

    def test_feature_edits_write_at_the_tokens_scale(self) -> None:
        h = stream()
        scale = h.norm(dim=1) / math.sqrt(D)
        p = (h / scale[:, None]) @ ENCODER + BIAS
        expected = (scale * 2.0 * (p > 0.8))[:, None] * DECODER
        for kind in ("add", "gated_steer"):
            actual = change(parse(kind=kind, feature=3, strength=2), self.sources, h)
            torch.testing.assert_close(actual, expected, rtol=1e-5, atol=1e-5)

    def test_a_constant_stays_constant(self) -> None:
        h = stream()
        actual = change(parse(kind="steer", feature=3, strength="0.5 x norm"), self.sources, h)
        torch.testing.assert_close(actual, (10 * DECODER / DECODER.norm()).expand_as(h))

    @pytest.mark.parametrize(
        "fields",
        [
            {"kind": "clamp", "feature": 3, "to": "0.5 x norm"},
            {"kind": "add", "feature": 3, "strength": "0.5 x norm"},
            {"kind": "steer", "feature": 3, "strength": "0.5 x max"},
            {"kind": "clamp_projection", "feature": 3, "to": "0.5 x max"},
            {
                "kind": "gated_steer",
                "vector": VECTOR_FIELD,
                "strength": 1,
                "gate": {"feature": 3},
            },
        ],
    )
    def test_mixed_units_are_refused(self, fields: dict[str, Any]) -> None:
        with pytest.raises(UnsupportedError, match="own scale"):
            parse(**fields).lower(self.sources)


def test_names_carry_the_label_and_no_folder() -> None:
    sources = FixedSources(KINDS["relu"])
    (term,) = parse(kind="ablate", feature=3, label="regular expressions").lower(sources)
    assert term.label == "ablate feature 3 (regular expressions)"
    first, second = parse(kind="project", vector=VECTOR_FIELD).lower(sources)
    assert first.label == "project subspace v of vectors.safetensors [1 of 2]"
    assert second.label == "project subspace v of vectors.safetensors [2 of 2]"


def test_every_kind_documents_itself() -> None:
    kinds = dict(EDITS.items())
    assert set(kinds) >= {
        "ablate",
        "add",
        "cap",
        "clamp",
        "clamp_projection",
        "floor",
        "gated_steer",
        "project",
        "scale",
        "steer",
    }
    for name, edit in kinds.items():
        assert edit.summary
        assert edit.formula
        assert edit.model_fields["kind"].default == name
        assert edit.model_json_schema()["properties"]["kind"]["const"] == name


def test_unknown_kinds_name_the_nearest() -> None:
    with pytest.raises(RecipeError, match=r"splices\[0\].*Did you mean 'gated_steer'"):
        EDITS.get("gate_steer", "splices[0].edits[0].kind")


def test_two_kinds_cannot_share_a_name() -> None:
    with pytest.raises(ValueError, match="'ablate' is registered already"):

        @EDITS.register("ablate")
        class Other(Edit):
            pass
