"""What a splice makes of a configuration, and which configurations it refuses."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoConfig, LlamaConfig, MistralConfig, Qwen2Config

from hubsplice.checkpoint.layer_map import FromBase, FromSplice, inserted_indices
from hubsplice.checkpoint.manifest import ConfigChange
from hubsplice.compiling.linker import Linker
from hubsplice.errors import CheckpointError, RecipeError, UnsupportedError
from hubsplice.families.architecture import architecture_of
from hubsplice.families.registry import FAMILIES
from hubsplice.families.unsupported import REASONS
from hubsplice.files.safetensors_header import TensorEntry
from hubsplice.intervention.place import Place

CLASSES = {
    "llama": "LlamaForCausalLM",
    "mistral": "MistralForCausalLM",
    "qwen2": "Qwen2ForCausalLM",
}
EXPRESSED = sorted(CLASSES)
REGISTERED = [name for name, _ in FAMILIES.items()]


def config_of(family: str, **fields: Any) -> dict[str, Any]:
    """A small config.json as the family's models have it; a field set to `...` is left out."""
    config: dict[str, Any] = {
        "architectures": [CLASSES.get(family, "LlamaForCausalLM")],
        "model_type": family,
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 4,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 512,
        "vocab_size": 320,
        "dtype": "bfloat16",
    }
    merged = config | fields
    return {key: value for key, value in merged.items() if value is not ...}


def spliced(family: str, after_layers: tuple[int, ...] = (1,), **fields: Any) -> dict[str, Any]:
    architecture = architecture_of(config_of(family, **fields))
    architecture.validate()
    return Linker(architecture, architecture.layer_map(list(map(Place, after_layers)))).config(
        torch.bfloat16
    )


def test_a_llama_keeps_all_but_its_layers_and_flags() -> None:
    extra: dict[str, Any] = {
        "rope_theta": 5e5,
        "rope_scaling": {"rope_type": "linear", "factor": 2.0},
        "my": [1],
    }
    config = config_of("llama", **extra)
    assert spliced("llama", (1, 2), **extra) == config | {
        "num_hidden_layers": 6,
        "attention_bias": True,
        "mlp_bias": True,
    }


@pytest.mark.parametrize(
    ("family", "own"),
    [
        ("mistral", {"sliding_window": None}),
        ("mistral", {"sliding_window": 512}),
        (
            "qwen2",
            {
                "use_sliding_window": False,
                "sliding_window": 4,
                "max_window_layers": 2,
                "layer_types": ["full_attention"] * 4,
                "bos_token_id": 7,
                "eos_token_id": [8, 9],
            },
        ),
    ],
)
def test_others_become_llamas(family: str, own: dict[str, Any]) -> None:
    kept: dict[str, Any] = {
        "rope_parameters": {"rope_type": "default", "rope_theta": 1e6},
        "rms_norm_eps": 1e-5,
    }
    result = spliced(family, **own, **kept)
    left = {key: value for key, value in own.items() if key.endswith("token_id")}
    assert result == config_of("llama", **kept, **left) | {
        "num_hidden_layers": 5,
        "attention_bias": True,
        "mlp_bias": True,
        "head_dim": 16,
    }


@pytest.mark.parametrize("family", EXPRESSED)
def test_what_tells_of_another_place_is_dropped(family: str) -> None:
    fields: dict[str, Any] = {
        "sliding_window": None,
        "_name_or_path": "/home/me/model",
        "auto_map": None,
    }
    assert {"_name_or_path", "auto_map"}.isdisjoint(spliced(family, **fields))


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"dtype": "float32"}, {"dtype"}),
        ({"dtype": ..., "torch_dtype": "float32"}, {"torch_dtype"}),
        ({"dtype": "float32", "torch_dtype": "float32"}, {"dtype", "torch_dtype"}),
        ({"dtype": ...}, {"dtype"}),
    ],
)
def test_the_dtype_is_spelled_as_in_the_base(fields: dict[str, Any], expected: set[str]) -> None:
    result = spliced("llama", **fields)
    assert {key: result[key] for key in result if "dtype" in key} == dict.fromkeys(
        expected, "bfloat16"
    )


