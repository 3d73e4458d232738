"""Constants of the constructions for pre-norm blocks."""

from __future__ import annotations

from dataclasses import dataclass

from hubsplice.constructions.ramp_width import NARROWEST_RAMP


@dataclass(frozen=True)
class PreNormConstants:
    """Constants of a construction, per serving precision.

    Attributes:
        injection: the most that the constant on one channel measures, in units of the median
            residual norm. It steadies r.
        channels: how many channels carry it.
        longest_bias: the most that the rest of the attention bias may measure, in that unit.
        ramp_sigmas: width of a jump's ramp, in units of the noise that the serving precision
            puts on the pre-activation, in the stream and inside the layer.
        narrowest_ramp: the least such width, in standard deviations of the pre-activation.
        sharpness: factor on a ramp's argument; SiLU is a ReLU to within 0.28/sharpness of it,
            GELU to within 0.17/sharpness.
        saturation: half the distance between the arguments of a jump's two neurons; a power of
            two, so that the rounding of the two cancels.
        damping: ridge strength of the read-outs.
    """

    injection: float
    channels: int
    longest_bias: float
    ramp_sigmas: float
    narrowest_ramp: float = NARROWEST_RAMP
    sharpness: float = 8192.0
    saturation: float = 32.0
    damping: float = 1e-6
