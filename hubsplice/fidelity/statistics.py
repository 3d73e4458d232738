"""Summaries of per-token quantities, and intervals by resampling sequences."""

from __future__ import annotations

import torch
from torch import Tensor

from hubsplice.fidelity.report import Distribution, Interval

_RESAMPLES = 2000
_FEWER_RESAMPLES = 400


def distribution(values: Tensor) -> Distribution:
    """Summarise one number per token, shape [tokens], tokens > 0."""
    values = values.double().flatten()
    ordered = values.sort().values
    kept = max(1, len(ordered) - max(1, round(len(ordered) / 1000)))
    return Distribution(
        mean=float(values.mean()),
        median=float(ordered[(len(ordered) - 1) // 2]),
        p99=float(ordered[min(len(ordered) - 1, int(0.99 * len(ordered)))]),
        max=float(ordered[-1]),
        mean_without_top=float(ordered[:kept].mean()),
    )


def ratio_of_means(above: Tensor, below: Tensor, scored: Tensor, *, seed: int) -> Interval | None:
    """The ratio of two means over scored tokens, with its 95% bootstrap interval.

    Whole sequences are resampled, since tokens of one sequence depend on each other.

    Args:
        above: shape [sequences, length].
        below: same shape.
        scored: which tokens count, same shape.
        seed: of the resampling.

    Returns:
        None where the mean of `below` is zero.
    """
    numerator = above.double().masked_fill(~scored, 0.0).sum(dim=1)
    denominator = below.double().masked_fill(~scored, 0.0).sum(dim=1)
    if not denominator.sum() > 0:
        return None
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.randint(len(numerator), (_RESAMPLES, len(numerator)), generator=generator)
    bottom = denominator[drawn].sum(dim=1)
    ratios = numerator[drawn].sum(dim=1)[bottom > 0] / bottom[bottom > 0]
    low, high = ratios.quantile(torch.tensor([0.025, 0.975], dtype=torch.float64)).tolist()
    return Interval(value=float(numerator.sum() / denominator.sum()), low=low, high=high)


def median_of_tokens(values: Tensor, tokens: Tensor, *, seed: int) -> Interval | None:
    """The median of some tokens' values, with its 95% bootstrap interval.

    Args:
        values: shape [sequences, length].
        tokens: which of them count, same shape.
        seed: of the resampling, which is of whole sequences.

    Returns:
        None where no token counts.
    """
    rows = [row[kept].double() for row, kept in zip(values, tokens, strict=True) if kept.any()]
    if not rows:
        return None
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.randint(len(rows), (_FEWER_RESAMPLES, len(rows)), generator=generator)
    medians = torch.stack([torch.cat([rows[i] for i in draw]).median() for draw in drawn.tolist()])
    low, high = medians.quantile(torch.tensor([0.025, 0.975], dtype=torch.float64)).tolist()
    return Interval(value=float(torch.cat(rows).median()), low=low, high=high)


def f1_score(found: Tensor, wanted: Tensor) -> float | None:
    """F1 of a boolean prediction, shape [tokens]; None where nothing was wanted or found."""
    hits = float((found & wanted).sum())
    total = float(found.sum() + wanted.sum())
    return 2 * hits / total if total else None