def test_layer_types_grow_with_a_llama() -> None:
    assert spliced("llama", layer_types=["full_attention"] * 4)["layer_types"] == (
        ["full_attention"] * 5
    )


@pytest.mark.parametrize(
    ("family", "config_class"), [("mistral", MistralConfig), ("qwen2", Qwen2Config)]
)
def test_what_a_config_leaves_out_means_what_it_meant(family: str, config_class: type) -> None:
    sizes = {
        "hidden_size": 512,
        "intermediate_size": 128,
        "num_hidden_layers": 2,
        "num_attention_heads": 64,
    }
    bare = {"model_type": family, "architectures": [CLASSES[family]], **sizes}
    architecture = architecture_of(bare)
    result = Linker(architecture, architecture.layer_map([])).config(torch.bfloat16)
    before, after = config_class(**sizes).to_dict(), LlamaConfig(**result).to_dict()
    meant = dict(before.items())
    for key in architecture.family.dropped:
        meant.pop(key, None)
    expected = {"attention_bias", "mlp_bias", "architectures", "model_type", "dtype"}
    expected |= {"pretraining_tp"} if "pretraining_tp" not in before else set()
    expected |= {"head_dim"} if "head_dim" not in before else set()
    differing = {key for key in {*meant, *after} if meant.get(key) != after.get(key)}
    assert differing <= expected
    assert "num_key_value_heads" not in differing
    assert after["num_key_value_heads"] != after["num_attention_heads"]


def test_changes_have_the_sides_that_were_there() -> None:
    architecture = architecture_of(config_of("mistral", sliding_window=None, _name_or_path="x"))
    layers = architecture.layer_map([Place(0)])
    linker = Linker(architecture, layers)
    changes = linker.config_changes(linker.config(torch.float16))
    assert {key: change.model_dump() for key, change in changes.items()} == {
        "_name_or_path": {"before": "x"},
        "architectures": {"before": ["MistralForCausalLM"], "after": ["LlamaForCausalLM"]},
        "attention_bias": {"after": True},
        "dtype": {"before": "bfloat16", "after": "float16"},
        "head_dim": {"after": 16},
        "mlp_bias": {"after": True},
        "model_type": {"before": "mistral", "after": "llama"},
        "num_hidden_layers": {"before": 4, "after": 5},
        "sliding_window": {"before": None},
    }
    assert changes["sliding_window"] == ConfigChange(before=None)


def test_the_layer_map_names_splices_by_their_place_in_the_recipe() -> None:
    architecture = architecture_of(config_of("llama", num_hidden_layers=3))
    layers = architecture.layer_map([Place(2), Place(0), Place(2)])
    assert layers == (
        FromBase(base=0),
        FromSplice(splice=1),
        FromBase(base=1),
        FromBase(base=2),
        FromSplice(splice=0),
        FromSplice(splice=2),
    )
    assert inserted_indices(layers) == (4, 1, 5)


@given(after=st.lists(st.integers(0, 11), max_size=6))
def test_names_follow_the_layer_map(after: list[int]) -> None:
    architecture = architecture_of(config_of("llama", num_hidden_layers=12))
    layers = architecture.layer_map(list(map(Place, after)))
    linker = Linker(architecture, layers)
    for index, layer in enumerate(layers):
        if isinstance(layer, FromBase):
            name = f"model.layers.{layer.base}.mlp.up_proj.weight"
            assert linker.rename(name) == f"model.layers.{index}.mlp.up_proj.weight"
    for name in ("model.embed_tokens.weight", "model.norm.weight", "lm_head.weight"):
        assert linker.rename(name) == name


@pytest.mark.parametrize("layer", [-2, 4])
def test_a_layer_that_is_not_there(layer: int) -> None:
    with pytest.raises(RecipeError, match=f"after_layer: found {layer}, expected -1 to 3"):
        architecture_of(config_of("llama")).layer_map([Place(layer)])


