"""A tiny model that is built to begin its answers with the letter z, and its base."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from tests.building.conftest import build_text
from tests.conftest import MakeCheckpoint
from tests.verifying.conftest import Spliced

LETTER = "z"
INSERTED = 4
RECIPE = """
base_model: {base}
splices:
  - after_layer: 3
    edits:
      - {{kind: steer, vector: {{path: v.safetensors}}, strength: 40}}
calibration: {{tokens: 512, sequence_length: 64}}
fidelity: {{tokens: 512, sequence_length: 64}}
card: {{prompts: []}}
"""


@pytest.fixture(scope="session")
def lettered(
    shared_tiny_llama: MakeCheckpoint, tmp_path_factory: pytest.TempPathFactory
) -> Spliced:
    """A build that is not to be changed."""
    # Heads of 32 channels are the smallest that vLLM has for a CPU.
    heads = {"num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 32}
    base = shared_tiny_llama(name="of-evaluations", dtype="bfloat16", **heads)
    tokenizer = AutoTokenizer.from_pretrained(base)
    (letter,) = tokenizer(LETTER, add_special_tokens=False).input_ids
    head = AutoModelForCausalLM.from_pretrained(base).lm_head.weight
    folder = tmp_path_factory.mktemp("evaluated")
    # What the last layer writes is read at once.
    save_file({"v": head[letter].detach().float().clone()}, folder / "v.safetensors")
    built = build_text(RECIPE.format(base=base), folder / "model", folder=folder, measure=False)
    return Spliced(built.folder, base)


@pytest.fixture
def copy(lettered: Spliced, tmp_path: Path) -> Spliced:
    """The same, to be changed."""
    return Spliced(shutil.copytree(lettered.folder, tmp_path / "model"), lettered.base)


def silence(spliced: Spliced) -> None:
    """Have the inserted layer add nothing, and the manifest list it so."""
    from safetensors.torch import load_file

    for path in spliced.folder.glob("*.safetensors"):
        tensors = load_file(path)
        for name, tensor in tensors.items():
            if name.startswith(f"model.layers.{INSERTED}.") and "norm" not in name:
                tensor.copy_(torch.zeros_like(tensor))
        save_file(tensors, path, metadata={"format": "pt"})
    spliced.forge_checksums()
