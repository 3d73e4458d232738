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
        "probe probe.safetensors is above 0",
    ]
