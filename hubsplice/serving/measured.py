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
        whole_residual: ‖dh − dh_hook‖ / ‖dh_hook‖ over edited tokens, of the quantised layer.
        kept_residual: the same of the layer that was left, among quantised ones.
    """

    scheme: str
    edit: str
    floor: float
    whole: float
    kept: float
    whole_residual: float
    kept_residual: float


JUMPS = "clamp where active, gated steer (jumps)"

MEASURED = (
    Measurement("fp8, per tensor", "scale 8", 0.0328, 1.01, 1.00, 0.085, 0.014),
    Measurement("fp8, per tensor", "clamp always", 0.0315, 0.98, 0.99, 0.015, 0.015),
    Measurement("fp8, per tensor", JUMPS, 0.0332, 1.37, 1.01, 0.621, 0.089),
    Measurement("fp8, per channel", "scale 8", 0.0347, 0.97, 1.01, 0.085, 0.014),
    Measurement("fp8, per channel", "clamp always", 0.0326, 0.98, 0.97, 0.015, 0.015),
    Measurement("fp8, per channel", JUMPS, 0.0348, 1.38, 1.00, 0.625, 0.017),
    Measurement("int8, W8A8 per channel", "scale 8", 0.0364, 1.35, 1.01, 0.699, 0.016),
    Measurement("int8, W8A8 per channel", "clamp always", 0.0367, 0.99, 1.02, 0.016, 0.015),
    Measurement("int8, W8A8 per channel", JUMPS, 0.038, 1.06, 0.98, 0.411, 0.012),
    Measurement("int4, groups of 64", "scale 8", 0.498, 1.03, 1.00, 0.994, 0.013),
    Measurement("int4, groups of 64", "clamp always", 0.498, 1.00, 1.00, 0.018, 0.015),
    Measurement("int4, groups of 64", JUMPS, 0.51, 1.33, 1.00, 4.146, 0.044),
)


def by_scheme() -> Mapping[str, tuple[Measurement, ...]]:
    """The measurements of each scheme, in order."""
    schemes = dict.fromkeys(m.scheme for m in MEASURED)
    return {scheme: tuple(m for m in MEASURED if m.scheme == scheme) for scheme in schemes}
