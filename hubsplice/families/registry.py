"""The registry of model families, by the `model_type` of their config.json."""

from __future__ import annotations

from collections.abc import Mapping

from hubsplice.families.family import Family, ModelClass
from hubsplice.registry import Registry

FAMILIES: Registry[Family] = Registry("hubsplice.families")


def model_classes() -> Mapping[str, ModelClass]:
    """The classes that spliced models are served as, by name."""
    return {family.becomes.name: family.becomes for _, family in FAMILIES.items()}
