"""Contradictions and excesses that only calibration can know."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from hubsplice.errors import RecipeError
from tests.building.conftest import Build, Workshop


def splices(*edits: str) -> str:
    return f"  - {{sae: {{path: jumprelu}}, edits: [{', '.join(edits)}]}}"


def test_two_values_in_units_of_the_maximum(make: Build, tmp_path: Path) -> None:
    two = [f"{{kind: clamp, feature: 3, to: {share} x max}}" for share in (0.5, 0.3)]
    with pytest.raises(RecipeError, match="neither says") as caught:
        make(splices(*two), tmp_path / "out", measure=False)
    assert "splices[0].edits[0] (clamp feature 3) and splices[0].edits[1]" in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_a_vector_along_a_decoder_row(make: Build, workshop: Workshop, tmp_path: Path) -> None:
    """Which is a feature's direction shows when the SAE's weights are read."""
    weights = load_file(workshop.folder / "jumprelu/sae_weights.safetensors")
    along = weights["W_dec"][3] + 0.02 * torch.ones(64)
    save_file({"v": along.contiguous()}, tmp_path / "along.safetensors")
    built = make(
        splices(
            "{kind: clamp, feature: 3, to: 2}",
            f"{{kind: steer, vector: {{path: {tmp_path}/along.safetensors}}, strength: 0.1}}",
        ),
        tmp_path / "out",
        measure=False,
    )
    (warning,) = built.warnings
    assert "write along nearly the same direction" in warning
    assert "splices[0].edits[0] does not hold" in warning
    assert str(tmp_path) not in warning


def test_what_calibration_finds_far_outside(make: Build, tmp_path: Path) -> None:
    built = make(
        splices(
            "{kind: scale, feature: 3, factor: -200}",
            "{kind: clamp, feature: 4, to: 1000}",
            "{kind: scale, feature: 5, factor: 1.2}",
        ),
        tmp_path / "out",
        measure=False,
    )
    factor, change, target, length = sorted(built.warnings)
    assert factor.startswith("splices[0].edits[0]: factor: -200 makes it 200 times")
    assert change.startswith("splices[0].edits[0]: factor: -200 writes a change that is up to ")
    assert target.startswith("splices[0].edits[1]: 1000 is ")
    assert "times the largest activation of the feature" in target
    assert length.startswith("splices[0].edits[1]: 1000 writes a change that is ")
