"""Statistics of two texts, against plain counting."""

from __future__ import annotations

import math

import torch

from hubsplice.explore.ranking import (
    SHUFFLES,
    auc,
    effect_size,
    information,
    largest_by_chance,
    ranks,
    steady_gap,
)


def test_ties_share_a_rank() -> None:
    values = torch.tensor([[3.0, 0.0], [1.0, 0.0], [3.0, 5.0], [0.5, 0.0]])
    assert ranks(values).tolist() == [[3.5, 2], [2, 2], [3.5, 4], [1, 2]]


def test_auc_is_the_share_of_pairs() -> None:
    generator = torch.Generator().manual_seed(0)
    positive = torch.randint(0, 4, (9, 5), generator=generator).float()
    negative = torch.randint(0, 4, (7, 5), generator=generator).float()
    pairs = positive[:, None] - negative[None]
    counted = ((pairs > 0).double() + (pairs == 0).double() / 2).mean(dim=(0, 1))
    torch.testing.assert_close(auc(positive, negative), counted)
    torch.testing.assert_close(auc(negative, positive), 1 - counted)


def test_a_dense_feature_tells_nothing_and_a_rare_one_tells_much() -> None:
    told = information(
        torch.tensor([1000, 50, 50, 0]), 1000, torch.tensor([8000, 0, 400, 400]), 8000
    )
    dense, own, alike, absent = told.tolist()
    assert abs(dense) < 1e-3
    assert own > 0.2
    assert abs(alike) < 1e-3
    assert absent < -0.03


def test_a_feature_that_is_never_active_is_not_of_a_short_text() -> None:
    assert information(torch.tensor([0]), 20, torch.tensor([8]), 8000) < 0


def test_information_is_the_divergence_of_two_coins() -> None:
    q = 20.5 / 1001
    p = (10 + q) / 101
    expected = p * math.log(p / q) + (1 - p) * math.log((1 - p) / (1 - q))
    found = information(torch.tensor([10]), 100, torch.tensor([20]), 1000)
    assert math.isclose(float(found), expected)


def test_the_best_of_many_is_large_by_chance_with_few_examples() -> None:
    generator = torch.Generator().manual_seed(1)
    few = [torch.randn(5, 2000, generator=generator) for _ in range(2)]
    many = [torch.randn(80, 2000, generator=generator) for _ in range(2)]
    assert largest_by_chance(*few, seed=0).median() > 0.97
    assert largest_by_chance(*many, seed=0).median() < 0.75
    assert len(largest_by_chance(*few, seed=0)) == SHUFFLES


def test_effect_sizes() -> None:
    positive = torch.tensor([[2.0, 1.0], [4.0, 1.0]])
    negative = torch.tensor([[0.0, 1.0], [2.0, 1.0]])
    found = effect_size(positive, negative)
    # Means 3 and 1, deviation √2; for four examples g is 1 - 3 / 7 of that.
    assert math.isclose(float(found[0]), 2 / math.sqrt(2) * (1 - 3 / 7), rel_tol=1e-6)
    assert found[1] == 0
    assert steady_gap(positive, negative)[1] == 0
