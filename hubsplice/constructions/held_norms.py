"""Norms that an empty layer has already, in families that normalise what each block writes.

An edit usually chooses them. These leave the MLP every channel but one, whatever it writes there:
that one holds the dominant part, and the norm's weight is zero there, so that the stream gets
nothing of it. On all others the weight is so large that what any edit writes is small beside the
dominant part. The norm after attention is silent on a few others, which bring what attention adds
to the length that the norm divides by.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from hubsplice.constructions.sandwich_form import SandwichForm

LENGTH_CHANNELS = 8
"""How many channels bring what attention adds to the length that its norm divides by."""

SILENT_CHANNELS = 1 + LENGTH_CHANNELS
"""How many channels held norms silence: the first behind the MLP, the others behind attention."""

_ATTENTION, _OUTPUT = 2.0**16, 2.0**24


@dataclass(frozen=True, eq=False)
class HeldNorms:
    """The norms of an empty layer.

    Attributes:
        silent: the silent channels. The first holds the MLP's dominant part; the others bring what
            attention adds to its length.
        attention: weight of the norm after attention, shape [d].
        output: weight of the norm after the MLP, shape [d].
    """

    silent: tuple[int, ...]
    attention: Tensor
    output: Tensor

    @property
    def scale(self) -> float:
        """What the norm after attention multiplies by where it is not silent."""
        return _ATTENTION

    @staticmethod
    def of(silent: Sequence[int], width: int, form: SandwichForm, dtype: torch.dtype) -> HeldNorms:
        """Those for a stream of some width, with some silent channels; alike in every dtype."""
        attention = torch.full((width,), _ATTENTION, dtype=torch.float64)
        output = torch.full_like(attention, _OUTPUT * exact_gain(math.sqrt(width), torch.bfloat16))
        attention[list(silent[1:])] = output[silent[0]] = 0.0
        return HeldNorms(
            tuple(silent),
            *(form.weight(gain).to(torch.bfloat16).to(dtype) for gain in (attention, output)),
        )


def exact_gain(root: float, dtype: torch.dtype) -> float:
    """A gain between 1 and 2 whose product with √d is all but a number of `dtype`.

    Just below a power of two, where a float's spacing is finest for its size.
    """
    gains = 1.0 + torch.arange(128, dtype=torch.float64) / 128
    products = gains * root
    fractions = products / torch.exp2(products.log2().floor())
    errors = (products.to(dtype).double() / products - 1.0).abs()
    return float(gains[errors.masked_fill((fractions < 1.5) | (fractions > 1.97), 1.0).argmin()])
