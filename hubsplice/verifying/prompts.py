"""The prompts that an engine is asked: text that comes with Python, or the user's."""

from __future__ import annotations

from pathlib import Path

from transformers import PreTrainedTokenizerBase

from hubsplice.errors import RecipeError
from hubsplice.recipe.models import TextSource
from hubsplice.text.lines import text_lines
from hubsplice.text.sequences import load_sequences

_LENGTHS = (48, 31, 40, 23)
"""Unequal, so that an engine's batches are ragged and each padding or packing is seen."""

_COUNT = 8
LONGEST = 1024


def builtin_prompts(tokenizer: PreTrainedTokenizerBase) -> tuple[tuple[int, ...], ...]:
    """Eight prompts of 23 to 48 tokens, from documents that no calibration sees."""
    length = max(_LENGTHS)
    source = TextSource(tokens=_COUNT * length, sequence_length=length)
    rows = load_sequences(source, tokenizer, seed=0, part="held-out").ids.tolist()
    return tuple(tuple(row[: _LENGTHS[i % len(_LENGTHS)]]) for i, row in enumerate(rows))


def read_prompts(path: Path, tokenizer: PreTrainedTokenizerBase) -> tuple[tuple[int, ...], ...]:
    """The prompts of a text file, one a line; empty lines are skipped.

    Raises:
        RecipeError: the file can't be read, has no prompt, or one is shorter than two tokens or
            longer than 1024.
    """
    prompts = []
    for number, line in enumerate(text_lines(path, "--prompts"), start=1):
        if not line.strip():
            continue
        ids = tuple(tokenizer(line, verbose=False).input_ids)
        if not 2 <= len(ids) <= LONGEST:
            raise RecipeError(
                f"--prompts: {path}, line {number}: found {len(ids)} tokens, expected 2 to "
                f"{LONGEST}"
            )
        prompts.append(ids)
    if not prompts:
        raise RecipeError(f"--prompts: {path} has no line with text, expected one prompt a line")
    return tuple(prompts)
