"""How many passes calibration makes; to be changed with `calibrated.calibrate` and `compiler`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch

from hubsplice.intervention.place import Place
from hubsplice.streams.passes import Pass, TextTokens


def calibration_passes(
    places: Sequence[Place], dtype: torch.dtype, text: TextTokens
) -> Iterator[Pass]:
    """The passes of `compile_plan`.

    Args:
        places: of the splices, in order.
        dtype: the serving precision.
        text: the calibration text.
    """
    if not places:
        return
    last = places[-1].layer + 1
    further = text.prompts + text.kept
    for i, place in enumerate(places):
        layers = place.layer + 1
        yield Pass(torch.float32, text.drawn, layers)
        # The first splice's stream of the drawn tokens is known, and no later one's.
        yield Pass(torch.float32, further + (text.drawn if i and further else 0), layers)
    yield Pass(torch.float32, text.prompts + text.scanned, last)
    if dtype is not torch.float32:
        yield Pass(dtype, text.drawn + further, last)
