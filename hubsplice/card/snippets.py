"""Names as they stand in the card's code blocks."""

from __future__ import annotations

import json
import shlex

from hubsplice.card.escape import Markdown, clean


def python_string(text: str) -> Markdown:
    """A Python string literal of one line; the text is cleaned, and holds no line break."""
    return Markdown(json.dumps(clean(text)))


def shell_word(text: str) -> Markdown:
    """One word of a POSIX shell's command line."""
    return Markdown(shlex.quote(clean(text)))
