"""An SAE for a base: found, and read as it has to be in the base's family."""

from __future__ import annotations

from dataclasses import replace

from hubsplice.families.architecture import Architecture
from hubsplice.families.blocks import Construction
from hubsplice.features.references import SaeSource
from hubsplice.features.sae_config import FoundSae, find_sae
from hubsplice.features.sae_files import require_weights
from hubsplice.features.sae_match import require_width
from hubsplice.features.sae_support import require_supported


def base_sae(source: SaeSource, architecture: Architecture) -> FoundSae:
    """What a recipe names, if it can be spliced into the base; no weight is read.

    Raises:
        HubspliceError: it is not there, is of a kind that can't be spliced, has no weights that
            can be read, or reads streams of another width.
    """
    sae = as_trained(find_sae(source), architecture)
    require_supported(sae.config)
    require_weights(sae)
    require_width(sae.config, architecture.hidden_size)
    return sae


def as_trained(sae: FoundSae, architecture: Architecture) -> FoundSae:
    """An SAE without the note that weights were centred, where they can't have been.

    TransformerLens leaves the weights of a model alone whose norms see the mean.
    """
    if architecture.family.becomes.block.construction is Construction.LAYERNORM:
        return sae
    return replace(sae, config=replace(sae.config, centred_weights=False))
