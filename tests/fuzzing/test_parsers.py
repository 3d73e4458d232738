"""Whatever is wrong with a file of somebody else, it is said in a message, and not a traceback."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from tests.conftest import MakeCheckpoint
from tests.fuzzing.parsers import SAES, Parser, parsers

SEEDS = st.integers(0, 2**32)
NAMES = (
    "recipe",
    "recipe as bytes",
    "SAE cfg.json",
    "old SAE cfg.json",
    "SAE",
    "config.json",
    "index",
    "tokenizer.json",
    "tokenizer_config.json",
    "safetensors header",
    "vector",
    "manifest",
    "report",
    "engine runs",
    "intervention",
)


@pytest.fixture(scope="module")
def found(
    shared_tiny_llama: MakeCheckpoint, tmp_path_factory: pytest.TempPathFactory
) -> Mapping[str, Parser]:
    base = shared_tiny_llama(name="to-be-damaged", num_hidden_layers=2)
    return parsers(tmp_path_factory.mktemp("damaged"), base)


@pytest.mark.parametrize("name", NAMES)
def test_the_good_file_is_read(found: Mapping[str, Parser], name: str) -> None:
    parser = found[name]
    good = parser.good if isinstance(parser.good, bytes) else json.dumps(parser.good)
    assert parser.try_to_read(good) is None


@pytest.mark.parametrize("name", NAMES)
@settings(
    max_examples=40,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(seed=SEEDS)
@example(seed=0)
def test_a_damaged_file_gets_a_message(found: Mapping[str, Parser], name: str, seed: int) -> None:
    parser = found[name]
    parser.try_to_read(parser.damaged(seed))


def test_there_is_a_target_for_every_parser(found: Mapping[str, Parser]) -> None:
    assert set(found) == set(NAMES)


CASES: list[tuple[str, str | bytes, str]] = [
    ("recipe", "base_model: !!bool maybe", "tags such as"),
    ("recipe", "base_model: !!int many", "tags such as"),
    ("recipe", "base_model: !!timestamp soon", "tags such as"),
    ("SAE cfg.json", json.dumps(SAES[0] | {"metadata": "none"}), "metadata"),
    ("SAE cfg.json", json.dumps(SAES[0] | {"dtype": "save"}), "dtype"),
    ("SAE cfg.json", json.dumps(SAES[0] | {"metadata": {"model_name": ["gpt2"]}}), "model_name"),
    ("old SAE cfg.json", json.dumps(SAES[1] | {"activation_fn_kwargs": 4}), "activation_fn_kwargs"),
    ("old SAE cfg.json", "[" * 100_000, "not valid JSON"),
]


@pytest.mark.parametrize(("name", "content", "words"), CASES)
def test_what_was_found_once_is_said(
    found: Mapping[str, Parser], name: str, content: str | bytes, words: str
) -> None:
    said = found[name].try_to_read(content)
    assert said is not None
    assert words in said


CONFIGS: list[tuple[dict[str, Any], str]] = [
    ({"pad_token_id": 320}, "pad_token_id is 320"),
    ({"rms_norm_eps": "1e-05"}, "rms_norm_eps: found '1e-05'"),
    ({"dtype": "torch.bfloat16"}, "dtype: found 'torch.bfloat16'"),
    ({"dtype": "save"}, "dtype: found 'save'"),
    ({"num_hidden_layers": 10**9}, "num_hidden_layers: found 1000000000"),
    ({"architectures": "LlamaForCausalLM"}, "architectures: found 'LlamaForCausalLM'"),
    ({"vocab_size": True}, "vocab_size: found True"),
    ({"rope_parameters": {"rope_type": "fancy", "rope_theta": 1e4}}, "'fancy'"),
]


@pytest.mark.parametrize(("fields", "words"), CONFIGS)
def test_a_configuration_names_the_field(
    found: Mapping[str, Parser], fields: dict[str, Any], words: str
) -> None:
    parser = found["config.json"]
    said = parser.try_to_read(json.dumps(parser.good | fields))
    assert said is not None
    assert words in said


def test_a_tokenizer_of_another_version_is_the_tokenizers_fault(
    found: Mapping[str, Parser],
) -> None:
    parser = found["tokenizer.json"]
    model = parser.good["model"] | {"merges": [["a"]]}
    said = parser.try_to_read(json.dumps(parser.good | {"model": model}))
    assert said is not None
    assert "its tokenizer can't be loaded" in said


def test_a_template_that_fails_is_no_template(found: Mapping[str, Parser]) -> None:
    parser = found["tokenizer_config.json"]
    for template in (
        "{{ messages[0].content + 1 }}",
        "{% for i in range(1000000000) %}{% endfor %}",
        "{{ 1 // 0 }}",
        "{{ messages[0].content.x.y }}",
        "{% include 'x' %}",
    ):
        assert parser.try_to_read(json.dumps(parser.good | {"chat_template": template})) is None
