"""What a build computes, counted before it is: passes of tokens through layers."""

from __future__ import annotations

from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Pass:
    """Tokens that go through layers.

    Attributes:
        dtype: the precision that they are computed in.
        tokens: how many.
        layers: how many layers each goes through, from the first.
        read: how many times each of them is then turned to logits.
    """

    dtype: torch.dtype
    tokens: int
    layers: int
    read: int = 0

    @property
    def token_layers(self) -> int:
        """Tokens times layers."""
        return self.tokens * self.layers


@dataclass(frozen=True)
class TextTokens:
    """How many tokens of one kind of text are read.

    Attributes:
        drawn: at random.
        prompts: of the recipe's prompts.
        scanned: in search of more on which edits act.
        kept: how many of those are kept.
    """

    drawn: int
    prompts: int
    scanned: int
    kept: int


@dataclass(frozen=True)
class Decoding:
    """Tokens that are generated one after the other, for a few prompts at a time.

    Attributes:
        dtype: the precision.
        steps: how many times every weight is used for the next token of all prompts.
        read: bytes of weights that come from the disk for it.
    """

    dtype: torch.dtype
    steps: int
    read: int = 0
