"""The config.json of a base, given back from the result's and the manifest's list of changes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hubsplice.checkpoint.companions import CONFIG
from hubsplice.checkpoint.manifest import ConfigChange
from hubsplice.errors import CheckpointError


def original_config(
    config: Mapping[str, Any], changes: Mapping[str, ConfigChange]
) -> dict[str, Any]:
    """The base's configuration.

    Args:
        config: the result's.
        changes: what differs between the two, by key.

    Raises:
        CheckpointError: the result's says something else than the changes have it say.
    """
    original = dict(config)
    for key, change in changes.items():
        sides = change.model_dump()
        if original.get(key) != sides.get("after"):
            raise CheckpointError(
                f"{CONFIG}: {key}: found {original.get(key)!r}, expected {sides.get('after')!r}, "
                "as the manifest says of the splice; the base's value can't be told"
            )
        original.pop(key, None)
        if "before" in sides:
            original[key] = sides["before"]
    return original
