"""What every inserted layer of a family has in common, tensor by tensor."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class InsertedTensor:
    """A tensor of any inserted layer, known without the edit.

    Attributes:
        shape: the tensor's shape.
        value: the number that it holds throughout, whatever the edit; None for what edits fill.
    """

    shape: tuple[int, ...]
    value: float | None
