"""What Python code puts into a recipe, as the plain data that YAML gives."""

from __future__ import annotations

from collections.abc import Mapping
from os import PathLike, fspath
from typing import Any

from pydantic import BaseModel


def as_plain(value: Any) -> Any:
    """The value as dicts, lists, text and numbers; what is none of these stays as it is.

    Paths become text, parts of a recipe become mappings, and numbers of numpy and torch become
    Python's own.
    """
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json")
    if isinstance(value, Mapping):
        return {key: as_plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [as_plain(item) for item in value]
    if isinstance(value, PathLike):
        return fspath(value)
    if getattr(value, "shape", None) == () and hasattr(value, "item"):
        return value.item()
    return value
