"""Directions and probes from examples, against the same arithmetic done otherwise."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from hubsplice.errors import RecipeError
from hubsplice.features.contrast import contrast, logistic_probe

D = 12


def examples(count: int = 30, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """Pairs that share much and differ along one axis, and that axis."""
    generator = torch.Generator().manual_seed(seed)
    axis = torch.randn(D, generator=generator)
    axis /= axis.norm()
    shared = 5.0 * torch.randn(count, D, generator=generator) + 2.0
    amount = 3.0 + torch.rand(count, 1, generator=generator)
    noise = 0.3 * torch.randn(2, count, D, generator=generator)
    return shared + amount * axis + noise[0], shared + noise[1], axis


def test_the_mean_is_the_difference_of_the_means() -> None:
    positive, negative, axis = examples()
    found = contrast(positive, negative[:25], "mean")
    expected = positive.numpy().mean(0) - negative[:25].numpy().mean(0)
    np.testing.assert_allclose(found.vector.numpy(), expected, rtol=1e-5)
    middle = (positive.numpy().mean(0) + negative[:25].numpy().mean(0)) / 2
    assert found.threshold == pytest.approx(float(middle @ expected), rel=1e-4)
    alike = contrast(positive, negative, "mean").vector
    assert torch.cosine_similarity(alike, axis, dim=0) > 0.95


@pytest.mark.parametrize("turned", [False, True])
def test_pca_is_the_principal_axis_of_the_pairs_and_points_to_the_positive_side(
    turned: bool,
) -> None:
    positive, negative, axis = examples()
    if turned:
        positive, negative, axis = negative, positive, -axis
    found = contrast(positive, negative, "pca").vector.double().numpy()
    differences = (positive - negative).double().numpy()
    # Power iteration: no decomposition of the kind that is tested.
    v = np.ones(D)
    for _ in range(2000):
        v = differences.T @ (differences @ v)
        v /= np.linalg.norm(v)
    gap = differences.mean(0)
    expected = v * (gap @ v)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
    assert gap @ found > 0
    assert torch.cosine_similarity(torch.tensor(found), axis.double(), dim=0) > 0.98


def test_a_strength_of_one_carries_one_mean_to_the_other_along_the_direction() -> None:
    positive, negative, _ = examples()
    for method in ("mean", "pca"):
        v = contrast(positive, negative, "mean" if method == "mean" else "pca").vector
        moved, there = negative.mean(0) + v, positive.mean(0)
        assert float(moved @ v) == pytest.approx(float(there @ v), rel=1e-4)


@pytest.mark.parametrize("method", ["mean", "pca"])
def test_equal_sets_have_no_direction(method: str) -> None:
    positive, _, _ = examples()
    with pytest.raises(RecipeError, match="same mean"):
        contrast(positive, positive.clone(), "mean" if method == "mean" else "pca")


@pytest.mark.parametrize("count", [5, 40])
def test_the_probe_is_at_the_minimum_of_its_loss(count: int) -> None:
    positive, negative, _ = examples(count)
    negative = negative[: count - 1] + 1.0
    # A coordinate that never varies says nothing, and must divide nothing.
    positive[:, 3] = negative[:, 3] = 7.0
    probe = logistic_probe("p", positive, negative)
    h = np.concatenate([positive.numpy(), negative.numpy()]).astype(np.float64)
    y = np.array([1.0] * len(positive) + [-1.0] * len(negative))
    mean, deviation = h.mean(0), h.std(0)
    deviation[3] = 1.0
    x = (h - mean) / deviation
    w = probe.weight.double().numpy() * deviation
    b = probe.bias + float(probe.weight.double().numpy() @ mean)
    assert w[3] == 0.0

    def loss(w: np.ndarray, b: float) -> float:
        return float(np.log1p(np.exp(-y * (x @ w + b))).sum() + 0.5 * w @ w)

    here = loss(w, b)
    rng = np.random.default_rng(0)
    for _ in range(200):
        step = 0.01 * rng.standard_normal(D + 1)
        assert loss(w + step[:-1], b + step[-1]) > here
    sigma = 1 / (1 + np.exp(y * (x @ w + b)))
    assert np.abs(-x.T @ (y * sigma) + w).max() < 1e-4
    assert abs(float((y * sigma).sum())) < 1e-4
    right = torch.cat([positive, negative]) @ probe.weight + probe.bias > 0
    assert (right == torch.tensor(y > 0)).float().mean() > 0.6
    assert math.isfinite(probe.bias)


def test_examples_that_are_all_alike_teach_no_probe() -> None:
    same = torch.ones(4, D)
    with pytest.raises(RecipeError, match="all examples are alike"):
        logistic_probe("p", same, same)
