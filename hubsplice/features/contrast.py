"""Directions and probes from two sets of examples: the arithmetic."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from hubsplice.errors import RecipeError
from hubsplice.features.base import Probe

_PENALTY = 1.0
_MOST_STEPS = 100


@dataclass(frozen=True, eq=False)
class Contrast:
    """A direction between two sets of examples.

    Attributes:
        vector: shape [d], float32.
        threshold: ⟨vector, h⟩ halfway between the two means: above it, h is nearer to the
            positive one.
    """

    vector: Tensor
    threshold: float


def contrast(positive: Tensor, negative: Tensor, method: Literal["mean", "pca"]) -> Contrast:
    """The direction from the negative examples to the positive ones.

    Its length is such that once the direction carries the one mean to the other, along it.

    Args:
        positive: a row for each example, shape [n, d].
        negative: shape [m, d]; for `pca`, m = n, and equal rows make a pair.
        method: `mean`, or `pca` for the first principal axis of the pairs' differences about zero.

    Raises:
        RecipeError: the examples have no direction.
    """
    p, n = positive.double(), negative.double()
    gap = p.mean(dim=0) - n.mean(dim=0)
    if method == "pca":
        _, _, axes = torch.linalg.svd(p - n, full_matrices=False)
        # The sign of an axis means nothing; this way it points to the positive side.
        vector = axes[0] * (gap @ axes[0])
    else:
        vector = gap
    if not float(vector.norm()) > 1e-6 * float(p.norm(dim=1).mean()):
        raise RecipeError(
            "contrast: the positive and the negative examples have the same mean, and no direction "
            "lies between them"
        )
    middle = (p.mean(dim=0) + n.mean(dim=0)) / 2
    return Contrast(vector.float(), float(middle @ vector))


def logistic_probe(name: str, positive: Tensor, negative: Tensor) -> Probe:
    """The logistic regression that tells two sets apart: ⟨weight, h⟩ + bias > 0 for positive.

    Minimises Σ log(1 + exp(−y·(⟨w, x⟩ + b))) + ½‖w‖² over coordinates x of mean 0 and variance 1.

    Args:
        name: how reports call it.
        positive: a row for each example, shape [n, d].
        negative: shape [m, d].

    Raises:
        RecipeError: no coordinate varies.
    """
    h = torch.cat([positive, negative]).double()
    y = torch.cat([torch.ones(len(positive)), -torch.ones(len(negative))]).double()
    mean, deviation = h.mean(dim=0), h.std(dim=0, correction=0)
    varies = deviation > 1e-9 * h.abs().max()
    if not varies.any():
        raise RecipeError("probe: all examples are alike, and nothing tells them apart")
    scale = torch.where(varies, 1.0 / deviation, 0.0)
    w, b = _solve((h - mean) * scale, y)
    weight = w * scale
    return Probe(name, weight.float(), float(b - mean @ weight))


def _solve(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """The weight [d] and the bias, for examples x [n, d] and their sides y [n], 1 or −1.

    The weight lies in the span of the examples. So the problem is solved in coordinates of that
    span, in which lengths are what they were, and which are fewer where the examples are.
    """
    _, singular, axes = torch.linalg.svd(x, full_matrices=False)
    basis = axes[singular > 1e-12 * singular[0]]
    w, b = _newton(x @ basis.T, y)
    return w @ basis, b


def _newton(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Newton's method, with halved steps; the problem is convex and has one minimum."""
    design = torch.cat([x, torch.ones(len(x), 1, dtype=x.dtype)], dim=1)
    penalty = torch.full((design.shape[1],), _PENALTY, dtype=x.dtype)
    penalty[-1] = 0.0
    theta = torch.zeros(design.shape[1], dtype=x.dtype)

    def loss(at: Tensor) -> Tensor:
        margins = y * (design @ at)
        return torch.nn.functional.softplus(-margins).sum() + (penalty * at.square()).sum() / 2

    for _ in range(_MOST_STEPS):
        p = torch.sigmoid(-y * (design @ theta))
        gradient = -design.T @ (y * p) + penalty * theta
        hessian = (design * (p * (1 - p))[:, None]).T @ design + torch.diag(penalty)
        hessian[-1, -1] += 1e-12
        step = torch.linalg.solve(hessian, gradient)
        size = 1.0
        while size > 1e-8 and loss(theta - size * step) > loss(theta):
            size /= 2
        theta = theta - size * step
        if float(step.norm()) <= 1e-10 * max(1.0, float(theta.norm())):
            break
    return theta[:-1], theta[-1]
