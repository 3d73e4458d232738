"""Terms that change nothing compile to a layer that changes nothing, in every construction."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from hubsplice.compiling.construct import compile_site
from hubsplice.intervention.piecewise_linear import PiecewiseLinear
from tests.constructions.streams import EDITS, calibration, hand_site
from tests.families.variants import architecture_for

FAMILIES = ["llama", "qwen3", "gpt2", "gemma2", "olmo2"]


@pytest.mark.parametrize("family", FAMILIES)
def test_a_factor_of_one_or_no_direction_is_an_empty_layer(family: str) -> None:
    site, activations = hand_site(EDITS["relu ablate"]).site, calibration(torch.float32)
    (term, *_) = site.terms
    unchanged = (
        replace(term, function=PiecewiseLinear.constant(0.0)),
        replace(term, direction=torch.zeros_like(term.direction)),
    )
    base = architecture_for(family)
    layer = compile_site(base, replace(site, terms=unchanged), activations, torch.float32)
    assert layer.neurons == 0
    # Beside a term that acts, they cost nothing.
    alone = compile_site(base, replace(site, terms=(term,)), activations, torch.float32)
    beside = compile_site(base, replace(site, terms=(*unchanged, term)), activations, torch.float32)
    assert beside.neurons == alone.neurons > 0
    for name, tensor in alone.tensors().items():
        assert torch.equal(beside.tensors()[name], tensor)
