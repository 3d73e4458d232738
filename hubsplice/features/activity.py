"""How active features are on calibration text."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from hubsplice.features.amounts import Activity
from hubsplice.features.base import Feature
from hubsplice.intervention.site import Site, Term

_TOKENS_AT_ONCE = 4096


def feature_activity(features: Sequence[Feature], h: Tensor) -> dict[str, Activity]:
    """How active each feature is, by its name.

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
    found = [site.activations(tokens) for tokens in torch.split(h, _TOKENS_AT_ONCE)]
    largest = torch.stack([f.amax(dim=0) for f in found]).amax(dim=0)
    active = torch.stack([(f != 0).sum(dim=0) for f in found]).sum(dim=0)
    total = torch.stack([f.double().sum(dim=0) for f in found]).sum(dim=0)
    return {
        feature.name: Activity(
            maximum=float(largest[i]),
            mean=float(total[i] / active[i]) if active[i] else 0.0,
            active_tokens=int(active[i]),
            scanned_tokens=len(h),
        )
        for i, feature in enumerate(features)
    }
