"""The recipe's prompts as tokens: text on which its author knows the edits to act."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from hubsplice.errors import RecipeError
from hubsplice.features.prompt import Prompt
from hubsplice.text.chat import Message, conversation, has_template
from hubsplice.text.documents import Document, Part
from hubsplice.text.rows import Row

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_SHORTEST = 2


def prompt_rows(
    prompts: Sequence[Prompt], tokenizer: PreTrainedTokenizerBase, *, length: int, part: Part
) -> tuple[Row, ...]:
    """The prompts of one part, each cut to at most `length` tokens.

    The order of their hashes says which part each belongs to, in turn, so that each part gets
    half of even a few.

    Raises:
        RecipeError: the chat template refuses a conversation, or a prompt is a single token.
    """
    rows = {}
    for i, prompt in enumerate(prompts):
        is_chat, ids = prompt_tokens(f"prompts[{i}]", prompt, tokenizer)
        digest = _digest(prompt)
        rows[digest] = Row(tuple(ids[:length]), frozenset({digest}), is_chat=is_chat)
    ordered = [rows[digest] for digest in sorted(rows)]
    return tuple(ordered[0::2] if part == "held-out" else ordered[1::2])


def prompt_digests(prompts: Sequence[Prompt]) -> frozenset[bytes]:
    """The digests of the prompts' texts: documents of that text belong to no part."""
    return frozenset(map(_digest, prompts))


def _digest(prompt: Prompt) -> bytes:
    # Of what a document of that text would be.
    return Document(prompt_text(prompt).strip()).digest


def prompt_text(prompt: Prompt) -> str:
    """What a prompt says, without the form that a chat template gives it."""
    if prompt.chat is not None:
        return "\n\n".join(message.content for message in prompt.chat)
    return prompt.text or prompt.user or ""


def prompt_tokens(
    field: str, prompt: Prompt, tokenizer: PreTrainedTokenizerBase
) -> tuple[bool, list[int]]:
    """Whether a prompt is put through the chat template, and its tokens.

    Args:
        field: how messages call it.
        prompt: of the recipe.
        tokenizer: the base's.

    Raises:
        RecipeError: the chat template refuses a conversation, or it is a single token.
    """
    import jinja2

    if prompt.chat is not None and not has_template(tokenizer):
        raise RecipeError(
            f"{field}.chat: the model's tokenizer has no chat template; give plain text as "
            f"{field}.text"
        )
    is_chat = prompt.text is None and has_template(tokenizer)
    if is_chat:
        messages: list[Message] = (
            [{"role": "user", "content": prompt.user or ""}]
            if prompt.chat is None
            else [message.model_dump() for message in prompt.chat]
        )
        try:
            ids = conversation(tokenizer, messages, to_be_answered=messages[-1]["role"] == "user")
        except (jinja2.TemplateError, ValueError) as error:
            raise RecipeError(f"{field}: the model's chat template refuses it: {error}") from None
    else:
        ids = tokenizer(prompt_text(prompt), verbose=False).input_ids
    if len(ids) < _SHORTEST:
        raise RecipeError(f"{field}: found {len(ids)} tokens, expected at least {_SHORTEST}")
    return is_chat, ids
