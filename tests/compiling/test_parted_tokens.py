"""No family's layers are fitted to tokens at which the two precisions have parted."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from hubsplice.compiling.construct import compile_site, construct
from hubsplice.constructions.compiled_layer import CompiledLayer
from hubsplice.families.registry import FAMILIES
from tests.constructions.streams import EDITS, SINKS, calibration, hand_site
from tests.families.variants import architecture_for

STRAY = SINKS + 7


def same(left: CompiledLayer, right: CompiledLayer) -> bool:
    return all(torch.equal(left.tensors()[name], t) for name, t in right.tensors().items())


@pytest.mark.parametrize("family", [name for name, _ in FAMILIES.items()])
def test_a_token_at_which_the_precisions_part_is_left_out(family: str) -> None:
    clean = calibration(torch.bfloat16)
    serving = clean.serving.clone()
    # In one precision it is a sink, in the other it is not.
    serving[STRAY] = clean.serving[0]
    stray = replace(clean, serving=serving)
    kept = torch.arange(len(serving)) != STRAY
    without = replace(clean, reference=clean.reference[kept], serving=clean.serving[kept])
    architecture, dtype = architecture_for(family), torch.bfloat16
    site = hand_site(EDITS["jump clamp where active"]).site
    made, wanted = (compile_site(architecture, site, seen, dtype) for seen in (stray, without))
    assert same(made, wanted)
    # It would be seen.
    assert not same(construct(architecture, site, stray, dtype), wanted)
