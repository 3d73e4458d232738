"""Whether an SAE fits the stream that it reads: what it explains, and how many features it uses."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from hubsplice.features.amounts import Activity
from hubsplice.features.centring import centred
from hubsplice.features.fit_record import SaeFit
from hubsplice.features.sae import LoadedSae

_TOKENS = 4096
_FEWEST_TOKENS = 128
_NUMBERS_AT_ONCE = 1 << 24
# SAEs have four features or more for each dimension.
_FEWEST_FEATURES = 2
_WORST = -1e9


def measure_fit(sae: LoadedSae, h: Tensor, activity: Mapping[str, Activity]) -> SaeFit:
    """Measure how well an SAE fits.

    Args:
        sae: the SAE.
        h: activations at the site, shape [T, d], float32, sinks left out. Of many, 4,096 are
            taken, at even distances.
        activity: of the edited features, by their names.
    """
    features = dict(activity)
    step = max(1, math.ceil(len(h) / _TOKENS))
    tokens = centred(h[::step]) if sae.config.centred_weights else h[::step]
    total = float((tokens.double() - tokens.double().mean(dim=0)).square().sum())
    reason = _not_judged(sae, tokens, total)
    if reason is not None:
        return SaeFit(features, len(tokens), reason)
    error, used, ever = _reconstruct(sae, tokens)
    explained = 1.0 - error / total
    return SaeFit(
        features=features,
        tokens=len(tokens),
        variance_explained=max(explained, _WORST) if math.isfinite(explained) else _WORST,
        l0=used / len(tokens),
        silent=1.0 - float(ever.double().mean()),
        stated_variance=sae.config.stated_variance,
        stated_l0=sae.config.stated_l0,
    )


def _not_judged(sae: LoadedSae, tokens: Tensor, total: float) -> str | None:
    config = sae.config
    if config.sliced:
        return "it is a part of an SAE, as its configuration says, and a part reconstructs little"
    if config.d_sae < _FEWEST_FEATURES * config.d_in:
        return (
            f"it has {config.d_sae} features for {config.d_in} dimensions; a whole SAE has at "
            f"least {_FEWEST_FEATURES} for each, and a part of one reconstructs little"
        )
    if len(tokens) < _FEWEST_TOKENS:
        return f"calibration has {len(tokens)} tokens that are no sinks, of {_FEWEST_TOKENS} needed"
    if not total or not math.isfinite(total):
        return "the stream does not vary, or is not finite"
    return None


def _reconstruct(sae: LoadedSae, tokens: Tensor) -> tuple[float, int, Tensor]:
    """The squared error, the number of active features, and which ever were, shape [d_sae]."""
    error, used = 0.0, 0
    ever = torch.zeros(sae.config.d_sae, dtype=torch.bool)
    # A wide SAE has a million numbers for eight tokens: activations are made for a few at a time.
    for batch in torch.split(tokens, max(1, _NUMBERS_AT_ONCE // sae.config.d_sae)):
        with torch.no_grad():
            activations = sae.module.encode(batch.to(sae.module.W_enc.device))
            rebuilt = sae.module.decode(activations)
        active = activations != 0
        error += float((rebuilt.cpu().double() - batch.double()).square().sum())
        used += int(active.sum())
        ever |= active.any(dim=0).cpu()
    return error, used, ever
