"""Means over prompts or sequences, with 95% intervals."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch

_RESAMPLES = 2000
_Z = 1.959964


@dataclass(frozen=True)
class Mean:
    """A mean, its 95% interval, and of how many values it is; NaN-free."""

    value: float
    low: float
    high: float
    count: int


def mean(values: Sequence[float], *, shares: bool = False) -> Mean | None:
    """The mean of one value for each prompt or sequence; None of none.

    Args:
        values: of the prompts or sequences.
        shares: whether they say how often something is. Then values that are all 0 or 1 get
            Wilson's interval, which has a width also where all are alike; others are resampled.
    """
    if not values:
        return None
    n = len(values)
    found = math.fsum(values) / n
    if shares and set(values) <= {0.0, 1.0}:
        middle = (found + _Z**2 / (2 * n)) / (1 + _Z**2 / n)
        half = _Z / (1 + _Z**2 / n) * math.sqrt(found * (1 - found) / n + _Z**2 / (4 * n * n))
        # Rounding leaves next to nothing where the bound is exactly 0 or 1.
        low = 0.0 if found == 0 else middle - half
        high = 1.0 if found == 1 else middle + half
        return Mean(found, low, high, n)
    given = torch.tensor(values, dtype=torch.float64)
    drawn = torch.randint(n, (_RESAMPLES, n), generator=torch.Generator().manual_seed(0))
    means = given[drawn].mean(dim=1)
    low, high = means.quantile(torch.tensor([0.025, 0.975], dtype=torch.float64)).tolist()
    return Mean(found, low, high, n)
