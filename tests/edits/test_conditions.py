"""Every kind of edit under a condition, against the edit itself and a condition said in numpy."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from hubsplice.edits.base import Edit
from hubsplice.edits.registry import EDITS
from hubsplice.edits.strength import Amount
from hubsplice.errors import HubspliceError, RecipeError, UnsupportedError
from hubsplice.features.base import Feature, Probe
from hubsplice.features.contrast import Contrast
from hubsplice.features.examples import ContrastSource, LearnedProbe
from hubsplice.features.references import ProbeSource, SaeSource, TensorSource
from hubsplice.intervention.edits import acting
from hubsplice.intervention.intervention import Intervention
from hubsplice.intervention.normalization import Normalization
from hubsplice.intervention.piecewise_linear import PiecewiseLinear
from hubsplice.intervention.saved import load_intervention, save_intervention
from hubsplice.intervention.site import Site
from hubsplice.recipe.models import Recipe

D, THETA = 12, 0.6
FILE = {"path": "/v.safetensors", "tensor": "v"}


def vector(seed: int) -> Tensor:
    v = torch.randn(D, generator=torch.Generator().manual_seed(seed))
    return v / v.norm()


class Sources:
    """Features that differ: number n reads vector(n) and writes vector(n + 100)."""

    def __init__(self, activation: PiecewiseLinear | None = None) -> None:
        self.activation = activation or PiecewiseLinear.jump_relu(THETA)
        self.normalization = Normalization.NONE

    def feature(self, index: int) -> Feature:
        return Feature(
            f"feature {index}",
            vector(index),
            0.1,
            self.activation,
            THETA,
            vector(index + 100),
            self.normalization,
        )

    def gate_feature(self, index: int, sae: SaeSource) -> Feature:
        return replace(self.feature(index + 200), name=f"feature {index} of {sae.title}")

    def vector(self, source: TensorSource) -> Tensor:
        return vector(50)

    def subspace(self, source: TensorSource) -> Tensor:
        return torch.linalg.qr(torch.stack([vector(50), vector(51)]).T)[0].T.contiguous()

    def contrast(self, source: ContrastSource) -> Contrast:
        return Contrast(vector(60), 0.4)

    def probe(self, source: ProbeSource | LearnedProbe) -> Probe:
        return Probe("probe", vector(70), -0.3)

    def amount(
        self,
        amount: Amount,
        *,
        direction: Tensor,
        feature: Feature | None,
        stated_max: float | None = None,
    ) -> float:
        return amount.value


KINDS: dict[str, dict[str, Any]] = {
    "ablate": {"feature": 1},
    "scale": {"feature": 1, "factor": 3},
    "add": {"feature": 1, "strength": 2},
    "clamp": {"feature": 1, "to": 5},
    "cap": {"feature": 1, "at": 0.9},
    "floor": {"feature": 1, "at": 0.9},
    "steer": {"vector": FILE, "strength": 2},
    "gated_steer": {"feature": 1, "strength": 2},
    "project": {"vector": FILE},
    "clamp_projection": {"vector": FILE, "to": 3},
}

EXAMPLES = {"positive": ["a"], "negative": ["b"]}

CONDITIONS: list[dict[str, Any]] = [
    {"feature": 2},
    {"feature": 2, "above": 0.9},
    {"feature": 2, "above": 0.2},
    {"vector": FILE, "above": 0.5},
    {"contrast": EXAMPLES},
    {"probe": EXAMPLES, "above": 0.2},
    {"all": [{"feature": 2}, {"feature": 3, "above": 0.8}]},
    {"any": [{"feature": 2}, {"feature": 3, "above": 0.8}, {"probe": EXAMPLES}]},
    {"all": [{"feature": 1, "above": 0.8}, {"feature": 2}]},
]


def parse(**fields: Any) -> Edit:
    """As a recipe does it."""
    splice = {"after_layer": 1, "sae": {"path": "/sae"}, "edits": [fields]}
    return Recipe(base_model="base", splices=[splice]).splices[0].edits[0]


def opened(condition: dict[str, Any], h: np.ndarray) -> np.ndarray:
    """Where a condition holds, as the documentation says it."""
    if "all" in condition:
        return np.all([opened(part, h) for part in condition["all"]], axis=0)
    if "any" in condition:
        return np.any([opened(part, h) for part in condition["any"]], axis=0)
    if "feature" in condition:
        p = h @ vector(condition["feature"]).double().numpy() + 0.1
        return np.where(p > THETA, p, 0.0) > condition.get("above", 0.0)
    if "vector" in condition:
        return h @ vector(50).double().numpy() > condition["above"]
    if "contrast" in condition:
        return h @ vector(60).double().numpy() > 0.4
    return h @ vector(70).double().numpy() - 0.3 > condition.get("above", 0.0)


def stream() -> Tensor:
    return torch.randn(3000, D, generator=torch.Generator().manual_seed(0))


def test_every_kind_is_here() -> None:
    assert set(KINDS) == {kind for kind, _ in EDITS.items()}


@pytest.mark.parametrize("condition", CONDITIONS, ids=str)
@pytest.mark.parametrize("kind", list(KINDS))
def test_an_edit_acts_where_its_condition_holds(kind: str, condition: dict[str, Any]) -> None:
    h = stream()
    everywhere = Site(0, parse(kind=kind, **KINDS[kind]).terms(Sources())).delta(h)
    edit = parse(kind=kind, when=condition, **KINDS[kind])
    site = Site(0, edit.terms(Sources()))
    where = opened(condition, h.double().numpy())
    assert 20 < where.sum() < 2900
    expected = everywhere * torch.from_numpy(where)[:, None]
    torch.testing.assert_close(site.delta(h), expected, rtol=1e-5, atol=1e-5)
    acted = acting(site, h).any(dim=1)
    assert acted.equal(expected.abs().sum(dim=1) > 0)
    assert all(" where " in term.label for term in site.terms)


@pytest.mark.parametrize("condition", CONDITIONS[-3:], ids=str)
def test_conditions_come_back_from_a_file(condition: dict[str, Any], tmp_path: Path) -> None:
    edits = [parse(kind="ablate", feature=5), parse(kind="clamp", feature=1, to=5, when=condition)]
    site = Site(0, tuple(term for edit in edits for term in edit.terms(Sources())))
    save_intervention(Intervention((site,)), tmp_path / "one")
    loaded = load_intervention(tmp_path / "one")
    assert loaded.sites[0].delta(stream()).equal(site.delta(stream()))
    save_intervention(loaded, tmp_path / "two")
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()
    assert rb"\"version\":2" in (tmp_path / "one").read_bytes()
    # What has no conditions stays what it was.
    plain = Site(0, tuple(replace(term, condition=None) for term in site.terms))
    save_intervention(Intervention((plain,)), tmp_path / "plain")
    assert rb"\"version\":1" in (tmp_path / "plain").read_bytes()
    assert b"gate" not in (tmp_path / "plain").read_bytes()


def test_what_is_plain_stays_a_ridge_function() -> None:
    sources = Sources()
    own = {"feature": 1, "above": 0.8}
    (term,) = parse(kind="ablate", feature=1, when=own).terms(sources)
    assert term.condition is None
    assert term.function == PiecewiseLinear((0.8,), (0.0, -1.0), (0.0, 0.0))
    (steer,) = parse(kind="steer", feature=7, strength=2, when={"feature": 2}).terms(sources)
    gate = {"feature": 2}
    (gated,) = parse(kind="gated_steer", feature=7, strength=2, gate=gate).terms(sources)
    assert steer.condition is None
    assert steer.function == gated.function
    assert steer.encoder.equal(gated.encoder)
    assert steer.direction.equal(gated.direction)


@pytest.mark.parametrize(
    ("condition", "message"),
    [
        ({}, "found none of them"),
        ({"feature": 2, "any": [{"feature": 3}, {"feature": 4}]}, "found feature and any"),
        ({"all": [{"feature": 3}]}, r"when\.all: found 1 of them, expected 2 to 3"),
        ({"any": [{"feature": i} for i in range(4)]}, r"when\.any: found 4 of them"),
        ({"vector": FILE}, r"when\.above: missing"),
        ({"feature": 2, "above": -1}, r"when\.above: found -1, expected 0 or more"),
        (
            {"any": [{"feature": 2, "above": -1}, {"feature": 3}]},
            r"when\.any\[0\]\.above: found -1, expected 0 or more",
        ),
        ({"vector": FILE, "above": 1, "sae": {"path": "/s"}}, r"when\.sae: it belongs beside"),
        (
            {"all": [{"feature": 2}, {"feature": 3}], "sae": {"path": "/s"}},
            r"when\.sae: it belongs beside a `feature`",
        ),
        ({"feature": 2, "below": 1}, r"when\.below: no such field; .* opposite sign"),
        ({"all": [{"feature": 2}, {"any": []}]}, r"when\.all\[1\]\.any: .*not joined again"),
        ({"all": [2, {"feature": 3}]}, r"when\.all\[0\]: found 2, .* such as {feature: 12"),
        (
            {"all": [{"feature": 2}, {"feature": 3}], "above": 1},
            r"when\.above: found 1\.0, which belongs to the members of all",
        ),
        ({"feature": 2, "abov": 1}, "Did you mean 'above'"),
        ("active", r"when: found .active., expected a mapping such as {feature: 12"),
    ],
)
def test_what_is_no_condition_is_refused(condition: Any, message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        parse(kind="ablate", feature=1, when=condition)


def test_a_clamp_takes_words_and_conditions() -> None:
    assert parse(kind="clamp", feature=1, to=2, when="active").condition is None
    with pytest.raises(RecipeError, match=r"Did you mean 'above'"):
        parse(kind="clamp", feature=1, to=2, when={"feature": 2, "abov": 1})


def normalised() -> Sources:
    sources = Sources()
    sources.normalization = Normalization.LAYER_NORM
    return sources


TWO_SIDED = PiecewiseLinear((-THETA, THETA), (1.0, 0.0, 1.0), (0.0, 0.0, 0.0))


@pytest.mark.parametrize(
    ("fields", "sources", "error", "message"),
    [
        ({"when": {"feature": 2}}, normalised(), UnsupportedError, "normalises its input"),
        ({"when": {"vector": FILE, "above": 1}}, normalised(), UnsupportedError, "own scale"),
        ({"when": {"feature": 2}}, Sources(TWO_SIDED), UnsupportedError, "on both sides"),
        (
            {"when": {"all": [{"feature": 2}, {"feature": 2, "above": 3}]}},
            Sources(),
            RecipeError,
            r"when\.all\[1\]\.feature: found 2, which another one of them reads already",
        ),
    ],
)
def test_what_no_condition_can_read_is_refused(
    fields: dict[str, Any], sources: Sources, error: type[HubspliceError], message: str
) -> None:
    with pytest.raises(error, match=message):
        parse(kind="ablate", feature=1, **fields).terms(sources)


def test_a_feature_of_another_sae_opens_the_gate() -> None:
    other = {"path": "/elsewhere/other"}
    (term,) = parse(kind="ablate", feature=1, when={"feature": 1, "sae": other}).terms(Sources())
    assert term.label == "ablate feature 1 where feature 1 of other is active"
    assert term.condition is not None
    (gate,) = term.condition.gates
    assert gate.encoder.equal(vector(201))
    edit = parse(
        kind="ablate", feature=1, when={"all": [{"feature": 1, "sae": other}, {"feature": 1}]}
    )
    assert edit.all_indices() == (1,)
    # The one that the edit reads itself becomes a part of its function, and the other does not.
    (term,) = edit.terms(Sources())
    assert term.condition is not None
    assert len(term.condition.gates) == 1
