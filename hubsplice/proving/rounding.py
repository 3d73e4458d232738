"""Numbers that were rounded once: which factor they can have been multiplied by before."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

# What arithmetic in float64 on the way to the rounding may have moved.
_SLACK = 1e-9


def spacing(x: Tensor, dtype: torch.dtype) -> Tensor:
    """How far apart numbers of a dtype are at the size of x; float64."""
    info = torch.finfo(dtype)
    return torch.exp2(x.double().abs().clamp(min=info.tiny).log2().floor()) * info.eps


@dataclass(frozen=True, eq=False)
class Factor:
    """The one factor by which numbers were multiplied before they were rounded.

    Attributes:
        value: the factor.
        off: for every number, how far it is from being the product, rounded, in units of what
            rounding may move it by; above one where no rounding explains it.
    """

    value: float
    off: Tensor

    @property
    def worst(self) -> tuple[int, ...]:
        """Where the stored numbers are least like the product."""
        flat = int(self.off.argmax())
        return tuple(int(i) for i in torch.unravel_index(torch.tensor(flat), self.off.shape))

    @property
    def holds(self) -> bool:
        """Whether one factor explains every number."""
        return not bool((self.off > 1).any())


def common_factor(stored: Tensor, exact: Tensor, dtype: torch.dtype) -> Factor:
    """The factor f for which every stored number is f times the exact one, rounded to a dtype.

    Each number leaves a narrow range for f. Numbers in the hundreds leave next to none, so that a
    single one in which the last bit is another agrees with no f that the others allow.

    Args:
        stored: of any shape.
        exact: of the same shape, float64.
        dtype: what was rounded to.
    """
    stored = stored.double()
    half = spacing(stored, dtype) / 2 * (1 + 1e-6) + _SLACK * stored.abs()
    ratio = stored / exact
    room = half / exact.abs()
    usable = (exact != 0) & (stored != 0)
    if not usable.any():
        return Factor(0.0, (stored != 0).double() * 2)
    low, high = (ratio - room)[usable], (ratio + room)[usable]
    if low.max() <= high.min():
        value = float((low.max() + high.min()) / 2)
    else:
        # No factor suits all: one that suits most, so that the others can be named.
        value = float(_most_common(low, high))
    return Factor(value, off(stored, value * exact, dtype))


def off(stored: Tensor, exact: Tensor, dtype: torch.dtype) -> Tensor:
    """How far stored numbers are from exact ones, in units of what rounding may move them by."""
    stored = stored.double()
    half = spacing(torch.maximum(stored.abs(), exact.abs()), dtype) / 2 * (1 + 1e-6)
    return (stored - exact).abs() / (half + _SLACK * exact.abs())


def _most_common(low: Tensor, high: Tensor) -> Tensor:
    """A point that lies in as many of the ranges as any."""
    starts, ends = low.sort().values, high.sort().values
    # Ranges that hold a range's beginning: those that have begun there, less those that ended.
    depth = torch.arange(1, len(starts) + 1) - torch.searchsorted(ends, starts)
    best = int(depth.argmax())
    following = ends[torch.searchsorted(ends, starts[best])]
    return (starts[best] + following) / 2
