"""Whether a splice begins as its base does, so that what is before the first edit is passed once.

The files say it: the same class, the same settings, and the same bytes in every tensor of the first
layers. Where anything differs, the splice is measured from its own beginning.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from hubsplice.checkpoint.base import BaseCheckpoint
from hubsplice.checkpoint.tensors import layer_of, same_bits

# What an inserted layer changes in a configuration: how many layers there are, what is said of each
# of them, and which biases there are.
_OF_LAYERS = re.compile(r"num_hidden_layers|n_layer|.*bias.*|max_window_layers|.*layer_types")
_KINDS = frozenset({"layer_types", "no_rope_layers", "mlp_only_layers", "max_window_layers"})
_OF_FILES = re.compile(r"architectures|transformers_version|_name_or_path|dtype|torch_dtype")


def begins_alike(base: Path, spliced: Path, layers: int) -> bool:
    """Whether the first layers of a splice, and its embeddings, are the base's.

    Args:
        base: the base's folder.
        spliced: the splice's.
        layers: how many layers.

    Raises:
        CheckpointError: either can't be read.
    """
    ours, theirs = BaseCheckpoint.open(base), BaseCheckpoint.open(spliced)
    return (
        _settings(ours.config) == _settings(theirs.config)
        and _same_kinds(ours.config, theirs.config, layers)
        and _same_tensors(ours, theirs, layers)
    )


def _settings(config: Mapping[str, Any]) -> dict[str, Any]:
    found = {}
    for name, value in config.items():
        if _OF_LAYERS.fullmatch(name) or _OF_FILES.fullmatch(name):
            continue
        if isinstance(value, Mapping):
            found[name] = _settings(value)
        elif not isinstance(value, list):
            found[name] = value
    return found


def _same_kinds(ours: Mapping[str, Any], theirs: Mapping[str, Any], layers: int) -> bool:
    """Whether the first layers are of the same kinds, as far as both configurations say it."""

    def said(value: Any, name: str) -> Any:
        if name == "max_window_layers" and isinstance(value, int):
            return min(value, layers)
        if name == "mlp_only_layers" and isinstance(value, list):
            return sorted(index for index in value if index < layers)
        # One entry for each layer.
        return value[:layers] if isinstance(value, list) else None

    for name in ours.keys() & theirs.keys():
        a, b = ours[name], theirs[name]
        if isinstance(a, Mapping) and isinstance(b, Mapping):
            if not _same_kinds(a, b, layers):
                return False
        elif name in _KINDS and type(a) is type(b) and said(a, name) != said(b, name):
            return False
    return True


def _same_tensors(base: BaseCheckpoint, spliced: BaseCheckpoint, layers: int) -> bool:
    def before(names: Iterable[str]) -> set[str]:
        # What is in no layer is before all of them, or behind.
        return {name for name in names if (layer := layer_of(name)) is None or layer < layers}

    ours, theirs = before(base.tensors), before(spliced.tensors)
    if not ours <= theirs:
        return False
    # A bias that only the inserted layers need is zero in all others.
    return all(same_bits(base.load(name), spliced.load(name)) for name in ours) and not any(
        spliced.load(name).any() for name in theirs - ours
    )
