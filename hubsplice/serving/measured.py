"""What was measured of quantised splices, for texts; `benchmarks/quantised.py` measures it.

On SmolLM2-135M-Instruct with its SAE after layer 13, by emulation; a test holds the numbers against
the benchmark's committed results.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Measurement:
    """One edit under one way of quantising.

    Attributes:
        scheme: how the linear maps are quantised.
        edit: what the edit does.
        floor: KL(hook fp32 ‖ quantised base with the exact hook), mean in nats per token.
        whole: the splice's KL over the floor, with all of its layers quantised.
        kept: the same with the inserted layer left as it was compiled.
    """

    scheme: str
    edit: str
    floor: float
    whole: float
    kept: float


JUMPS = "clamp where active, gated steer (jumps)"

MEASURED = (
    Measurement("fp8, per tensor", "scale −2", 0.0314, 1.01, 1.06),
    Measurement("fp8, per tensor", "clamp always", 0.0306, 0.99, 1.00),
    Measurement("fp8, per tensor", JUMPS, 0.0354, 2.20, 1.00),
    Measurement("fp8, per channel", "scale −2", 0.0336, 1.01, 1.01),
    Measurement("fp8, per channel", "clamp always", 0.0322, 0.98, 0.98),
    Measurement("fp8, per channel", JUMPS, 0.0357, 1.91, 1.00),
    Measurement("int8, W8A8 per channel", "scale −2", 0.0367, 1.06, 0.99),
    Measurement("int8, W8A8 per channel", "clamp always", 0.0374, 0.99, 1.00),
    Measurement("int8, W8A8 per channel", JUMPS, 0.038, 1.02, 0.97),
    Measurement("int4, groups of 64", "scale −2", 0.495, 1.04, 1.00),
    Measurement("int4, groups of 64", "clamp always", 0.498, 1.00, 1.00),
    Measurement("int4, groups of 64", JUMPS, 0.512, 1.31, 1.00),
)


def by_scheme() -> Mapping[str, tuple[Measurement, ...]]:
    """The measurements of each scheme, in order."""
    schemes = dict.fromkeys(m.scheme for m in MEASURED)
    return {scheme: tuple(m for m in MEASURED if m.scheme == scheme) for scheme in schemes}