@pytest.mark.parametrize(
    ("family", "fields", "message"),
    [
        ("llama", {"hidden_act": "gelu"}, "hidden_act: found 'gelu', expected 'silu'"),
        ("llama", {"pretraining_tp": 2}, "pretraining_tp: found 2, expected 1"),
        (
            "llama",
            {"architectures": ["LlamaForSequenceClassification"]},
            "architectures: found ['LlamaForSequenceClassification'], expected "
            "['LlamaForCausalLM']",
        ),
        ("llama", {"architectures": ...}, "architectures: missing, expected"),
        ("qwen2", {"architectures": ["Qwen2Model"]}, "architectures: found ['Qwen2Model']"),
        ("llama", {"quantization_config": {"quant_method": "awq"}}, "quantization_config: the"),
        ("llama", {"num_attention_heads": 3}, "num_attention_heads: found 3, expected a divisor"),
        (
            "llama",
            {"layer_types": ["full_attention", "sliding_attention"] * 2},
            "layer_types: found 'sliding_attention', expected 'full_attention'",
        ),
        ("llama", {"per_layer_config": {"1": {"mlp_bias": True}}}, "per_layer_config: layers"),
        (
            "mistral",
            {"sliding_window": 511},
            "sliding_window: found 511, expected null or at least max_position_embeddings (512)",
        ),
        (
            "mistral",
            {"max_position_embeddings": 32768},
            "sliding_window: nothing, which means 4096, expected null or at least",
        ),
        (
            "mistral",
            {"max_position_embeddings": ...},
            "sliding_window: nothing, which means 4096, expected null or at least "
            "max_position_embeddings (131072)",
        ),
        ("qwen2", {"use_sliding_window": True}, "use_sliding_window: found true, expected false"),
        (
            "qwen2",
            {"layer_types": ["full_attention"] * 3 + ["sliding_attention"]},
            "layer_types: found 'sliding_attention'",
        ),
        ("qwen2", {"dual_chunk_attention_config": {"chunk_size": 8}}, "dual_chunk_attention"),
    ],
)
def test_configs_that_cannot_be_spliced(family: str, fields: dict[str, Any], message: str) -> None:
    with pytest.raises(UnsupportedError, match=re.escape(f"base_model: config.json: {message}")):
        architecture_of(config_of(family, **fields)).validate()


def test_all_reasons_are_told_at_once() -> None:
    config = config_of("qwen2", hidden_act="relu", use_sliding_window=True)
    with pytest.raises(UnsupportedError) as caught:
        architecture_of(config).validate()
    assert [line.split(": ")[2] for line in str(caught.value).splitlines()] == [
        "hidden_act",
        "use_sliding_window",
    ]


@pytest.mark.parametrize("value", [..., "64", 0, True, 1.5, None])
def test_a_size_that_is_none(value: object) -> None:
    with pytest.raises(CheckpointError, match=r"base_model: config\.json: hidden_size: found"):
        architecture_of(config_of("llama", hidden_size=value)).validate()


@pytest.mark.parametrize("model_type", sorted(REASONS))
def test_families_that_are_known_and_not_supported_have_a_reason(model_type: str) -> None:
    # A reason under a name that no model has would never be read.
    assert AutoConfig.for_model(model_type).model_type == model_type
    with pytest.raises(UnsupportedError) as caught:
        architecture_of({"model_type": model_type})
    message = str(caught.value)
    assert message.startswith(
        f"base_model: config.json: model_type: {model_type!r} is not supported: "
    )
    assert message.endswith(f". Supported: {', '.join(REGISTERED)}.")
    assert "\n" not in message


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (
            {"model_type": "mistrall"},
            "'mistrall' is not supported: hubsplice has no declaration of",
        ),
        ({}, "missing, expected the name of a family; is this a model's folder?"),
        ({"model_type": ["llama"]}, "['llama'] is not supported"),
    ],
)
def test_families_that_nobody_knows(config: Mapping[str, Any], message: str) -> None:
    with pytest.raises(UnsupportedError) as caught:
        architecture_of(config)
    text = str(caught.value)
    assert text.startswith(f"base_model: config.json: model_type: {message}")
    assert text.endswith(f". Supported: {', '.join(REGISTERED)}.")
    # It is the base's own word, and no slip of whoever wrote the recipe.
    assert "Did you mean" not in text


