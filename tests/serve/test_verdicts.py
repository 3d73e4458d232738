"""What is known of engines, and what follows from it for a model."""

from __future__ import annotations

from typing import Any

import pytest

from hubsplice.families.engines import EngineKey, Evidence
from hubsplice.families.registry import FAMILIES, model_classes
from hubsplice.families.tensors import ATTENTION, MLP
from hubsplice.serving.engines import ENGINES
from hubsplice.serving.requirements import Requirements
from hubsplice.serving.verdict import Outcome, verdict
from tests.serve.manifests import QKV, manifest, zero_biases
from tests.serving.families import NOT_SERVED, SERVED

SIZES = {
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
}
GPT2_SIZES = {"n_embd": 64, "n_layer": 4, "n_head": 4}


def outcome(engine: EngineKey, *arguments: Any, **fields: Any) -> Outcome:
    return verdict(ENGINES[engine], Requirements.of(manifest(*arguments, **fields))).outcome


def test_vllm_was_run_with_what_its_tests_run() -> None:
    run = {
        name
        for name, known in ENGINES[EngineKey.VLLM].classes.items()
        if known.evidence is Evidence.RUN
    }
    assert run == {family.class_name for family in SERVED}


def test_every_family_is_served_by_vllm_or_has_a_reason() -> None:
    registered = dict(FAMILIES.items())
    served = {family.variant.family for family in SERVED}
    assert not served & {*NOT_SERVED}
    assert served | {*NOT_SERVED} == {*registered}
    for name, reason in NOT_SERVED.items():
        known = ENGINES[EngineKey.VLLM].classes[registered[name].becomes.name]
        assert known.evidence is Evidence.READ
        assert reason in known.note


@pytest.mark.parametrize(
    ("engine", "expected"),
    [
        (EngineKey.VLLM, Outcome.WORKS),
        (EngineKey.TRANSFORMERS, Outcome.WORKS),
        (EngineKey.SGLANG, Outcome.REFUSES),
        (EngineKey.TGI, Outcome.WORKS),
        (EngineKey.LLAMA_CPP, Outcome.NEEDS),
    ],
)
def test_llama(engine: EngineKey, expected: Outcome) -> None:
    assert outcome(engine, zero_tensors=zero_biases(*QKV)) is expected


def test_a_refusal_names_what_would_be_ignored() -> None:
    found = verdict(ENGINES[EngineKey.SGLANG], Requirements.of(manifest()))
    assert all(f"{projection}.bias" in found.reason for projection in MLP)
    assert not any(projection in found.reason for projection in ATTENTION)


def test_biases_that_are_zero_everywhere_are_not_needed() -> None:
    zero = zero_biases(*MLP)
    assert outcome(EngineKey.SGLANG, zero_tensors=zero) is Outcome.WORKS
    # One layer's is enough.
    assert outcome(EngineKey.SGLANG, zero_tensors=zero[1:]) is Outcome.REFUSES


def test_qwen3s_output_bias_is_ignored_by_vllm_and_zero() -> None:
    zero = zero_biases("self_attn.o_proj")
    assert outcome(EngineKey.VLLM, "Qwen3ForCausalLM", zero_tensors=zero) is Outcome.WORKS
    assert outcome(EngineKey.VLLM, "Qwen3ForCausalLM", zero_tensors=zero[:-1]) is Outcome.REFUSES
    assert outcome(EngineKey.SGLANG, "Qwen3ForCausalLM") is Outcome.WORKS


def test_biases_that_the_base_had_already_are_needed_too() -> None:
    spliced_base = {"num_hidden_layers": {"before": 3, "after": 5}}
    requirements = Requirements.of(manifest(config_changes=spliced_base))
    assert requirements.bias_fields == ("attention_bias", "mlp_bias")
    assert requirements.biases == {*ATTENTION, *MLP}


def test_neox_says_by_its_zeros_whether_attention_has_biases() -> None:
    name, prefix = "GPTNeoXForCausalLM", "gpt_neox.layers."
    unchanged = {"num_hidden_layers": {"before": 3, "after": 5}}
    off = Requirements.of(manifest(name, config_changes=unchanged))
    assert off.biases == {"mlp.dense_h_to_4h", "mlp.dense_4h_to_h"}
    # An inserted layer whose attention has biases has zeros there.
    zero = [f"{prefix}2.attention.query_key_value.bias"]
    on = Requirements.of(manifest(name, config_changes=unchanged, zero_tensors=zero))
    assert on.bias_fields == ("attention_bias",)
    assert "attention.dense" in on.biases


@pytest.mark.parametrize(
    ("types", "expected"),
    [
        (["sliding_attention", "full_attention"] * 2 + ["full_attention"], Outcome.REFUSES),
        (["full_attention"] * 5, Outcome.WORKS),
    ],
)
def test_layer_types_matter_where_layers_differ(types: list[str], expected: Outcome) -> None:
    changes = {
        "attention_bias": {"before": False, "after": True},
        "layer_types": {"before": types[:3], "after": types},
    }
    assert outcome(EngineKey.SGLANG, "Gemma2ForCausalLM", config_changes=changes) is expected
    assert outcome(EngineKey.VLLM, "Gemma2ForCausalLM", config_changes=changes) is Outcome.WORKS


def test_fields_of_a_nested_decoder_count() -> None:
    text = {"attention_bias": True, "layer_types": ["a", "b", "b", "a", "b"], "hidden_size": 4}
    nested = {"text_config": {"before": {"hidden_size": 4}, "after": text}}
    requirements = Requirements.of(
        manifest("Gemma3ForConditionalGeneration", config_changes=nested)
    )
    assert requirements.bias_fields == ("attention_bias",)
    assert requirements.layer_fields == {"layer_types"}


def test_lists_of_layers_by_index() -> None:
    changes = {"mlp_only_layers": {"before": [], "after": [2]}}
    name = "Qwen3MoeForCausalLM"
    assert outcome(EngineKey.SGLANG, name, config_changes=changes) is Outcome.REFUSES


def test_what_was_not_examined_is_not_known() -> None:
    assert outcome(EngineKey.TGI, "GPT2LMHeadModel") is Outcome.UNKNOWN
    assert all(outcome(engine, "NobodysForCausalLM") is Outcome.UNKNOWN for engine in ENGINES)


def test_what_is_known_is_of_classes_and_parts_that_exist() -> None:
    for engine in ENGINES.values():
        for name, support in engine.classes.items():
            assert support.ignored_biases <= {*model_classes()[name].projections}
