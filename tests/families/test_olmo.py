"""What the configurations of OLMo 2 and 3 say before and after a splice."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from transformers import Olmo2Config, Olmo3Config

from hubsplice.compiling.linker import Linker
from hubsplice.errors import UnsupportedError
from hubsplice.families.architecture import architecture_of
from hubsplice.intervention.place import Place

SLIDING, FULL = "sliding_attention", "full_attention"


def config_of(family: str, **fields: Any) -> dict[str, Any]:
    """A config.json as the checkpoints on the Hub have it."""
    return {
        "architectures": [f"{family.capitalize()}ForCausalLM"],
        "model_type": family,
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 5,
        "num_attention_heads": 4,
        "torch_dtype": "bfloat16",
        **fields,
    }


def test_layer_types_that_were_implied_are_written_out() -> None:
    architecture = architecture_of(config_of("olmo3"))
    layers = architecture.layer_map([Place(0), Place(3)])
    result = Linker(architecture, layers).config(torch.bfloat16)
    assert result["layer_types"] == [SLIDING, SLIDING, SLIDING, SLIDING, FULL, SLIDING, SLIDING]
    assert Olmo3Config(num_hidden_layers=5).layer_types == [SLIDING] * 3 + [FULL, SLIDING]
    assert result["num_hidden_layers"] == 7
    assert result["attention_bias"] is True


def test_olmo2_has_one_kind_of_layer() -> None:
    architecture = architecture_of(config_of("olmo2"))
    result = Linker(architecture, architecture.layer_map([Place(1)])).config(torch.bfloat16)
    assert "layer_types" not in result
    assert (result["num_hidden_layers"], result["attention_bias"]) == (6, True)


def test_what_is_left_out_is_what_the_class_takes() -> None:
    architecture = architecture_of(config_of("olmo2"))
    defaults = Olmo2Config()
    assert architecture.norm_eps == defaults.rms_norm_eps
    assert architecture.tied is defaults.tie_word_embeddings
    assert architecture.projections["self_attn.k_proj"].shape == (64, 64)
    fewer = architecture_of(config_of("olmo2", num_key_value_heads=2, head_dim=24))
    assert fewer.projections["self_attn.k_proj"].shape == (48, 64)
    layout = Linker(fewer, fewer.layer_map([Place(0)])).inserted_layout(0)
    assert layout["model.layers.1.self_attn.q_norm.weight"].shape == (96,)


@pytest.mark.parametrize("family", ["olmo2", "olmo3"])
def test_another_activation_is_refused(family: str) -> None:
    with pytest.raises(UnsupportedError, match="hidden_act: found 'gelu', expected 'silu'"):
        architecture_of(config_of(family, hidden_act="gelu")).validate()
