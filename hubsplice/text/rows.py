"""Rows of tokens: one sequence each, and where it came from."""

from __future__ import annotations

from dataclasses import dataclass


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
