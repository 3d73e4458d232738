"""The largest activations of features over calibration text."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from hubsplice.features.base import Feature
from hubsplice.intervention.site import Site, Term

_TOKENS_AT_ONCE = 4096


def max_activations(features: Sequence[Feature], h: Tensor) -> dict[str, float]:
    """The largest activation of each feature, by its name.

    Args:
        features: the features.
        h: activations at the site, shape [T, d], T > 0, sinks left out.
    """
    if not features:
        return {}
    terms = tuple(
        Term(f.name, f.encoder, f.bias, f.activation, f.decoder, f.normalization) for f in features
    )
    site = Site(layer=0, terms=terms)
    largest = torch.stack(
        [site.activations(tokens).amax(dim=0) for tokens in torch.split(h, _TOKENS_AT_ONCE)]
    ).amax(dim=0)
    return dict(zip((f.name for f in features), largest.tolist(), strict=True))
