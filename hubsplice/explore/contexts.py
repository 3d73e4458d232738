"""A few tokens of text around one of them, on one line, with that one marked."""

from __future__ import annotations

from collections.abc import Sequence

from transformers import PreTrainedTokenizerBase

from hubsplice.explore.examples import Example
from hubsplice.visible import visible

OPENS, CLOSES = "«", "»"

BEFORE, AFTER = 10, 5
"""Tokens that are shown around one."""


def context(
    tokenizer: PreTrainedTokenizerBase,
    example: Example,
    position: int,
    before: int = BEFORE,
    after: int = AFTER,
) -> str:
    """The text around one token, with white space shown as single spaces.

    What could move a cursor or hide text is spelled out: the text is anybody's.
    """
    ids = example.ids
    first, last = max(0, position - before), position + 1 + after
    parts = (ids[first:position], ids[position : position + 1], ids[position + 1 : last])
    left, token, right = (one_line(tokenizer, part) for part in parts)
    cut = "…" if first > 0 else ""
    more = "…" if last < len(ids) else ""
    return f"{cut}{left}{OPENS}{token}{CLOSES}{right}{more}"


def one_line(tokenizer: PreTrainedTokenizerBase, ids: Sequence[int]) -> str:
    """What tokens say; a line break is shown as ⏎."""
    text = tokenizer.decode(list(ids), clean_up_tokenization_spaces=False)
    return visible(text.replace("\r\n", "\n").replace("\n", "⏎").replace("\t", " "))
