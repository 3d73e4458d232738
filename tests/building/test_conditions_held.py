"""On how much calibration text conditions held stands in everything that a build tells."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from hubsplice.building.findings import Findings
from hubsplice.building.told import build_summary
from hubsplice.checkpoint.manifest import read_manifest
from hubsplice.rendering.content import Line
from tests.building.conftest import Build

EDITS = """
  - sae: {path: standard}
    edits:
      - {kind: ablate, feature: 3, when: {feature: 7, above: 500}}
      - {kind: clamp, feature: 9, to: 2, when: {feature: 11}}
      - kind: steer
        feature: 13
        strength: 2
        when: {all: [{feature: 17}, {feature: 19, above: 900}]}
      - {kind: steer, feature: 23, strength: 1, when: {feature: 29}}
      - {kind: ablate, feature: 31}
      - {kind: gated_steer, feature: 37, strength: 1, gate: {feature: 41, threshold: 700}}
      - kind: gated_steer
        feature: 43
        strength: 1
        gate: {feature: 47}
        when: {all: [{feature: 53}, {feature: 59}]}
"""
HELD = re.compile(r"the condition held on ([\d,]+) of ([\d,]+) scanned tokens")


@pytest.fixture(scope="module")
def built(make: Build, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Not measured, so that calibration alone says it."""
    return make(EDITS, tmp_path_factory.mktemp("held") / "built", measure=False)


def test_a_build_counts_them(built: Any) -> None:
    never, often, joined, gated, closed, both = (one.held for one in built.conditions)
    assert never.tokens == joined.tokens == 0
    assert 100 < often.tokens < often.scanned_tokens
    assert 100 < gated.tokens < gated.scanned_tokens
    assert [(gate.words, gate.tokens > 100) for gate in joined.gates] == [
        ("feature 17 is active", True),
        ("feature 19 is above 900", False),
    ]
    assert closed.tokens == 0
    assert closed.gates == ()
    first, second, own = both.gates
    assert own.words == "feature 47 is active"
    assert 0 < both.tokens < min(first.tokens, second.tokens, own.tokens)


def test_everything_says_them(built: Any) -> None:
    manifest = read_manifest(built.folder / "splice.json")
    assert manifest.conditions == built.conditions
    assert Findings.recorded(manifest).conditions == built.conditions
    told = " ".join(str(part.text) for part in build_summary(built) if isinstance(part, Line))
    card = (built.folder / "README.md").read_text(encoding="utf-8").replace("\\", "")
    for one in built.conditions:
        for text in (" ".join(str(built).split()), told, card):
            assert str(one) in text
    assert len(HELD.findall(card)) == 6


def test_what_never_held_is_a_warning(built: Any) -> None:
    first, second, third = built.warnings
    assert first.startswith("splices[0].edits[0].when: it held on none of the ")
    assert "(feature 7 is above 500 on none of them)" in first
    assert second.startswith("splices[0].edits[2].when: it held on none of the ")
    assert "(feature 19 is above 900 on none of them)" in second
    assert third.startswith("splices[0].edits[5].gate: it held on none of the ")
    assert "(feature 41 is above 700 on none of them)" in third
    manifest = read_manifest(built.folder / "splice.json")
    assert manifest.calibration is not None
    assert manifest.calibration.warnings == (first, second, third)


def test_an_edit_of_several_terms_says_it_once(make: Build, tmp_path: Path) -> None:
    axes = torch.eye(64)[:2].contiguous()
    save_file({"axes": axes}, tmp_path / "axes.safetensors")
    edit = f"{{kind: project, vector: {{path: {tmp_path}/axes.safetensors}}, when: {{feature: 7}}}}"
    built = make(
        f"\n  - {{sae: {{path: standard}}, edits: [{edit}]}}\n", tmp_path / "built", measure=False
    )
    manifest = read_manifest(built.folder / "splice.json")
    assert len(manifest.edits[0].terms) == 2
    assert len(built.conditions) == 1
    assert manifest.conditions == built.conditions
