"""The exclusion lists under vLLM's own rules, in vLLM's own environment."""

from __future__ import annotations

import json
import os
import subprocess

import pytest

from hubsplice.families.registry import model_classes
from hubsplice.serving.quantization import QuantizationFormat, exclusions
from tests.serve.test_exclusions import FUSED, LAYERS, is_inserted, model_of

pytestmark = pytest.mark.serving

SCRIPT = """
import json, sys
from types import SimpleNamespace
from vllm.config.quantization import resolve_quantization_config
from vllm.model_executor.layers.linear import LinearBase
from vllm.model_executor.layers.quantization.compressed_tensors.utils import should_ignore_layer
from vllm.model_executor.layers.quantization.online.base import OnlineQuantizationConfig
from vllm.model_executor.layers.quantization.utils.gptq_utils import get_dynamic_override
from vllm.model_executor.layers.quantization.utils.quant_utils import is_layer_skipped

given = json.load(sys.stdin)
found = []
for case in given["cases"]:
    lists, names = case["lists"], case["names"]
    online = OnlineQuantizationConfig(
        resolve_quantization_config("fp8_per_tensor", lists["vllm-online"])
    )
    online.packed_modules_mapping = given["fused"]
    dynamic = SimpleNamespace(dynamic=lists["gptq"]["dynamic"])
    fused = given["fused"]
    found.append({
        "vllm-online": [online.resolve_quant_method_cls(LinearBase, n) is None for n in names],
        "gptq": [get_dynamic_override(dynamic, n) is False for n in names],
        "fp8": [is_layer_skipped(n, lists["fp8"]["modules_to_not_convert"], fused) for n in names],
        "awq": [
            is_layer_skipped(
                n, lists["awq"]["modules_to_not_convert"], fused, match_mode="substring"
            )
            for n in names
        ],
        "compressed-tensors": [
            should_ignore_layer(n, lists["compressed-tensors"]["ignore"], fused) for n in names
        ],
    })
print("FOUND" + json.dumps(found))
"""
# Classes whose modules vLLM calls as the checkpoint does, and those that it renames, for which
# only the option of its own command line holds its names.
CLASSES = sorted(model_classes())


def test_vllm_leaves_out_the_inserted_layer_alone() -> None:
    python = os.environ.get("HUBSPLICE_VLLM_PYTHON")
    if python is None:
        pytest.skip("HUBSPLICE_VLLM_PYTHON names no interpreter; `make test-serving` makes one")
    cases = []
    for name in CLASSES:
        known = model_classes()[name]
        maps = [
            p.replace("q_proj", "qkv_proj").replace("gate_proj", "gate_up_proj")
            for p in known.projections
            if p.rsplit(".")[-1] not in ("k_proj", "v_proj", "up_proj")
        ]
        prefix = known.vllm_prefix or known.prefix
        cases.append(
            {
                "names": [f"{prefix}{layer}.{p}" for layer in range(LAYERS) for p in maps],
                "lists": {
                    kind.value: exclusions(model_of(name), kind).as_config()
                    for kind in QuantizationFormat
                },
            }
        )
    environment = os.environ | {"VLLM_NO_USAGE_STATS": "1"}
    environment.pop("PYTHONPATH", None)
    result = subprocess.run(
        [python, "-c", SCRIPT],
        input=json.dumps({"cases": cases, "fused": FUSED}),
        capture_output=True,
        text=True,
        env=environment,
        check=False,
    )
    assert result.returncode == 0, result.stderr[-3000:]
    answers = json.loads(result.stdout.rsplit("FOUND", 1)[-1])
    for name, case, answer in zip(CLASSES, cases, answers, strict=True):
        wanted = [is_inserted(module) for module in case["names"]]
        assert answer["vllm-online"] == wanted, name
        if model_classes()[name].vllm_prefix is None:
            assert all(found == wanted for found in answer.values()), name