@pytest.mark.parametrize("family", ["gemma2", "gemma3_text", "olmo3"])
def test_layers_with_a_window_need_its_size(family: str) -> None:
    class_name = dict(FAMILIES.items())[family].class_name
    config = config_of(family, sliding_window=None, architectures=[class_name])
    problems = list(architecture_of(config).problems())
    assert any(problem.startswith("sliding_window: found None") for problem in problems)
    full = architecture_of(config | {"layer_types": ["full_attention"] * 4})
    assert not any(problem.startswith("sliding_window") for problem in full.problems())


@pytest.mark.parametrize(
    ("family", "fields", "message"),
    [
        ("llama", {"pad_token_id": 320}, "pad_token_id: found 320, expected less than vocab_size"),
        ("phi3", {"pad_token_id": ...}, "pad_token_id: nothing, which means 32000, expected less"),
        ("llama", {"layer_types": []}, "layer_types: found an empty list, expected null or a list"),
    ],
)
def test_what_transformers_does_not_load_is_refused(
    family: str, fields: dict[str, Any], message: str
) -> None:
    class_name = dict(FAMILIES.items())[family].class_name
    config = config_of(family, vocab_size=320, architectures=[class_name], **fields)
    (problem,) = architecture_of(config).problems()
    assert problem.startswith(message)
    assert not list(architecture_of(config | {"layer_types": None, "pad_token_id": -1}).problems())


CODE = {"AutoConfig": "configuration_x.XConfig"}


def test_code_of_the_repository_is_a_reason_where_transformers_has_no_class() -> None:
    unknown = {"model_type": "x", "auto_map": CODE}
    with pytest.raises(UnsupportedError) as caught:
        architecture_of(unknown)
    family, code = str(caught.value).splitlines()
    assert "model_type: 'x' is not supported" in family
    assert code.startswith("base_model: config.json: auto_map: asks for Python code from the repo")
    assert repr(CODE) in code
    with pytest.raises(UnsupportedError) as caught:
        architecture_of(unknown | {"model_type": "phi"})
    assert "auto_map" not in str(caught.value)


def test_code_beside_a_class_that_transformers_has_is_no_reason() -> None:
    architecture_of(config_of("llama", auto_map=CODE)).validate()
    own = architecture_of(config_of("llama", auto_map=CODE, architectures=["XForCausalLM"]))
    classes, code = own.problems()
    assert classes.startswith("architectures: found ['XForCausalLM'], expected")
    assert code.startswith("auto_map: asks for Python code")


def test_a_missing_class_is_asked_for_by_name() -> None:
    (problem,) = architecture_of(config_of("llama", architectures=None)).problems()
    assert problem.startswith("architectures: missing, expected ['LlamaForCausalLM']")


def test_all_reasons_are_given_and_what_another_copy_mends_is_last() -> None:
    config = config_of(
        "mistral",
        sliding_window=128,
        hidden_act="gelu",
        quantization_config={"quant_method": "awq"},
        auto_map=CODE,
    )
    activation, window, quantised = architecture_of(config).problems()
    assert activation.startswith("hidden_act: found 'gelu'")
    assert window.startswith("sliding_window: found 128")
    assert quantised.startswith("quantization_config: the base is quantised (awq): ")
    # Nobody is sent for another copy of what can't be spliced in any.
    with pytest.raises(UnsupportedError) as caught:
        architecture_of({"model_type": "gpt_oss", "quantization_config": {"quant_method": "mxfp4"}})
    assert "quantis" not in str(caught.value)


def test_the_registry_fills_itself() -> None:
    assert {"gpt2", "gpt_neox", "llama", "mistral", "qwen2"} <= set(REGISTERED)


def test_no_family_is_both_supported_and_not() -> None:
    assert not set(REGISTERED) & set(REASONS)


