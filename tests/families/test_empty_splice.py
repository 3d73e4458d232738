"""An empty splice changes no bit of what a stock model computes."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaForCausalLM

from hubsplice.checkpoint.base import BaseCheckpoint
from hubsplice.checkpoint.layer_map import inserted_indices
from hubsplice.compiling.linker import Linker
from hubsplice.families.architecture import architecture_of
from hubsplice.intervention.place import Place
from tests.families.logits import padded_batch, same_bits

Make = Callable[..., Path]

DTYPES = ["float32", "bfloat16"]
FAMILIES = ["llama", "mistral", "qwen2", "phi3"]
PLACES = [(1,), (0, 3), (3, 0, 2)]


def load(folder: Path) -> Any:
    """The stock model in a folder, every parameter of which came from a file."""
    model, info = AutoModelForCausalLM.from_pretrained(
        folder, dtype="auto", output_loading_info=True
    )
    assert not info["missing_keys"]
    assert not info["unexpected_keys"]
    assert not info["mismatched_keys"]
    return model.eval()


@torch.no_grad()
def assert_same_logits(base: Path, spliced: Path) -> None:
    before, after = load(base), load(spliced)
    assert type(after) is LlamaForCausalLM
    batch = padded_batch()
    assert same_bits(before(**batch).logits, after(**batch).logits)


def assert_base_is_inside(base_folder: Path, folder: Path, after_layers: Sequence[int]) -> None:
    base, spliced = BaseCheckpoint.open(base_folder), BaseCheckpoint.open(folder)
    architecture = architecture_of(base.config)
    layers = architecture.layer_map(list(map(Place, after_layers)))
    seen = set()
    for name, entry in base.tensors.items():
        parts = [
            Linker(architecture, layers).rename(part.name) for part in architecture.split(entry)
        ]
        assert same_bits(base.load(name), torch.cat([spliced.load(part) for part in parts])), name
        seen |= set(parts)
    added = {f"model.layers.{i}." for i in inserted_indices(layers)}
    biases = set(Linker(architecture, layers).bias_tensors(base.tensors))
    others = {name for name in spliced.tensors if not name.startswith(tuple(added))}
    assert seen == others - biases


@pytest.mark.parametrize("after_layers", PLACES)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("family", FAMILIES)
def test_logits_are_the_bases(
    tiny_llama: Make, splice: Make, family: str, dtype: str, after_layers: tuple[int, ...]
) -> None:
    base = tiny_llama(family, dtype=dtype)
    spliced = splice(base, after_layers)
    assert_same_logits(base, spliced)
    assert_base_is_inside(base, spliced, after_layers)
    assert load(spliced).config.num_hidden_layers == 4 + len(after_layers)


@pytest.mark.parametrize(
    ("family", "fields"),
    [
        ("llama", {"tie_word_embeddings": True}),
        ("mistral", {"tie_word_embeddings": True, "sliding_window": None}),
        ("qwen2", {"tie_word_embeddings": True}),
        ("llama", {"num_key_value_heads": 4}),
        ("mistral", {"num_key_value_heads": 1}),
        ("qwen2", {"num_key_value_heads": 1}),
        ("mistral", {"head_dim": 24}),
        ("qwen2", {"head_dim": 8}),
        ("llama", {"attention_bias": True}),
        ("llama", {"mlp_bias": True}),
        ("llama", {"rope_parameters": {"rope_type": "default", "rope_theta": 500.0}}),
        (
            "qwen2",
            {
                "rope_parameters": {
                    "rope_type": "yarn",
                    "rope_theta": 1e6,
                    "factor": 4.0,
                    "original_max_position_embeddings": 128,
                }
            },
        ),
        (
            "llama",
            {
                "rope_parameters": {
                    "rope_type": "llama3",
                    "rope_theta": 1e4,
                    "factor": 8.0,
                    "low_freq_factor": 1.0,
                    "high_freq_factor": 4.0,
                    "original_max_position_embeddings": 64,
                }
            },
        ),
        ("qwen2", {"rms_norm_eps": 1e-3}),
        ("phi3", {"tie_word_embeddings": True, "num_key_value_heads": 4}),
        ("phi3", {"head_dim": 24, "sliding_window": 512}),
        ("phi3", {"rope_parameters": {"rope_type": "default", "rope_theta": 250.0}}),
    ],
)
@pytest.mark.parametrize("dtype", DTYPES)
def test_variants_keep_their_logits(
    tiny_llama: Make, splice: Make, family: str, fields: dict[str, Any], dtype: str
) -> None:
    base = tiny_llama(family, dtype=dtype, **fields)
    spliced = splice(base, (2,))
    assert_same_logits(base, spliced)
    assert_base_is_inside(base, spliced, (2,))


def test_tied_embeddings_stay_tied(tiny_llama: Make, splice: Make) -> None:
    base = tiny_llama(tie_word_embeddings=True)
    assert architecture_of(BaseCheckpoint.open(base).config).tied
    spliced = splice(base, (1,))
    assert "lm_head.weight" not in BaseCheckpoint.open(spliced).tensors
    model = load(spliced)
    assert model.lm_head.weight is model.model.embed_tokens.weight


def test_the_older_spelling_of_a_config_is_understood(tiny_llama: Make, splice: Make) -> None:
    base = tiny_llama("mistral", dtype="bfloat16", name="older")
    path = base / "config.json"
    config = json.loads(path.read_text())
    del config["rope_parameters"], config["dtype"], config["head_dim"]
    config |= {"rope_theta": 777.0, "rope_scaling": None, "torch_dtype": "bfloat16"}
    path.write_text(json.dumps(config))
    spliced = splice(base, (0,))
    assert load(base).config.rope_parameters["rope_theta"] == 777.0
    assert_same_logits(base, spliced)
    after = json.loads((spliced / "config.json").read_text())
    assert after["torch_dtype"] == "bfloat16"
    assert "dtype" not in after
    assert after["head_dim"] == 16


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("family", FAMILIES)
def test_generation_with_a_cache_is_the_bases(
    tiny_llama: Make, splice: Make, family: str, dtype: str
) -> None:
    base = tiny_llama(family, dtype=dtype)
    spliced = splice(base, (1, 3))
    options = {
        "max_new_tokens": 12,
        "min_new_tokens": 12,
        "do_sample": False,
        "output_logits": True,
        "return_dict_in_generate": True,
    }
    before = load(base).generate(**padded_batch(), **options)
    after = load(spliced).generate(**padded_batch(), **options)
    assert after.past_key_values.get_seq_length() == before.past_key_values.get_seq_length() > 40
    assert torch.equal(before.sequences, after.sequences)
    assert all(same_bits(a, b) for a, b in zip(before.logits, after.logits, strict=True))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("family", FAMILIES)
def test_a_splice_of_a_splice(tiny_llama: Make, splice: Make, family: str, dtype: str) -> None:
    base = tiny_llama(family, dtype=dtype, max_shard_size="100KB")
    once = splice(base, (2, 0), name="once")
    twice = splice(once, (1, 5), name="twice")
    assert_base_is_inside(once, twice, (1, 5))
    assert_same_logits(base, twice)
    assert load(twice).config.num_hidden_layers == 8


def test_two_layers_at_one_place(tiny_llama: Make, splice: Make) -> None:
    base = tiny_llama()
    spliced = splice(base, (1, 1))
    assert_same_logits(base, spliced)
    assert_base_is_inside(base, spliced, (1, 1))


def test_a_tokenizer_travels_along(tiny_llama: Make, splice: Make) -> None:
    base = tiny_llama("qwen2")
    text = AutoTokenizer.from_pretrained(splice(base, (0,)))("héllo")
    assert text == AutoTokenizer.from_pretrained(base)("héllo")


@pytest.mark.parametrize("dtype", DTYPES)
@torch.no_grad()
def test_a_real_model_keeps_its_logits(smollm2: Path, splice: Make, dtype: str) -> None:
    spliced = splice(smollm2, (13,))
    tokenizer = AutoTokenizer.from_pretrained(spliced)
    prompt = tokenizer("The capital of France is", return_tensors="pt")
    logits = []
    for folder in (smollm2, spliced):
        model = load(folder).to(getattr(torch, dtype))
        logits.append(model(**prompt).logits)
        del model
    assert same_bits(*logits)
