"""The registry of model families, by the `model_type` of their config.json."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hubsplice.architectures.base import CONFIG_FIELD, Architecture
from hubsplice.architectures.unsupported import REASONS
from hubsplice.errors import UnsupportedError, unknown_name
from hubsplice.registry import Registry

ARCHITECTURES: Registry[type[Architecture[Any]]] = Registry("hubsplice.architectures")


def architecture_of(config: Mapping[str, Any]) -> Architecture[Any]:
    """The family of a base, from its config.json; `validate` says whether it can be spliced.

    Raises:
        UnsupportedError: no family of that `model_type`, with the reason where it is known.
    """
    families = dict(ARCHITECTURES.items())
    model_type = config.get("model_type")
    field = f"{CONFIG_FIELD}: model_type"
    if not isinstance(model_type, str):
        raise UnsupportedError(unknown_name(field, model_type, families))
    if model_type in families:
        return families[model_type](config)
    if model_type in REASONS:
        raise UnsupportedError(
            f"{field}: {model_type!r} is not supported: {REASONS[model_type]}. "
            f"Supported: {', '.join(families)}."
        )
    raise UnsupportedError(unknown_name(field, model_type, families))
