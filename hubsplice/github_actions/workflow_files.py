"""The files through which a step tells the runner its outputs."""

from __future__ import annotations

import secrets
from collections.abc import Mapping


def workflow_outputs(values: Mapping[str, str]) -> str:
    """Lines for the file that `GITHUB_OUTPUT` names.

    No value can end its own entry and set another: the delimiter can't be guessed.

    Args:
        values: by the output's name.
    """
    entries = []
    for name, value in values.items():
        delimiter = f"end-{secrets.token_hex(16)}"
        entries.append(f"{name}<<{delimiter}\n{value}\n{delimiter}\n")
    return "".join(entries)
