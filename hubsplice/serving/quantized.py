"""Spliced checkpoints that somebody has quantised: are the inserted layers left alone?"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from hubsplice.checkpoint.manifest import Manifest
from hubsplice.serving.quantization import inserted_modules

_LISTS = ("ignore", "ignored_layers", "modules_to_not_convert", "llm_int8_skip_modules")


def quantized_problem(config: Mapping[str, Any], manifest: Manifest) -> str | None:
    """What to warn of where config.json says that the checkpoint is quantised.

    An entry counts where every program would take it for the module: the module's whole name, or
    a regular expression that is marked as one.

    Args:
        config: config.json.
        manifest: of the checkpoint, from before it was quantised.

    Returns:
        None where it is not quantised, or says by name that no inserted layer is.

    Raises:
        UnsupportedError: the checkpoint is of a class whose modules hubsplice does not know.
    """
    quantized = config.get("quantization_config") or config.get("compression_config")
    if not isinstance(quantized, Mapping):
        return None
    entries = [*_excluding(quantized)]
    modules = inserted_modules(manifest)
    rounded = [name for name in modules if not any(_means(entry, name) for entry in entries)]
    if not rounded:
        return None
    return (
        f"quantization_config does not leave out {rounded[0]} and {len(rounded) - 1} more modules "
        "of the inserted layers by name; rounded with the rest, they compute another edit"
    )


def _excluding(quantized: Mapping[str, Any]) -> Iterator[str]:
    for key in _LISTS:
        listed = quantized.get(key)
        if isinstance(listed, list):
            yield from (entry for entry in listed if isinstance(entry, str))
    dynamic = quantized.get("dynamic")
    if isinstance(dynamic, Mapping):
        yield from (f"re:{key[2:]}" for key in dynamic if key.startswith("-:"))


def _means(entry: str, module: str) -> bool:
    if not entry.startswith("re:"):
        return entry == module
    try:
        return re.match(entry[3:], module) is not None
    except re.error:
        return False
