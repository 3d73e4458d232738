"""Medians and functions of means with their intervals, by resampling."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

RESAMPLES = 2000

Array = NDArray[np.float64]


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

    def text(self, digits: int) -> str:
        """As tables have it."""
        return f"{self.value:.{digits}f} [{self.low:.{digits}f}, {self.high:.{digits}f}]"


def of_means(groups: Sequence[ArrayLike], function: Callable[[list[Array]], Array]) -> Estimate:
    """A function of the means of groups of observations; each group is resampled by itself.

    Args:
        groups: of each, what was observed, shape [observations, quantities].
        function: from the means, shape [repetitions, quantities] for each group, to one figure
            for each repetition.
    """
    source = np.random.default_rng(0)
    observed = [np.asarray(group, dtype=np.float64) for group in groups]
    drawn = [
        group[source.integers(len(group), size=(RESAMPLES, len(group)))].mean(axis=1)
        for group in observed
    ]
    value = function([group.mean(axis=0, keepdims=True) for group in observed])
    return _estimate(float(value[0]), function(drawn))


def median(values: Sequence[float]) -> Estimate:
    """The median, with its interval."""
    observed = np.asarray(values)
    source = np.random.default_rng(0)
    drawn = observed[source.integers(len(observed), size=(RESAMPLES, len(observed)))]
    return _estimate(float(np.median(observed)), np.median(drawn, axis=1))


def mean_of_medians(groups: Sequence[Sequence[float]]) -> Estimate:
    """The mean of the medians of groups, with its interval: groups are resampled, and the
    observations within each."""
    source = np.random.default_rng(0)
    observed = [np.asarray(group) for group in groups]
    count = len(observed)

    def draw() -> float:
        chosen = [observed[i] for i in source.integers(count, size=count)]
        return float(np.mean([np.median(source.choice(g, size=len(g))) for g in chosen]))

    value = float(np.mean([np.median(group) for group in observed]))
    return _estimate(value, np.array([draw() for _ in range(RESAMPLES)]))


def _estimate(value: float, drawn: Array) -> Estimate:
    # An infinite draw is a draw: no interpolation, which would make it a NaN.
    low, high = np.quantile(drawn, [0.025, 0.975], method="nearest")
    return Estimate(value, float(low), float(high))
