"""Medians and means with intervals, by resampling."""

from __future__ import annotations

import random
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

RESAMPLES = 2000

T = TypeVar("T")


@dataclass(frozen=True)
class Estimate:
    """A figure, and the ends of its 95% interval."""

    value: float
    low: float
    high: float

    @property
    def half_width(self) -> float:
        """Half the interval's width as a share of the figure."""
        return (self.high - self.low) / 2 / self.value

    def __str__(self) -> str:
        return f"{self.value:.3f} [{self.low:.3f}, {self.high:.3f}]"


def bootstrap(groups: Sequence[Sequence[T]], of: Callable[[list[list[T]]], float]) -> Estimate:
    """A function of groups of observations; each group is resampled by itself."""
    source = random.Random(0)
    found = sorted(
        of([source.choices(group, k=len(group)) for group in groups]) for _ in range(RESAMPLES)
    )
    value = of([list(group) for group in groups])
    return Estimate(value, found[RESAMPLES // 40], found[-RESAMPLES // 40])


def median(values: Sequence[float]) -> Estimate:
    """The median, with its interval."""
    return bootstrap([values], lambda groups: statistics.median(groups[0]))
