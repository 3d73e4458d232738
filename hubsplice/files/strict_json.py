"""JSON objects of checkpoints, parsed so that two readers cannot understand them differently."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from hubsplice.errors import CheckpointError
from hubsplice.files.plain import read_plain


def read_object(path: Path, *, source: str | None = None) -> dict[str, Any]:
    """Read a file that holds a JSON object, which `parse_object` parses.

    Args:
        path: the file.
        source: what messages call it; None for its path.

    Raises:
        CheckpointError: it can't be read, or as `parse_object`.
    """
    source = source or str(path)
    try:
        return parse_object(read_plain(path), source=source)
    except OSError as error:
        raise CheckpointError(f"{source}: cannot be read: {error.strerror}") from None


def parse_object(data: bytes, *, source: str) -> dict[str, Any]:
    """Parse a JSON object; duplicate keys, NaN and infinities are refused.

    Args:
        data: UTF-8 text.
        source: what it was read from, for messages.

    Raises:
        CheckpointError: not UTF-8, not JSON, not an object, or ambiguous.
    """
    try:
        value = json.loads(
            data.decode(),
            object_pairs_hook=_without_duplicates,
            parse_constant=_refuse_constant,
            parse_int=_integer,
        )
    except RecursionError:
        raise CheckpointError(f"{source}: its JSON is nested too deeply") from None
    except ValueError as error:
        raise CheckpointError(f"{source}: not valid JSON ({error})") from None
    if not isinstance(value, dict):
        raise CheckpointError(f"{source}: expected a JSON object, found {type(value).__name__}")
    return value


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise ValueError(f"the key {key!r} is there twice")
        found[key] = value
    return found


def _refuse_constant(constant: str) -> Any:
    raise ValueError(f"{constant} is not a JSON number")


def _integer(text: str) -> int:
    # Other parsers read a negative zero as a fraction.
    if text == "-0":
        raise ValueError("-0 is not an integer")
    return int(text)
