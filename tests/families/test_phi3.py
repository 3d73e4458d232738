"""What Phi-3's fused tensors and configuration become in a Llama."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, Phi3Config

from hubsplice.checkpoint.base import BaseCheckpoint
from hubsplice.compiling.construct import compile_site
from hubsplice.compiling.linker import Linker
from hubsplice.errors import CheckpointError, UnsupportedError
from hubsplice.families.architecture import architecture_of
from hubsplice.files.safetensors_header import TensorEntry
from hubsplice.intervention.place import Place
from tests.constructions.streams import EDITS, calibration, hand_site
from tests.families.test_config import config_of

Make = Callable[..., Path]


def phi3(**fields: Any) -> dict[str, Any]:
    return config_of("phi3", architectures=["Phi3ForCausalLM"], **fields)


def test_fused_tensors_are_cut_between_their_rows(tiny_llama: Make, splice: Make) -> None:
    base = tiny_llama("phi3", dtype="bfloat16", max_shard_size="60KB")
    before, after = BaseCheckpoint.open(base), BaseCheckpoint.open(splice(base, (1,)))
    fused = before.load("model.layers.2.self_attn.qkv_proj.weight")
    gate, up = before.load("model.layers.2.mlp.gate_up_proj.weight").chunk(2)
    wanted = {
        "self_attn.q_proj": fused[:64],
        "self_attn.k_proj": fused[64:96],
        "self_attn.v_proj": fused[96:],
        "mlp.gate_proj": gate,
        "mlp.up_proj": up,
    }
    for name, tensor in wanted.items():
        assert torch.equal(after.load(f"model.layers.3.{name}.weight"), tensor)
    for old, new in zip(before.shards, after.shards, strict=False):
        data = [s.path.read_bytes()[s.data_start :] for s in (old, new)]
        assert data[0] == data[1]


def test_a_fused_tensor_of_another_shape() -> None:
    name = "model.layers.0.self_attn.qkv_proj.weight"
    entry = TensorEntry(name, "BF16", (192, 64), 0, 2 * 192 * 64)
    message = f"tensor {name!r}: found shape [192, 64], expected [128, 64] from"
    with pytest.raises(CheckpointError, match=re.escape(message)):
        architecture_of(phi3()).split(entry)


@pytest.mark.parametrize(
    "name", ["model.norm.weight", "model.layers.0.self_attn.o_proj.weight", "qkv_proj.weight"]
)
def test_other_tensors_stay_whole(name: str) -> None:
    entry = TensorEntry(name, "BF16", (64, 64), 8, 8 + 2 * 64 * 64)
    assert architecture_of(phi3()).split(entry) == (entry,)


def test_what_phi3_takes_for_granted_is_written_out() -> None:
    config = phi3(sliding_window=512, vocab_size=..., resid_pdrop=0.1, attention_bias=False)
    architecture = architecture_of(config)
    architecture.validate()
    result = Linker(architecture, architecture.layer_map([Place(0)])).config(torch.bfloat16)
    defaults = Phi3Config()
    for name in ("vocab_size", "rms_norm_eps", "eos_token_id", "pad_token_id"):
        assert result[name] == getattr(defaults, name)
    assert architecture.norm_eps == defaults.rms_norm_eps
    assert (result["model_type"], result["head_dim"]) == ("llama", 16)
    assert result["attention_bias"] is result["mlp_bias"] is True
    assert not {"sliding_window", "resid_pdrop"} & set(result)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (
            {"sliding_window": 511},
            "sliding_window: found 511, expected null or at least max_position_embeddings (512)",
        ),
        ({"partial_rotary_factor": 0.75}, "partial_rotary_factor: found 0.75, expected 1"),
        (
            {"rope_parameters": {"rope_type": "default", "partial_rotary_factor": 0.5}},
            "partial_rotary_factor: found 0.5, expected 1",
        ),
    ],
)
def test_configs_that_cannot_be_spliced(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(UnsupportedError, match=re.escape(message)):
        architecture_of(phi3(**fields)).validate()


@pytest.mark.parametrize("kind", ["longrope", "su"])
@torch.no_grad()
def test_frequencies_that_switch_with_the_length(
    tiny_llama: Make, splice: Make, tmp_path: Path, kind: str
) -> None:
    base = tiny_llama("phi3", max_position_embeddings=256)
    config = json.loads((base / "config.json").read_text())
    del config["rope_parameters"]
    config |= {
        "original_max_position_embeddings": 32,
        "rope_theta": 1e3,
        "rope_scaling": {
            "type": kind,
            "short_factor": [1.0 + i / 8 for i in range(8)],
            "long_factor": [2.0 + i for i in range(8)],
            # Where transformers looks under the older name.
            **({"original_max_position_embeddings": 32} if kind == "su" else {}),
        },
    }
    (base / "config.json").write_text(json.dumps(config))
    spliced = splice(base, (1,))
    generator = torch.Generator().manual_seed(3)
    ids = torch.randint(3, 320, (2, 60), generator=generator)
    models = [AutoModelForCausalLM.from_pretrained(folder) for folder in (base, spliced)]
    # The short frequencies, the long ones, and the short ones again.
    logits = {}
    for length in (20, 60, 25):
        before, logits[length] = (model(ids[:, :length]).logits for model in models)
        assert torch.equal(before, logits[length])
    assert not torch.allclose(logits[60][:, :20], logits[20], atol=1e-2)


def test_generations_beyond_the_switch_are_reported() -> None:
    site, activations = hand_site(EDITS["steer"]).site, calibration(torch.float32)
    scaling = {"type": "longrope", "short_factor": [1.0] * 8, "long_factor": [2.0] * 8}
    switching = architecture_of(phi3(rope_scaling=scaling))
    (note,) = compile_site(switching, site, activations, torch.float32).approximations
    assert note.startswith("beyond 4096 tokens the model uses other rotary frequencies")
    assert not compile_site(
        architecture_of(phi3()), site, activations, torch.float32
    ).approximations
