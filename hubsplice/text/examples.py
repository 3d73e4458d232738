"""Examples that directions and probes are learned from: reading them, and their tokens."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import TypeAdapter, ValidationError

from hubsplice.errors import RecipeError, quoted
from hubsplice.features.examples import Examples
from hubsplice.features.prompt import AnyPrompt, Prompt
from hubsplice.files.plain import exists
from hubsplice.text.lines import text_lines
from hubsplice.text.prompts import prompt_tokens
from hubsplice.text.rows import Row

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

SIDES = ("positive", "negative")
_SUFFIXES = (".txt", ".jsonl")
_OTHER_NAMES = {"messages": "chat", "prompt": "user"}
_PROMPT: TypeAdapter[Prompt] = TypeAdapter(AnyPrompt)


def example_prompts(examples: Examples, field: str) -> tuple[tuple[Prompt, ...], ...]:
    """The positive and the negative prompts.

    Raises:
        RecipeError: a file that is missing, empty or no list of prompts.
    """
    sides = []
    for name in SIDES:
        given = getattr(examples, name)
        prompts = tuple(_read(given, f"{field}.{name}")) if isinstance(given, Path) else given
        if not prompts:
            raise RecipeError(f"{field}.{name}: {given} holds no prompt")
        if not examples.chat_template:
            prompts = tuple(Prompt(text=p.user) if p.user else p for p in prompts)
        sides.append(prompts)
    return tuple(sides)


def example_rows(
    prompts: tuple[Prompt, ...], field: str, tokenizer: PreTrainedTokenizerBase
) -> tuple[Row, ...]:
    """The prompts of one side as tokens.

    Raises:
        RecipeError: the chat template refuses a prompt, or it is a single token.
    """
    rows = []
    for i, prompt in enumerate(prompts):
        is_chat, ids = prompt_tokens(f"{field}[{i}]", prompt, tokenizer)
        rows.append(Row(tuple(ids), frozenset(), is_chat=is_chat))
    return tuple(rows)


def _read(path: Path, field: str) -> Iterator[Prompt]:
    if not exists(path):
        raise RecipeError(f"{field}: there is no file {path}")
    if path.suffix.lower() not in _SUFFIXES:
        raise RecipeError(
            f"{field}: {path} ends in {path.suffix!r}, expected {' or '.join(_SUFFIXES)}"
        )
    is_json = path.suffix.lower() == ".jsonl"
    for number, line in enumerate(text_lines(path, field), start=1):
        if line.strip():
            where = f"{field}: {path}, line {number}"
            yield _row(line, where) if is_json else Prompt(user=line.strip())


def _row(line: str, where: str) -> Prompt:
    try:
        row: Any = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise RecipeError(f"{where}: not valid JSON ({error})") from None
    if isinstance(row, dict):
        row = {_OTHER_NAMES.get(name, name): value for name, value in row.items()}
        row = {name: row[name] for name in ("user", "chat", "text") if name in row}
    try:
        return _PROMPT.validate_python(row)
    except ValidationError:
        raise RecipeError(
            f"{where}: found {quoted(line.strip())}, expected text, or an object with one of "
            "`text`, `user` and `messages`"
        ) from None
