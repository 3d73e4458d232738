"""Thresholds that stand in for TopK's competition between features."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from hubsplice.features.extract import CalibratedGate, read_out
from hubsplice.features.sae import LoadedSae
from hubsplice.intervention.piecewise_linear import PiecewiseLinear
from hubsplice.intervention.site import Site, Term

_TOKENS_AT_ONCE = 256


def calibrate_thresholds(
    sae: LoadedSae, h: Tensor, features: Sequence[int]
) -> dict[int, CalibratedGate]:
    """Choose each feature's threshold so that its gate has the best F1 against the competition.

    Args:
        sae: a TopK or AbsTopK SAE.
        h: activations at the site, shape [T, d], sinks left out.
        features: the indices of the features to calibrate.

    Raises:
        RecipeError: an index is out of range, or a feature's decoder row is all zeros.
    """
    indices = list(dict.fromkeys(features))
    if not indices:
        return {}
    scores, wins = _scores_and_wins(sae, h, indices)
    return {
        index: _best_gate(scores[:, column], wins[:, column])
        for column, index in enumerate(indices)
    }


def _scores_and_wins(sae: LoadedSae, h: Tensor, indices: list[int]) -> tuple[Tensor, Tensor]:
    """Pre-activations (AbsTopK: their magnitudes) and who won, each of shape [T, n]."""
    linear = PiecewiseLinear.linear(1.0)
    outs = [read_out(sae, index) for index in indices]
    terms = tuple(
        Term(str(index), out.encoder, out.bias, linear, out.decoder, out.normalization)
        for index, out in zip(indices, outs, strict=True)
    )
    site = Site(layer=0, terms=terms)
    scores, wins = [], []
    for tokens in torch.split(h, _TOKENS_AT_ONCE):
        with torch.no_grad():
            wins.append(sae.module.encode(tokens.to(sae.module.W_enc.device))[:, indices] != 0)
        scores.append(site.activations(tokens))
    score = torch.cat(scores).cpu()
    return score.abs() if sae.config.architecture == "abstopk" else score, torch.cat(wins).cpu()


def _best_gate(score: Tensor, won: Tensor) -> CalibratedGate:
    """The threshold with the best F1, halfway between the two scores that it separates."""
    tokens = len(score)
    positives = int(won.sum())
    if positives == 0:
        return CalibratedGate(max(float(score.max()), 0.0), None, tokens)
    ordered, order = score.double().sort(descending=True)
    hits = won[order].cumsum(0).double()
    opened = torch.arange(1, tokens + 1)
    f1 = 2.0 * hits / (opened + positives)
    # Tokens of equal score lie on the same side of any threshold.
    f1[:-1][ordered[:-1] == ordered[1:]] = -math.inf
    best = int(f1.argmax())
    # A feature is never active at a pre-activation of zero or below.
    below = max(float(ordered[best + 1]), 0.0) if best + 1 < tokens else 0.0
    threshold = (float(ordered[best]) + below) / 2
    return CalibratedGate(threshold, float(f1[best]), tokens)
