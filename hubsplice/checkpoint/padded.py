"""A tensor of which only the part that is not zero takes memory."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Padded:
    """The beginning of a tensor in every dimension, and zeros behind it.

    Attributes:
        corner: what is not zero.
        shape: of the whole, in no dimension less than the corner's; one dimension or more.
    """

    corner: Tensor
    shape: tuple[int, ...]

    def __post_init__(self) -> None:
        found = tuple(self.corner.shape)
        if len(found) != len(self.shape) or not all(map(int.__le__, found, self.shape)):
            raise ValueError(f"a corner of shape {list(found)} does not fit {list(self.shape)}")

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of the whole."""
        return self.corner.dtype

    def whole(self) -> Tensor:
        """All of it, on the CPU."""
        found = torch.zeros(self.shape, dtype=self.dtype)
        found[tuple(map(slice, self.corner.shape))] = self.corner.detach()
        return found

    def rows(self, start: int, stop: int) -> Tensor:
        """Rows `start` to `stop` of the whole, on the CPU, where the corner has any of them."""
        filled = self.corner[start:stop].detach()
        rows = torch.zeros(len(filled), *self.shape[1:], dtype=self.dtype)
        rows[tuple(map(slice, filled.shape))] = filled
        return rows
