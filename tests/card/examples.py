"""A manifest and a report, built by hand."""

from __future__ import annotations

import datetime
from pathlib import Path
from typing import Any

from huggingface_hub import ModelCard

from hubsplice.checkpoint.engine_runs import EngineRun
from hubsplice.checkpoint.manifest import Manifest, write_manifest
from hubsplice.fidelity.report import FidelityReport

SHA = "0123456789abcdef" * 4
COMMIT = "f" * 40


def metadata(card: str) -> dict[str, Any]:
    """What the Hub reads in front of a card."""
    found: dict[str, Any] = ModelCard(card).data.to_dict()  # type: ignore[no-untyped-call]
    return found


def term(**fields: Any) -> dict[str, Any]:
    return {
        "label": "ablate feature 12 (regular expressions)",
        "kind": "ablate",
        "feature": 12,
        "formula": "h − f·d",
        "edit": {"kind": "ablate", "feature": 12, "label": "regular expressions"},
        "source": {"release": "some-release", "id": "layer_1"},
        "source_sha256": SHA,
    } | fields


def manifest(**fields: Any) -> Manifest:
    content = {
        "schema_version": 1,
        "hubsplice": "0.1.0",
        "base": {
            "name": "owner/Some-Model_1B",
            "repo_id": "owner/Some-Model_1B",
            "commit": COMMIT,
            "files": {"model.safetensors": {"sha256": SHA, "size": 12}},
        },
        "architectures": {"before": "MistralForCausalLM", "after": "LlamaForCausalLM"},
        "layer_map": [{"base": 0}, {"base": 1}, {"splice": 0}, {"base": 2}, {"splice": 1}],
        "config_changes": {
            "num_hidden_layers": {"before": 3, "after": 5},
            "attention_bias": {"after": True},
            "mlp_bias": {"before": False, "after": True},
            "sliding_window": {"before": None},
        },
        "zero_tensors": ["model.layers.0.mlp.up_proj.bias"],
        "layers": [
            {
                "site": 1,
                "construction": "prenorm-bias",
                "constants": {"neurons": 1234},
                "terms": [
                    term(),
                    term(
                        label="scale feature 40",
                        kind="scale",
                        feature=40,
                        formula="h + (factor − 1)·f·d",
                        edit={"kind": "scale", "feature": 40, "factor": 4.0, "label": None},
                    ),
                ],
            },
            {
                "site": 2,
                "construction": "prenorm-bias",
                "constants": {},
                "terms": [
                    term(
                        label="steer vector",
                        kind="steer",
                        feature=None,
                        formula="h + |strength|·d",
                        edit={"kind": "steer", "vector": {"path": "/home/me/secret/vector.st"}},
                        source={"file": "vector.st"},
                        source_sha256=None,
                    )
                ],
            },
        ],
        "calibration": {
            "dataset": "builtin",
            "revision": "python 3.11.2",
            "token_ids_sha256": SHA,
            "tokens": 20000,
            "seed": 7,
            "median_norm": {"1": 147.25, "2": 151.0},
            "sink_norm": {"1": 736.2, "2": None},
        },
        "dtype": "bfloat16",
        "seeds": {"build": 7},
        "versions": {"python": "3.11.2", "torch": "2.13.0"},
        "files": {
            "LICENSE": {"sha256": SHA, "size": 11357},
            "config.json": {"sha256": SHA, "size": 3},
            "fidelity.json": {"sha256": SHA, "size": 5},
            "model.safetensors": {"sha256": SHA, "size": 270_000_000},
            "reproduce/recipe.yaml": {"sha256": SHA, "size": 40},
        },
    }
    return Manifest.model_validate(content | fields)


def distribution(mean: float) -> dict[str, float]:
    return {
        "mean": mean,
        "median": mean / 2,
        "p99": mean * 10,
        "max": mean * 1000,
        "mean_without_top": mean * 0.9,
    }


def site(**fields: Any) -> dict[str, Any]:
    return {
        "layer": 1,
        "edited_tokens": 4321,
        "residual_error": distribution(2.2e-2),
        "overall_residual_error": 1.9e-2,
        "sink_tokens": 17,
        "largest_sink_change": 1.2e-5,
        "features": [
            {
                "label": "ablate feature 12 (regular expressions)",
                "edited_tokens": 4000,
                "residual_error": 2.1e-2,
                "gate_f1": 0.9935,
            },
            {
                "label": "scale feature 40",
                "edited_tokens": 0,
                "residual_error": None,
                "gate_f1": None,
            },
        ],
    } | fields


def report(**fields: Any) -> FidelityReport:
    content = {
        "verdict": "Within the noise floor in bfloat16: ratio 1.02 (0.95–1.10), at most 1.05 asked",
        "passed": True,
        "required_ratio": 1.05,
        "text": {
            "dataset": "builtin",
            "revision": "python 3.11.2",
            "tokens": 20480,
            "sequences": 80,
            "sequence_length": 256,
            "token_ids_sha256": SHA,
            "seed": 3,
        },
        "scored_tokens": 20111,
        "device": "cpu",
        "edit_effect": distribution(0.1234),
        "precisions": [
            {
                "dtype": "float32",
                "noise_floor": None,
                "splice_error": distribution(7.3e-7),
                "ratio": None,
                "clipped_ratio": None,
                "effect_over_error": 169041.1,
                "hook_top1_agreement": 1.0,
                "splice_top1_agreement": 0.99991,
                "sites": [site()],
            },
            {
                "dtype": "bfloat16",
                "noise_floor": distribution(1.7e-3),
                "splice_error": distribution(1.734e-3),
                "ratio": {"value": 1.02, "low": 0.95, "high": 1.1},
                "clipped_ratio": {"value": 1.012, "low": 0.991, "high": 1.0349},
                "effect_over_error": 71.2,
                "hook_top1_agreement": 0.9852,
                "splice_top1_agreement": 0.9849,
                "sites": [site(overall_residual_error=0.0301)],
            },
        ],
        "plain_hook": {"divergence": distribution(0.031), "tokens": 1016},
        "greedy": {
            "dtype": "bfloat16",
            "prompts": 16,
            "new_tokens": 64,
            "identical": 9,
            "mean_matching_tokens": 52.25,
            "hook_to_reference": 51.0,
        },
        "approximations": ["TopK of feature 12 is a threshold: gate F1 0.97 on calibration text"],
    }
    return FidelityReport.model_validate(content | fields)


RUN = EngineRun(
    engine="vLLM",
    version="0.32.0",
    device="cpu",
    dtype="bfloat16",
    date=datetime.date(2026, 11, 29),
    hubsplice="0.1.0",
    passed=True,
    prompts=8,
    generated_tokens=128,
    error=0.0123,
    noise_floor=0.011,
    effect=0.41,
    weights=SHA,
)


def built_folder(folder: Path) -> Path:
    """A checkpoint as far as a card is made of it, without a recipe."""
    (folder / "reproduce").mkdir(parents=True)
    write_manifest(manifest(), folder)
    (folder / "fidelity.json").write_text(report().model_dump_json())
    return folder
