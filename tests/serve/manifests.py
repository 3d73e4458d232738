"""Manifests of spliced models, built by hand: a layer after each of the base's second and third."""

from __future__ import annotations

from typing import Any

from hubsplice.checkpoint.layer_map import inserted_indices
from hubsplice.checkpoint.manifest import Manifest
from hubsplice.families.registry import model_classes
from hubsplice.families.tensors import ATTENTION

SHA = "0123456789abcdef" * 4
INSERTED = (2, 4)


def manifest(after: str = "LlamaForCausalLM", **fields: Any) -> Manifest:
    """What a splice into that class says, with biases that are zero where hubsplice leaves them."""
    layer = {"construction": "x", "constants": {}, "terms": []}
    content = {
        "schema_version": 1,
        "hubsplice": "0.1.0",
        "base": {"name": "owner/model", "repo_id": "owner/model", "commit": "f" * 40, "files": {}},
        "architectures": {"before": after, "after": after},
        "layer_map": [{"base": 0}, {"base": 1}, {"splice": 0}, {"base": 2}, {"splice": 1}],
        "config_changes": {
            "num_hidden_layers": {"before": 3, "after": 5},
            **{
                switch.field: {"before": False, "after": True}
                for switch in getattr(model_classes().get(after), "switches", ())
            },
        },
        "zero_tensors": [],
        "layers": [{"site": 1, **layer}, {"site": 2, **layer}],
        "dtype": "bfloat16",
        "seeds": {},
        "versions": {},
        "files": {},
    }
    return Manifest.model_validate(content | fields)


def zero_biases(*projections: str, prefix: str = "model.layers.", layers: int = 5) -> list[str]:
    """The names of these biases in every layer."""
    return [f"{prefix}{i}.{name}.bias" for i in range(layers) for name in projections]


QKV = ATTENTION[:3]


def inserted(of: Manifest) -> tuple[int, ...]:
    return inserted_indices(of.layer_map)
