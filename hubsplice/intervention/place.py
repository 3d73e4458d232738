"""Places in the residual stream, where edits can be: after either block of a decoder layer."""

from __future__ import annotations

import enum
from dataclasses import dataclass


class Block(enum.StrEnum):
    """The two blocks of a decoder layer; their values sort as the blocks follow one another."""

    ATTENTION = "attention"
    MLP = "mlp"


@dataclass(frozen=True, order=True)
class Place:
    """The residual stream after one block; places sort as the stream passes them.

    Attributes:
        layer: the base model's layer, counted from 0; after the MLP of -1 is before all layers.
        block: after its MLP, which is after the layer (resid_post), or after its attention, where
            the MLP reads it (resid_mid).
    """

    layer: int
    block: Block = Block.MLP

    @property
    def field(self) -> str:
        """The field of a recipe that names such a place by its layer."""
        return "after_layer" if self.block is Block.MLP else "after_attention"

    @property
    def after(self) -> int | None:
        """The layer whose output it is; None for a place within a layer."""
        return self.layer if self.block is Block.MLP else None

    def layers_before(self, layers: int) -> int:
        """How many layers, of a model of so many, a stream passes before what is done here.

        What is done after a layer can wait until the next one is entered. After the last layer
        there is none to wait for, and so that layer does not count.
        """
        return self.layer if self.block is Block.ATTENTION else min(self.layer + 1, layers - 1)

    def __str__(self) -> str:
        """What can follow the words "after layer"."""
        return f"{self.layer}" if self.block is Block.MLP else f"{self.layer}'s attention"
