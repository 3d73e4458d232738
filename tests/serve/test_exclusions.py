"""Exclusion lists leave the inserted layers out, by the programs' own rules, and nothing else."""

from __future__ import annotations

import json
import re
from fnmatch import fnmatch
from typing import Any

import pytest
import torch
from torch import nn
from transformers import BitsAndBytesConfig
from transformers.quantizers.base import HfQuantizer
from transformers.quantizers.quantizers_utils import should_convert_module

from hubsplice.errors import UnsupportedError
from hubsplice.families.registry import model_classes
from hubsplice.serving.quantization import QuantizationFormat, exclusions, inserted_modules
from hubsplice.serving.quantized import quantized_problem
from tests.serve.manifests import manifest

# With these numbers a careless match takes others for the inserted layer: 1 and 10 to 19, 11.
LAYERS = 21
INSERTED = 1
FUSED = {
    "qkv_proj": ("q_proj", "k_proj", "v_proj"),
    "gate_up_proj": ("gate_proj", "up_proj"),
}


def model_of(name: str, **fields: Any) -> Any:
    layer_map: list[dict[str, int]] = [{"base": i} for i in range(LAYERS - 1)]
    layer_map.insert(INSERTED, {"splice": 0})
    layers = [{"site": 0, "construction": "x", "constants": {}, "terms": []}]
    return manifest(name, layer_map=layer_map, layers=layers, **fields)


def modules(name: str, prefix: str | None = None) -> list[str]:
    """Every linear map of the decoder."""
    known = model_classes()[name]
    return [
        f"{prefix or known.prefix}{layer}.{projection}"
        for layer in range(LAYERS)
        for projection in known.projections
    ]


def is_inserted(module: str) -> bool:
    return re.search(rf"\.{INSERTED}\.", module) is not None


def excluded(name: str, kind: QuantizationFormat) -> Any:
    return exclusions(model_of(name), kind).value


def test_of_a_layer_that_is_torn_apart_the_one_with_its_mlp_counts() -> None:
    layers = [{"site": 0, "block": "attention", "construction": "x", "constants": {}, "terms": []}]
    base, splice = {"base": 0}, {"splice": 0}
    torn = [{"attention": base, "mlp": splice}, {"attention": splice, "mlp": base}]
    of = manifest("LlamaForCausalLM", layer_map=[*torn, {"base": 1}], layers=layers)
    assert {name.split(".")[2] for name in inserted_modules(of)} == {"0"}


classes = pytest.mark.parametrize("name", sorted(model_classes()))


@classes
@pytest.mark.parametrize(
    "kind",
    [
        QuantizationFormat.FP8,
        QuantizationFormat.AWQ,
        QuantizationFormat.TORCHAO,
        QuantizationFormat.BITSANDBYTES,
    ],
)
def test_transformers_converts_all_but_the_inserted_layer(
    name: str, kind: QuantizationFormat
) -> None:
    patterns = excluded(name, kind)
    for module in modules(name):
        assert should_convert_module(module, patterns) is not is_inserted(module), module


def test_bitsandbytes_still_leaves_the_output_head_alone() -> None:
    patterns = excluded("LlamaForCausalLM", QuantizationFormat.BITSANDBYTES)
    config = BitsAndBytesConfig(load_in_8bit=True, llm_int8_skip_modules=patterns)
    head = nn.Module()
    head.lm_head = nn.Linear(2, 2)
    kept = HfQuantizer.get_modules_to_not_convert(head, config.llm_int8_skip_modules)
    assert not should_convert_module("lm_head", kept)


@classes
def test_compressed_tensors_own_matching(name: str) -> None:
    match = pytest.importorskip("compressed_tensors.utils.match")
    ignore = excluded(name, QuantizationFormat.COMPRESSED_TENSORS)
    root = nn.Module()
    for module in modules(name):
        parent: nn.Module = root
        *path, last = module.split(".")
        for part in path:
            if not hasattr(parent, part):
                parent.add_module(part, nn.Module())
            parent = parent.get_submodule(part)
        with torch.device("meta"):
            parent.add_module(last, nn.Linear(1, 1))
    quantised = {n for n, _ in match.match_named_modules(root, ["Linear"], ignore)}
    assert quantised == {module for module in modules(name) if not is_inserted(module)}


@classes
def test_vllm_online_patterns_match_fused_and_separate_maps(name: str) -> None:
    known = model_classes()[name]
    patterns = excluded(name, QuantizationFormat.VLLM_ONLINE)
    names = modules(name, known.vllm_prefix)
    names += [f"{known.vllm_prefix or known.prefix}{i}.mlp.gate_up_proj" for i in range(LAYERS)]
    for module in names:
        assert any(fnmatch(module, p) for p in patterns) is is_inserted(module), module


@classes
def test_gptq_patterns(name: str) -> None:
    dynamic = excluded(name, QuantizationFormat.GPTQ)
    fused = [f"{model_classes()[name].prefix}{i}.self_attn.qkv_proj" for i in range(LAYERS)]
    for module in [*modules(name), *fused]:
        # As GPTQModel and vLLM match them.
        found = any(re.match(key.removeprefix("-:"), module) for key in dynamic)
        assert found is is_inserted(module), module


def test_awq_matches_parts_of_names() -> None:
    parts = excluded("LlamaForCausalLM", QuantizationFormat.AWQ)
    for module in modules("LlamaForCausalLM"):
        assert any(part in module for part in parts) is is_inserted(module), module


def test_a_class_that_is_not_known_is_refused() -> None:
    with pytest.raises(UnsupportedError, match="'NobodysForCausalLM' is no class"):
        exclusions(manifest("NobodysForCausalLM"), QuantizationFormat.FP8)


@pytest.mark.parametrize("kind", QuantizationFormat)
def test_a_quantised_config_with_the_list_is_no_problem(kind: QuantizationFormat) -> None:
    spliced = model_of("LlamaForCausalLM")
    left = exclusions(spliced, kind)
    json.dumps(left.as_config())
    if kind is QuantizationFormat.VLLM_ONLINE:
        assert left.place == "--quantization-config"
    else:
        config = {left.place: {"quant_method": kind.value, **left.as_config()}}
        assert quantized_problem(config, spliced) is None


@pytest.mark.parametrize(
    "quantized",
    [
        {"quant_method": "fp8"},
        {"quant_method": "fp8", "ignored_layers": ["lm_head"]},
        {"quant_method": "awq", "modules_to_not_convert": ["layers.1"]},
        {"quant_method": "gptq", "dynamic": {r"-:model\.layers\.2\..*": {}}},
        {"quant_method": "compressed-tensors", "ignore": ["re:model.layers.1.mlp.*", "re:("]},
    ],
)
def test_a_quantised_config_that_rounds_inserted_layers_is_told_of(quantized: Any) -> None:
    spliced = model_of("LlamaForCausalLM")
    problem = quantized_problem({"quantization_config": quantized}, spliced)
    assert problem is not None
    assert "model.layers.1." in problem


def test_an_unquantised_config_is_no_problem() -> None:
    spliced = model_of("LlamaForCausalLM")
    assert quantized_problem({}, spliced) is None
    assert len(inserted_modules(spliced)) == 7
