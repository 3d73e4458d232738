"""A condition that reads a feature of another SAE, from the recipe to a verified checkpoint."""

from __future__ import annotations

import json
from typing import Any

import pytest
from safetensors.torch import load_file

from hubsplice.building.sources import read_sources
from hubsplice.intervention.saved import INTERVENTION, load_intervention
from tests.building.conftest import Build, Workshop
from tests.verifying.conftest import Spliced

EDITS = """
  - sae: {path: standard}
    edits:
      - kind: ablate
        feature: 3
        when: {all: [{feature: 7, sae: {path: jumprelu}}, {feature: 9}]}
"""


@pytest.fixture(scope="module")
def built(make: Build, tmp_path_factory: pytest.TempPathFactory) -> Any:
    return make(EDITS, tmp_path_factory.mktemp("gated") / "built", measure=False)


def test_its_gate_is_that_feature(built: Any, workshop: Workshop) -> None:
    (site,) = load_intervention(built.folder / INTERVENTION).sites
    assert site.terms[0].condition is not None
    other, own = site.terms[0].condition.gates
    for gate, folder in ((other, "jumprelu"), (own, "standard")):
        weights = load_file(workshop.folder / folder / "sae_weights.safetensors")
        index = 7 if gate is other else 9
        assert gate.encoder.equal(weights["W_enc"][:, index])
        threshold = float(weights["threshold"][index]) if gate is other else 0.0
        assert gate.threshold == pytest.approx(threshold)
    (one,) = built.conditions
    first, second = one.held.gates
    assert first.words == "feature 7 of jumprelu is active"
    assert 0 < one.held.tokens < min(first.tokens, second.tokens)


def test_it_is_verified_and_can_be_built_again(built: Any, workshop: Workshop) -> None:
    assert not Spliced(built.folder, workshop.bases["llama"]).failed()
    fields = [source.field for source in read_sources(built.folder).local]
    assert "splices[0].edits[0].when.all[0].sae.path" in fields
    manifest = json.loads((built.folder / "splice.json").read_text(encoding="utf-8"))
    asked = manifest["layers"][1]["terms"][0]["edit"]["when"]["all"][0]
    assert asked == {"feature": 7, "sae": {"path": "jumprelu"}}
