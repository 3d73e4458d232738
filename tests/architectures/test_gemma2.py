"""What Gemma 2's configuration says before and after a splice."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from hubsplice.architectures.registry import architecture_of
from hubsplice.errors import UnsupportedError
from hubsplice.place import Place


def config_of(**fields: Any) -> dict[str, Any]:
    """A config.json as the checkpoints on the Hub have it."""
    return {
        "architectures": ["Gemma2ForCausalLM"],
        "model_type": "gemma2",
        "hidden_size": 64,
        "num_hidden_layers": 5,
        "sliding_window": 4096,
        "torch_dtype": "bfloat16",
        **fields,
    }


def test_layer_types_that_were_implied_are_written_out() -> None:
    architecture = architecture_of(config_of())
    layers = architecture.layer_map([Place(0), Place(3)])
    result = architecture.spliced_config(layers, torch.bfloat16)
    sliding, full = "sliding_attention", "full_attention"
    assert result["layer_types"] == [sliding, sliding, full, sliding, full, sliding, sliding]
    assert result["num_hidden_layers"] == 7
    assert result["attention_bias"] is True
    assert result["sliding_window"] == 4096


def test_sizes_that_are_left_out_are_those_of_the_family() -> None:
    architecture = architecture_of(config_of())
    assert architecture.intermediate_size == 9216
    assert architecture.projections["self_attn.k_proj"].shape == (1024, 64)
    assert architecture.tied
    assert not architecture_of(config_of(tie_word_embeddings=False)).tied


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"hidden_activation": "gelu"}, "hidden_activation: found 'gelu', expected"),
        ({"use_bidirectional_attention": True}, "use_bidirectional_attention: found true"),
        ({"architectures": ["Gemma2Model"]}, r"architectures: found \['Gemma2Model'\], expected"),
        ({"layer_types": ["full_attention"]}, "layer_types: found 1 entries, expected a list of 5"),
    ],
)
def test_configs_that_cannot_be_spliced(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(UnsupportedError, match=message):
        architecture_of(config_of(**fields)).validate()


def test_an_activation_that_is_left_out_is_the_one_that_is_needed() -> None:
    architecture_of(config_of(hidden_act="gelu_pytorch_tanh", hidden_activation=None)).validate()
