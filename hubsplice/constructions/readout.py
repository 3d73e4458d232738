"""Linear read-outs: affine functions of the normalised stream, fitted to calibration."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class ReadOut:
    """An affine function ⟨weight, x⟩ + bias: weight of shape [d], float32."""

    weight: Tensor
    bias: float

    def __call__(self, x: Tensor) -> Tensor:
        """The values at x [..., d], shape [...]."""
        return x @ self.weight.to(x.device) + self.bias


class RidgeFitter:
    """Weighted ridge regression onto [x, 1], or x alone, factored once for many targets.

    Args:
        x: the regressors, shape [tokens, d].
        weights: non-negative token weights, shape [tokens].
        damping: ridge strength, in units of the regressors' mean weighted variance.
        intercept: whether read-outs may have a bias.
    """

    def __init__(
        self, x: Tensor, weights: Tensor, *, damping: float, intercept: bool = True
    ) -> None:
        self._weights = (weights / weights.sum()).double()
        self._x = x.double()
        self._intercept = intercept
        self._mean = self._weights @ self._x if intercept else torch.zeros_like(self._x[0])
        centred = self._x - self._mean
        covariance = (centred * self._weights[:, None]).T @ centred
        covariance.diagonal().add_(damping * covariance.diagonal().mean() + 1e-30)
        self._factor = torch.linalg.cholesky(covariance)
        self._weighted = centred * self._weights[:, None]

    def fit(self, target: Tensor) -> ReadOut:
        """The read-out of `target`, shape [tokens]."""
        target = target.double()
        level = self._weights @ target if self._intercept else target.new_zeros(())
        slope = torch.cholesky_solve((self._weighted.T @ (target - level))[:, None], self._factor)
        weight = slope[:, 0]
        return ReadOut(weight.float(), float(level - weight @ self._mean))
