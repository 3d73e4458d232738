"""How many passes calibration makes; to be changed with `calibrated.calibrate` and `compiler`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch

from hubsplice.intervention.place import Place
from hubsplice.streams.passes import Pass


def calibration_passes(
    places: Sequence[Place],
    dtype: torch.dtype,
    *,
    drawn: int,
    prompts: int,
    scanned: int,
    kept: int,
) -> Iterator[Pass]:
    """The passes of `compile_plan`.

    Args:
        places: of the splices, in order.
        dtype: the serving precision.
        drawn: tokens that are drawn at random.
        prompts: tokens of the recipe's prompts.
        scanned: tokens that are read in search of more.
        kept: how many of them are kept.
    """
    if not places:
        return
    last = places[-1].layer + 1
    further = prompts + kept
    for i, place in enumerate(places):
        layers = place.layer + 1
        yield Pass(torch.float32, drawn, layers)
        # The first splice's stream of the drawn tokens is known, and no later one's.
        yield Pass(torch.float32, further + (drawn if i and further else 0), layers)
    yield Pass(torch.float32, prompts + scanned, last)
    if dtype is not torch.float32:
        yield Pass(dtype, drawn + further, last)
