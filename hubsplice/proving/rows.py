"""What the rows of neurons read of the stream: an encoder, and what is left beside it."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from hubsplice.proving.rounding import spacing


@dataclass(frozen=True, eq=False)
class Reading:
    """A row as a multiple of an encoder and a rest.

    Attributes:
        multiple: of the encoder; negative where the row falls as the pre-activation rises.
        rest: what the row reads beside it, over the multiple, shape [d].
        length: how long that is, over the encoder's length.
        rounding: how long rounding would make it.
        cosine: between row and encoder.
    """

    multiple: float
    rest: Tensor
    length: float
    rounding: float
    cosine: float

    @staticmethod
    def of(row: Tensor, encoder: Tensor, dtype: torch.dtype) -> Reading:
        """The reading of a row [d] by an encoder [d] that is not zero, float64."""
        row = row.double()
        size = float(encoder.norm())
        multiple = float(row @ encoder) / size**2
        if not multiple:
            return Reading(0.0, torch.zeros_like(row), torch.inf, 0.0, 0.0)
        rest = row / multiple - encoder
        rounded = float(spacing(row, dtype).norm()) / 12**0.5 / abs(multiple) / size
        cosine = abs(multiple) * size / max(float(row.norm()), 1e-300)
        return Reading(multiple, rest, float(rest.norm()) / size, rounded, cosine)

    @property
    def side(self) -> int:
        """1 where what it opens is open above a threshold, and -1 below one."""
        return 1 if self.multiple > 0 else -1


def first_unequal(a: Tensor, b: Tensor) -> int | None:
    """The first channel in which two rows [d] differ; None where they are the same."""
    differing = (a != b).nonzero()
    return int(differing[0, 0]) if len(differing) else None


def cosine(a: Tensor, b: Tensor) -> float:
    """The cosine between two vectors [d]; 0 where one is zero."""
    lengths = float(a.norm() * b.norm())
    return float(a @ b) / lengths if lengths else 0.0


def solved(basis: Tensor, target: Tensor) -> Tensor:
    """The mixture of the columns of a basis [d, n] that is nearest to a target [d], shape [n]."""
    # Rounded and exact directions are all but the same, which the default driver takes for zero.
    return torch.linalg.lstsq(basis, target[:, None], driver="gelsd").solution[:, 0]


def across(vector: Tensor, encoder: Tensor) -> Tensor:
    """The part of a vector [d] at right angles to an encoder."""
    return vector - encoder * float(vector @ encoder / encoder.square().sum())
