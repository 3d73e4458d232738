"""Which words of an answer differ from another answer's."""

from __future__ import annotations

import re
from difflib import SequenceMatcher

OPENS, CLOSES = "‹", "›"

_WORD = re.compile(r"\S+\s*|^\s+")


def changed_words(before: str, after: str) -> tuple[tuple[str, bool], ...]:
    """The second text in pieces, each with whether its words are not the first text's."""
    old, new = _words(before), _words(after)
    pieces: list[tuple[str, bool]] = []
    matcher = SequenceMatcher(None, [w.strip() for w in old], [w.strip() for w in new], False)
    for tag, _, _, start, end in matcher.get_opcodes():
        if start < end:
            pieces.append(("".join(new[start:end]), tag != "equal"))
    return tuple(pieces)


def marked(before: str, after: str) -> str:
    """The second text with its changed words in ‹angle marks›."""
    return "".join(
        f"{OPENS}{text.rstrip()}{CLOSES}{text[len(text.rstrip()) :]}" if changed else text
        for text, changed in changed_words(before, after)
    )


def _words(text: str) -> list[str]:
    return _WORD.findall(text)
