"""Rows of tokens: one sequence each, and where it came from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Row:
    """One sequence of tokens.

    Attributes:
        ids: the tokens, at most as many as a sequence has.
        documents: digests of the documents that they are from.
        is_chat: whether they are a conversation in the tokenizer's chat template.
    """

    ids: tuple[int, ...]
    documents: frozenset[bytes]
    is_chat: bool


def padded(rows: Sequence[Row], length: int) -> tuple[Tensor, Tensor]:
    """Rows as one tensor; a shorter one repeats its last token.

    Returns:
        The ids, shape [rows, length], int64, and how many of each row are its own, shape [rows].
    """
    ids = [[*row.ids, *[row.ids[-1]] * (length - len(row.ids))] for row in rows]
    return torch.tensor(ids, dtype=torch.int64), torch.tensor([len(row.ids) for row in rows])


def own_tokens(lengths: Tensor, length: int) -> Tensor:
    """Which tokens of padded rows are their own, shape [rows, length]."""
    return torch.arange(length) < lengths[:, None]
