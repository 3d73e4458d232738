"""Where a feature has a page at Neuronpedia, by SAELens's registry."""

from __future__ import annotations

from hubsplice.features.references import SaeSource
from hubsplice.features.sae_registry import neuronpedia_id

_SITE = "https://www.neuronpedia.org"


def feature_link(source: SaeSource, feature: int) -> str | None:
    """The address of a feature's page; None where the registry names none."""
    if source.release is None or source.id is None:
        return None
    name = neuronpedia_id(source.release, source.id)
    return None if name is None else f"{_SITE}/{name}/{feature}"
