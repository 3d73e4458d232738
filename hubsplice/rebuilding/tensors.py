"""How far two tensors of one name are apart, in units of their precision."""

from __future__ import annotations

import torch
from pydantic import Field
from torch import Tensor

from hubsplice.verifying.result import Record


class TensorDifference(Record):
    """A tensor that two models hold differently.

    A unit is the distance of neighbouring numbers of the tensor's precision, at the largest
    number in the same row or column, whichever is smaller.
    """

    name: str
    differing: int = Field(description="How many elements differ; 0 where the shape does.")
    elements: int
    worst: float | None = Field(description="The largest difference, in units.")
    typical: float | None = Field(
        description="The root of the mean square of the difference, over that of the tensor, in "
        "units: a factor on all elements shows here."
    )
    at: tuple[int, ...] = Field((), description="Where the largest one is.")
    found: float | None = Field(None, description="What is there in the first model.")
    expected: float | None = Field(None, description="What is there in the second.")
    problem: str | None = Field(None, description="Why there is nothing to measure.")

    def __str__(self) -> str:
        if self.problem is not None:
            return f"{self.name}: {self.problem}"
        return (
            f"{self.name}: {self.differing:,} of {self.elements:,} elements differ, at most by "
            f"{self.worst:.3g} units, typically by {self.typical:.2g}; worst at "
            f"{list(self.at)}: found {self.found:.6g}, expected {self.expected:.6g}"
        )


def tensor_difference(name: str, found: Tensor, expected: Tensor) -> TensorDifference | None:
    """Compare two tensors of floating-point numbers bit by bit; None where they are the same."""
    if (found.dtype, found.shape) != (expected.dtype, expected.shape):
        shapes = [f"{str(t.dtype)[6:]} of shape {list(t.shape)}" for t in (found, expected)]
        return _unmeasured(name, found, f"found {shapes[0]}, expected {shapes[1]}")
    bits = {2: torch.int16, 4: torch.int32, 8: torch.int64}[found.element_size()]
    other = found.contiguous().view(bits) != expected.contiguous().view(bits)
    if not other.any():
        return None
    if not torch.isfinite(found).all():
        return _unmeasured(name, found, "found NaN or infinity")
    a, b = found.double(), expected.double()
    apart = (a - b).abs()
    largest = torch.maximum(a.abs(), b.abs())
    eps = torch.finfo(found.dtype).eps
    units = apart / (eps * _scale(largest)).clamp(min=torch.finfo(torch.float64).tiny)
    worst = int(units.argmax())
    # Of zeros with another sign nothing is apart, and still other bits are there.
    place = torch.unravel_index(torch.tensor(worst), units.shape) if units.dim() else ()
    size = float(largest.norm())
    return TensorDifference(
        name=name,
        differing=int(other.sum()),
        elements=found.numel(),
        worst=float(units.max()),
        typical=float(apart.norm()) / (eps * size) if size else 0.0,
        at=tuple(int(i) for i in place),
        found=float(a.flatten()[worst]),
        expected=float(b.flatten()[worst]),
    )


def absent(name: str, problem: str) -> TensorDifference:
    """A tensor that only one of two models has."""
    return TensorDifference(
        name=name, differing=0, elements=0, worst=None, typical=None, problem=problem
    )


def _scale(largest: Tensor) -> Tensor:
    """For every element the largest of its row or of its column, whichever is smaller."""
    if largest.dim() < 2:
        return largest.max().expand(largest.shape)
    rows, columns = largest.amax(dim=-1, keepdim=True), largest.amax(dim=-2, keepdim=True)
    return torch.minimum(rows, columns)


def _unmeasured(name: str, found: Tensor, problem: str) -> TensorDifference:
    return TensorDifference(
        name=name,
        differing=0,
        elements=found.numel(),
        worst=None,
        typical=None,
        problem=problem,
    )
