"""How well features tell two texts apart: plain statistics of activations.

**Information** is for one text against a neutral one: KL(B(p) ‖ B(q)) in nats for each token, where
p and q are the shares of tokens on which the feature is active: q with half a token added to both
sides, and p with one token added of which q is active, so that a short text is drawn to what any
text is like. A dense feature fires as often in any text, so that it tells nothing; one that fires
on a twentieth of the text and nowhere else tells much.

**AUC** is for two sets of examples: the probability that an example of the first set has a larger
value than one of the second, ties counted half. With few examples and many features some AUC is
large by chance. So labels are shuffled, and for each shuffle the largest AUC of all features is
kept: the share of shuffles whose largest is as large is how surprising an AUC is among so many.
"""

from __future__ import annotations

import torch
from torch import Tensor

SHUFFLES = 400
_COLUMNS_AT_ONCE = 4096


def information(active: Tensor, tokens: int, neutral_active: Tensor, neutral_tokens: int) -> Tensor:
    """Nats for each token that a feature's firing tells, shape [features], float64.

    It is negative where the feature fires less often than in the neutral text.

    Args:
        active: on how many tokens of the text each feature is active, shape [features].
        tokens: of the text.
        neutral_active: the same of the neutral text.
        neutral_tokens: of the neutral text.
    """
    q = (neutral_active.double() + 0.5) / (neutral_tokens + 1)
    p = (active.double() + q) / (tokens + 1)
    told = p * (p / q).log() + (1 - p) * ((1 - p) / (1 - q)).log()
    return torch.where(p >= q, told, -told)


def ranks(values: Tensor) -> Tensor:
    """The rank of each value in its column, from 1, ties sharing theirs; [examples, features]."""
    columns = values.T.contiguous()
    ordered = columns.sort(dim=1).values
    below = torch.searchsorted(ordered, columns)
    up_to = torch.searchsorted(ordered, columns, right=True)
    return (below + up_to + 1).double().T / 2


def auc(positive: Tensor, negative: Tensor) -> Tensor:
    """How often a value of the first set is the larger one, ties half, shape [features].

    Args:
        positive: shape [examples, features].
        negative: shape [other examples, features].
    """
    n, m = len(positive), len(negative)
    values = torch.cat([positive, negative])
    parts = torch.split(values, _COLUMNS_AT_ONCE, dim=1)
    sums = torch.cat([ranks(part)[:n].sum(dim=0) for part in parts])
    return (sums - n * (n + 1) / 2) / (n * m)


def largest_by_chance(positive: Tensor, negative: Tensor, *, seed: int) -> Tensor:
    """The largest AUC of any feature when labels are shuffled, shape [SHUFFLES]."""
    n, m = len(positive), len(negative)
    generator = torch.Generator().manual_seed(seed)
    shuffled = torch.rand(SHUFFLES, n + m, generator=generator).argsort(dim=1)
    labels = (shuffled < n).double()
    values = torch.cat([positive, negative])
    largest = torch.zeros(SHUFFLES, dtype=torch.float64)
    for part in torch.split(values, _COLUMNS_AT_ONCE, dim=1):
        sums = labels @ ranks(part)
        largest = torch.maximum(largest, sums.amax(dim=1))
    return (largest - n * (n + 1) / 2) / (n * m)


def effect_size(positive: Tensor, negative: Tensor) -> Tensor:
    """Hedges' g: the difference of the means in pooled standard deviations, shape [features].

    It is 0 where neither set varies. Each set has two examples or more.
    """
    n, m = len(positive), len(negative)
    pooled = _pooled_variance(positive, negative).sqrt()
    gap = positive.double().mean(dim=0) - negative.double().mean(dim=0)
    correction = 1 - 3 / (4 * (n + m) - 9)
    return torch.where(pooled > 0, correction * gap / pooled.clamp(min=1e-30), 0.0)


def steady_gap(positive: Tensor, negative: Tensor) -> Tensor:
    """The same with the median deviation of all features added to each: orders equal AUCs.

    A feature that hardly varies in a few examples doesn't come first by that alone.
    """
    deviations = _pooled_variance(positive, negative).sqrt()
    varying = deviations[deviations > 0]
    usual = varying.median() if len(varying) else torch.tensor(1.0, dtype=torch.float64)
    gap = positive.double().mean(dim=0) - negative.double().mean(dim=0)
    return gap / (deviations + usual)


def _pooled_variance(positive: Tensor, negative: Tensor) -> Tensor:
    n, m = len(positive), len(negative)
    within = (n - 1) * positive.double().var(dim=0) + (m - 1) * negative.double().var(dim=0)
    return within / (n + m - 2)