def tensors_of(family: str, **changes: TensorEntry | None) -> dict[str, TensorEntry]:
    """The headers of a base's layers in bfloat16, changed under names without `model.layers.`."""
    shapes = {
        "self_attn.q_proj": (64, 64),
        "self_attn.k_proj": (32, 64),
        "self_attn.v_proj": (32, 64),
        "self_attn.o_proj": (64, 64),
        "mlp.gate_proj": (128, 64),
        "mlp.up_proj": (128, 64),
        "mlp.down_proj": (64, 128),
    }
    entries = {}
    for layer in range(4):
        for projection, shape in shapes.items():
            name = f"model.layers.{layer}.{projection}"
            entries[f"{name}.weight"] = entry(f"{name}.weight", shape)
            if family == "qwen2" and projection[-6:] in ("q_proj", "k_proj", "v_proj"):
                entries[f"{name}.bias"] = entry(f"{name}.bias", shape[:1])
    for short, changed in changes.items():
        name = f"model.layers.{short}"
        entries.pop(name, None)
        if changed is not None:
            entries[name] = replace(changed, name=name)
    return entries


def entry(name: str, shape: tuple[int, ...], dtype: str = "BF16") -> TensorEntry:
    return TensorEntry(name, dtype, shape, 0, 0)


@pytest.mark.parametrize(("family", "count"), [("llama", 7), ("mistral", 7), ("qwen2", 4)])
def test_biases_are_added_where_none_are(family: str, count: int) -> None:
    architecture = architecture_of(config_of(family))
    short = "3.mlp.down_proj.weight"
    tensors = tensors_of(family, **{short: entry(f"model.layers.{short}", (64, 128), "F32")})
    biases = Linker(architecture, architecture.layer_map([Place(0)])).bias_tensors(tensors)
    layers = {name.split(".")[2] for name in biases}
    assert layers == {"0", "2", "3", "4"}
    assert len(biases) == 4 * count
    bias = biases["model.layers.0.self_attn.o_proj.bias"]
    assert (bias.shape, bias.dtype) == ((64,), torch.bfloat16)
    assert biases["model.layers.0.mlp.up_proj.bias"].shape == (128,)
    assert biases["model.layers.4.mlp.down_proj.bias"].dtype == torch.float32
    if family != "qwen2":
        assert biases["model.layers.2.self_attn.k_proj.bias"].shape == (32,)


@pytest.mark.parametrize(
    ("family", "short", "changed", "message"),
    [
        ("llama", "2.mlp.up_proj.weight", None, "is missing from the base's weights"),
        (
            "llama",
            "2.mlp.up_proj.weight",
            entry("", (127, 64)),
            "found shape [127, 64], expected [128, 64] from config.json",
        ),
        (
            "llama",
            "1.mlp.up_proj.bias",
            entry("", (128,)),
            "LlamaForCausalLM does not read it with this config.json, and the result would",
        ),
        (
            "mistral",
            "1.self_attn.q_proj.bias",
            entry("", (64,)),
            "MistralForCausalLM does not read it",
        ),
        ("qwen2", "0.self_attn.o_proj.bias", entry("", (64,)), "Qwen2ForCausalLM does not read"),
    ],
)
def test_weights_that_contradict_the_config(
    family: str, short: str, changed: TensorEntry | None, message: str
) -> None:
    architecture = architecture_of(config_of(family))
    with pytest.raises(CheckpointError, match=re.escape(message)) as caught:
        Linker(architecture, ()).bias_tensors(tensors_of(family, **{short: changed}))
    assert f"tensor 'model.layers.{short}'" in str(caught.value)


def test_weights_of_another_kind_are_unsupported() -> None:
    short = "0.self_attn.q_proj.weight"
    tensors = tensors_of("llama", **{short: entry("", (64, 64), "F8_E4M3")})
    with pytest.raises(UnsupportedError, match="found dtype F8_E4M3, expected one of F64, F32"):
        Linker(architecture_of(config_of("llama")), ()).bias_tensors(tensors)
