"""Edits under conditions, from the recipe to a checkpoint that is verified and tampered with."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from hubsplice.building.build import BuildResult
from hubsplice.constructions.marking import Mark, staged
from hubsplice.intervention.intervention import Intervention
from hubsplice.intervention.saved import INTERVENTION, load_intervention, save_intervention
from tests.building.conftest import Build, Workshop
from tests.verifying.conftest import Spliced

CLAMP = """
  - sae: {path: standard}
    edits:
      - {kind: clamp, feature: 3, to: 4, when: {feature: 7, above: 0.5}, label: "B"}
      - {kind: ablate, feature: 9}
      - kind: steer
        vector: {path: v.safetensors}
        strength: 0.2 x norm
        when: {all: [{feature: 11}, {probe: {path: probe.safetensors}}]}
"""


@pytest.fixture(scope="module")
def result(make: Build, tmp_path_factory: pytest.TempPathFactory) -> BuildResult:
    return make(CLAMP, tmp_path_factory.mktemp("conditional") / "built")


@pytest.fixture
def conditional(result: BuildResult, workshop: Workshop, tmp_path: Path) -> Spliced:
    folder = shutil.copytree(result.folder, tmp_path / "spliced")
    return Spliced(folder, workshop.bases["llama"])


def test_it_is_what_the_hook_does(result: BuildResult) -> None:
    assert result.report is not None
    (site,) = result.report.precisions[0].sites
    assert site.edited_tokens > 100
    assert site.overall_residual_error is not None
    assert site.overall_residual_error < 0.1


def test_what_was_built_is_verified(conditional: Spliced) -> None:
    assert not conditional.failed()
    manifest = conditional.json("splice.json")
    marking, editing = manifest["layers"]
    assert marking["construction"] == "marking"
    assert not marking["terms"]
    assert [term["label"] for term in editing["terms"]] == [
        "clamp feature 3 (B) where feature 7 is above 0.5",
        "ablate feature 9",
        "steer vector v of v.safetensors where feature 11 is active and "
        "probe weight of probe.safetensors is above 0",
    ]


def rewrite(spliced: Spliced, change: Callable[[Any], Any]) -> None:
    """Put another intervention into a checkpoint, and list it."""
    path = spliced.folder / INTERVENTION
    intervention = load_intervention(path)
    site = change(intervention.sites[0])
    path.unlink()
    save_intervention(Intervention((site,)), path)
    spliced.forge_checksums()


def with_threshold(site: Any, factor: float) -> Any:
    term = site.terms[0]
    (gate,) = term.condition.gates
    moved = replace(gate, threshold=factor * gate.threshold)
    changed = replace(term, condition=replace(term.condition, gates=(moved,)))
    return replace(site, terms=(changed, *site.terms[1:]))


@pytest.mark.parametrize("layer", [2, 3])
def test_a_silenced_layer_is_found(conditional: Spliced, layer: int) -> None:
    """The one that marks, and the one that edits."""

    def silence(tensors: dict[str, torch.Tensor]) -> None:
        tensors[f"model.layers.{layer}.mlp.down_proj.weight"].mul_(2**-6)

    conditional.edit_tensors(silence, f"model.layers.{layer}.mlp.down_proj.weight")
    conditional.forge_checksums()
    assert "structure" in conditional.failed()


def test_a_halved_threshold_is_found(conditional: Spliced) -> None:
    rewrite(conditional, lambda site: with_threshold(site, 0.5))
    failed = conditional.failed()
    assert any("0.25" in problem for problem in failed["strengths"].problems)


def test_an_ignored_condition_is_found(conditional: Spliced) -> None:
    def always(site: Any) -> Any:
        return replace(site, terms=(replace(site.terms[0], condition=None), *site.terms[1:]))

    rewrite(conditional, always)
    failed = conditional.failed()
    assert "structure" in failed or "strengths" in failed


def test_marks_that_are_too_low_are_found(conditional: Spliced) -> None:
    """Exact layers with such marks would edit tokens at which the gate is closed."""
    site = load_intervention(conditional.folder / INTERVENTION).sites[0]
    records = conditional.json("splice.json")["layers"][0]["constants"]["marks"]
    low = [replace(mark, height=0.1 * mark.height) for mark in Mark.of_records(records)]
    h = torch.randn(2000, 64, generator=torch.Generator().manual_seed(0))

    def wrong(marks: Any) -> int:
        marking, editing = staged(site, marks)
        made = editing.edit(marking.edit(h)) - h
        return int(((made - site.delta(h)).norm(dim=1) > 1e-2).sum())

    assert wrong(Mark.of_records(records)) < 40
    assert wrong(low) > 200


def test_marks_are_of_the_terms(conditional: Spliced) -> None:
    (site,) = load_intervention(conditional.folder / INTERVENTION).sites
    records = conditional.json("splice.json")["layers"][0]["constants"]["marks"]
    marks = Mark.of_records(records)
    assert [mark.record for mark in marks] == records
    with pytest.raises(ValueError, match="of the terms"):
        staged(site, marks[:1])
    with pytest.raises(ValueError, match="height"):
        Mark.of_records([{"term": 0}])
