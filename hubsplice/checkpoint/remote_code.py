"""Python code that a base's configuration names. None of it is ever run.

A class that transformers has needs no such code, and loads without it whatever the configuration
names: released models keep the field from the time before their class was taken up.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

_FIELDS = ("auto_map", "custom_code")


def code_reasons(config: Mapping[str, Any]) -> Iterator[str]:
    """Why what transformers has no class for can't be loaded, where that is code of its own."""
    for name in _FIELDS:
        if config.get(name):
            yield (
                f"{name}: asks for Python code from the repository ({config[name]!r}), and "
                "hubsplice never runs such code"
            )
