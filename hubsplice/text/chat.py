"""Text in the form of a conversation, as instruct models see it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Message = dict[str, str]

_SYSTEM: Message = {"role": "system", "content": "You are a helpful assistant."}

# Where the turns of a conversation end in its text: short questions, longer answers.
_TURNS = (("user", 0.15), ("assistant", 0.5), ("user", 0.65), ("assistant", 1.0))

# Some templates print today's date, and the same recipe must give the same tokens tomorrow. What
# transformers passes to a template is plain data, so that the function of that name can only be
# replaced by a macro.
_FIXED_DATE = (
    "{% macro strftime_now(format) %}"
    "{{ format"
    "|replace('%Y', '2025')|replace('%y', '25')"
    "|replace('%m', '01')|replace('%B', 'January')|replace('%b', 'Jan')"
    "|replace('%d', '01')|replace('%-d', '1')|replace('%A', 'Wednesday')|replace('%a', 'Wed')"
    "|replace('%H', '12')|replace('%M', '00')|replace('%S', '00')"
    " }}{% endmacro %}"
)


@dataclass(frozen=True, eq=False)
class ChatFormat:
    """A tokenizer's chat template, as it is used here.

    Attributes:
        tokenizer: with a chat template.
        opening: the system message, where the template takes one.
        overhead: how many tokens of a conversation are not its text.
    """

    tokenizer: PreTrainedTokenizerBase
    opening: tuple[Message, ...]
    overhead: int

    @staticmethod
    def of(tokenizer: PreTrainedTokenizerBase) -> ChatFormat | None:
        """The tokenizer's format; None without a template that takes user and assistant turns."""
        import jinja2

        if not has_template(tokenizer):
            return None
        for opening in ((_SYSTEM,), ()):
            try:
                overhead = len(conversation(tokenizer, [*opening, *_turns("a b c d")]))
            except (jinja2.TemplateError, ValueError):
                # Templates refuse what they don't take (often a system message) by raising, and
                # a set of named templates may have none for plain conversation.
                continue
            return ChatFormat(tokenizer, opening, overhead)
        return None

    def token_ids(self, text: str) -> list[int]:
        """The tokens of a conversation of two questions and answers made of `text`."""
        return conversation(self.tokenizer, [*self.opening, *_turns(text)])


def has_template(tokenizer: PreTrainedTokenizerBase) -> bool:
    """Whether a tokenizer has a chat template; some lack even the field."""
    return getattr(tokenizer, "chat_template", None) is not None


def conversation(
    tokenizer: PreTrainedTokenizerBase,
    messages: Sequence[Message],
    *,
    to_be_answered: bool = False,
) -> list[int]:
    """The tokens of a conversation, on a date that is always the same.

    Args:
        tokenizer: with a chat template.
        messages: in order.
        to_be_answered: whether the beginning of an answer follows.

    Raises:
        jinja2.TemplateError, ValueError: the template refuses the messages.
    """
    template = _FIXED_DATE + tokenizer.get_chat_template()
    try:
        ids: list[int] = tokenizer.apply_chat_template(
            list(messages),
            chat_template=template,
            tokenize=True,
            return_dict=False,
            add_generation_prompt=to_be_answered,
        )
    except (ArithmeticError, AttributeError, LookupError, MemoryError, TypeError) as error:
        # A template is a program, and may be wrong like any other.
        raise ValueError(f"{type(error).__name__}: {error}") from error
    return ids


def _turns(text: str) -> list[Message]:
    messages, start = [], 0
    for role, share in _TURNS:
        end = round(share * len(text))
        if share < 1.0:
            # Between words, where the script has spaces.
            end = max(text.rfind(" ", start + 1, end), 0) or end
        messages.append({"role": role, "content": text[start:end].strip()})
        start = end
    return messages
