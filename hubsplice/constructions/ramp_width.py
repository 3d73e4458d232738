"""How wide constructions make the ramp of a jump, where they have no reason for another width."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

import torch

RAMP_SIGMAS: Mapping[torch.dtype, float] = MappingProxyType(
    {torch.bfloat16: 3.0, torch.float32: 0.0}
)
"""In deviations of the noise that the serving precision puts on a read-out."""

NARROWEST_RAMP = 1e-3
"""At the least, in deviations of the read-out itself."""
