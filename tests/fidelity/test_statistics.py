"""Summaries by their definitions, and intervals that hold what they say."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from hubsplice.fidelity.statistics import distribution, f1_score, ratio_of_means


@given(st.lists(st.floats(0, 1e6), min_size=1, max_size=400))
def test_a_distribution_by_its_definition(values: list[float]) -> None:
    found = distribution(torch.tensor(values, dtype=torch.float64))
    ordered, n = sorted(values), len(values)
    assert found.mean == pytest.approx(sum(values) / n, rel=1e-12)
    assert found.median == ordered[(n - 1) // 2]
    assert found.max == ordered[-1]
    # The 99th percentile: at 99% of the way from the first to the last, or just beyond.
    assert found.p99 == ordered[-(-99 * (n - 1) // 100)]
    rest = ordered[: max(1, n - 1)]
    assert found.mean_without_top == pytest.approx(sum(rest) / len(rest), rel=1e-12)


def test_the_top_thousandth_is_left_out_and_no_more() -> None:
    values = torch.ones(10_000)
    values[torch.randperm(10_000, generator=torch.Generator().manual_seed(0))[:10]] = 1e6
    found = distribution(values)
    assert found.mean_without_top == 1.0
    assert found.mean == pytest.approx(1000.999)
    values[values == 1.0] = torch.cat([torch.tensor([50.0]), torch.ones(9_989)])
    assert distribution(values).mean_without_top == pytest.approx(1 + 49 / 9990)


def test_equal_divergences_have_a_ratio_of_exactly_one() -> None:
    values = torch.rand(7, 20, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    scored = torch.ones(7, 20, dtype=torch.bool)
    found = ratio_of_means(values, values, scored, seed=0)
    assert found is not None
    assert (found.value, found.low, found.high) == (1.0, 1.0, 1.0)
    triple = ratio_of_means(3 * values, values, scored, seed=0)
    assert triple is not None
    assert (triple.value, triple.low, triple.high) == pytest.approx((3, 3, 3), rel=1e-12)


def test_a_ratio_is_of_the_scored_tokens_alone_and_the_same_each_time() -> None:
    generator = torch.Generator().manual_seed(1)
    above, below = torch.rand(2, 9, 30, generator=generator, dtype=torch.float64)
    scored = torch.rand(9, 30, generator=generator) > 0.3
    found = ratio_of_means(above, below, scored, seed=5)
    assert found is not None
    assert found.value == pytest.approx(float(above[scored].sum() / below[scored].sum()))
    assert found.low < found.value < found.high
    garbage = above.masked_fill(~scored, 1e9), below.masked_fill(~scored, 1e-9)
    assert ratio_of_means(*garbage, scored, seed=5) == found
    assert ratio_of_means(above, below, scored, seed=6) != found


def test_there_is_no_ratio_to_nothing() -> None:
    scored = torch.ones(3, 4, dtype=torch.bool)
    assert ratio_of_means(torch.ones(3, 4), torch.zeros(3, 4), scored, seed=0) is None
    assert ratio_of_means(torch.ones(3, 4), torch.ones(3, 4), ~scored, seed=0) is None
    # One sequence with a floor and many without: resamples that miss it have no ratio.
    below = torch.zeros(3, 4)
    below[0] = 1.0
    found = ratio_of_means(below * 2, below, scored, seed=0)
    assert found is not None
    assert (found.value, found.low, found.high) == (2.0, 2.0, 2.0)


def test_the_interval_holds_the_true_ratio_about_as_often_as_it_says() -> None:
    # Tokens of a sequence share a factor, so that a resampling of tokens would give intervals
    # that are far too narrow.
    generator = torch.Generator().manual_seed(3)
    scored = torch.ones(40, 25, dtype=torch.bool)
    held = 0
    for trial in range(200):
        shared = torch.randn(2, 40, 1, generator=generator, dtype=torch.float64).mul(0.5).exp()
        tokens = torch.rand(2, 40, 25, generator=generator, dtype=torch.float64)
        above, below = 1.2 * shared[0] * tokens[0], shared[1] * tokens[1]
        found = ratio_of_means(above, below, scored, seed=trial)
        assert found is not None
        held += found.low <= 1.2 <= found.high
    assert 0.88 <= held / 200 <= 0.99


@pytest.mark.parametrize(
    ("found", "wanted", "score"),
    [
        ([1, 1, 0, 0], [1, 1, 0, 0], 1.0),
        ([1, 1, 1, 0], [1, 0, 0, 0], 0.5),
        ([1, 0, 0, 0], [1, 1, 1, 0], 0.5),
        ([1, 1, 1, 0], [0, 1, 1, 1], 2 / 3),
        ([1, 0, 0, 0], [0, 1, 0, 0], 0.0),
        ([0, 0, 0, 0], [0, 0, 0, 0], None),
    ],
)
def test_f1(found: list[int], wanted: list[int], score: float | None) -> None:
    assert f1_score(torch.tensor(found) > 0, torch.tensor(wanted) > 0) == pytest.approx(score)
