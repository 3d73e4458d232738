"""What strengths come to stands in everything that a build tells."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from hubsplice.building.measure import measure
from hubsplice.checkpoint.manifest import read_manifest
from hubsplice.features.amounts import EditAmounts
from hubsplice.fidelity.report import read_report
from hubsplice.intervention.saved import load_intervention
from tests.building.conftest import TEXT, Build, Workshop, quiet, save_sae
from tests.conftest import Command

EDITS = """
  - sae: {path: SAE}
    edits:
      - {kind: add, feature: 3, strength: 0.5 x max}
      - {kind: clamp, feature: 4, to: 0.5 x max, max: 17.6}
      - {kind: steer, feature: 5, strength: 0.3 x norm}
      - {kind: gated_steer, vector: {path: v.safetensors}, strength: 2, gate: {feature: 3}}
      - {kind: ablate, feature: 6}
"""
RARE = "  - {sae: {path: SAE}, edits: [{kind: add, feature: 7, strength: 0.5 x max}]}"


@pytest.fixture(scope="module")
def sae(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A JumpReLU SAE whose feature 7 is active on a handful of tokens, and feature 8 on none."""
    folder: Path = tmp_path_factory.mktemp("sae")
    save_sae(folder, "jumprelu")
    weights = load_file(folder / "sae_weights.safetensors")
    bias = weights["b_enc"].clone()
    bias[7] -= 1.3
    bias[8] = -100.0
    save_sae(folder, "jumprelu", b_enc=bias)
    return folder


@pytest.fixture(scope="module")
def built(make: Build, sae: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    return make(EDITS.replace("SAE", str(sae)), tmp_path_factory.mktemp("builds") / "amounts")


def words(text: object) -> str:
    """Text without its line breaks."""
    return " ".join(str(text).split())


def test_the_numbers_are_those_of_the_edit(built: Any, workshop: Workshop) -> None:
    found: tuple[EditAmounts, ...] = built.amounts
    manifest = read_manifest(built.folder / "splice.json")
    (site,) = load_intervention(built.folder / "reproduce/intervention.safetensors").sites
    add, clamp, steer, gated, _ = site.terms
    assert manifest.calibration is not None
    norm = manifest.calibration.median_norm["1"]
    assert [a.label for a in found] == [t.label for t in (add, clamp, steer, gated)]
    in_max, stated, in_norm, plain = (a.amounts[0] for a in found)
    assert in_max.activity is not None
    assert in_max.value == pytest.approx(0.5 * in_max.activity.maximum)
    assert in_max.value == pytest.approx(max(add.function.intercepts))
    assert stated.value == 8.8
    assert clamp.function(-100.0) == pytest.approx(8.8)
    assert in_norm.value is not None
    assert in_norm.value == pytest.approx(steer.function.intercepts[0])
    assert in_norm.share == pytest.approx(0.3)
    assert plain.value == 2.0
    assert plain.activity is None
    vector = load_file(workshop.folder / "v.safetensors")["v"]
    assert plain.share == pytest.approx(2.0 * float(vector.norm()) / norm)
    for amount, term in ((in_max, add), (stated, clamp)):
        assert amount.value is not None
        length = float(torch.linalg.vector_norm(term.direction))
        assert amount.share == pytest.approx(amount.value * length / norm)


def test_report_manifest_and_card_say_them(built: Any) -> None:
    report = read_report(built.folder)
    manifest = read_manifest(built.folder / "splice.json")
    card = (built.folder / "README.md").read_text(encoding="utf-8")
    assert report is not None
    assert report.amounts == built.amounts
    terms = manifest.layers[0].terms
    assert tuple(term.amounts for term in terms[:4]) == tuple(a.amounts for a in built.amounts)
    assert terms[4].amounts == ()
    for amounts in built.amounts:
        assert str(amounts) in words(built)
        assert str(amounts) in card.replace("\\", "")
    assert "0.5 x max = 8.8 (max 17.6, as stated; measured" in card


def test_measuring_again_keeps_them(built: Any, workshop: Workshop) -> None:
    report = measure(
        built.folder, base=str(workshop.bases["llama"]), require_fidelity=None, progress=quiet
    )
    assert report.amounts == built.amounts
    assert report.warnings == built.warnings


def test_a_maximum_over_few_tokens_is_a_warning_everywhere(
    make: Build, sae: Path, tmp_path: Path
) -> None:
    # Looking for more text on which the feature is active would find it.
    text = TEXT.replace("4096, ", "4096, scan: 0, ")
    built = make(RARE.replace("SAE", str(sae)), tmp_path / "out", more=text)
    activity = built.amounts[0].amounts[0].activity
    assert activity is not None
    assert 0 < activity.active_tokens < 20
    (warning,) = built.warnings
    assert warning.startswith("splices[0].edits[0]: 0.5 x max: the maximum ")
    assert f"over {activity.active_tokens} active of {activity.scanned_tokens:,}" in warning
    assert "`max:`" in warning
    assert built.report is not None
    assert built.report.warnings == (warning,)
    assert words(built).count("may be far too small") == 1
    assert "may be far too small" in (built.folder / "README.md").read_text(encoding="utf-8")

    stated = RARE.replace("SAE", str(sae)).replace("0.5 x max}", "0.5 x max, max: 3}")
    quiet_one = make(stated, tmp_path / "stated", measure=False, more=text)
    assert quiet_one.warnings == ()
    assert quiet_one.amounts[0].amounts[0].value == 1.5
    assert "0.5 x max = 1.5 (max 3, as stated; measured" in words(quiet_one)


def test_a_stated_maximum_needs_no_active_token(make: Build, sae: Path, tmp_path: Path) -> None:
    dead = RARE.replace("SAE", str(sae)).replace("feature: 7", "feature: 8")
    stated = dead.replace("0.5 x max}", "0.5 x max, max: 3}")
    found = make(stated, tmp_path / "out", measure=False).amounts[0].amounts[0]
    assert found.value == 1.5
    assert found.activity is not None
    assert found.activity.active_tokens == 0
    assert not math.isnan(found.activity.mean)


def test_the_command_line_tells_them(
    command: Command, workshop: Workshop, sae: Path, tmp_path: Path
) -> None:
    recipe = tmp_path / "r.yaml"
    splices = EDITS.replace("SAE", str(sae)).replace("{path: v", f"{{path: {workshop.folder}/v")
    recipe.write_text(workshop.recipe(splices), encoding="utf-8")
    checked = command("check", recipe)
    assert checked.code == 0
    for line in (
        "add feature 3: 0.5 x max, which the build measures",
        "clamp feature 4: 0.5 x max = 8.8 (max 17.6, as stated)",
        "steer feature 5: 0.3 x norm, which the build measures, 0.3 of the median residual norm",
        "gated_steer vector v of v.safetensors where feature 3: 2",
    ):
        assert line in checked.out
    as_json = json.loads(command("check", recipe, "--json").out)
    assert as_json["amounts"][1]["amounts"][0]["value"] == 8.8
    built = command("build", recipe, "-o", tmp_path / "out", "--no-measure")
    assert "clamp feature 4: 0.5 x max = 8.8 (max 17.6, as stated; measured" in built.out
    assert "add feature 3: 0.5 x max = " in built.out
