"""What layers in bfloat16 are measured by tells a right one from wrong ones, whatever the edit."""

from __future__ import annotations

import pytest
import torch

from tests.constructions.streams import (
    EDITS,
    SHARE,
    SHARE_WITHOUT_BIASES,
    hand_site,
    served,
    share_lost,
    stream,
)

CASES = [(kind, active, SHARE) for kind in EDITS for active in (0.1, 0.9)]
# What the construction without MLP biases is measured with.
CASES += [
    (kind, 0.1, SHARE_WITHOUT_BIASES)
    for kind in ("relu ablate", "jump ablate", "gated steer", "steer")
]


@pytest.mark.parametrize(("kind", "active", "share"), CASES)
def test_a_wrong_layer_loses_too_much_though_it_rounds_as_the_hook(
    kind: str, active: float, share: float
) -> None:
    hand = hand_site(EDITS[kind], active=active)
    h = stream(2)
    seen = served(h, torch.bfloat16, 12)
    for name, delta in hand.wrong_deltas(seen).items():
        out = (seen.double() + delta).to(torch.bfloat16)
        assert share_lost(hand, h, out, seen) > share, name
