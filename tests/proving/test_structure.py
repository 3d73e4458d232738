"""Right layers of every construction have a part for each neuron, and tampered ones are named."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import pytest
import torch

from hubsplice.intervention.normalization import Normalization
from tests.proving.layers import CONSTRUCTIONS, Case, plants

KINDS = ("relu ablate", "jump ablate", "jump floor", "gated steer", "steer", "project out")
DTYPES = (torch.bfloat16, torch.float32)


@cache
def made(construction: str, kind: str, dtype: torch.dtype) -> Case:
    return Case.of(construction, kind, dtype)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("kind", [*KINDS, "two-sided ablate", "relu clamp"])
@pytest.mark.parametrize("construction", CONSTRUCTIONS)
def test_a_right_layer_has_no_problem(construction: str, kind: str, dtype: torch.dtype) -> None:
    assert made(construction, kind, dtype).findings().problems == []


@pytest.mark.parametrize("construction", ["prenorm", "bias-free", "sandwich"])
def test_a_right_layer_of_an_sae_that_scales_its_input(construction: str) -> None:
    case = Case.of(
        construction, "jump ablate", torch.bfloat16, normalization=Normalization.LAYER_NORM
    )
    assert case.findings().problems == []


@pytest.mark.parametrize("kind", ["jump ablate", "relu ablate", "steer"])
@pytest.mark.parametrize("construction", CONSTRUCTIONS)
def test_every_planted_neuron_is_named(construction: str, kind: str) -> None:
    case = made(construction, kind, torch.bfloat16)
    for name, changed in plants(case):
        problems = case.findings(**changed).problems
        assert problems, name
        assert problems[0].startswith("model.layers.1."), name


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("construction", ["prenorm", "layernorm"])
@pytest.mark.parametrize("factor", [1.01, 1.1, -1.0, 0.5])
def test_a_jump_of_another_height(construction: str, factor: float, dtype: torch.dtype) -> None:
    case = made(construction, "gated steer", dtype)
    changed = case.changed(case.columns, lambda t: t.mul_(factor))
    assert any("is not what" in p for p in case.findings(**changed).problems)


@pytest.mark.parametrize("construction", CONSTRUCTIONS)
def test_a_steer_of_another_strength(construction: str) -> None:
    case = made(construction, "steer", torch.bfloat16)
    role = {"prenorm": "down_bias", "layernorm": "out_bias"}.get(construction, case.columns)
    changed = case.changed(role, lambda t: t.mul_(1.02))
    assert any("constant" in p for p in case.findings(**changed).problems)


@pytest.mark.parametrize("construction", CONSTRUCTIONS)
def test_a_moved_threshold(construction: str) -> None:
    """What attention adds carries thresholds, and is taken away again."""
    case = made(construction, "jump ablate", torch.bfloat16)
    role = "attention_norm" if "attention_norm" in case.tensors else "attention_bias"
    changed = case.changed(role, lambda t: t.mul_(1.5))
    assert case.findings(**changed).problems


@pytest.mark.parametrize("construction", CONSTRUCTIONS)
def test_the_direction_of_another_feature(construction: str) -> None:
    case = made(construction, "jump ablate", torch.bfloat16)
    first, second = (term.direction for term in case.site.terms)
    a, b = case.site.terms
    site = replace(case.site, terms=(replace(a, direction=second), replace(b, direction=first)))
    assert any("is not what" in p for p in replace(case, site=site).findings().problems)


def test_recovered_strengths_and_thresholds() -> None:
    case = made("prenorm", "jump ablate", torch.float32)
    jumps = [part for part in case.findings().recovered if part.part == "jump"]
    assert [part.label for part in jumps] == ["feature 0", "feature 1"]
    for part, term in zip(jumps, case.site.terms, strict=True):
        assert part.strength == pytest.approx(1, rel=1e-5)
        assert part.at == pytest.approx(term.function.breakpoints[0], rel=1e-3)
        assert part.reads == pytest.approx(1)
        assert part.writes == pytest.approx(1)
