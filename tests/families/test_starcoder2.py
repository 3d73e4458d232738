"""What StarCoder2's configuration says before and after a splice."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from transformers import Starcoder2Config

from hubsplice.compiling.linker import Linker
from hubsplice.errors import UnsupportedError
from hubsplice.families.architecture import architecture_of
from hubsplice.intervention.place import Place


def config_of(**fields: Any) -> dict[str, Any]:
    return {
        "architectures": ["Starcoder2ForCausalLM"],
        "model_type": "starcoder2",
        "hidden_size": 64,
        "intermediate_size": 256,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "torch_dtype": "bfloat16",
        **fields,
    }


def test_what_is_left_out_is_what_the_class_takes() -> None:
    architecture = architecture_of(config_of())
    defaults = Starcoder2Config()
    assert architecture.norm_eps == defaults.norm_epsilon
    assert architecture.tied is defaults.tie_word_embeddings
    keys = 16 * defaults.num_key_value_heads
    assert architecture.projections["self_attn.k_proj"].shape == (keys, 64)
    assert architecture.biased_before == frozenset(architecture.projections)


def test_biases_are_switched_on_everywhere() -> None:
    architecture = architecture_of(config_of(use_bias=False, sliding_window=8))
    assert not architecture.biased_before
    layers = architecture.layer_map([Place(0), Place(1)])
    result = Linker(architecture, layers).config(torch.bfloat16)
    assert (result["use_bias"], result["sliding_window"]) == (True, 8)
    assert result["num_hidden_layers"] == 5


def test_another_activation_is_refused() -> None:
    with pytest.raises(UnsupportedError, match="hidden_act: found 'silu', expected one of"):
        architecture_of(config_of(hidden_act="silu")).validate()
