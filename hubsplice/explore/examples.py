"""The texts of a search as tokens: what somebody wrote, one example a line or a row of a file."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from transformers import PreTrainedTokenizerBase

from hubsplice.errors import RecipeError
from hubsplice.features.prompt import Prompt
from hubsplice.recipe.models import TextSource
from hubsplice.text.chat import has_template
from hubsplice.text.lines import text_lines
from hubsplice.text.local import local_corpus
from hubsplice.text.prompts import prompt_tokens
from hubsplice.text.sequences import load_sequences

LONGEST = 256
"""Tokens of one example; what is behind them is not read."""

_LINES = (".txt", ".md")
_FEWEST_TOKENS = 2


@dataclass(frozen=True)
class Example:
    """One text as tokens.

    Attributes:
        ids: the tokens.
        start: the first of them that counts; what is before it is a template's, or an attention
            sink.
        end: behind the last that counts.
    """

    ids: tuple[int, ...]
    start: int
    end: int


def read_lines(path: Path, option: str) -> list[str]:
    """The examples of a file: its lines, or the texts of its rows for .jsonl, .csv and .parquet.

    Raises:
        RecipeError: it can't be read, or holds no text.
    """
    if path.suffix.lower() not in _LINES:
        return read_passages(path, option)
    found = [line.strip() for line in text_lines(path, option) if line.strip()]
    if not found:
        raise RecipeError(f"{option}: {path} has no text, expected one example a line")
    return found


def read_passages(path: Path, option: str) -> list[str]:
    """The documents of a file or a folder; raises as `read_lines` does."""
    corpus = local_corpus(path, "text", field=option, column_field=option)
    found = [document.text for document in corpus.documents]
    if not found:
        raise RecipeError(f"{option}: {path} has no text")
    return found


def questions(
    texts: Sequence[str], tokenizer: PreTrainedTokenizerBase, option: str
) -> tuple[Example, ...]:
    """Texts put through the chat template as questions; the template's own tokens don't count.

    Raises:
        RecipeError: the template refuses one, or there is no template.
    """
    if not has_template(tokenizer):
        raise RecipeError(f"{option}: the model's tokenizer has no chat template; give plain text")

    def ids_of(text: str, field: str) -> list[int]:
        return prompt_tokens(field, Prompt(user=text), tokenizer)[1]

    first, second = ids_of("a", option), ids_of("1", option)
    before = _shared(first, second)
    after = _shared(first[::-1], second[::-1])
    found = []
    for number, text in enumerate(texts, start=1):
        ids = ids_of(text, f"{option}, example {number}")
        end = max(len(ids) - after, before + 1)
        found.append(Example(tuple(ids[:LONGEST]), max(before, 1), min(end, LONGEST)))
    return tuple(found)


def plain(
    texts: Sequence[str], tokenizer: PreTrainedTokenizerBase, option: str
) -> tuple[Example, ...]:
    """Plain texts, as the tokenizer begins a text; the first token doesn't count.

    A longer text is cut into as many examples as it has tokens for.

    Raises:
        RecipeError: one is shorter than two tokens.
    """
    found = []
    for number, text in enumerate(texts, start=1):
        found += list(_pieces(_ids(text, number, tokenizer, option)))
    return tuple(found)


def beginnings(
    texts: Sequence[str], tokenizer: PreTrainedTokenizerBase, option: str
) -> tuple[Example, ...]:
    """Plain texts as `plain`, of each only the beginning: one example for each text."""
    found = (_ids(text, number, tokenizer, option) for number, text in enumerate(texts, start=1))
    return tuple(next(_pieces(ids)) for ids in found)


def neutral(tokenizer: PreTrainedTokenizerBase, tokens: int, seed: int) -> tuple[Example, ...]:
    """Text of many kinds that comes with hubsplice."""
    source = TextSource(tokens=tokens, sequence_length=min(LONGEST, tokens))
    text = load_sequences(source, tokenizer, seed=seed, part="calibration")
    return tuple(Example(tuple(row), 1, len(row)) for row in text.ids.tolist())


def _ids(text: str, number: int, tokenizer: PreTrainedTokenizerBase, option: str) -> Sequence[int]:
    ids: list[int] = tokenizer(text, verbose=False).input_ids
    if len(ids) < _FEWEST_TOKENS:
        raise RecipeError(
            f"{option}: example {number} has {len(ids)} tokens, expected at least "
            f"{_FEWEST_TOKENS}, since the first one is an attention sink in most models"
        )
    return ids


def _pieces(ids: Sequence[int]) -> Iterator[Example]:
    for start in range(0, len(ids), LONGEST):
        piece = tuple(ids[start : start + LONGEST])
        if len(piece) >= _FEWEST_TOKENS:
            yield Example(piece, 1, len(piece))


def _shared(one: Sequence[int], other: Sequence[int]) -> int:
    count = 0
    for a, b in zip(one, other, strict=False):
        if a != b:
            break
        count += 1
    return count
