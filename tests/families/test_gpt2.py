"""What is GPT-2's own: names without a prefix, buffers in the file, sizes by other names."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from hubsplice.checkpoint.base import BaseCheckpoint
from hubsplice.compiling.construct import empty_layer
from hubsplice.compiling.linker import Linker
from hubsplice.errors import UnsupportedError
from hubsplice.families.architecture import architecture_of
from hubsplice.intervention.place import Place
from tests.families.logits import logits_of, same_bits
from tests.families.test_families import filled
from tests.families.variants import Variant, save_tiny

Splice = Callable[..., Path]


def bare(folder: Path) -> Path:
    """Rewrite a checkpoint as the first ones were published: the decoder's names, and masks."""
    file = folder / "model.safetensors"
    tensors = {name.removeprefix("transformer."): t for name, t in load_file(file).items()}
    mask = torch.ones(1, 1, 512, 512).tril()
    tensors |= {f"h.{i}.attn.bias": mask.clone() for i in range(4)}
    save_file(tensors, file, metadata={"format": "pt"})
    return folder


def test_a_checkpoint_of_the_bare_decoder(tmp_path: Path, splice: Splice) -> None:
    prefixed = save_tiny(Variant("gpt2"), tmp_path / "prefixed", torch.float32)
    base = bare(save_tiny(Variant("gpt2"), tmp_path / "base", torch.float32))
    wanted = logits_of(prefixed, torch.float32)
    assert same_bits(wanted, logits_of(base, torch.float32))
    empty = splice(base, (0, 2), name="empty")
    assert same_bits(wanted, logits_of(empty, torch.float32))
    names = set(BaseCheckpoint.open(empty).tensors)
    assert {"h.5.ln_1.weight", "h.5.attn.bias", "transformer.h.1.ln_1.weight"} <= names
    layer = filled(
        empty_layer(architecture_of({"model_type": "gpt2", "n_embd": 64}), torch.float32), 9, 2
    )
    edited = [
        splice(folder, (1,), [layer], name=folder.name + "-edited") for folder in (prefixed, base)
    ]
    logits = [logits_of(folder, torch.float32) for folder in edited]
    assert same_bits(*logits)
    assert not torch.equal(logits[0], wanted)


def test_sizes() -> None:
    config: dict[str, Any] = {"model_type": "gpt2", "n_embd": 64, "n_layer": 3}
    assert architecture_of(config).intermediate_size == 256
    assert architecture_of(config | {"n_inner": None}).intermediate_size == 256
    assert architecture_of(config | {"n_inner": 100}).intermediate_size == 100
    assert architecture_of(config).tied
    layers = architecture_of(config).layer_map([Place(0), Place(1)])
    spliced = Linker(architecture_of(config), layers).config(torch.float32)
    assert spliced["n_layer"] == 5
    assert "num_hidden_layers" not in spliced


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"scale_attn_by_inverse_layer_idx": True}, "scale_attn_by_inverse_layer_idx: found true"),
        ({"add_cross_attention": True}, "add_cross_attention: found true"),
        ({"reorder_and_upcast_attn": True}, "reorder_and_upcast_attn: found true"),
        ({"activation_function": "relu"}, "activation_function: found 'relu', expected one of"),
    ],
)
def test_configs_that_cannot_be_spliced(fields: dict[str, Any], message: str) -> None:
    config = {
        "model_type": "gpt2",
        "architectures": ["GPT2LMHeadModel"],
        "n_embd": 64,
        "n_layer": 3,
    }
    architecture_of(config).validate()
    with pytest.raises(UnsupportedError, match=f"base_model: config.json: {message}"):
        architecture_of(config | fields).validate()
