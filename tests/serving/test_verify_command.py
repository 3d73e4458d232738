"""`hubsplice verify --engine vllm`: the whole way, and the models that it must not pass."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from hubsplice.verifying.behaviour import NAMES
from tests.conftest import Command
from tests.serving.conftest import Models
from tests.verifying.conftest import Spliced

pytestmark = pytest.mark.serving

LAYER = "model.layers.2"
BIAS = f"{LAYER}.mlp.gate_proj.bias"


@pytest.fixture
def spliced(models: Models, tmp_path: Path) -> Spliced:
    """A copy of the tiny Llama that may be changed; its layers 2 and 4 are inserted."""
    model = models("llama float32")
    return Spliced(shutil.copytree(model.folder, tmp_path / "spliced"), model.base)


def outcomes(command: Command, python: Path, spliced: Spliced) -> tuple[int, dict[str, Any]]:
    outcome = command(
        "verify", spliced.folder, "--base", spliced.base, "--engine", "vllm", "--python", python,
        "--dtype", "float32", "--max-new-tokens", "4", "--json",
    )  # fmt: skip
    return outcome.code, {c["name"]: c["passed"] for c in json.loads(outcome.out)["checks"]}


def test_an_intact_model_passes(command: Command, python: Path, spliced: Spliced) -> None:
    code, passed = outcomes(command, python, spliced)
    assert code == 0
    assert set(passed.values()) == {True}
    assert set(NAMES) <= set(passed)


def test_a_dropped_bias_fails(command: Command, python: Path, spliced: Spliced) -> None:
    """vLLM loads the model without a word, and computes with whatever is in memory."""
    spliced.edit_tensors(lambda t: t.pop(BIAS), of=BIAS)
    spliced.forge_checksums()
    code, passed = outcomes(command, python, spliced)
    assert code == 4
    assert passed["added tensors"] is False
    assert passed["engine"] is True
    assert passed["weights served"] is False


def test_a_zeroed_layer_fails(command: Command, python: Path, spliced: Spliced) -> None:
    names: list[str] = []

    def silence(tensors: dict[str, torch.Tensor]) -> None:
        for name, tensor in tensors.items():
            if name.startswith(f"{LAYER}.") and "norm" not in name and tensor.any():
                tensor.zero_()
                names.append(name)

    spliced.edit_tensors(silence, of=BIAS)
    spliced.edit_manifest(lambda m: m.update(zero_tensors=sorted({*m["zero_tensors"], *names})))
    spliced.forge_checksums()
    code, passed = outcomes(command, python, spliced)
    assert code == 4
    assert passed["checksums"] is True
    assert passed["weights served"] is True
    assert passed["layer edits"] is False
