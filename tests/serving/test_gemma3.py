"""The real Gemma 3 270M, with two layers in it, in a real vLLM.

For `make test-slow`, with HUBSPLICE_VLLM_PYTHON in the environment.
"""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from hubsplice.verifying import Run, verify
from hubsplice.verifying.engines import VllmEngine
from tests.building.conftest import build_text, quiet

pytestmark = [pytest.mark.serving, pytest.mark.slow]

RECIPE = """
splices:
  - {after_layer: 6, edits: [{kind: project, vector: {path: v.safetensors}}]}
  - {after_layer: 12, edits: [{kind: steer, vector: {path: v.safetensors}, strength: 0.15 x norm}]}
calibration: {tokens: 3072, sequence_length: 64}
fidelity: {tokens: 512}
card: {prompts: []}
"""


def test_vllm_serves_the_edit(python: Path, tmp_path: Path) -> None:
    from examples.gemma3 import fetch_gemma3

    base = fetch_gemma3()
    vector = torch.randn(640, generator=torch.Generator().manual_seed(0))
    save_file({"v": vector}, tmp_path / "v.safetensors")
    built = build_text(f"base_model: {base}{RECIPE}", tmp_path / "built", folder=tmp_path)
    run = Run(VllmEngine(python), "float32", new_tokens=8)
    found = verify(str(built.folder), base=str(base), revision=None, run=run, progress=quiet)
    print(found.behaviour)  # noqa: T201
    assert [check for check in found.checks if not check.passed] == []
    assert found.behaviour is not None
    assert found.behaviour.largest_serving_error is not None
    assert found.behaviour.largest_serving_error < 1e-3
