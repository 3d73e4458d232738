"""Neurons of an inserted layer's MLP, before they are rounded."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, fields, replace
from typing import Any, Self

import torch


@dataclass(frozen=True, eq=False)
class Neurons:
    """Some neurons; each tensor that a construction adds as a field has a row for every neuron."""

    @property
    def neurons(self) -> int:
        """How many there are."""
        return len(getattr(self, fields(self)[0].name))

    @classmethod
    def joined(cls, blocks: Iterable[Self]) -> Self:
        """The neurons of several blocks, of one at least, in order."""
        blocks = list(blocks)
        rows: dict[str, Any] = {
            f.name: torch.cat([getattr(block, f.name) for block in blocks]) for f in fields(cls)
        }
        return replace(blocks[0], **rows)
