"""An adapter as PEFT stores it: `adapter_config.json` and `adapter_model.safetensors`."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from hubsplice.adapters.carrier import MODULES, Carrier
from hubsplice.checkpoint.companions import ADAPTER_CONFIG, ADAPTER_WEIGHTS
from hubsplice.constructions.slots import Factors
from hubsplice.errors import CheckpointError, blamed_on
from hubsplice.files.strict_json import read_object

FINGERPRINT = "hubsplice_carrier"
"""What the weights' metadata calls the carrier's fingerprint."""

_PREFIX = "base_model.model."
_NAME = re.compile(rf"{re.escape(_PREFIX)}(?P<module>.+)\.lora_(?P<side>[AB])\.weight")


def peft_config(carrier: Carrier, rank: int, splices: list[int]) -> dict[str, Any]:
    """The content of adapter_config.json.

    Args:
        carrier: what the adapter is for.
        rank: of every change.
        splices: which of the carrier's inserted layers are changed.
    """
    modules = [name for splice in splices for name in carrier.modules(splice).values()]
    return {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": carrier.name,
        "revision": carrier.commit,
        "inference_mode": True,
        "r": rank,
        # Equal to the rank, so that changes are not scaled.
        "lora_alpha": rank,
        "lora_dropout": 0.0,
        "bias": "none",
        "fan_in_fan_out": False,
        "use_rslora": False,
        "use_dora": False,
        # Full names: a name such as down_proj would be every layer's.
        "target_modules": modules,
        "modules_to_save": None,
    }


def write_adapter(
    carrier: Carrier, changes: Mapping[int, Mapping[str, Factors]], folder: Path
) -> tuple[str, ...]:
    """Write both files to a folder that has neither.

    Args:
        carrier: what the adapter is for.
        changes: by inserted layer of the carrier and by role; all of them of one rank.
        folder: an existing one.

    Returns:
        Their names.
    """
    (rank,) = {f.a.shape[0] for roles in changes.values() for f in roles.values()}
    tensors: dict[str, Tensor] = {}
    for splice, roles in changes.items():
        modules = carrier.modules(splice)
        for role, factors in roles.items():
            name = f"{_PREFIX}{modules[role]}.lora_"
            tensors[f"{name}A.weight"] = factors.a.contiguous()
            tensors[f"{name}B.weight"] = factors.b.contiguous()
    metadata = {"format": "pt", FINGERPRINT: carrier.fingerprint}
    save_file(dict(sorted(tensors.items())), folder / ADAPTER_WEIGHTS, metadata)
    config = peft_config(carrier, rank, sorted(changes))
    text = json.dumps(config, indent=2, sort_keys=True) + "\n"
    (folder / ADAPTER_CONFIG).write_text(text, encoding="utf-8")
    return ADAPTER_CONFIG, ADAPTER_WEIGHTS


def read_adapter(carrier: Carrier, folder: Path) -> dict[int, dict[str, Factors]]:
    """The changes that an adapter makes to a carrier, by inserted layer and by role.

    Raises:
        CheckpointError: it is an adapter of another kind or for another carrier, or touches
            anything but the carrier's inserted layers.
    """
    config = read_object(folder / ADAPTER_CONFIG)
    path = folder / ADAPTER_WEIGHTS
    with blamed_on(f"{path}: it cannot be read"), safe_open(path, framework="pt") as file:
        metadata = file.metadata() or {}
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    found = metadata.get(FINGERPRINT)
    if found != carrier.fingerprint:
        raise CheckpointError(
            f"{path}: it is for another carrier, or another revision of it: found fingerprint "
            f"{found!r}, expected {carrier.fingerprint!r}, that of {carrier.name}"
        )
    at = {
        module: (splice, role)
        for splice in range(len(carrier.places))
        for role, module in carrier.modules(splice).items()
    }
    sides: dict[tuple[int, str], dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        match = _NAME.fullmatch(name)
        if match is None or match["module"] not in at:
            raise CheckpointError(
                f"{path}: {name!r} is no change of the carrier's inserted layers, and an adapter "
                "touches nothing else"
            )
        sides.setdefault(at[match["module"]], {})[match["side"]] = tensor
    changes: dict[int, dict[str, Factors]] = {}
    for (splice, role), both in sides.items():
        if set(both) != {"A", "B"}:
            raise CheckpointError(f"{path}: {carrier.modules(splice)[role]}: one half is missing")
        changes.setdefault(splice, {})[role] = Factors(both["A"], both["B"])
    for splice, roles in changes.items():
        if set(roles) != set(MODULES):
            missing = ", ".join(sorted(set(MODULES) - set(roles)))
            raise CheckpointError(f"{path}: layer {carrier.places[splice]}: no change of {missing}")
    _require_config(folder / ADAPTER_CONFIG, config, carrier, changes)
    return changes


def _require_config(
    path: Path,
    config: Mapping[str, Any],
    carrier: Carrier,
    changes: Mapping[int, Mapping[str, Factors]],
) -> None:
    """Refuse a configuration that would have an engine do something else with the weights."""
    ranks = {factors.a.shape[0] for roles in changes.values() for factors in roles.values()}
    if len(ranks) != 1:
        raise CheckpointError(f"{path}: found no one rank of all changes: {sorted(ranks)}")
    wanted = peft_config(carrier, ranks.pop(), sorted(changes))
    for key in ("base_model_name_or_path", "revision", "inference_mode"):
        del wanted[key]
    for key, value in wanted.items():
        if config.get(key) != value:
            raise CheckpointError(f"{path}: {key}: found {config.get(key)!r}, expected {value!r}")
